"""What has left of documents, by identity and day (UTC), and how much may: kept in the store of the documents.

What a user asks counts for the user and for the edge that the user is behind (`cloud_node.users.Principal`).

A document stands here by a hash of its tenant and id. Its counts outlive it: who removes it and adds it again gives
nobody a new day. The characters that were quoted go with the text that they count in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, String, and_, delete, func, or_, select, text
from sqlalchemy.orm import InstrumentedAttribute as Column
from sqlalchemy.orm import Mapped, mapped_column

from cloud_node.passages import Base
from cloud_node.users import Principal
from kvwire.errors import ExposureSpent

_KEY: Final = 64
_IDENTITY: Final = 160


class _Left(Base):
    """What has left of a document for one identity on one day."""

    __tablename__ = "exposure"

    document: Mapped[str] = mapped_column(String(_KEY), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    identity: Mapped[str] = mapped_column(String(_IDENTITY), primary_key=True)
    questions: Mapped[int]
    positions: Mapped[int]


class _Quoted(Base):
    """Characters `begins` up to `ends` of a document: a position that was quoted, and how often; to the user, where one
    was named, alone."""

    __tablename__ = "exposed_characters"

    document: Mapped[str] = mapped_column(String(_KEY), primary_key=True)
    identity: Mapped[str] = mapped_column(String(_IDENTITY), primary_key=True)
    begins: Mapped[int] = mapped_column(primary_key=True)
    ends: Mapped[int] = mapped_column(primary_key=True)
    times: Mapped[int]


# One statement a row, in words that SQLite and PostgreSQL share: it is made or added to, behind its lock, and read.
_LEAVES: Final = text(
    "INSERT INTO exposure (document, day, identity, questions, positions)"
    " VALUES (:document, :day, :identity, 1, :positions) ON CONFLICT (document, day, identity) DO UPDATE"
    " SET questions = exposure.questions + 1, positions = exposure.positions + excluded.positions"
    " RETURNING positions, questions"
)
_IS_QUOTED: Final = text(
    "INSERT INTO exposed_characters (document, identity, begins, ends, times)"
    " VALUES (:document, :identity, :begins, :ends, 1) ON CONFLICT (document, identity, begins, ends) DO UPDATE"
    " SET times = exposed_characters.times + 1"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may leave of a document for one identity in a day; 0 is no bound."""

    positions: int = 0
    questions: int = 0

    def check(self, positions: int, questions: int) -> None:
        """Whether so much in a day is within it.

        Raises:
            ExposureSpent: it is not.
        """
        if 0 < self.positions < positions or 0 < self.questions < questions:
            raise ExposureSpent(seconds_left())


@dataclass(frozen=True, slots=True)
class Leaving:
    """What one call takes of a document.

    positions: that are the document's, or could be. quoted: the characters of those that were chosen in it.
    """

    document: str
    budget: Budget
    positions: int
    quoted: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Exposed:
    """What has left of a document for one identity on one day ("2026-11-30", UTC)."""

    day: str
    identity: str
    questions: int
    positions: int


@dataclass(frozen=True, slots=True)
class Quotes:
    """Of one identity, all days: how many different positions were quoted, and how often each, as (begins, ends, times)
    in characters of the document."""

    identity: str
    spans: tuple[tuple[int, int, int], ...]


def key_of(tenant: str, document_id: str) -> str:
    """What a document stands by in these tables. Who guesses its id can make it too."""
    return hashlib.sha256(f"{tenant}\n{document_id}".encode()).hexdigest()


