"""What a replica keeps of the documents that were read: it goes with its document, and comes before the question.

A thread lets go of what belongs to documents that are gone, in memory and on disk. Another one reads documents that
are not on disk yet while the model has nothing else to do: any call overtakes it before its next layer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from cloud_node.document_reader import Document, DocumentReader
from cloud_node.scheduler import CancelToken, PrefillScheduler, Work
from fuser import Caller, PrefixFiles, Sharer, SharerPrompt, StoredText
from kvwire.errors import NotFound
from kvwire.section import Role, Section, Visibility

logger = logging.getLogger(__name__)

_FOR_EVER_S: Final = float("inf")
_ANY: Final = Section(Role.QUESTION, Visibility.SHARED, text="?")


class ReadOutcome(StrEnum):
    """What became of a document that was to be read ahead. `TOO_LONG`: for any question about the whole of it."""

    READ = "read"
    THERE = "there"
    TOO_LONG = "too_long"
    NO_ROOM = "no_room"
    GONE = "gone"
    FAILED = "failed"


class Prefixes:
    """See the module.

    Args:
        sharers: all around one model, with one store.
        files: of that store; None keeps nothing on disk.
        max_positions: longer prompts are never asked about, so they are not read.
    """

    def __init__(
        self,
        sharers: Sequence[Sharer],
        documents: DocumentReader,
        schedule: PrefillScheduler,
        files: PrefixFiles | None,
        max_positions: int,
    ) -> None:
        styles = {str(sharer.style.to_dict()): sharer for sharer in sharers}
        self._sharers, self._styles = tuple(sharers), tuple(styles.values())
        self._documents, self._schedule, self._files = documents, schedule, files
        self._max_positions = max_positions
        self._read: dict[tuple[str, str], str] = {}  # versions of documents of which K and V may be kept
        self._gone: set[tuple[str, str]] = set()  # those that were gone when it was looked last
        self._lock = threading.Lock()
        self._looking, self._reading_new = threading.Lock(), threading.Lock()
        self._state: object = None  # of the documents when all that fit were read

    def look_soon(self) -> None:
        """Have `forget_changed` and `read_new` run on threads of their own, unless they do. Never waits or raises."""
        if self._read:
            _start(self.forget_changed, self._looking)
        if self._files is not None:
            _start(self.read_new, self._reading_new)

    @contextlib.contextmanager
    def reading(self, tenant: str, documents: Sequence[Document]) -> Iterator[None]:
        """Remember what is read; said again at the end, as a removed document's may be kept after it was let go of."""
        read = {(tenant, document.id): document.version for document in documents}
        try:
            with self._lock:
                self._read |= read
            yield
        finally:
            with self._lock:
                self._read |= read

    def forget_changed(self) -> None:
        """Let go of what was read of documents that are removed, or have another text; in memory of all their tenant's.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store of documents cannot be read; nothing is let go of.
            OSError: a file cannot be removed.
        """
        with self._lock:
            read = dict(self._read)
        gone = set[tuple[str, str]]()
        for tenant in {tenant for tenant, _ in read}:
            ids = {document_id: version for (owner, document_id), version in read.items() if owner == tenant}
            there = self._documents.versions(tenant, ids)
            gone |= {(tenant, document_id) for document_id, v in ids.items() if there.get(document_id) != v}
        with self._lock:
            # Twice: the model may be about to keep what a call that has left asked for.
            again = gone & self._gone
            for key in again:
                del self._read[key]
            self._gone = gone - again
        for sharer in self._sharers:
            for tenant in {tenant for tenant, _ in gone}:
                sharer.forget(tenant)
        if gone and self._files is not None:
            self._sharers[0].settle()  # what waits to be written would come afterwards
            for tenant, document_id in gone:
                self._files.forget(tenant, document_id)

    def read_new(self) -> None:
        """`read_all`, unless nothing came since all that fit were read, or another process is at it.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the store of documents cannot be read.
            OSError: the folder cannot be used; it is tried again when other documents are there.
        """
        state = self._documents.state()
        if self._files is None or state == self._state:
            return
        try:
            self.read_all(self._files)
        except Timeout:  # should the other end in the middle, somebody goes on
            return
        except OSError:
            self._state = state
            raise
        self._state = state

    def read_all(
        self,
        files: PrefixFiles,
        tenant: str | None = None,
        begin: Callable[[int], None] = lambda _: None,
        advance: Callable[[], None] = lambda: None,
    ) -> Counter[ReadOutcome]:
        """Read all documents that are not on disk, the newest first, and as long as nothing has to go for them.

        One process of a machine does so at a time. What is on disk of no document is removed first.

        Args:
            files: where they are read to. tenant: whose documents; None for everybody's.
            begin: called with how many documents there are. advance: after each of them.

        Raises:
            filelock.Timeout: another process is reading.
            sqlalchemy.exc.SQLAlchemyError: the store of documents cannot be read.
            OSError: the folder cannot be used.
        """
        files.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        counts = Counter[ReadOutcome]()
        with FileLock(files.root / ".reading", timeout=0, mode=0o600):
            texts = [StoredText(*one) for one in self._documents.newest()]
            files.forget_all_but(set(texts))
            texts = [text for text in texts if tenant in (None, text.owner)]
            begin(len(texts))
            for text in texts:
                try:
                    counts[self.read(text)] += 1
                except Exception as error:  # of this document alone; its message may quote the text
                    logger.warning("a document could not be read ahead: %s", type(error).__name__)
                    counts[ReadOutcome.FAILED] += 1
                advance()
        return counts

    def read(self, text: StoredText) -> ReadOutcome:
        """Read one document in every style of prompt, where there is room; what became of it in the last one."""
        try:
            document = self._documents.get(text.owner, text.document)
        except NotFound:
            return ReadOutcome.GONE
        outcome = ReadOutcome.GONE
        for sharer in self._styles if document.version == text.version else ():
            prompt = sharer.prompt([Section(Role.DOCUMENT, Visibility.CLOUD, text=document.text), _ANY])
            outcome = self._outcome(sharer, prompt, text)
            if outcome is not ReadOutcome.READ:
                continue
            stop = CancelToken(_FOR_EVER_S)
            with self.reading(text.owner, [document]), Work(self._schedule, stop) as work:
                caller = Caller(work.cancelled, text.owner, text)
                ticket = work.enter(sharer.reading_ahead(prompt, caller), prompt.prefix, last=True)
                work.finish()
            sharer.settle()
            if self._files is None:
                continue
            if self._documents.versions(text.owner, [text.document]).get(text.document) != text.version:
                self._files.forget(text.owner, text.document)  # what was written after it went
                return ReadOutcome.GONE
            if not sharer.is_read(prompt, text):
                outcome = ReadOutcome.NO_ROOM
            elif ticket.ran_s:
                with contextlib.suppress(OSError):
                    self._files.tokens_per_s = prompt.prefix / ticket.ran_s
        return outcome

    def _outcome(self, sharer: Sharer, prompt: SharerPrompt, text: StoredText) -> ReadOutcome:
        """What will become of it."""
        if len(prompt) > self._max_positions:
            return ReadOutcome.TOO_LONG
        if sharer.is_read(prompt, text):
            return ReadOutcome.THERE
        fits = self._files is not None and sharer.bytes_of(prompt.prefix) <= self._files.room
        return ReadOutcome.READ if fits else ReadOutcome.NO_ROOM


def stored_text(tenant: str, sections: Sequence[Section], documents: Sequence[Document]) -> StoredText | None:
    """The text whose K and V may be kept on disk: of a prompt's one document, where nothing of a caller is before it.

    Args:
        sections: as the request has them. documents: those among them, or passages of them.
    """
    if len(documents) != 1 or sections[0].document_id is None:
        return None
    return StoredText(tenant, documents[0].id, documents[0].version)


def _start(job: Callable[[], None], running: threading.Lock) -> None:
    """On a thread of its own, unless it runs still."""

    def run() -> None:
        try:
            job()
        except (OSError, SQLAlchemyError) as error:
            logger.warning("%s failed: %s", job.__name__, type(error).__name__)
        finally:
            running.release()

    if running.acquire(blocking=False):
        threading.Thread(target=run, daemon=True).start()
