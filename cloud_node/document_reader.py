"""The documents the cloud holds and never sends, as a node reads them: tenant + id -> text, behind any SQLAlchemy URL.

What has left of them is counted beside them (`cloud_node.exposure`). An operator puts them there with
`cloud_node.documents`.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Engine,
    String,
    Text,
    and_,
    bindparam,
    create_engine,
    event,
    func,
    literal,
    make_url,
    or_,
    select,
)
from sqlalchemy import text as text_of_sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from cloud_node import exposure, passages
from cloud_node.passages import Base, Passage
from cloud_node.users import Principal
from kvwire.errors import Busy, Cancelled, DocumentsUnavailable, NoPassage, NotFound
from kvwire.segment import SliceKind

logger = logging.getLogger(__name__)

DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
_LOCK: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7443)"}
"""Has others wait who open the store at the same time."""
_GIVE_UP: Final = {"postgresql+psycopg": {"connect_timeout": 5, "tcp_user_timeout": 10_000}}
"""When a server whose machine is gone is given up, in s and ms; what the URL says of it goes before."""


class DocumentRow(Base):
    """The text is last, so that SQLite need not read it for what stands after."""

    __tablename__ = "documents"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    characters: Mapped[int]
    max_positions: Mapped[int | None]
    kinds: Mapped[str | None] = mapped_column(String(64))
    added: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[str] = mapped_column(String(32))
    text_hash: Mapped[str] = mapped_column(String(64))
    passages: Mapped[int]
    source: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str] = mapped_column(String(64))
    positions_per_day: Mapped[int]
    questions_per_day: Mapped[int]
    new_positions_per_day: Mapped[int]
    restricted: Mapped[bool] = mapped_column(default=False)
    text: Mapped[str] = mapped_column(Text)


class GrantRow(Base):
    """Who may ask about a document that not everybody of its tenant may ask about: a SPIFFE id of an edge, or a user
    (`cloud_node.users.named_user`)."""

    __tablename__ = "document_grants"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[str] = mapped_column(String(256), primary_key=True)
    identity: Mapped[str] = mapped_column(String(160), primary_key=True)


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What may be known of a document without its text.

    max_positions: the most positions of it that one slice may carry; None leaves it to the export policy.
    kinds: the kinds of slice that it may be in; None leaves it to the export policy.
    version: 32 hex digits that were drawn at random when this text was stored. An edge may see them.
    text_hash: as `cloud_node.documents.hash_of` has it. Who guesses a text can check it against this: it never leaves.
    source: the file that the text was read from; None where it came from none.
    added: when this text was stored.
    passages: how many it is split into.
    positions_per_day, questions_per_day, new_positions_per_day: as in `[export]`, which they can only lower; 0
        is no bound of its own.
    """

    id: str
    characters: int
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None
    version: str = ""
    source: str | None = None
    added: datetime | None = None
    passages: int = 1
    positions_per_day: int = 0
    questions_per_day: int = 0
    new_positions_per_day: int = 0
    text_hash: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document with its text, which its `repr` keeps to itself. `begins`: where this is in the whole text."""

    id: str
    text: str
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None
    begins: int = 0
    version: str = ""

    def __repr__(self) -> str:
        return f"Document(id={self.id!r}, characters={len(self.text)}, max_positions={self.max_positions})"


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found: characters `begins` up to `ends` of the document.

    passage: its number within the document, from 1.
    score: 0 to 1, the most that a passage could have for the question.
    """

    document: str
    passage: int
    begins: int
    ends: int
    score: float


