"""What an operator does with the documents the cloud holds: adds, replaces, removes, and says who may ask about each.

Each is split into passages, which can be searched and asked about (`cloud_node.passages`), in the transaction that
stores it.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, inspect, select, update
from sqlalchemy import text as text_of_sql
from sqlalchemy.exc import IntegrityError

from cloud_node import exposure, passages
from cloud_node.document_reader import (
    DOCUMENT_ID,
    DocumentInfo,
    DocumentReader,
    DocumentRow,
    GrantRow,
    engine_of,
    no_document,
    one_document,
)
from cloud_node.users import is_user
from fuser import PrefixFiles
from kvwire.errors import AccessDenied
from kvwire.identity import Identity, PeerRole
from kvwire.segment import VERSION_BYTES, SliceKind

logger = logging.getLogger(__name__)

MAX_DOCUMENT_CHARS: Final = 1_000_000
"""A book of 400 pages, which is split and indexed in a few seconds. Of one so long only passages can be asked about: a
prompt has fewer characters (`kvwire.limits`)."""
_NUL: Final = "\0"


class Documents(DocumentReader):
    """A store of documents, to read and to change."""

    def __init__(self, url: str, prefixes: PrefixFiles | None = None) -> None:
        """Open the store, creating its tables where there are none.

        Args:
            prefixes: what was read of documents on this machine; it goes with its document.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or the URL is wrong.
        """
        super().__init__(url)
        self._prefixes = prefixes

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
        new_positions_per_day: int = 0,
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
        if min(positions_per_day, questions_per_day, new_positions_per_day) < 0:
            raise ValueError(
                "positions_per_day, questions_per_day and new_positions_per_day must not be negative"
            )
        values = {
            "text": text,
            "characters": len(text),
            "max_positions": max_positions,
            "kinds": None if kinds is None else ",".join(kinds),
            "added": datetime.now(UTC),
            "version": secrets.token_hex(VERSION_BYTES),
            "text_hash": hash_of(text),
            "source": source,
            "key": exposure.key_of(tenant, document_id),
            "positions_per_day": positions_per_day,
            "questions_per_day": questions_per_day,
            "new_positions_per_day": new_positions_per_day,
        }
        one = one_document(tenant, document_id)
        try:
            with self._engine.begin() as connection:
                # Written first: then SQLite waits here for another writer, and for none later.
                exists = (
                    connection.execute(update(DocumentRow).where(one).values(added=values["added"])).rowcount
                    > 0
                )
                if exists and not replace:
                    raise ValueError(f"document {document_id} exists for tenant {tenant}")
                passages.drop(connection, tenant, document_id)
                exposure.forget_quotes(connection, tenant, document_id)
                values["passages"] = passages.put(connection, tenant, document_id, text)
                if exists:
                    connection.execute(update(DocumentRow).where(one).values(**values))
                else:
                    connection.execute(insert(DocumentRow).values(tenant=tenant, id=document_id, **values))
        except IntegrityError:  # two at once, in a database that lets them
            raise ValueError(f"document {document_id} exists for tenant {tenant}") from None
        if exists:
            self._forget_prefixes(tenant, document_id)
            if wipe:
                self.wipe()
        return self.find(tenant, [document_id])[0]

    def remove(self, tenant: str, *document_ids: str) -> None:
        """Forget documents: all, or none where one is missing. Nothing of them stays, in SQLite's log neither.

        How much has left of them stays, under a hash of their ids.

        Raises:
            NotFound: one is unknown, or another tenant's. OSError: what was read of one cannot be removed.
        """
        with self._engine.begin() as connection:
            for document_id in sorted(set(document_ids)):  # in one order, as `exposure.count`
                one = one_document(tenant, document_id)
                # Written first, as in `add`.
                if not connection.execute(
                    update(DocumentRow).where(one).values(added=DocumentRow.added)
                ).rowcount:
                    raise no_document(tenant, document_id)
                passages.drop(connection, tenant, document_id)
                exposure.forget_quotes(connection, tenant, document_id)
                connection.execute(delete(GrantRow).where(*_grants_of(tenant, document_id)))
                connection.execute(delete(DocumentRow).where(one))
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
                    connection.execute(insert(GrantRow).values(**row))

    def revoke(self, tenant: str, document_id: str, *identities: str) -> None:
        """Let these edges and users no longer ask about a document. With nobody left, nobody may.

        Raises:
            NotFound: it is unknown, or another tenant's. ValueError: one was not let.
        """
        with self._engine.begin() as connection:
            self._restrict(connection, tenant, document_id, True)
            for identity in dict.fromkeys(identities):
                its = (*_grants_of(tenant, document_id), GrantRow.identity == identity)
                if not connection.execute(delete(GrantRow).where(*its)).rowcount:
                    raise ValueError(f"{identity} was not granted {document_id}")
        self.wipe()

    def open_to_all(self, tenant: str, document_id: str) -> None:
        """Let everybody of the tenant ask about a document, as at first.

        Raises:
            NotFound: it is unknown, or another tenant's.
        """
        with self._engine.begin() as connection:
            self._restrict(connection, tenant, document_id, False)
            connection.execute(delete(GrantRow).where(*_grants_of(tenant, document_id)))
        self.wipe()

    def granted(self, tenant: str, document_id: str) -> tuple[str, ...] | None:
        """The edges and users that may ask about a document; None: everybody of its tenant.

        Raises:
            NotFound: it is unknown, or another tenant's.
        """
        with self._engine.connect() as connection:
            restricted = connection.execute(
                select(DocumentRow.restricted).where(one_document(tenant, document_id))
            ).scalar_one_or_none()
            if restricted is None:
                raise no_document(tenant, document_id)
            return tuple(connection.execute(_granted(tenant, document_id)).scalars()) if restricted else None

    def _restrict(self, connection: Connection, tenant: str, document_id: str, restricted: bool) -> None:
        changed = update(DocumentRow).where(one_document(tenant, document_id)).values(restricted=restricted)
        if not connection.execute(changed).rowcount:
            raise no_document(tenant, document_id)

    def tenants(self) -> Sequence[str]:
        """Those that have documents."""
        with self._engine.connect() as connection:
            return (
                connection.execute(select(DocumentRow.tenant).distinct().order_by(DocumentRow.tenant))
                .scalars()
                .all()
            )

    def exposure(
        self, tenant: str, document_id: str
    ) -> tuple[Sequence[exposure.Exposed], Sequence[exposure.Quotes]]:
        """What has left of a document, which may be gone since, and what was quoted of the text it has now."""
        with self._engine.connect() as connection:
            return exposure.of_document(connection, tenant, document_id)


def hash_of(text: str) -> str:
    """Which text it is: the first 32 hex digits of its SHA-256."""
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


def _grants_of(tenant: str, document_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return GrantRow.tenant == tenant, GrantRow.document == document_id


def _granted(tenant: str, document_id: str) -> Select[str]:
    return select(GrantRow.identity).where(*_grants_of(tenant, document_id)).order_by(GrantRow.identity)


def _check_edge(identity: str, tenant: str) -> None:
    try:
        edge = Identity.parse(identity)
    except AccessDenied:
        one = Identity(PeerRole.EDGE, tenant).uri
        raise ValueError(f"{identity!r} is not an identity such as {one} or {one}/NAME") from None
    if edge.role is not PeerRole.EDGE or edge.tenant != tenant:
        raise ValueError(f"{identity} is no edge of tenant {tenant}")


def look(url: str) -> None:
    """Whether a store can be read, without changing anything of it: one without a table can.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or its table is of another kind.
    """
    engine = engine_of(url)
    if engine.dialect.name == "sqlite":
        file = str(engine.url.database)
        # Where nobody writes to it there is no log beside it, and SQLite must not make one.
        how = "mode=ro" if Path(f"{file}-wal").exists() else "immutable=1"
        uri = f"{Path(file).absolute().as_uri()}?{how}"
        engine = engine_of(url, creator=lambda: sqlite3.connect(uri, uri=True))
    try:
        with engine.connect() as connection:
            if inspect(connection).has_table(DocumentRow.__tablename__):
                connection.execute(select(DocumentRow.tenant, DocumentRow.id, DocumentRow.text).limit(0))
    finally:
        engine.dispose()