def seconds_left() -> float:
    """Seconds until the next day, UTC."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=1) - now).total_seconds()


def today() -> str:
    """The day, UTC, as it is counted."""
    return datetime.now(UTC).date().isoformat()


def spent(connection: Connection, keys: Iterable[str], caller: Principal) -> dict[str, tuple[int, int]]:
    """Positions and questions that have left today, by the key of a document; none of those of which nothing has. What
    counts is the name for which most has, of those whose budgets hold."""
    rows = connection.execute(
        select(_Left.document, func.max(_Left.positions), func.max(_Left.questions))
        .where(_Left.document.in_(list(keys)), _Left.day == today(), _Left.identity.in_(caller.bounded))
        .group_by(_Left.document)
    )
    return {row[0]: (row[1], row[2]) for row in rows}


def is_spent(
    key: Column[str], positions: Column[int], questions: Column[int], caller: Principal, budget: Budget
) -> ColumnElement[bool]:
    """Whether as much as may leave today has left of a document, within a query.

    Args:
        key, positions, questions: columns with its key and its own budget.
        budget: that counts too.
    """
    over = [
        and_(positions > 0, _Left.positions >= positions),
        and_(questions > 0, _Left.questions >= questions),
    ]
    if budget.positions:
        over.append(_Left.positions >= budget.positions)
    if budget.questions:
        over.append(_Left.questions >= budget.questions)
    its = (_Left.document == key, _Left.day == today(), _Left.identity.in_(caller.bounded))
    return select(_Left.document).where(*its, or_(*over)).exists()


def count(
    connection: Connection, caller: Principal, leaving: Sequence[Leaving]
) -> tuple[int | None, int | None]:
    """Write down what is about to leave, as one question of each document; all of it or, with an error, nothing.

    Returns:
        Positions and questions that may still leave today of the document of which least may; None has no bound.

    Raises:
        ExposureSpent: it is more than may leave today. The transaction is to be rolled back.
    """
    day = today()
    left: tuple[list[int], list[int]] = [], []
    # In one order everywhere: calls over the same documents wait for each other, and none for ever.
    for one in sorted(leaving, key=lambda one: one.document):
        document = key_of(caller.tenant, one.document)
        for name in caller.names:
            more = {"document": document, "day": day, "identity": name, "positions": one.positions}
            positions, questions = connection.execute(_LEAVES, more).one()
            if name not in caller.bounded:
                continue
            one.budget.check(positions, questions)
            left[0].extend([one.budget.positions - positions] if one.budget.positions else [])
            left[1].extend([one.budget.questions - questions] if one.budget.questions else [])
        quoted = {"document": document, "identity": caller.names[-1]}
        if rows := [quoted | {"begins": begins, "ends": ends} for begins, ends in sorted(one.quoted)]:
            connection.execute(_IS_QUOTED, rows)
    return min(left[0], default=None), min(left[1], default=None)


def forget_quotes(connection: Connection, tenant: str, document_id: str) -> None:
    """The text is gone, and with it what its characters say. The document's own row is to be locked before."""
    its = _Quoted.document == key_of(tenant, document_id)
    # Locked in the order in which `count` writes: to delete alone would lock in any.
    rows = select(_Quoted.begins).where(its).order_by(_Quoted.identity, _Quoted.begins, _Quoted.ends)
    connection.execute(rows.with_for_update()).all()
    connection.execute(delete(_Quoted).where(its))


def of_document(connection: Connection, tenant: str, document_id: str) -> tuple[list[Exposed], list[Quotes]]:
    """What has left of a document, by day and identity, and what was quoted of its text, by identity."""
    key = key_of(tenant, document_id)
    columns = (_Left.day, _Left.identity, _Left.questions, _Left.positions)
    days = connection.execute(
        select(*columns).where(_Left.document == key).order_by(_Left.day, _Left.identity)
    )
    spans: dict[str, list[tuple[int, int, int]]] = {}
    rows = connection.execute(
        select(_Quoted.identity, _Quoted.begins, _Quoted.ends, _Quoted.times)
        .where(_Quoted.document == key)
        .order_by(_Quoted.identity, _Quoted.begins, _Quoted.ends)
    )
    for identity, *span in rows:
        spans.setdefault(identity, []).append((span[0], span[1], span[2]))
    return [Exposed(*row) for row in days], [Quotes(identity, tuple(s)) for identity, s in spans.items()]
