"""What a stage of a training recipe is told (`fuser.lab.train.recipe`): every key checked before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fuser.config import BadConfig, from_dict
from fuser.heads.compact import CompactConfig
from fuser.heads.selection import SelectionConfig
from fuser.heads.translate import TranslateConfig
from fuser.kv.geometry import LayerMap
from fuser.lab.profile.grid import ProfileConfig
from fuser.models.load import DeviceName
from fuser.prompts.prompt import PromptStyle

_SEEDS = 1 << 31  # so that what is made of a seed, a step and a worker fits the random generator


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source of items: whatever `fuser.lab.data.load` reads.

    documents: items at most: documents with their questions, or prompts of a shared source. A recipe leaves out a
        source that has 0.
    task: `document` asks over cloud documents; `shared` asks what both sides hold (choices, instructions).
    validation: held out from training and evaluated while it runs.
    continuations: questions added to each training document: which words follow a quotation from it
        (`fuser.lab.data.cloze`).
    near: questions stand over another document of the source, which is near theirs and does not answer them, and the
        right reply is `answer.abstain` (`fuser.lab.data.cases.without_answers`).
    """

    source: str
    documents: int = 0
    seed: int = 1
    max_document_chars: int = 1200
    validation: bool = False
    task: Literal["document", "shared"] = "document"
    continuations: int = 0
    near: bool = False

    def __post_init__(self) -> None:
        if self.near and (self.task != "document" or self.continuations):
            raise ValueError("near misses are of questions over documents, without continuations")
        for name in ("documents", "continuations"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.continuations and (self.validation or self.task != "document"):
            raise ValueError("continuations are asked of training documents alone")


@dataclass(frozen=True, slots=True)
class AnswerConfig:
    """The answer loss.

    decay_steps: steps over which the learning rate falls, if not over all: more of them end the run on the way down.
    batch: examples a step, all workers together.
    text_share: share of the document steps that read the document as text, which trains the prefix alone.
    unanswerable_share: share of the document steps whose slices are of other documents, chosen by other questions,
        where `abstain` is the right reply: the Receiver learns to say so when a slice is about something else.
    recite_share: share of the document steps whose slice is a window of the document and the right reply the window's
        text (`fuser.lab.train.excerpt`): each of its tokens is trained on, without labels. Translated excerpts alone.
    draft_share: share of the document steps whose slice is a draft, the Sharer's own short answer; and the share of
        the unanswerable ones whose slice is another document's draft. Where neither it nor what is quoted before it
        holds the right answer, its own words are the right reply: what was not said is not to be guessed.
    evaluate_every, checkpoint_every: steps between. validation: examples of each task that are evaluated, at most.
    """

    steps: int = 800
    decay_steps: int = 0
    batch: int = 16
    learning_rate: float = 2e-4
    prefix_learning_rate: float = 2e-3
    gate_learning_rate: float = 1e-2
    warmup: int = 30
    text_share: float = 0.15
    unanswerable_share: float = 0.0
    abstain: str = "not stated"
    recite_share: float = 0.0
    draft_share: float = 0.0
    evaluate_every: int = 50
    checkpoint_every: int = 25
    validation: int = 96

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "checkpoint_every", "validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("learning_rate", "prefix_learning_rate", "gate_learning_rate"):
            if not 0 <= (rate := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} must be a number and not negative, got {rate}")
        if self.decay_steps and self.decay_steps < self.steps:
            raise ValueError(f"decay_steps must be 0 or at least steps, {self.steps}, got {self.decay_steps}")
        if self.warmup < 0:
            raise ValueError(f"warmup must not be negative, got {self.warmup}")
        shares = "text_share", "unanswerable_share", "recite_share", "draft_share"
        for name in shares:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1)")
        if sum(getattr(self, name) for name in shares) >= 1:
            raise ValueError(f"{', '.join(shares)} leave no steps for excerpts and their answers")
        if not self.abstain.strip():
            raise ValueError("abstain is what the Receiver says where there is no answer; it cannot be empty")


@dataclass(frozen=True, slots=True)
class DialsConfig:
    """What plans may choose of a slice, each drawn anew at every step, so that one head serves all of them.

    All but the last are of excerpts and drafts.

    positions: in an excerpt; none given takes the selection's. quoted: positions of an excerpt before a draft, 0 for
    none; none given quotes none. code_dims: leading numbers of a code that are kept, so that the first carry most; none
    given keeps all. bits: of the codec whose noise the codes get, 0 for none; none given is none. codecs: in place of
    bits, names of codecs through which the codes go, `raw` for as they are; `transform` ones are those of the bundle in
    `init`. last: of a shared slice, the last positions that are exported, 0 for all of them.
    """

    positions: tuple[int, ...] = ()
    quoted: tuple[int, ...] = ()
    code_dims: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    codecs: tuple[str, ...] = ()
    last: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min((1, *self.positions, *self.code_dims)) < 1:
            raise ValueError("dials.positions and dials.code_dims start at 1")
        if min(self.last, default=0) < 0:
            raise ValueError("dials.last are 0 (all positions) or more")
        if min(self.quoted, default=0) < 0:
            raise ValueError("dials.quoted are 0 (none) or more")
        if any(bits != 0 and not 2 <= bits <= 16 for bits in self.bits):
            raise ValueError("dials.bits are 0 (off) or 2 to 16")
        if self.bits and self.codecs:
            raise ValueError("dials.bits imitates a codec: give bits or codecs, not both")


