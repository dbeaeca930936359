"""Sample documents: short fictional records and longer notes, each with questions and a canary."""

import json
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class DemoQuestion:
    """A question about one document; `answers` are the spellings that count as right, the best one first."""

    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DemoSample:
    """A document. `canary` occurs once in its text, in no other and in no question."""

    id: str
    text: str
    canary: str
    questions: tuple[DemoQuestion, ...]


def load_samples() -> tuple[DemoSample, ...]:
    """The documents that ship with the demo."""
    raw = json.loads((resources.files("ops.demo") / "data" / "documents.json").read_text(encoding="utf-8"))
    return tuple(
        DemoSample(
            id=entry["id"],
            text=entry["text"],
            canary=entry["canary"],
            questions=tuple(DemoQuestion(q["question"], tuple(q["answers"])) for q in entry["questions"]),
        )
        for entry in raw
    )
