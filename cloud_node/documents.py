"""The documents the cloud holds and never sends: tenant + id -> text, behind any SQLAlchemy URL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import DateTime, Engine, String, Text, create_engine, delete, event, inspect, select
from sqlalchemy import text as text_of_sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from kvwire.errors import NotFound
from kvwire.limits import Limits
from kvwire.segment import SliceKind

MAX_DOCUMENT_CHARS: Final = Limits().max_prompt_chars - Limits().max_question_chars
"""So that the longest question may be asked about the longest document."""
DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "documents"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    characters: Mapped[int]
    max_positions: Mapped[int | None]
    kinds: Mapped[str | None] = mapped_column(String(64))
    added: Mapped[datetime] = mapped_column(DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What may be known of a document without its text.

    max_positions: the most positions of it that one slice may carry; None leaves it to the export policy.
    kinds: the kinds of slice that it may be in; None leaves it to the export policy.
    """

    id: str
    characters: int
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """A document with its text, which its `repr` keeps to itself."""

    id: str
    text: str
    max_positions: int | None
    kinds: tuple[SliceKind, ...] | None = None

    def __repr__(self) -> str:
        return f"Document(id={self.id!r}, characters={len(self.text)}, max_positions={self.max_positions})"


class Documents:
    """A store of documents. Look-ups are by tenant and id together: a foreign document is an unknown one."""

    def __init__(self, url: str) -> None:
        """Open the store, creating its table where there is none.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or the URL is wrong.
        """
        self._engine = create_engine(url, hide_parameters=True)  # texts stay out of errors
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
            if self._engine.url.database not in (None, "", ":memory:"):
                Path(self._engine.url.database).touch(mode=0o600)
        _Base.metadata.create_all(self._engine)
        if all(column["name"] != "kinds" for column in inspect(self._engine).get_columns(_Row.__tablename__)):
            with self._engine.begin() as connection:  # a store from before documents had kinds
                connection.execute(text_of_sql("ALTER TABLE documents ADD COLUMN kinds VARCHAR(64)"))

    def add(
        self,
        tenant: str,
        document_id: str,
        text: str,
        max_positions: int | None = None,
        replace: bool = False,
        kinds: Sequence[SliceKind] | None = None,
    ) -> DocumentInfo:
        """Store a document. An empty text is allowed.

        Raises:
            ValueError: the id has other characters than letters, digits and ._:/@+-, the text is too long,
                max_positions is negative, or the document exists and `replace` is off.
        """
        if not DOCUMENT_ID.fullmatch(document_id):
            raise ValueError(f"document id {document_id[:80]!r}: use up to 256 letters, digits and ._:/@+-")
        if not tenant or len(tenant) > 64:
            raise ValueError("a tenant name has 1 to 64 characters")
        if len(text) > MAX_DOCUMENT_CHARS:
            raise ValueError(f"document {document_id}: {len(text)} characters are over {MAX_DOCUMENT_CHARS}")
        if max_positions is not None and max_positions < 0:
            raise ValueError("max_positions must not be negative")
        row = _Row(
            tenant=tenant,
            id=document_id,
            text=text,
            characters=len(text),
            max_positions=max_positions,
            kinds=None if kinds is None else ",".join(kinds),
            added=datetime.now(UTC),
        )
        try:
            with Session(self._engine) as session, session.begin():
                if replace:
                    session.merge(row)
                else:
                    session.add(row)
        except IntegrityError:
            raise ValueError(f"document {document_id} exists for tenant {tenant}") from None
        return DocumentInfo(document_id, len(text), max_positions, None if kinds is None else tuple(kinds))

    def get(self, tenant: str, document_id: str) -> Document:
        """One document with its text.

        Raises:
            NotFound: unknown, or another tenant's.
        """
        columns = select(_Row.text, _Row.max_positions, _Row.kinds)
        columns = columns.where(_Row.tenant == tenant, _Row.id == document_id)
        with self._engine.connect() as connection:
            row = connection.execute(columns).one_or_none()
        if row is None:
            raise NotFound(f"document {document_id[:80]!r} of tenant {tenant!r}")
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

    def remove(self, tenant: str, document_id: str) -> None:
        """Forget a document.

        Raises:
            NotFound: unknown, or another tenant's.
        """
        with Session(self._engine) as session, session.begin():
            done: Any = session.execute(delete(_Row).where(_Row.tenant == tenant, _Row.id == document_id))
            if done.rowcount == 0:
                raise NotFound(f"document {document_id[:80]!r} of tenant {tenant!r}")

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


_KNOWN: Final = select(_Row.id, _Row.characters, _Row.max_positions, _Row.kinds)


def _info(row: Any) -> DocumentInfo:
    return DocumentInfo(row.id, row.characters, row.max_positions, _kinds(row.kinds))


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
                connection.execute(select(_Row).limit(0))
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
