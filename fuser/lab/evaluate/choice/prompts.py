"""What the models are asked in each row of a multiple-choice table.

Every row asks in one question section, so that any prompt style serves. In the paper's relay the Sharer's text is an
earlier turn of the Receiver's conversation; here it stands before the question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fuser.lab.evaluate.speaker import Speaker
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.prompt import RECEIVER_HOLDS, PromptStyle, Rendered, render
from kvwire.section import Role, Section, Visibility


def sections(text: str) -> tuple[Section, ...]:
    """The one shared section that the slice is cut from and that the Receiver reads."""
    return (Section(Role.QUESTION, Visibility.SHARED, text=text),)


def background(item: ChoiceItem) -> str:
    """What the Sharer is asked in the paper's text relay: the bare question, for knowledge that helps."""
    return (
        "Which background knowledge helps most to solve this problem? Describe it briefly.\n\n"
        f"{choice_prompt(item, options=False)}"
    )


def with_background(item: ChoiceItem, told: str) -> str:
    """The question of the paper's text relay."""
    return f"Background: {told.strip()}\n\n{choice_prompt(item)}"


def with_answer(item: ChoiceItem, said: str) -> str:
    """The question of the fair text relay: what the Sharer answered to the very same prompt, then the prompt."""
    return f"A larger model answered the question below with: {said.strip()}\n\n{choice_prompt(item)}"


def with_examples(item: ChoiceItem, examples: Sequence[ChoiceItem]) -> str:
    """Training questions with their answers, then the prompt."""
    shown = [f"{choice_prompt(example)} {example.letter}." for example in examples]
    return "\n\n".join((*shown, choice_prompt(item)))


@dataclass(frozen=True, slots=True)
class Asker:
    """A speaker with its prompt style."""

    speaker: Speaker
    style: PromptStyle

    def prompt(self, text: str) -> Rendered:
        """A question as this side reads it."""
        return render(sections(text), self.style, RECEIVER_HOLDS)
