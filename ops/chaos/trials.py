"""What is asked, of which documents, and what is right: the answers of the tiny pair in one process, without a wire."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SliceHeader, SliceKind
from ops.chaos.history import Expected, digest_of, hash_of

if TYPE_CHECKING:
    from fuser.bundle.bundle import Bundle

TENANTS: Final = ("acme", "other")
DOCUMENTS: Final = {
    "keys": (
        "Ilse Brandvik keeps the spare key under the third stone from the boat house door.",
        "Ilse Brandvik keeps the spare key in the cedar box behind the ledger.",
    ),
    "tide": (
        "The harbour master of Velmora wrote the tide into the ledger before the bell rang twice.",
        "The harbour master of Velmora wrote 6789 degrees into the ledger on Thursday.",
    ),
    "mine": (
        "Every sample from the northern mine is weighed, numbered and stored in a cedar box. " * 12,
        "Every sample from the northern mine is weighed twice, and the second weight is kept. " * 12,
    ),
}
"""By id: the text of each version."""
QUESTIONS: Final = (
    "Who keeps the spare key?",
    "Where is the ledger?",
    "When was the bridge closed?",
    "What colour is the door?",
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What is asked, and how."""

    question: str
    document: str | None
    kind: SliceKind
    plan: Plan

    @property
    def name(self) -> str:
        """A hash of all of it."""
        return hash_of(repr((self.question, self.document, self.kind, dataclasses.astuple(self.plan))))

    def sections(self) -> tuple[Section, ...]:
        """As they are asked for."""
        asked = Section(Role.QUESTION, Visibility.SHARED, text=self.question)
        if self.document is None:
            return (asked,)
        return (Section(Role.DOCUMENT, Visibility.CLOUD, document_id=self.document), asked)


_SHARED: Final = (SliceKind.SHARED, Plan(codec="lossless"))
_OVER: Final = (
    (SliceKind.EXCERPT, Plan(codec="raw", positions=8)),
    (SliceKind.DRAFT, Plan(codec="lossless", positions=5)),
)
PROMPTS: Final = tuple(
    Trial(question, document, *how)
    for document in (*DOCUMENTS, None)
    for how in (_OVER if document is not None else (_SHARED,))
    for question in QUESTIONS
)
"""Their answers differ; of a document, those of its versions too."""


@dataclass(frozen=True, slots=True)
class TinyPair:
    """The tiny models, a bundle of theirs and another one, in a folder; and certificates for both ends."""

    folder: Path

    @property
    def sharer(self) -> Path:
        """Directory of the Sharer."""
        return self.folder / "sharer"

    @property
    def receiver(self) -> Path:
        """Directory of the Receiver."""
        return self.folder / "receiver"

    @property
    def bundle(self) -> Path:
        """Directory of the bundle."""
        return self.folder / "bundle"

    @property
    def foreign(self) -> Path:
        """Directory of another bundle for the same pair."""
        return self.folder / "foreign"

    @classmethod
    def make(cls, folder: Path) -> TinyPair:
        """Make the models and the bundles."""
        from ops.chaos.tiny import save_tiny_receiver, save_tiny_sharer
        from ops.chaos.tiny_bundle import save_tiny_bundle

        made = cls(folder)
        save_tiny_sharer(made.sharer)
        save_tiny_receiver(made.receiver)
        save_tiny_bundle(made.bundle, made.sharer, made.receiver)
        save_tiny_bundle(made.foreign, made.sharer, made.receiver, seed=23)
        return made


class Truth:
    """What each prompt gives without a wire, made when it is asked for first."""

    def __init__(self, cast: TinyPair) -> None:
        from fuser.models.load import load_model
        from fuser.receiver import Receiver
        from fuser.sharer import Sharer

        self.bundle = _bundle(cast.bundle)
        self._sharer = Sharer(*load_model(cast.sharer), self.bundle)
        self.receiver = Receiver(*load_model(cast.receiver), _bundle(cast.bundle))
        self._prompts = {prompt.name: prompt for prompt in PROMPTS}
        self._known: dict[tuple[str, str], Expected] = {}
        self._lock = threading.Lock()

    def expected(self, prompt: str, version: str) -> Expected:
        """For the hash of a prompt, and the text of its document as `version`."""
        with self._lock:
            if (found := self._known.get((prompt, version))) is None:
                found = self._known[prompt, version] = self._made(self._prompts[prompt], version)
            return found

    def _made(self, prompt: Trial, version: str) -> Expected:
        from ops.chaos.in_one_process import answer_in_one_process, first_line

        documents = {} if prompt.document is None else {prompt.document: version}
        local = answer_in_one_process(
            self._sharer, self.receiver, prompt.sections(), documents, prompt.kind, 32, TOKENS, prompt.plan
        )
        header = SliceHeader(bytes(16), local.cut.kind, local.cut.specs, local.cut.spans, local.cut.tail)
        parts: list[SliceHeader | Segment] = [header, *local.segments]
        digests = [digest_of(part) for part in parts]
        return Expected(tuple(str(digest) for digest in digests), first_line(local.text))


TOKENS: Final = 6
"""Of an answer."""


def _bundle(directory: Path) -> Bundle:
    from fuser.bundle.bundle import Bundle

    return Bundle.load(directory)