class DocumentReader:
    """A store of documents. Look-ups are by tenant and id together: a foreign document is an unknown one."""

    def __init__(self, url: str) -> None:
        """Open the store, creating its tables where there are none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or the URL is wrong.
        """
        # A database that was started again is connected to again.
        self._engine = engine_of(url, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
            if self._engine.url.database not in (None, "", ":memory:"):
                Path(self._engine.url.database).touch(mode=0o600)
        with self._engine.begin() as connection:
            connection.execute(text_of_sql(_LOCK[self._engine.dialect.name]))
            Base.metadata.create_all(connection)

    def get(self, tenant: str, document_id: str, passage: int = 0) -> Document:
        """One document with its text, or with that of one passage alone.

        Args:
            passage: its number from 1; 0 is the whole document.

        Raises:
            NotFound: unknown, or another tenant's. NoPassage: the text that is there now has no such passage.
        """
        text = (
            func.substr(DocumentRow.text, Passage.begins + 1, Passage.ends - Passage.begins)
            if passage
            else DocumentRow.text
        )
        # One statement: text and range are of one version.
        begins = Passage.begins if passage else literal(0)
        columns = select(
            text.label("text"),
            DocumentRow.max_positions,
            DocumentRow.kinds,
            DocumentRow.version,
            begins.label("begins"),
        ).select_from(DocumentRow)
        columns = columns.where(one_document(tenant, document_id))
        if passage:
            its = and_(
                Passage.tenant == DocumentRow.tenant,
                Passage.document == DocumentRow.id,
                Passage.number == passage,
            )
            columns = columns.join(Passage, its)
        with self._engine.connect() as connection:
            row = connection.execute(columns).one_or_none()
        if row is None:
            raise (
                NoPassage(passage)
                if passage and self.find(tenant, [document_id])
                else no_document(tenant, document_id)
            )
        return Document(document_id, row.text, row.max_positions, _kinds(row.kinds), row.begins, row.version)

    def find(
        self, tenant: str, document_ids: Iterable[str], caller: Principal | None = None
    ) -> tuple[DocumentInfo, ...]:
        """What is known of each document, without reading its text; one query, whatever is missing of ids that may be.

        Args:
            caller: who asks; None is the cloud itself.

        Raises:
            NotFound: one of them is unknown, another tenant's or not for this caller; which, and why, is not told.
        """
        wanted = tuple(document_ids)
        asked = _ALL if caller is None else _SEEN
        values: dict[str, Any] = {"tenant": tenant, "ids": set(wanted)}
        values |= {"names": caller.names} if caller else {}
        rows: Sequence[Any] = ()
        if all(map(DOCUMENT_ID.fullmatch, wanted)):  # no other is stored, and PostgreSQL fails over a NUL
            with self._engine.connect() as connection:
                rows = connection.execute(asked, values).all()
        found = {row.id: _info(row) for row in rows}
        if any(document_id not in found for document_id in wanted):
            raise NotFound(f"one of {len(wanted)} documents of tenant {tenant!r}")
        return tuple(found[document_id] for document_id in wanted)

    def versions(self, tenant: str, document_ids: Iterable[str]) -> dict[str, str]:
        """Of the documents among these that are there."""
        asked = select(DocumentRow.id, DocumentRow.version).where(
            DocumentRow.tenant == tenant, DocumentRow.id.in_(set(document_ids))
        )
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(asked)}

    def state(self) -> tuple[int, datetime | None]:
        """Another one whenever a document was added, replaced or removed."""
        with self._engine.connect() as connection:
            count, latest = connection.execute(select(func.count(), func.max(DocumentRow.added))).one()
            return count, latest

    def newest(self) -> Sequence[tuple[str, str, str]]:
        """Tenant, id and version of every document, what was added last first."""
        asked = select(DocumentRow.tenant, DocumentRow.id, DocumentRow.version).order_by(
            DocumentRow.added.desc(), DocumentRow.tenant, DocumentRow.id
        )
        with self._engine.connect() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(asked)]

    def list(self, tenant: str) -> Sequence[DocumentInfo]:
        """Every document of a tenant, by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(
                _KNOWN.where(DocumentRow.tenant == tenant).order_by(DocumentRow.id)
            ).all()
        return [_info(row) for row in rows]

    def search(
        self,
        tenant: str,
        query: str,
        k: int = 5,
        kinds: Sequence[SliceKind] | None = None,
        caller: Principal | None = None,
        budget: exposure.Budget = exposure.Budget(),  # noqa: B008 - frozen
    ) -> tuple[Hit, ...]:
        """The `k` passages of a tenant's documents that have most of a query's words, rare words first; best first.

        Any text is a query: it has words and no operators, and words such as "where" and "the" do not count. How rare
        a word is counts over the documents that are searched.

        Args:
            kinds: search those documents alone of which a slice of one of these kinds could leave.
            caller: search those alone that this one may ask about, and of which not all that may leave for it today
                has left; None is the cloud itself.
            budget: for documents that have no lower one.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError("k starts at 1")
        if kinds is not None and not kinds:
            return ()
        among = select(DocumentRow.id).where(*_seen_by(tenant, caller and caller.names))
        if caller is not None:
            own = (DocumentRow.key, DocumentRow.positions_per_day, DocumentRow.questions_per_day)
            among = among.where(~exposure.is_spent(*own, caller, budget))
        if kinds is not None:
            among = among.where(
                or_(DocumentRow.max_positions.is_(None), DocumentRow.max_positions > 0),
                or_(DocumentRow.kinds.is_(None), *(DocumentRow.kinds.contains(str(kind)) for kind in kinds)),
            )
        with self._engine.connect() as connection:
            found = passages.search(connection, tenant, query, k, among)
        return tuple(Hit(*one) for one in found)

    def count(
        self,
        caller: Principal,
        leaving: Sequence[exposure.Leaving],
        given_up: Callable[[], bool] = lambda: False,
    ) -> dict[str, int]:
        """Write down what is about to leave, in one transaction; `exposure.count` says how.

        A document that it leaves of has the version that was read: nobody replaces it before this is written.

        Args:
            given_up: whether nothing will leave after all; asked last, as the store may have waited for others.

        Raises:
            ExposureSpent: it is more than may leave today. Busy: a document has another text now. NotFound: it is gone.
            Cancelled: it was given up. Nothing is written then.
        """
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":  # where no row can be locked
                connection.execute(text_of_sql(_LOCK["sqlite"]))
            for one in sorted(leaving, key=lambda one: one.document):  # as `Documents.remove` locks them
                if one.version:
                    its = one_document(caller.tenant, one.document)
                    read = select(DocumentRow.version).where(its).with_for_update(read=True)
                    if (now := connection.execute(read).scalar_one_or_none()) is None:
                        raise no_document(caller.tenant, one.document)
                    if now != one.version:
                        raise Busy
            left = exposure.count(connection, caller, leaving)
            if given_up():
                raise Cancelled
            return left

    def spent(self, caller: Principal, document_ids: Iterable[str]) -> dict[str, tuple[int, int, int]]:
        """Positions, questions and new positions of today, by document; none of those of which nothing left."""
        ids = {exposure.key_of(caller.tenant, document_id): document_id for document_id in document_ids}
        with self._engine.connect() as connection:
            return {ids[key]: counts for key, counts in exposure.spent(connection, ids, caller).items()}

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


