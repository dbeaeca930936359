"""Files into a store of documents: what is new, what has changed since, and what cannot be stored"""

import logging
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from cloud_node.document_files import decoded, id_of, read, whole
from cloud_node.documents import Documents, check, hash_of
from cloud_node.redaction import Redaction, redacted
from kvwire.errors import NotFound
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from cloud_node.document_files import Meant
    from cloud_node.document_reader import DocumentInfo
    from ops.sharer_window import SharerWindow

logger = logging.getLogger(__name__)

STDIN = "-"


class IngestOutcome(StrEnum):
    """What became of a file. `REPLACED`: another text, or other limits, took the place of what was there."""

    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


_DAILY: Final = ("positions_per_day", "questions_per_day", "new_positions_per_day")


@dataclass(slots=True)
class Ingest:
    """Stores files as one tenant's documents.

    encoding: of texts and pages; None goes by `cloud_node.document_files.decoded`.
    max_positions, kinds, positions_per_day, questions_per_day, new_positions_per_day: limits of each document; None
        keeps those it has, or with `replace` leaves them to the policy.
    replace: take the place of documents that came from elsewhere.
    window: counts tokens as the Sharer has them, where it is known.
    redaction: what is taken out of texts before they are stored.
    """

    documents: Documents
    tenant: str
    encoding: str | None = None
    max_positions: int | None = None
    kinds: tuple[SliceKind, ...] | None = None
    replace: bool = False
    window: "SharerWindow | None" = None
    positions_per_day: int | None = None
    questions_per_day: int | None = None
    new_positions_per_day: int | None = None
    redaction: Redaction = field(default_factory=Redaction)
    _sources: dict[str, str] = field(default_factory=dict, init=False)

    def __call__(
        self, files: Sequence["Meant"], document_id: str | None = None
    ) -> Generator["tuple[IngestOutcome, DocumentInfo, int | None] | Exception"]:
        """Store files one by one; for each what became of it, or why it could not be stored.

        What is stored comes with its tokens, None where they are not known or nothing was stored anew.

        Args:
            document_id: in place of the one that a file's name makes. A file named "-" is standard input.
        """
        replaced = False
        try:
            for file in files:
                try:
                    outcome, info, tokens = self._add(file, document_id)
                except (OSError, ValueError, ModuleNotFoundError) as error:
                    yield error
                except SQLAlchemyError as error:
                    yield OSError(f"the store of documents failed: {_name_of(error)}")
                else:
                    replaced |= outcome is IngestOutcome.REPLACED
                    yield outcome, info, tokens
        finally:
            if replaced:
                self._wipe()

    def _wipe(self) -> None:
        try:
            self.documents.wipe()
        except SQLAlchemyError as error:  # raised, it would hide what became of the files
            logger.warning(
                "what was replaced stays in SQLite's log until the next document is removed or replaced: %s",
                _name_of(error),
            )

    def _add(self, file: "Meant", given_id: str | None) -> "tuple[IngestOutcome, DocumentInfo, int | None]":
        piped = str(file.path) == STDIN
        document_id = given_id or id_of(file.name)
        source = None if piped else file.resolved()
        other = self._sources.setdefault(document_id, source or STDIN)
        if other != (source or STDIN):
            raise ValueError(f"its id would be {document_id}, which {other} has; give it another with --id")
        text = decoded(whole(sys.stdin.buffer), self.encoding) if piped else read(file.path, self.encoding)
        text, _ = redacted(self.redaction, self.tenant, text)
        try:
            (known,) = self.documents.find(self.tenant, [document_id])
        except NotFound:
            known = None
        positions, kinds = self.max_positions, self.kinds
        if known is not None and not self.replace:
            positions = known.max_positions if positions is None else positions
            kinds = known.kinds if kinds is None else kinds
        kept = known if not self.replace else None
        daily: dict[str, int] = {
            name: (getattr(kept, name) if kept else 0) if (given := getattr(self, name)) is None else given
            for name in _DAILY
        }
        if known is not None and known.text_hash == hash_of(text):
            has = {name: getattr(known, name) for name in _DAILY}
            if (known.max_positions, known.kinds, has) == (positions, kinds, daily):
                return IngestOutcome.UNCHANGED, known, None
        elif known is not None and not self.replace and (source is None or known.source != source):
            origin = known.source or "elsewhere"
            raise ValueError(
                f"document {document_id} is there already, from {origin}; --replace puts this one in its place"
            )
        check(self.tenant, document_id, text, positions)
        stored = self.documents.add(
            self.tenant,
            document_id,
            text,
            positions,
            known is not None,
            kinds,
            source,
            wipe=False,
            **daily,
        )
        tokens = None if self.window is None else self.window.tokens(text)
        return IngestOutcome.ADDED if known is None else IngestOutcome.REPLACED, stored, tokens


def _name_of(error: SQLAlchemyError) -> str:
    """By name alone: a database's message may quote what was to be stored."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None)
    return type(error).__name__ + (f" ({code})" if code else "")