@dataclass(frozen=True, slots=True)
class FitConfig:
    """The fit of a learnt selection. questions: training questions that are read for it."""

    questions: int = 800

    def __post_init__(self) -> None:
        if self.questions < 50:
            raise ValueError(f"fit.questions must be at least 50, got {self.questions}")


@dataclass(frozen=True, slots=True)
class CalibrateConfig:
    """The fit of the codecs' bases. positions: that are read. rates: bits per value, one codec each."""

    positions: int = 16_000
    rates: tuple[float, ...] = (4.0, 2.0, 1.0, 0.75, 0.5, 0.35, 0.25)

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError(f"calibrate.positions must be at least 1, got {self.positions}")
        if not self.rates:
            raise ValueError("calibrate.rates is empty: give the bits per value of at least one codec")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One stage: which pair, which heads, which data, how long.

    lead: text whose KV in the Receiver starts the learnt prefix (its length gives translate.prefix_positions).
    work: directory of checkpoints and logs. output: directory of the bundle. Of a stage, the recipe names both.
    init: bundle of the same pair and selection whose heads the run starts from, in place of the closed form; a
        code may be shorter than its, heads that it lacks start as without it, and one without sources stays as it is.
        Of a stage, the bundle of the stage before.
    scorer: file of a fitted selection, for selection.rule "learnt"; else that of `init`. Of a stage, that of the
        stage "fit" before.
    fit, calibrate, profile: tables of the stages of these kinds.
    cache: directory of what the Sharer read, shared between runs; empty is a place beside the fetched models.
    drafts: keep the Sharer's own short answer to each question over a document in the cache, for `answer.draft_share`,
        and to calibrate with.
    fuse: table of the fuse head's config; its `layer_map` is "terminal" or "nearest", and its gates' temperature falls
        over all steps unless it says otherwise.
    regression_positions: positions of text in the closed form; ridge: its penalty.
    device: `auto` takes a GPU where there is one.
    dtype: what both frozen models compute in; the heads are trained in float32 whatever it is. bfloat16 is three times
        faster on processors that multiply it (AVX512-BF16, AMX) and adds 0.1 % of variance to what the Sharer read.
    """

    sharer: str
    receiver: str
    sharer_prompt: PromptStyle
    receiver_prompt: PromptStyle
    sources: tuple[SourceConfig, ...]
    work: str
    output: str
    lead: str = ""
    init: str = ""
    scorer: str = ""
    cache: str = ""
    drafts: bool = False
    fuse: Mapping[str, Any] | None = None
    translate: TranslateConfig | None = None
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    dials: DialsConfig = field(default_factory=DialsConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    regression_positions: int = 40_000
    ridge: float = 0.02
    seed: int = 1
    device: DeviceName = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.fuse is None and self.translate is None:
            raise ValueError("nothing to train: give [fuse] or [translate]")
        if self.answer.recite_share and self.translate is None:
            raise ValueError("answer.recite_share trains a translate head: give [translate]")
        if self.answer.unanswerable_share and self.translate is None:
            raise ValueError("answer.unanswerable_share is of questions over documents: give [translate]")
        if self.answer.draft_share and (self.translate is None or not self.drafts):
            raise ValueError(
                "answer.draft_share trains a translate head on drafts: give [translate] and drafts = true"
            )
        of_codes = ("positions", "quoted", "code_dims", "bits", "codecs")
        if self.translate is None and any(getattr(self.dials, name) for name in of_codes):
            raise ValueError(
                "dials.positions, quoted, code_dims, bits and codecs are those of a translate head: give [translate]"
            )
        for name in ("positions", "quoted"):
            if max(getattr(self.dials, name), default=0) > self.selection.positions:
                raise ValueError(f"dials.{name} goes beyond selection.positions, {self.selection.positions}")
        if self.dials.last and self.fuse is None:
            raise ValueError("dials.last is of shared slices: give [fuse]")
        if self.translate is not None and max(self.dials.code_dims, default=0) > self.translate.code_dim:
            raise ValueError(f"dials.code_dims goes beyond translate.code_dim, {self.translate.code_dim}")
        if not 0 <= self.ridge < math.inf:
            raise ValueError(f"ridge must be a number and not negative, got {self.ridge}")
        if self.regression_positions < 1:
            raise ValueError(f"regression_positions must be at least 1, got {self.regression_positions}")
        if not 0 <= self.seed < _SEEDS:
            raise ValueError(f"seed must be at least 0 and below {_SEEDS}, got {self.seed}")
        known = {field.name for field in fields(CompactConfig)} - {"rotated_keys"}
        unknown = sorted(set(self.fuse or {}) - known)
        if unknown:  # its values are checked once the models, and so their layers, are known
            raise BadConfig(f"unknown key fuse.{unknown[0]}")

    def fuse_config(self, receiver_layers: int, sharer_layers: int) -> CompactConfig | None:
        """The fuse head's config for models of these depths.

        Raises:
            BadConfig: an unknown key or a wrong type, by name; a layer map that is none.
        """
        if self.fuse is None:
            return None
        table = {"anneal_steps": self.answer.steps} | dict(self.fuse)
        given = table.pop("layer_map", "terminal")
        if given not in ("terminal", "nearest"):
            raise BadConfig(f'fuse.layer_map: "terminal" or "nearest", got {given!r}')
        layers: LayerMap = getattr(LayerMap, given)(receiver_layers, sharer_layers)
        raw = {"sources": list(layers.sources), "sharer_layers": layers.sharer_layers}
        return from_dict(CompactConfig, table | {"layer_map": raw}, "fuse")
