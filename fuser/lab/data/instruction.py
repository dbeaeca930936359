"""Instructions with a free answer, for training on prompts that both sides hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Instruction:
    """`prompt` is the text of the shared QUESTION section, any input of the instruction after a blank line."""

    id: str
    prompt: str
    response: str
