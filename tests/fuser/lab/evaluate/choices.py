"""Multiple-choice questions for the tests, of many lengths."""

import random

from fuser.prompts.choice import ChoiceItem

WORDS = [
    "harbour",
    "ledger",
    "bridge",
    "door",
    "key",
    "lamp",
    "river",
    "stone",
    "crown",
    "bell",
    "tide",
    "mill",
]


def make_choices(count: int, seed: int = 1, prefix: str = "q") -> list[ChoiceItem]:
    """Questions of 3 to 40 words with 3 to 5 choices; right answers are uniform."""
    draw = random.Random(seed)
    items = []
    for number in range(count):
        choices = tuple(
            " ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(draw.choice((3, 4, 4, 5)))
        )
        question = f"{' '.join(draw.choices(WORDS, k=draw.randint(3, 40)))} {prefix} {number}?"
        items.append(ChoiceItem(f"{prefix}{number}", question, choices, draw.randrange(len(choices))))
    return items