def engine_of(url: str, **how: Any) -> Engine:
    """SQLAlchemy's, which keeps texts out of errors and gives up a server whose machine is gone.

    Args:
        how: as `sqlalchemy.create_engine` takes it.
    """
    where = make_url(url)
    when = {k: v for k, v in _GIVE_UP.get(where.drivername, {}).items() if k not in where.query}
    return create_engine(where, hide_parameters=True, connect_args=when, **how)


@contextlib.contextmanager
def available() -> Iterator[None]:
    """Around what is asked of the store; the log names the kind of error, whose words may quote a text.

    Raises:
        DocumentsUnavailable: the database does not answer, or refuses.
    """
    try:
        yield
    except SQLAlchemyError as error:
        logger.error("the documents' database: %s", type(error).__name__)
        raise DocumentsUnavailable from error


def one_document(tenant: str, document_id: str) -> ColumnElement[bool]:
    return and_(DocumentRow.tenant == tenant, DocumentRow.id == document_id)


def _seen_by(tenant: Any, names: Any) -> tuple[ColumnElement[bool], ...]:
    """Which documents there are for a caller of these names: the one place where that is decided. None is the cloud."""
    if names is None:
        return (DocumentRow.tenant == tenant,)
    let = select(GrantRow.identity).where(
        GrantRow.tenant == tenant, GrantRow.document == DocumentRow.id, GrantRow.identity.in_(names)
    )
    return DocumentRow.tenant == tenant, or_(~DocumentRow.restricted, let.exists())


def no_document(tenant: str, document_id: str) -> NotFound:
    return NotFound(f"there is no document {document_id[:80]!r} of tenant {tenant!r}")


_KNOWN: Final = select(*(getattr(DocumentRow, one.name) for one in fields(DocumentInfo)))

# Of some ids; made once, as every call asks them twice.
_SOME: Final = DocumentRow.id.in_(bindparam("ids", expanding=True))
_ALL: Final = _KNOWN.where(*_seen_by(bindparam("tenant"), None), _SOME)
_SEEN: Final = _KNOWN.where(*_seen_by(bindparam("tenant"), bindparam("names", expanding=True)), _SOME)


def _info(row: Any) -> DocumentInfo:
    return DocumentInfo(**{**row._mapping, "kinds": _kinds(row.kinds), "added": _in_utc(row.added)})


def _in_utc(stored: datetime) -> datetime:
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)  # SQLite keeps no zone


def _kinds(stored: str | None) -> tuple[SliceKind, ...] | None:
    return None if stored is None else tuple(SliceKind(kind) for kind in stored.split(",") if kind)


def _prepare_sqlite(engine: Engine) -> None:
    """Readers do not wait for a writer, and a writer waits for another: several processes use one file."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.execute("PRAGMA journal_mode = WAL")
        # By itself some builds of SQLite lose in a power failure what was counted.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.close()
