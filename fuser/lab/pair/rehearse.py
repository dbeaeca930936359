"""How fast things are here: a few pieces are read, and a recipe of a few steps is made with the same code as the real
one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from fuser.heads.selection import SelectionConfig
from fuser.lab.evaluate.run import Run
from fuser.lab.evaluate.settings import EvaluateConfig, Setup
from fuser.lab.pair.models import PairModels
from fuser.lab.pair.sizes import Pace, Sizes
from fuser.lab.pair.texts import Corpus, write_items
from fuser.lab.train.log import read_log
from fuser.lab.train.making import make
from fuser.lab.train.recipe import Recipe
from fuser.lab.train.sharer_reading import SharerReading
from fuser.models.load import load_model

_PIECES, _VALIDATION, _STEPS = 6, 2, 4
SIZES = Sizes(
    fit=0,
    pieces=_PIECES,
    drafted=0,
    validation=_VALIDATION,
    drafted_validation=0,
    inputs=0,
    regression=1,
    steps=_STEPS,
    draft_steps=1,
    plans=2,
    held_out=1,
    seconds={},
)
"""Of a rehearsal."""
_READ, _DRAFTED = 4, 2  # pieces that are timed
_ASKED = 8
_LEAST = 1e-3  # seconds: times in logs are rounded


def measure(
    models: PairModels,
    corpus: Corpus,
    table: Mapping[str, Any],
    folder: Path,
    drafts: bool,
    device: torch.device,
    progress: Progress,
) -> Pace:
    """Time a rehearsal in `folder`.

    Args:
        table: a recipe in this folder, of `SIZES`, whose first training stage is rehearsed.
        drafts: whether writing them is timed.
    """
    dtype = getattr(torch, table["dtype"])
    read, draft, positions = _reading(models, corpus, drafts, str(device), dtype, progress)
    first = next(stage for stage in table["stage"] if stage["kind"] == "train")
    recipe = Recipe.of({**table, "output": str(folder / "bundle"), "stage": [first]})
    began = time.time()
    make(recipe, progress)
    took = time.time() - began
    at = [row["time"] for row in read_log(folder / "stages" / first["name"]) if row["stage"] == "step"]
    step = max(_LEAST, (at[-1] - at[0]) / (len(at) - 1)) if len(at) > 1 else _LEAST
    return Pace(
        read=read,
        draft=draft,
        step=step,
        stage=max(_LEAST, took - _STEPS * step - (_PIECES + _VALIDATION) * read),
        answer=_answering(models, table, folder, progress),
        solve=_seconds(lambda: torch.linalg.eigh(_square(1024, device)), device),
        product=_seconds(lambda: _square(1024, device) @ _square(1024, device), device) * 1e12 / 1024**3,
        positions=positions,
    )


def write_texts(corpus: Corpus, folder: Path) -> None:
    write_items(corpus.train[:_PIECES], folder / "data" / "train.jsonl")
    write_items(corpus.plans[:_VALIDATION], folder / "data" / "plans.jsonl")


def _reading(
    models: PairModels, corpus: Corpus, drafts: bool, device: str, dtype: torch.dtype, progress: Progress
) -> tuple[float, float, float]:
    """Seconds of a piece, and with drafts, and its positions; the first piece is not timed."""
    model, tokenizer = load_model(models.sharer, device=device, dtype=dtype)
    ways = [(False, _READ)] + ([(True, _DRAFTED)] if drafts else [])
    found: list[float] = []
    rows = 0
    for written, count in ways:
        reading = SharerReading(model, tokenizer, models.sharer_prompt, SelectionConfig(), drafts=written)
        sample = corpus.train[: count + 1]
        seconds = 0.0
        for number, item in enumerate(progress.track(sample, description="timing the Sharer")):
            began = time.perf_counter()
            _, cached = reading.read_item(item)
            if number:
                seconds += time.perf_counter() - began
            rows += 0 if written else cached.count
        found.append(max(_LEAST, seconds / (len(sample) - 1)))
    return found[0], found[-1], rows / len(corpus.train[: _READ + 1])


def _answering(models: PairModels, table: Mapping[str, Any], folder: Path, progress: Progress) -> float:
    told = EvaluateConfig(
        data=str(folder / "data" / "train.jsonl"), task="document", limit=_ASKED, rows=("receiver", "text")
    )
    setup = Setup(
        str(models.sharer), str(models.receiver), table["dtype"], table["device"], str(folder / "answers")
    )
    run = Run(folder / "bundle", told, setup)
    run.answer(progress)
    seconds = [float(row["seconds_per_question"]) for row in run.report()["rows"]]
    return max(_LEAST, min(seconds))  # the model is loaded in the time of the first row


def _square(width: int, device: torch.device) -> torch.Tensor:
    made = torch.rand(width, width, generator=torch.Generator().manual_seed(1), device="cpu")
    return (made + made.T).to(device)


def _seconds(do: Callable[[], Any], device: torch.device) -> float:
    do()
    began = time.perf_counter()
    do()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began
