"""How much of everything fits into some minutes: pieces that are read, steps, questions that are answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ROWS: Final = ("receiver", "text", "excerpt-text", "fused", "mismatched", "zeroed", "random")
DRAFT_ROWS: Final = ("drafted", "drafted-mismatched", "drafted-text")
PLANS: Final = 4
"""Plans that answer when the table of plans is made, besides the raw one."""
_TRIED = 25, 13  # plans of excerpts and of drafts that are screened
_LEAST_FIT = 60  # questions from which heads of attention can be told apart
_MOST = {"fit": 400, "plans": 120, "held_out": 200}
_SHARES = {"fit": 0.07, "read": 0.18, "draft": 0.12, "solve": 0.08, "plans": 0.12, "held_out": 0.16}
"""Of the time, at most; the steps of training get what is left."""
_DRAFT_STEPS = 0.4  # share of the steps that are on drafts too
_VALIDATION = 24  # pieces


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds that things take here, measured.

    read: a piece with its questions. draft: the same, with a draft to each question. step: of training. stage: what a
    training stage takes besides its steps. answer: one answer of the Receiver. solve: eigenvectors of 1,024 numbers.
    product: a million million multiplications. positions: of a piece, on average.
    """

    read: float
    draft: float
    step: float
    stage: float
    answer: float
    solve: float
    product: float
    positions: float

    def closed_form(self, inputs: int, outputs: int, positions: int) -> float:
        """Seconds of a closed form: two decompositions, and the products that the sums and the solution take."""
        products = inputs * (positions * (inputs + outputs) + 3 * inputs * outputs) / 1e12
        return 2 * self.solve * (inputs / 1024) ** 3 + products * self.product


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is.

    train, plans: pieces. held_out: questions. fitting: pieces of training whose first question's answer stands in
    them. outputs: numbers that a code becomes. layer: numbers of a Sharer layer at a position. layers: of the Sharer.
    """

    train: int
    plans: int
    held_out: int
    fitting: int
    outputs: int
    layer: int
    layers: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is made.

    fit: questions that the selection is fitted on; 0 where there are too few, and the rule is "last". pieces: that are
    trained on. drafted: of them, those that drafts are written for; 0 where drafts are not asked for. validation,
    drafted_validation: pieces. inputs: numbers of a position that the head reads. regression: positions of the closed
    form. steps, draft_steps: of the two training stages. plans, held_out: questions. seconds: by what takes them.
    """

    fit: int
    pieces: int
    drafted: int
    validation: int
    drafted_validation: int
    inputs: int
    regression: int
    steps: int
    draft_steps: int
    plans: int
    held_out: int
    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def sizes_of(minutes: float, pace: Pace, there: Counts, drafts: bool, validation_steps: float = 8.0) -> Sizes:
    """Share some minutes out over all that is to be done; of everything at least a little, whatever that takes.

    Args:
        drafts: whether they are trained on. validation_steps: steps that take as long as one evaluation of a stage.
    """
    total = 60 * minutes
    share = {name: part * total for name, part in _SHARES.items()}
    if not drafts:
        share["read"] += share["draft"]
    fit = min(there.fitting, _MOST["fit"], int(share["fit"] / pace.read))
    if fit < _LEAST_FIT:
        fit = _LEAST_FIT if there.fitting >= _LEAST_FIT and _LEAST_FIT * pace.read < 2 * share["fit"] else 0
    affordable = int(share["read"] / pace.read)
    validation = min(there.plans, _VALIDATION, max(4, affordable // 6))
    pieces = min(there.train, max(16, affordable - validation))
    drafted = drafted_validation = 0
    if drafts:
        affordable = int(share["draft"] / pace.draft)
        drafted_validation = min(validation, 8)
        drafted = min(pieces, max(8, affordable - drafted_validation))
    inputs, regression = _solvable(share["solve"], pace, there, pieces)
    rows = len(ROWS) + (len(DRAFT_ROWS) if drafts else 0)
    each = rows * pace.answer + (pace.draft if drafts else pace.read)
    held_out = min(there.held_out, _MOST["held_out"], max(8, int(share["held_out"] / each)))
    seconds = {"held-out questions": held_out * each}
    excerpts, written = ((2 * (PLANS + 1) + 4 + 0.2 * tried) * pace.answer for tried in _TRIED)
    each = excerpts + pace.read + (written + pace.draft if drafts else 0)
    plans = min(there.plans, _MOST["plans"], max(8, int(share["plans"] / each)))
    seconds |= {
        "selection": fit * pace.read,
        "reading": (pieces + validation) * pace.read,
        "drafts": (drafted + drafted_validation) * pace.draft,
        "closed form": pace.closed_form(inputs, there.outputs, regression),
        "plans": plans * each,
        "loading and calibrating": 3 * pace.stage,
        "validation": 4 * validation_steps * pace.step,
    }
    steps = max(16, int((total - sum(seconds.values())) / pace.step))
    draft_steps = round(_DRAFT_STEPS * steps)  # of excerpts alone: through the codecs
    seconds["training"] = steps * pace.step
    return Sizes(
        fit=fit,
        pieces=pieces,
        drafted=drafted,
        validation=validation,
        drafted_validation=drafted_validation,
        inputs=inputs,
        regression=regression,
        steps=steps - draft_steps,
        draft_steps=draft_steps,
        plans=plans,
        held_out=held_out,
        seconds=seconds,
    )


def _solvable(seconds: float, pace: Pace, there: Counts, pieces: int) -> tuple[int, int]:
    """Numbers of the most layers, and positions of text, whose closed form takes no longer."""
    for layers in range(there.layers, 1, -1):
        inputs = layers * there.layer
        positions = min(int(pieces * pace.positions), max(10_000, 5 * inputs))
        if pace.closed_form(inputs, there.outputs, positions) <= seconds:
            return inputs, positions
    return there.layer, min(int(pieces * pace.positions), max(10_000, 5 * there.layer))
