"""Official column layouts of public data sets, turned into our three schemas; our own rows pass unchanged.

Choices: ARC and OpenBookQA (`choices.text`, `choices.label`, `answerKey`), MMLU-Redux-2.0 (`error_type`,
`correct_answer`), C-Eval (`A` to `D`, a letter as `answer`). Documents: SQuAD (`answers.text`), NQ-swap
(`sub_context`, `sub_answer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fuser.prompts.choice import LETTERS

_NO_ANSWER = frozenset({"no_correct_answer", "expert"})


def to_schema(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in our schema. What is malformed stays as it is: reading the field refuses it by name."""
    found = dict(row)
    if "question" not in found and "question_stem" in found:
        found["question"] = found["question_stem"]
    choices, answers = found.get("choices"), found.get("answers")
    if isinstance(choices, Mapping) and isinstance(choices.get("text"), list):
        found["choices"] = choices["text"]
        labels, key = choices.get("label"), found.get("answerKey")
        if isinstance(labels, list) and key in labels:
            found["answer"] = labels.index(key)
    elif choices is None and {"A", "B", "question"} <= found.keys():
        found["choices"] = [found[letter] for letter in LETTERS if found.get(letter) is not None]
        found["answer"] = _index(found.get("answer"), len(found["choices"]))
    if isinstance(answers, Mapping):
        found["answers"] = answers.get("text")
    if "context" not in found and {"sub_context", "sub_answer"} <= found.keys():
        answer = found["sub_answer"]
        found |= {"context": found["sub_context"], "answers": [answer] if isinstance(answer, str) else answer}
    if "scored_answer" not in found and "error_type" in found and isinstance(found.get("choices"), list):
        found["scored_answer"] = _scored(found, found["choices"])
    return found


def _scored(row: Mapping[str, Any], choices: list[Any]) -> Any:
    """The gold index of an MMLU-Redux row under the rule of the public evaluator; None: the row is not scored."""
    kind = str(row["error_type"] or "").strip().lower().replace(" ", "_")
    if kind in _NO_ANSWER:
        return None
    if kind != "wrong_groundtruth":
        return row.get("answer")
    corrected = row.get("correct_answer")
    same = [index for index, choice in enumerate(choices) if choice == corrected]
    return same[0] if len(same) == 1 else _index(corrected, len(choices))


def _index(value: Any, count: int) -> int | None:
    """An index from an index, its digits or a letter; None for anything else."""
    text = str(value).strip().upper()
    index = (
        LETTERS.find(text) if len(text) == 1 and text in LETTERS else int(text) if text.isdecimal() else -1
    )
    return index if 0 <= index < count else None
