"""From a run's config to what it needs: the filled cache, the frozen Receiver, the heads, the tasks, the bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from fuser.bundle.bundle import Bundle, BundleConfig
from fuser.heads.selection import Scorer
from fuser.kv.geometry import Geometry
from fuser.lab.data.document import Item
from fuser.lab.train.cache import FeatureCache, cache_folder
from fuser.lab.train.cache_writer import CacheWriter
from fuser.lab.train.config import TrainConfig
from fuser.lab.train.document import DocumentTask
from fuser.lab.train.reading import FrozenReceiver
from fuser.lab.train.selection import fit_scorer, load_scorer, save_scorer
from fuser.lab.train.shared import SharedTask
from fuser.lab.train.sharer_reading import SharerReading
from fuser.lab.train.sources import Sources, read_sources
from fuser.lab.train.task import Setting, Split, TrainTask
from fuser.models.directory import find_model, model_ref
from fuser.models.load import find_device, load_config, load_model
from kvwire.codec import CodecRegistry
from kvwire.identity import ModelRef

_PAIR = ("sharer", "receiver", "sharer_geometry", "receiver_geometry", "receiver_prompt")
"""What the heads' numbers mean nothing without. How the Sharer is asked, and what selects, may change: what is said
at a position is read all the same."""
_PACE = ("anneal_steps", "initial_temperature", "final_temperature")
"""Keys of a fuse head that say how it is trained and nothing of its shape."""


def device_of(config: TrainConfig) -> torch.device:
    """Where models and heads are. Raises NoSuchDevice."""
    return find_device(config.device)


def fill_cache(config: TrainConfig, progress: Progress, max_minutes: float = math.inf) -> int:
    """Run the Sharer over all sources; returns the items left. Start again to go on."""
    path = find_model(config.sharer)
    model, tokenizer = load_model(path, device=str(device_of(config)), dtype=getattr(torch, config.dtype))
    reads = config.sharer_prompt, config.selection, scorer_of(config), config.drafts
    writer = CacheWriter(_folder(config, model_ref(path)), SharerReading(model, tokenizer, *reads))
    return writer.fill(read_sources(config).all, progress, max_minutes)[1]


def open_cache(config: TrainConfig) -> tuple[FeatureCache, Sources]:
    """The filled cache and the items it was filled with.

    Raises:
        CacheIncomplete: not all items are cached.
    """
    sources = read_sources(config)
    folder = _folder(config, model_ref(find_model(config.sharer)))
    return FeatureCache(folder, sources.all), sources


def prepare(config: TrainConfig) -> Setting:
    """Load the Receiver, open the cache and make untrained heads; the same heads for the same seed.

    Raises:
        CacheIncomplete: not all items are cached.
        BadBundle, ValueError: `init` is no bundle or does not fit; a prefix that is not as long as the lead.
    """
    cache, sources = open_cache(config)
    sharer, receiver = find_model(config.sharer), find_model(config.receiver)
    device = device_of(config)
    model, tokenizer = load_model(receiver, device=str(device), dtype=getattr(torch, config.dtype))
    reading = FrozenReceiver(model, tokenizer, config.receiver_prompt, config.lead)
    theirs = Geometry.of(load_config(sharer))
    init, settings = Bundle.load(config.init) if config.init else None, config.answer
    taught = "" if init is None else init.config.abstain
    bundle = BundleConfig(
        sharer=model_ref(sharer),
        receiver=model_ref(receiver),
        sharer_geometry=theirs,
        receiver_geometry=reading.geometry,
        sharer_prompt=config.sharer_prompt,
        receiver_prompt=config.receiver_prompt,
        fuse=config.fuse_config(reading.geometry.layers, theirs.layers),
        translate=config.translate,
        selection=config.selection,
        abstain=settings.abstain if settings.unanswerable_share else taught,
    )
    torch.manual_seed(config.seed)
    heads = {name: head.to(device) for name, head in _heads(bundle, scorer_of(config)).items()}
    started = frozenset() if init is None else start_from(init, bundle, heads)
    table = config.translate if "translate" not in started else None
    if table is not None and table.prefix_positions not in (0, reading.prefix_positions):
        raise ValueError(
            f"translate.prefix_positions must be 0 or {reading.prefix_positions}, the length of the lead in tokens"
        )
    end = int(tokenizer.eos_token_id)
    documents = sum(isinstance(item, Item) for item in sources.train)
    prompts = len(sources.train) - documents
    train = Split(tuple(cache.documents[:documents]), tuple(cache.prompts[:prompts]))
    held = Split(tuple(cache.documents[documents:]), tuple(cache.prompts[prompts:]))
    codecs = CodecRegistry(() if init is None else init.codecs())
    return Setting(config, bundle, heads, reading, cache, train, held, device, end, started, codecs)


def tasks_of(setting: Setting) -> list[TrainTask[Any]]:
    """The tasks that have a head and examples, those whose start others build on first.

    Raises:
        ValueError: a head without examples or examples without a head, naming the table or the source that is missing.
    """
    documents, prompts = bool(setting.train.documents), bool(setting.train.prompts)
    heads = setting.heads
    if documents and "translate" not in heads:
        raise ValueError("there are documents and no head for them: give [translate]")
    if prompts and "fuse" not in heads:
        raise ValueError("there are shared prompts and no head for them: give [fuse]")
    tasks: list[TrainTask[Any]] = []
    for head, found, kind, task in (
        ("translate", documents, "document", DocumentTask),
        ("fuse", prompts, "shared", SharedTask),
    ):
        if head not in heads:
            continue
        if not found:
            if head in setting.started:  # it stays as it is
                continue
            raise ValueError(f'[{head}] has nothing to learn from: give a [[sources]] of task "{kind}"')
        tasks.append(task(setting))
    return tasks


def save(setting: Setting) -> str:
    """Write what was trained, as it is now, to `output` as a bundle in half precision; returns its hash."""
    bundle = Bundle(setting.bundle, **setting.heads)  # type: ignore[arg-type]
    return bundle.save(setting.config.output, torch.float16)


def _folder(config: TrainConfig, sharer: ModelRef) -> Path:
    reads = (
        config.sharer_prompt,
        config.selection,
        config.cache,
        config.dtype,
        scorer_of(config),
        config.drafts,
    )
    return cache_folder(sharer, *reads)


def scorer_of(config: TrainConfig) -> Scorer | None:
    """The fitted selection that a run names, or that the bundle it starts from has.

    Raises:
        ValueError: the rule is learnt, and no file or another one is named.
    """
    if config.selection.rule != "learnt":
        return None
    if not config.scorer and config.init and (scorer := Bundle.load(config.init).scorer) is not None:
        return scorer
    if not config.scorer:
        raise ValueError('selection.rule is "learnt": fit one in a stage of kind fit')
    return load_scorer(Path(config.scorer))


def fit_selection(config: TrainConfig, output: Path, progress: Progress) -> dict[str, Any]:
    """Fit the selection of a run on its training documents, as its table `fit` says, and write it.

    Returns:
        What `fuser.lab.train.selection.fit_scorer` found, with `heads`, which the run's `[selection]` has to name.

    Raises:
        ValueError: too few documents hold an answer.
    """
    items = [item for item in read_sources(config).train if isinstance(item, Item)]
    model, tokenizer = load_model(
        find_model(config.sharer), device=str(device_of(config)), dtype=getattr(torch, config.dtype)
    )
    reading = SharerReading(model, tokenizer, config.sharer_prompt, config.selection)
    scorer, found = fit_scorer(items, reading, config.fit.questions, config.seed, progress)
    save_scorer(scorer, output)
    return found | {"heads": int(model.config.num_attention_heads), "written": str(output)}


def _heads(bundle: BundleConfig, scorer: Scorer | None) -> dict[str, nn.Module]:
    """Untrained heads of the bundle, by name, and its fitted scorer.

    Raises:
        ValueError: the scorer is for other layers or heads.
    """
    wanted = bundle.new_scorer()
    if wanted is not None and scorer is not None and wanted.weight.shape != scorer.weight.shape:
        raise ValueError(
            f"scorer: has {scorer.weight.numel()} heads, [selection] reads {wanted.weight.numel()}"
        )
    heads: dict[str, nn.Module | None] = {
        "fuse": bundle.new_fuse(),
        "translate": bundle.new_translate(),
        "scorer": scorer,
    }
    return {name: head for name, head in heads.items() if head is not None}


def start_from(bundle: Bundle, wanted: BundleConfig, heads: Mapping[str, nn.Module]) -> frozenset[str]:
    """Give untrained heads the numbers that a bundle's have; returns the names of those it has.

    A code may be shorter than the bundle's: its first numbers are worth most, and they are kept.

    Raises:
        ValueError: it is of another pair, or one of its heads has another shape or no table in the run.
    """
    config = bundle.config
    if odd := next((name for name in _PAIR if getattr(config, name) != getattr(wanted, name)), None):
        raise ValueError(f"init: the bundle has another {odd}")
    found = [name for name in ("translate", "fuse") if getattr(bundle, name) is not None]
    for name in found:
        if name not in heads:
            raise ValueError(f"init: the bundle has a {name} head; without a table [{name}] it would be lost")
        theirs, ours = getattr(config, name), getattr(wanted, name)
        state = getattr(bundle, name).state_dict()
        if name == "translate":
            dims = min(theirs.code_dim, ours.code_dim)
            theirs = replace(theirs, code_dim=dims)
            state["squeeze.weight"] = state["squeeze.weight"][:dims]
            state["widen.weight"] = state["widen.weight"][:, :dims]
        if name == "fuse" and type(theirs) is type(ours):
            theirs = replace(theirs, **{key: getattr(ours, key) for key in _PACE})
        if theirs != ours:
            raise ValueError(f"init: the bundle has a {name} head of another shape than [{name}]")
        heads[name].load_state_dict(state)
    return frozenset(found)
