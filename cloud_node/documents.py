"""The documents the cloud holds and never sends: tenant + id -> text, behind any SQLAlchemy URL.

For search each is also split into passages. Their words are indexed in the transaction that stores the document, by
SQLite (FTS5) or PostgreSQL (tsvector); the index has no copy of a text.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    String,
    Text,
    and_,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy import text as text_of_sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kvwire.errors import AccessDenied, NotFound
from kvwire.identity import Identity, PeerRole
from kvwire.limits import Limits
from kvwire.segment import SliceKind

logger = logging.getLogger(__name__)

MAX_DOCUMENT_CHARS: Final = Limits().max_prompt_chars - Limits().max_question_chars
"""So that the longest question may be asked about the longest document."""
DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
PASSAGE_CHARS: Final = 1_500
"""The longest passage."""
_NUL: Final = "\0"
_MOST_WORDS: Final = 64
"""Of a query; FTS5 takes 256."""
_COMMON: Final = re.compile(
    "an?|and|are|as|at|be|by|can|did|do|does|for|from|had|has|have|how|i|in|is|it|of|on|or|that|the|there|this|to|was|"
    "were|what|when|where|which|who|whose|why|will|with"
)
"""Of questions. In a small store FTS5 takes one of these for rarer than the word that matters."""


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    """The text is last, so that SQLite need not read it for what stands after; a column may come to a store later."""

    __tablename__ = "documents"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    characters: Mapped[int]
    max_positions: Mapped[int | None]
    kinds: Mapped[str | None] = mapped_column(String(64))
    added: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[str | None] = mapped_column(String(64))
    source: Mapped[str | None] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)


class _Passage(_Base):
    """Characters `begins` up to `ends` of a document."""

    __tablename__ = "passages"

    key: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[str] = mapped_column(String(64), index=True)
    document: Mapped[str] = mapped_column(String(256), index=True)
    number: Mapped[int]
    begins: Mapped[int]
    ends: Mapped[int]


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What may be known of a document without its text.

    max_positions: the most positions of it that one slice may carry; None leaves it to the export policy.
    kinds: the kinds of slice that it may be in; None leaves it to the export policy.
    version: of its text, as `version_of` has it.
    source: the file that the text was read from; None where it came from none.
    added: when this text was stored.
    """

    id: str
    characters: int
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None
    version: str = ""
    source: str | None = None
    added: datetime | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document with its text, which its `repr` keeps to itself."""

    id: str
    text: str
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None

    def __repr__(self) -> str:
        return f"Document(id={self.id!r}, characters={len(self.text)}, max_positions={self.max_positions})"


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that a search found: characters `begins` up to `ends` of the document.

    passage: its number within the document, from 0.
    score: higher is nearer. Scores of one search can be compared, those of two cannot.
    """

    document: str
    passage: int
    begins: int
    ends: int
    score: float


