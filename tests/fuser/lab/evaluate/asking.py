"""Answers of a task in some rows, from its loop."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from fuser.lab.evaluate.evaluation import Task, TimeLimit, answer
from fuser.lab.evaluate.prediction import Prediction, PredictionLog
from kvwire.plan import WHOLE, Plan

QUIET = Progress(disable=True)


def ask(
    task: Task[Any],
    folder: Path,
    *rows: str,
    plans: Sequence[Plan] = (WHOLE,),
    deadline: TimeLimit | None = None,
) -> dict[tuple[str, str], Prediction]:
    """Run to the end, or to the deadline's; (name of the line, question) -> answer, also of what was there before."""
    log = PredictionLog(folder / "predictions.jsonl")
    lines = task.rows.lines(rows, plans, plans)
    answer(task, lines, log, QUIET, deadline or TimeLimit())
    return {(line.name, item): one for line in lines for item, one in log.of(line.key).items()}


def texts(found: dict[tuple[str, str], Prediction]) -> dict[tuple[str, str], str]:
    """What was said."""
    return {at: one.text for at, one in found.items()}
