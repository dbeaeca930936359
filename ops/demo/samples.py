"""Sample documents: short fictional records and longer notes, each with questions and a canary."""

import dataclasses
import json
from collections.abc import Callable, Sequence
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


def filled_up(
    samples: Sequence[DemoSample], tokens: int, count: Callable[[str], int]
) -> tuple[DemoSample, ...]:
    """The documents, each with paragraphs of the others behind its own text, as near to `tokens` as they come.

    Paragraphs that hold a canary are not lent: it still stands in its own document alone.

    Args:
        tokens: 0 leaves the documents as they are; longer ones are left whole.
        count: tokens of a text.

    Raises:
        ValueError: the others do not have so much text.
    """
    canaries = [sample.canary for sample in samples]
    lent = [
        part for one in samples for part in one.text.split("\n\n") if not any(c in part for c in canaries)
    ]
    filled = []
    for number, sample in enumerate(samples):
        text, length = sample.text, count(sample.text)
        begin = number % max(1, len(lent))  # not the same ones first everywhere
        others = (part for part in lent[begin:] + lent[:begin] if part not in sample.text)
        while length < tokens:
            part = next(others, None)
            if part is None:
                raise ValueError(
                    f"tokens {tokens}: the texts of the demo fill {sample.id} up to {length} at most"
                )
            longer = count(f"{text}\n\n{part}")
            if longer - tokens > tokens - length:
                break
            text, length = f"{text}\n\n{part}", longer
        filled.append(dataclasses.replace(sample, text=text))
    return tuple(filled)
