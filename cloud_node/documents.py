"""The documents the cloud holds and never sends: tenant + id -> text, behind any SQLAlchemy URL.

Each is split into passages, which can be searched and asked about (`cloud_node.passages`), in the transaction that
stores it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Select,
    String,
    Text,
    and_,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import text as text_of_sql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from cloud_node import exposure, passages
from cloud_node.passages import Base, Passage
from cloud_node.users import Principal, is_user
from fuser import PrefixFiles
from kvwire.errors import AccessDenied, NoPassage, NotFound
from kvwire.identity import Identity, PeerRole
from kvwire.segment import SliceKind

logger = logging.getLogger(__name__)

MAX_DOCUMENT_CHARS: Final = 1_000_000
"""A book of 400 pages, which is split and indexed in a few seconds. Of one so long only passages can be asked about: a
prompt has fewer characters (`kvwire.limits`)."""
DOCUMENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}")
_NUL: Final = "\0"
_LOCK: Final = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7443)"}
"""Has others wait who open the store at the same time."""


class _Row(Base):
    """The text is last, so that SQLite need not read it for what stands after."""

    __tablename__ = "documents"

    tenant: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(256), primary_key=True)
    characters: Mapped[int]
    max_positions: Mapped[int | None]
    kinds: Mapped[str | None] = mapped_column(String(64))
    added: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    version: Mapped[str] = mapped_column(String(64))
    passages: Mapped[int]
    source: Mapped[str | None] = mapped_column(Text)
    key: Mapped[str] = mapped_column(String(64))
    positions_per_day: Mapped[int]
    questions_per_day: Mapped[int]
    restricted: Mapped[bool] = mapped_column(default=False)
    text: Mapped[str] = mapped_column(Text)


class _Grant(Base):
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
    version: of its text, as `version_of` has it.
    source: the file that the text was read from; None where it came from none.
    added: when this text was stored.
    passages: how many it is split into.
    positions_per_day, questions_per_day: as in `[export]`, which they can only lower; 0 is no bound of its own.
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


class Documents:
    """A store of documents. Look-ups are by tenant and id together: a foreign document is an unknown one."""

    def __init__(self, url: str, prefixes: PrefixFiles | None = None) -> None:
        """Open the store, creating its tables where there are none.

        Args:
            prefixes: what was read of documents on this machine; it goes with its document.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or the URL is wrong.
        """
        self._prefixes = prefixes
        # Texts stay out of errors, and a database that was started again is connected to again.
        self._engine = create_engine(url, hide_parameters=True, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            _prepare_sqlite(self._engine)
            if self._engine.url.database not in (None, "", ":memory:"):
                Path(self._engine.url.database).touch(mode=0o600)
        with self._engine.begin() as connection:
            if lock := _LOCK.get(self._engine.dialect.name):
                connection.execute(text_of_sql(lock))
            Base.metadata.create_all(connection)

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
        positions_per_day: int = 0,
        questions_per_day: int = 0,
    ) -> DocumentInfo:
        """Store a document. One that takes another's place may be asked about by whom that one might.

        Args:
            wipe: leave nothing of a text that this one replaces, in SQLite's log neither. Who replaces many may turn it
                off and call `wipe` once in the end.

        Raises:
            ValueError: no certificate can name the tenant; the id has other characters than letters, digits and
                ._:/@+-; the text is blank, too long or has a NUL; a limit is negative; or the document exists and
                `replace` is off.
        """
        check(tenant, document_id, text, max_positions)
        if min(positions_per_day, questions_per_day) < 0:
            raise ValueError("positions_per_day and questions_per_day must not be negative")
        values = {
            "text": text,
            "characters": len(text),
            "max_positions": max_positions,
            "kinds": None if kinds is None else ",".join(kinds),
            "added": datetime.now(UTC),
            "version": version_of(text),
            "source": source,
            "key": exposure.key_of(tenant, document_id),
            "positions_per_day": positions_per_day,
            "questions_per_day": questions_per_day,
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
                passages.drop(connection, tenant, document_id)
                exposure.forget_quotes(connection, tenant, document_id)
                values["passages"] = passages.put(connection, tenant, document_id, text)
                if exists:
                    connection.execute(update(_Row).where(one).values(**values))
                else:
                    connection.execute(insert(_Row).values(tenant=tenant, id=document_id, **values))
        except IntegrityError:  # two at once, in a database that lets them
            raise ValueError(f"document {document_id} exists for tenant {tenant}") from None
        if exists:
            self._forget_prefixes(tenant, document_id)
            if wipe:
                self.wipe()
        return self.find(tenant, [document_id])[0]

    def get(self, tenant: str, document_id: str, passage: int = 0) -> Document:
        """One document with its text, or with that of one passage alone.

        Args:
            passage: its number from 1; 0 is the whole document.

        Raises:
            NotFound: unknown, or another tenant's. NoPassage: the text that is there now has no such passage.
        """
        text = (
            func.substr(_Row.text, Passage.begins + 1, Passage.ends - Passage.begins)
            if passage
            else _Row.text
        )
        # One statement: text and range are of one version.
        begins = Passage.begins if passage else literal(0)
        columns = select(
            text.label("text"), _Row.max_positions, _Row.kinds, _Row.version, begins.label("begins")
        ).select_from(_Row)
        columns = columns.where(_one(tenant, document_id))
        if passage:
            its = and_(Passage.tenant == _Row.tenant, Passage.document == _Row.id, Passage.number == passage)
            columns = columns.join(Passage, its)
        with self._engine.connect() as connection:
            row = connection.execute(columns).one_or_none()
        if row is None:
            raise (
                NoPassage(passage)
                if passage and self.find(tenant, [document_id])
                else _no_document(tenant, document_id)
            )
        return Document(document_id, row.text, row.max_positions, _kinds(row.kinds), row.begins, row.version)

    def find(
        self, tenant: str, document_ids: Iterable[str], caller: Principal | None = None
    ) -> tuple[DocumentInfo, ...]:
        """What is known of each document, without reading its text; one query, whatever is missing.

        Args:
            caller: who asks; None is the cloud itself.

        Raises:
            NotFound: one of them is unknown, another tenant's or not for this caller; which, and why, is not told.
        """
        wanted = tuple(document_ids)
        asked = _KNOWN.where(*_seen_by(tenant, caller), _Row.id.in_(set(wanted)))
        with self._engine.connect() as connection:
            rows = connection.execute(asked).all()
        found = {row.id: _info(row) for row in rows}
        if any(document_id not in found for document_id in wanted):
            raise NotFound(f"one of {len(wanted)} documents of tenant {tenant!r}")
        return tuple(found[document_id] for document_id in wanted)

    def versions(self, tenant: str, document_ids: Iterable[str]) -> dict[str, str]:
        """Of the documents among these that are there."""
        asked = select(_Row.id, _Row.version).where(_Row.tenant == tenant, _Row.id.in_(set(document_ids)))
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(asked)}

    def state(self) -> tuple[int, datetime | None]:
        """Another one whenever a document was added, replaced or removed."""
        with self._engine.connect() as connection:
            count, latest = connection.execute(select(func.count(), func.max(_Row.added))).one()
            return count, latest

    def newest(self) -> Sequence[tuple[str, str, str]]:
        """Tenant, id and version of every document, what was added last first."""
        asked = select(_Row.tenant, _Row.id, _Row.version).order_by(_Row.added.desc(), _Row.tenant, _Row.id)
        with self._engine.connect() as connection:
            return [(row[0], row[1], row[2]) for row in connection.execute(asked)]

    def list(self, tenant: str) -> Sequence[DocumentInfo]:
        """Every document of a tenant, by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(_KNOWN.where(_Row.tenant == tenant).order_by(_Row.id)).all()
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
        among = select(_Row.id).where(*_seen_by(tenant, caller))
        if caller is not None:
            own = (_Row.key, _Row.positions_per_day, _Row.questions_per_day)
            among = among.where(~exposure.is_spent(*own, caller, budget))
        if kinds is not None:
            among = among.where(
                or_(_Row.max_positions.is_(None), _Row.max_positions > 0),
                or_(_Row.kinds.is_(None), *(_Row.kinds.contains(str(kind)) for kind in kinds)),
            )
        with self._engine.connect() as connection:
            found = passages.search(connection, tenant, query, k, among)
        return tuple(Hit(*one) for one in found)

    def grant(self, tenant: str, document_id: str, *identities: str) -> None:
        """Let these edges (SPIFFE ids) and users (`cloud_node.users.named_user`) ask about a document, and of all
        others only those that were let before. An edge may ask for whoever is behind it.

        Raises:
            NotFound: it is unknown, or another tenant's. ValueError: one is neither an edge of this tenant nor a user.
        """
        for identity in identities:
            if not is_user(identity):
                _check_edge(identity, tenant)
        with self._engine.begin() as connection:
            self._restrict(connection, tenant, document_id, True)
            there = set(connection.execute(_granted(tenant, document_id)).scalars())
            for identity in dict.fromkeys(identities):
                if identity not in there:
                    row = {"tenant": tenant, "document": document_id, "identity": identity}
                    connection.execute(insert(_Grant).values(**row))

    def revoke(self, tenant: str, document_id: str, *identities: str) -> None:
        """Let these edges and users no longer ask about a document. With nobody left, nobody may.

        Raises:
            NotFound: it is unknown, or another tenant's. ValueError: one was not let.
        """
        with self._engine.begin() as connection:
            self._restrict(connection, tenant, document_id, True)
            for identity in dict.fromkeys(identities):
                its = (*_grants_of(tenant, document_id), _Grant.identity == identity)
                if not connection.execute(delete(_Grant).where(*its)).rowcount:
                    raise ValueError(f"{identity} was not granted {document_id}")
        self.wipe()

    def open_to_all(self, tenant: str, document_id: str) -> None:
        """Let everybody of the tenant ask about a document, as at first.

        Raises:
            NotFound: it is unknown, or another tenant's.
        """
        with self._engine.begin() as connection:
            self._restrict(connection, tenant, document_id, False)
            connection.execute(delete(_Grant).where(*_grants_of(tenant, document_id)))
        self.wipe()

    def granted(self, tenant: str, document_id: str) -> tuple[str, ...] | None:
        """The edges and users that may ask about a document; None: everybody of its tenant.

        Raises:
            NotFound: it is unknown, or another tenant's.
        """
        with self._engine.connect() as connection:
            restricted = connection.execute(
                select(_Row.restricted).where(_one(tenant, document_id))
            ).one_or_none()
            if restricted is None:
                raise _no_document(tenant, document_id)
            if not restricted[0]:
                return None
            return tuple(connection.execute(_granted(tenant, document_id)).scalars())

    def _restrict(self, connection: Connection, tenant: str, document_id: str, restricted: bool) -> None:
        changed = update(_Row).where(_one(tenant, document_id)).values(restricted=restricted)
        if not connection.execute(changed).rowcount:
            raise _no_document(tenant, document_id)

    def count(self, caller: Principal, leaving: Sequence[exposure.Leaving]) -> tuple[int | None, int | None]:
        """Write down what is about to leave, in one transaction; `exposure.count` says how.

        Raises:
            ExposureSpent: it is more than may leave today; then nothing is written.
        """
        with self._engine.begin() as connection:
            return exposure.count(connection, caller, leaving)

    def spent(self, caller: Principal, document_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
        """Positions and questions of today, by document; none of those of which nothing has left for this caller."""
        ids = {exposure.key_of(caller.tenant, document_id): document_id for document_id in document_ids}
        with self._engine.connect() as connection:
            return {ids[key]: both for key, both in exposure.spent(connection, ids, caller).items()}

    def exposure(
        self, tenant: str, document_id: str
    ) -> tuple[Sequence[exposure.Exposed], Sequence[exposure.Quotes]]:
        """What has left of a document, which may be gone since, and what was quoted of the text it has now."""
        with self._engine.connect() as connection:
            return exposure.of_document(connection, tenant, document_id)

    def remove(self, tenant: str, *document_ids: str) -> None:
        """Forget documents: all, or none where one is missing. Nothing of them stays, in SQLite's log neither.

        How much has left of them stays, under a hash of their ids.

        Raises:
            NotFound: one is unknown, or another tenant's. OSError: what was read of one cannot be removed.
        """
        with self._engine.begin() as connection:
            for document_id in dict.fromkeys(document_ids):
                one = _one(tenant, document_id)
                # Written first, as in `add`.
                if not connection.execute(update(_Row).where(one).values(added=_Row.added)).rowcount:
                    raise _no_document(tenant, document_id)
                passages.drop(connection, tenant, document_id)
                exposure.forget_quotes(connection, tenant, document_id)
                connection.execute(delete(_Grant).where(*_grants_of(tenant, document_id)))
                connection.execute(delete(_Row).where(one))
        self._forget_prefixes(tenant, *document_ids)
        self.wipe()

    def _forget_prefixes(self, tenant: str, *document_ids: str) -> None:
        if self._prefixes is not None:
            for document_id in document_ids:
                self._prefixes.forget(tenant, document_id)

    def wipe(self) -> None:
        """Leave nothing of what was replaced with `wipe` off.

        SQLite's log, which would hold it for as long as there is room in it, is moved into its file.
        """
        if self._engine.dialect.name != "sqlite":
            return
        with self._engine.connect() as connection:
            if connection.execute(text_of_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()[0]:
                logger.warning(
                    "somebody reads the documents: what was removed stays in SQLite's log beside them until the "
                    "next document is removed or replaced"
                )

    def close(self) -> None:
        """Give back the connections."""
        self._engine.dispose()


def version_of(text: str) -> str:
    """Which text it is: 32 hex digits of its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


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
            f"document {document_id}: {len(text):,} characters are over {MAX_DOCUMENT_CHARS:,}; store it in parts"
        )
    if max_positions is not None and max_positions < 0:
        raise ValueError("max_positions must not be negative")


def _one(tenant: str, document_id: str) -> ColumnElement[bool]:
    return and_(_Row.tenant == tenant, _Row.id == document_id)


def _seen_by(tenant: str, caller: Principal | None) -> tuple[ColumnElement[bool], ...]:
    """Which documents there are for this caller: the one place where that is decided."""
    if caller is None:
        return (_Row.tenant == tenant,)
    let = select(_Grant.identity).where(
        _Grant.tenant == tenant, _Grant.document == _Row.id, _Grant.identity.in_(caller.names)
    )
    return _Row.tenant == tenant, or_(~_Row.restricted, let.exists())


def _grants_of(tenant: str, document_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _Grant.tenant == tenant, _Grant.document == document_id


def _granted(tenant: str, document_id: str) -> Select[str]:
    return select(_Grant.identity).where(*_grants_of(tenant, document_id)).order_by(_Grant.identity)


def _check_edge(identity: str, tenant: str) -> None:
    try:
        edge = Identity.parse(identity)
    except AccessDenied as error:
        raise ValueError(str(error)) from None
    if edge.role is not PeerRole.EDGE or edge.tenant != tenant:
        raise ValueError(f"{identity} is no edge of tenant {tenant}")


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
    _Row.passages,
    _Row.positions_per_day,
    _Row.questions_per_day,
)


def _info(row: Any) -> DocumentInfo:
    kinds = _kinds(row.kinds)
    return DocumentInfo(
        row.id,
        row.characters,
        row.max_positions,
        kinds,
        row.version,
        row.source,
        _in_utc(row.added),
        row.passages,
        row.positions_per_day,
        row.questions_per_day,
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
