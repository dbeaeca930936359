"""Neutral sentences that state nothing a question asks for, and the frames that may introduce a statement."""

from fuser.lab.data.records.tables import read_toml, words_of
from fuser.lab.data.records.words import Words

_TABLE = read_toml("fillers.toml")
FILLERS: list[str] = _TABLE["sentences"].splitlines()
FRAMES: list[str] = _TABLE["frames"].splitlines()
_CHOICES = {slot: words_of(text) for slot, text in _TABLE["slots"].items()}


def fillers(words: Words, count: int) -> list[str]:
    """`count` different neutral sentences."""
    choice, sentences = words.random.choice, []
    for template in words.random.sample(FILLERS, count):
        slots = {slot: choice(options) for slot, options in _CHOICES.items()}
        sentences.append(template.format(place=words.word("place"), **slots))
    return sentences


def frame(words: Words) -> str:
    """The beginning of a sentence that a statement may follow."""
    return words.random.choice(FRAMES)