class Documents:
    """A store of documents. Look-ups are by tenant and id together: a foreign document is an unknown one."""

    def __init__(self, url: str) -> None:
        """Open the store, creating what of its tables and columns is missing.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or the URL is wrong.
        """
        # Texts stay out of errors, and a database that was started again is connected to again.
        self._engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)
        self._index = _INDEXES.get(self._engine.dialect.name)
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
            if self._engine.url.database not in (None, "", ":memory:"):
                Path(self._engine.url.database).touch(mode=0o600)
        with self._engine.begin() as connection:
            self._complete(connection)

    def add(
        self,
        tenant: str,
        document_id: str,
        text: str,
        max_positions: int | None = None,
        replace: bool = False,
        kinds: Sequence[SliceKind] | None = None,
        source: str | None = None,
        wipe: bool = True,
    ) -> DocumentInfo:
        """Store a document.

        Args:
            wipe: leave nothing of a text that this one replaces. Who replaces many may turn it off and call `wipe`
                once in the end.

        Raises:
            ValueError: no certificate can name the tenant; the id has other characters than letters, digits and
                ._:/@+-; the text is blank, too long or has a NUL; max_positions is negative; or the document exists
                and `replace` is off.
        """
        check(tenant, document_id, text, max_positions)
        values = {
            "text": text,
            "characters": len(text),
            "max_positions": max_positions,
            "kinds": None if kinds is None else ",".join(kinds),
            "added": datetime.now(UTC),
            "version": version_of(text),
            "source": source,
        }
        one = _one(tenant, document_id)
        try:
            with self._engine.begin() as connection:
                # Written first: then SQLite waits here for another writer, and for none later.
                exists = (
                    connection.execute(update(_Row).where(one).values(added=values["added"])).rowcount > 0
                )
                if exists and not replace:
                    raise ValueError(f"document {document_id} exists for tenant {tenant}")
                if exists:
                    self._forget_passages(connection, tenant, document_id)
                    connection.execute(update(_Row).where(one).values(**values))
                else:
                    connection.execute(insert(_Row).values(tenant=tenant, id=document_id, **values))
                self._index_passages(connection, tenant, document_id, text)
                if exists and wipe:
                    self._run(connection, "wipe")
        except IntegrityError:  # two at once, in a database that lets them
            raise ValueError(f"document {document_id} exists for tenant {tenant}") from None
        if exists and wipe:
            self._empty_log()
        return self.find(tenant, [document_id])[0]

    def get(self, tenant: str, document_id: str) -> Document:
        """One document with its text.

        Raises:
            NotFound: unknown, or another tenant's.
        """
        columns = select(_Row.text, _Row.max_positions, _Row.kinds).where(_one(tenant, document_id))
        with self._engine.connect() as connection:
            row = connection.execute(columns).one_or_none()
        if row is None:
            raise _no_document(tenant, document_id)
        return Document(document_id, row.text, row.max_positions, _kinds(row.kinds))

    def find(self, tenant: str, document_ids: Iterable[str]) -> tuple[DocumentInfo, ...]:
        """What is known of each document, without reading its text; one query, whatever is missing.

        Raises:
            NotFound: one of them is unknown or another tenant's; which one is not told.
        """
        wanted = tuple(document_ids)
        with self._engine.connect() as connection:
            rows = connection.execute(_KNOWN.where(_Row.tenant == tenant, _Row.id.in_(set(wanted)))).all()
        found = {row.id: _info(row) for row in rows}
        if any(document_id not in found for document_id in wanted):
            raise NotFound(f"one of {len(wanted)} documents of tenant {tenant!r}")
        return tuple(found[document_id] for document_id in wanted)

    def list(self, tenant: str) -> Sequence[DocumentInfo]:
        """Every document of a tenant, by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(_KNOWN.where(_Row.tenant == tenant).order_by(_Row.id)).all()
        return [_info(row) for row in rows]

    def search(self, tenant: str, query: str, k: int = 5) -> tuple[Hit, ...]:
        """The `k` passages of a tenant's documents that have most of a query's words, rare words first; best first.

        Any text is a query: it has words and no operators, and words such as "where" and "the" count only where there
        are no others, in PostgreSQL never. What is found is the tenant's alone; how rare a word is counts over the
        whole store.

        Raises:
            ValueError: `k` is below 1, or the database is one that this search is not made for.
        """
        if k < 1:
            raise ValueError("k starts at 1")
        if self._index is None:
            raise ValueError(f"search needs SQLite or PostgreSQL, not {self._engine.dialect.name}")
        words = dict.fromkeys(re.findall(r"\w+", query.lower()))
        if not words:
            return ()
        telling = [word for word in words if not _COMMON.fullmatch(word)] or [*words]
        asked = {
            "tenant": tenant,
            "words": " OR ".join(f'"{word}"' for word in telling[:_MOST_WORDS]),
            "k": k,
        }
        with self._engine.connect() as connection:
            rows = connection.execute(text_of_sql(self._index.search), asked).all()
        return tuple(Hit(row.document, row.number, row.begins, row.ends, float(row.score)) for row in rows)

    def remove(self, tenant: str, *document_ids: str) -> None:
        """Forget documents: all, or none where one is missing. Nothing of them stays, in SQLite's log neither.

        Raises:
            NotFound: one is unknown, or another tenant's.
        """
        with self._engine.begin() as connection:
            for document_id in dict.fromkeys(document_ids):
                one = _one(tenant, document_id)
                # Written first, as in `add`.
                if not connection.execute(update(_Row).where(one).values(added=_Row.added)).rowcount:
                    raise _no_document(tenant, document_id)
                self._forget_passages(connection, tenant, document_id)
                connection.execute(delete(_Row).where(one))
            self._run(connection, "wipe")
        self._empty_log()

    def wipe(self) -> None:
        """Leave nothing of what was replaced with `wipe` off: not in the index, and not in SQLite's log."""
        with self._engine.begin() as connection:
            self._run(connection, "wipe")
        self._empty_log()

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()

    def _complete(self, connection: Connection) -> None:
        """Make the tables, columns and index entries that are missing; several processes may open a store at once."""
        self._run(connection, "lock")
        searchable = inspect(connection).has_table(_Passage.__tablename__)
        _Base.metadata.create_all(connection)
        if not searchable:
            self._run(connection, "make")
        there = {column["name"] for column in inspect(connection).get_columns(_Row.__tablename__)}
        for column in _Row.__table__.columns:
            if column.name not in there:
                kind = column.type.compile(self._engine.dialect)
                connection.execute(text_of_sql(f"ALTER TABLE documents ADD COLUMN {column.name} {kind}"))
        unread = select(_Row.tenant, _Row.id).where(_Row.version.is_(None))
        for tenant, document_id in connection.execute(unread).all():
            one = _one(tenant, document_id)
            text = connection.execute(select(_Row.text).where(one)).scalar_one()
            connection.execute(update(_Row).where(one).values(version=version_of(text)))
            self._index_passages(connection, tenant, document_id, text)

    def _index_passages(self, connection: Connection, tenant: str, document_id: str, text: str) -> None:
        rows = [
            {"tenant": tenant, "document": document_id, "number": number, "begins": begins, "ends": ends}
            for number, (begins, ends) in enumerate(passages(text))
        ]
        if rows:
            connection.execute(insert(_Passage), rows)
            self._run(connection, "put", tenant=tenant, document=document_id)

    def _forget_passages(self, connection: Connection, tenant: str, document_id: str) -> None:
        """To be called while the text is still there: FTS5 is told which words go."""
        self._run(connection, "drop", tenant=tenant, document=document_id)
        connection.execute(
            delete(_Passage).where(_Passage.tenant == tenant, _Passage.document == document_id)
        )

    def _run(self, connection: Connection, step: str, **values: str) -> None:
        for statement in () if self._index is None else getattr(self._index, step):
            connection.execute(text_of_sql(statement), values)

    def _empty_log(self) -> None:
        """Move SQLite's log into its file; the log would hold what was removed for as long as there is room in it."""
        if self._engine.dialect.name != "sqlite":
            return
        with self._engine.connect() as connection:
            if connection.execute(text_of_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0]:
                logger.warning(
                    "somebody reads the documents: what was removed stays in SQLite's log beside them until the "
                    "next document is removed or replaced"
                )


