"""A prompt is a list of sections; each side renders only what it may hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from kvwire.errors import InvalidRequest


class Role(StrEnum):
    """What a section is for."""

    SYSTEM = "system"
    DOCUMENT = "document"
    QUESTION = "question"


class Visibility(StrEnum):
    """Who may hold a section's text."""

    SHARED = "shared"
    CLOUD = "cloud"
    EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Section:
    """One piece of a prompt: either its text, or the id of a document whose text the cloud holds.

    Attributes:
        passage: of the document, its number from 1; 0 is the whole document.

    Raises:
        InvalidRequest: not exactly one of text and document_id, a document_id that is not for the cloud, or a passage
            of no document.
    """

    role: Role
    visibility: Visibility
    text: str | None = None
    document_id: str | None = None
    passage: int = 0

    def __post_init__(self) -> None:
        if (self.text is None) == (self.document_id is None):
            raise InvalidRequest("a section has either text or a document id")
        if self.document_id is not None and self.visibility is not Visibility.CLOUD:
            raise InvalidRequest("only a cloud section names a document")
        if self.document_id == "":
            raise InvalidRequest("a document id is not empty")
        if self.passage and self.document_id is None:
            raise InvalidRequest("only a document has passages")
        if not 0 <= self.passage < 2**32:  # what a field of the wire holds
            raise InvalidRequest(f"passage {self.passage}: they are counted from 1")


def documents_of(sections: Iterable[Section]) -> tuple[str, ...]:
    """The ids of the documents that sections name, each once, in the order in which they first do."""
    named = (section.document_id for section in sections if section.document_id is not None)
    return tuple(dict.fromkeys(named))


def sent_up(sections: Sequence[Section]) -> tuple[int, ...]:
    """Indices of the sections that a request may carry: all but those for the edge alone.

    A header's spans count sections as the request does: span section `i` is `sections[sent_up(sections)[i]]`.
    """
    return tuple(i for i, section in enumerate(sections) if section.visibility is not Visibility.EDGE)