def version_of(text: str) -> str:
    """Which text it is: 32 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def passages(text: str) -> Iterator[tuple[int, int]]:
    """Neighbouring ranges of characters that are the whole text, of `PASSAGE_CHARS` at most.

    Each ends where a paragraph does; with none in its second half, at the end of a sentence or line, or of a word.
    """
    begins = 0
    while begins < len(text):
        ends = begins + PASSAGE_CHARS
        if ends < len(text):
            half = begins + PASSAGE_CHARS // 2
            for end in (_PARAGRAPH, _SENTENCE, _WORD):
                found = [match.end() for match in end.finditer(text, half, ends)]
                if found:
                    ends = found[-1]
                    break
        ends = min(ends, len(text))
        yield begins, ends
        begins = ends


_PARAGRAPH: Final = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE: Final = re.compile(r"[.!?]\s+|[。！？]|\n")
_WORD: Final = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class _Index:
    """The statements of one database. `lock` has others wait who open the store; `wipe` rids it of removed words."""

    lock: tuple[str, ...]
    make: tuple[str, ...]
    put: tuple[str, ...]
    drop: tuple[str, ...]
    wipe: tuple[str, ...]
    search: str


_TEXTS: Final = (
    "VIEW passage_texts AS SELECT p.key, p.tenant, p.document, "
    "substr(d.text, p.begins + 1, p.ends - p.begins) AS text "
    "FROM passages p JOIN documents d ON d.tenant = p.tenant AND d.id = p.document"
)
_INDEXES: Final = {
    "sqlite": _Index(
        lock=("BEGIN IMMEDIATE",),
        make=(
            f"CREATE {_TEXTS.replace('VIEW', 'VIEW IF NOT EXISTS', 1)}",
            "CREATE VIRTUAL TABLE IF NOT EXISTS passage_index USING fts5(text, content = 'passage_texts', "
            "content_rowid = 'key', tokenize = 'porter unicode61 remove_diacritics 2')",
        ),
        put=(
            "INSERT INTO passage_index (rowid, text) SELECT key, text FROM passage_texts "
            "WHERE tenant = :tenant AND document = :document",
        ),
        drop=(
            "INSERT INTO passage_index (passage_index, rowid, text) SELECT 'delete', key, text FROM passage_texts "
            "WHERE tenant = :tenant AND document = :document",
        ),
        # A word that is dropped is only marked so until the parts of the index are merged.
        wipe=("INSERT INTO passage_index (passage_index) VALUES ('optimize')",),
        search="SELECT p.document, p.number, p.begins, p.ends, -bm25(passage_index) AS score "
        "FROM passage_index JOIN passages p ON p.key = passage_index.rowid "
        "WHERE passage_index MATCH :words AND p.tenant = :tenant "
        "ORDER BY score DESC, p.document, p.number LIMIT :k",
    ),
    "postgresql": _Index(
        lock=("SELECT pg_advisory_xact_lock(7443)",),
        make=(
            f"CREATE OR REPLACE {_TEXTS}",
            "ALTER TABLE passages ADD COLUMN IF NOT EXISTS words tsvector",
            "CREATE INDEX IF NOT EXISTS passage_words ON passages USING gin (words)",
        ),
        put=(
            "UPDATE passages SET words = to_tsvector('english', t.text) FROM passage_texts t "
            "WHERE passages.key = t.key AND t.tenant = :tenant AND t.document = :document",
        ),
        drop=(),
        wipe=(),
        search="SELECT document, number, begins, ends, ts_rank(words, asked) AS score "
        "FROM passages, websearch_to_tsquery('english', :words) asked "
        "WHERE words @@ asked AND tenant = :tenant ORDER BY score DESC, document, number LIMIT :k",
    ),
}


def check(tenant: str, document_id: str, text: str, max_positions: int | None) -> None:
    """Refuse what cannot be stored, before anything slow reads the text.

    Raises:
        ValueError: tenant, id, text or limit is none that a document may have.
    """
    try:
        Identity(PeerRole.EDGE, tenant)
    except AccessDenied as error:
        raise ValueError(str(error)) from None
    if not DOCUMENT_ID.fullmatch(document_id):
        raise ValueError(f"document id {document_id[:80]!r}: use up to 256 letters, digits and ._:/@+-")
    if not text.strip():
        raise ValueError(f"document {document_id}: there is no text in it")
    if _NUL in text:
        raise ValueError(f"document {document_id}: character {text.index(_NUL):,} is NUL, which no text has")
    if len(text) > MAX_DOCUMENT_CHARS:
        raise ValueError(
            f"document {document_id}: {len(text):,} characters are over {MAX_DOCUMENT_CHARS:,}, "
            "the most that can be asked about"
        )
    if max_positions is not None and max_positions < 0:
        raise ValueError("max_positions must not be negative")


def _one(tenant: str, document_id: str) -> ColumnElement[bool]:
    return and_(_Row.tenant == tenant, _Row.id == document_id)


def _no_document(tenant: str, document_id: str) -> NotFound:
    return NotFound(f"there is no document {document_id[:80]!r} of tenant {tenant!r}")


_KNOWN: Final = select(
    _Row.id,
    _Row.characters,
    _Row.max_positions,
    _Row.kinds,
    _Row.version,
    _Row.source,
    _Row.added,
)


def _info(row: Any) -> DocumentInfo:
    kinds = _kinds(row.kinds)
    return DocumentInfo(
        row.id, row.characters, row.max_positions, kinds, row.version, row.source, _in_utc(row.added)
    )


def _in_utc(stored: datetime) -> datetime:
    return stored if stored.tzinfo else stored.replace(tzinfo=UTC)  # SQLite keeps no zone


def _kinds(stored: str | None) -> tuple[SliceKind, ...] | None:
    return None if stored is None else tuple(SliceKind(kind) for kind in stored.split(",") if kind)


def look(url: str) -> None:
    """Whether a store can be read, without changing anything of it: one without a table can.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or its table is of another kind.
    """
    engine = create_engine(url, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        file = str(engine.url.database)
        # Where nobody writes to it there is no log beside it, and SQLite must not make one.
        how = "mode=ro" if Path(f"{file}-wal").exists() else "immutable=1"
        uri = f"{Path(file).absolute().as_uri()}?{how}"
        engine = create_engine(url, hide_parameters=True, creator=lambda: sqlite3.connect(uri, uri=True))
    try:
        with engine.connect() as connection:
            if inspect(connection).has_table(_Row.__tablename__):
                connection.execute(select(_Row.tenant, _Row.id, _Row.text).limit(0))
    finally:
        engine.dispose()


def _prepare_sqlite(engine: Engine) -> None:
    """Readers do not wait for a writer, and a writer waits for another: several processes use one file."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.close()
