"""What has left of documents, by identity and day (UTC), and how much may: kept in the store of the documents.

What a user asks counts for the user and for the edge that the user is behind (`cloud_node.users.Principal`).

A document stands here by a hash of its tenant and id. Its counts outlive it: who removes it and adds it again gives
nobody a new day. The characters that were quoted go with the text that they count in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, String, and_, bindparam, delete, func, or_, select, text
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
    new_positions: Mapped[int]


class _Quoted(Base):
    """Characters `begins` up to `ends` of a document: a position that was quoted, and how often."""

    __tablename__ = "exposed_characters"

    document: Mapped[str] = mapped_column(String(_KEY), primary_key=True)
    identity: Mapped[str] = mapped_column(String(_IDENTITY), primary_key=True)
    begins: Mapped[int] = mapped_column(primary_key=True)
    ends: Mapped[int] = mapped_column(primary_key=True)
    times: Mapped[int]


# In words that SQLite and PostgreSQL share: a row is made or added to, and then locked.
_LEAVES: Final = text(
    "INSERT INTO exposure (document, day, identity, questions, positions, new_positions)"
    " VALUES (:document, :day, :identity, :questions, :positions, :new_positions)"
    " ON CONFLICT (document, day, identity) DO UPDATE SET questions = exposure.questions + excluded.questions,"
    " positions = exposure.positions + excluded.positions,"
    " new_positions = exposure.new_positions + excluded.new_positions"
)
_IS_NEW: Final = text(
    "UPDATE exposure SET new_positions = new_positions + :made"
    " WHERE document = :document AND day = :day AND identity = :identity"
)
_IS_QUOTED: Final = text(
    "INSERT INTO exposed_characters (document, identity, begins, ends, times)"
    " VALUES (:document, :identity, :begins, :ends, 1) ON CONFLICT (document, identity, begins, ends) DO UPDATE"
    " SET times = exposed_characters.times + 1"
)
_HAS: Final = select(_Left.positions, _Left.questions, _Left.new_positions).where(
    _Left.document == bindparam("document"),
    _Left.day == bindparam("day"),
    _Left.identity == bindparam("identity"),
)
_QUOTED_BEFORE: Final = select(_Quoted.begins, _Quoted.ends).where(
    _Quoted.document == bindparam("document"),
    _Quoted.identity == bindparam("identity"),
    _Quoted.begins.in_(bindparam("begins", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may leave of a document for one identity in a day; 0 is no bound."""

    positions: int = 0
    questions: int = 0
    new_positions: int = 0

    def check(self, positions: int, questions: int, new_positions: int = 0) -> None:
        """Whether so much in a day is within it.

        Raises:
            ExposureSpent: it is not.
        """
        if (
            0 < self.positions < positions
            or 0 < self.questions < questions
            or 0 < self.new_positions < new_positions
        ):
            raise ExposureSpent(seconds_left())


def today() -> str:
    """The day, UTC, as it is counted."""
    return datetime.now(UTC).date().isoformat()


@dataclass(frozen=True, slots=True)
class Leaving:
    """What one call takes of a document.

    positions: that are the document's, or could be. quoted: the characters of those that were chosen in it. version:
        which text was read; "" is no text of a document. questions: 1, or -1 where one that was counted is taken back.
        day: that it counts for.
    """

    document: str
    budget: Budget
    positions: int
    quoted: tuple[tuple[int, int], ...] = ()
    version: str = ""
    questions: int = 1
    day: str = field(default_factory=lambda: today())


@dataclass(frozen=True, slots=True)
class Exposed:
    """What has left of a document for one identity on one day ("2026-11-30", UTC).

    new_positions: of the positions those that had not left for this identity before, on no day, of the same version.
    """

    day: str
    identity: str
    questions: int
    positions: int
    new_positions: int


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


def spent(connection: Connection, keys: Iterable[str], caller: Principal) -> dict[str, tuple[int, int, int]]:
    """Positions, questions and new positions that have left today, by the key of a document; none of those of which
    nothing has. What counts is the name for which most has, of those whose budgets hold."""
    counts = (func.max(column) for column in (_Left.positions, _Left.questions, _Left.new_positions))
    rows = connection.execute(
        select(_Left.document, *counts)
        .where(_Left.document.in_(list(keys)), _Left.day == today(), _Left.identity.in_(caller.bounded))
        .group_by(_Left.document)
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


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


def count(connection: Connection, caller: Principal, leaving: Sequence[Leaving]) -> dict[str, int]:
    """Write down what is about to leave, as one question of each document; all of it or, with an error, nothing.

    Returns:
        "positions_left", "questions_left" and "new_positions_left": what may still leave today of the document of which
        least may; none of those that have no bound.

    Raises:
        ExposureSpent: it is more than may leave today. The transaction is to be rolled back.
    """
    left: dict[str, int] = {}
    # In one order everywhere: calls over the same documents wait for each other, and none for ever.
    for one in sorted(leaving, key=lambda one: one.document):
        document = key_of(caller.tenant, one.document)
        for name in caller.names:
            new = one.positions - len(one.quoted)
            more = {"document": document, "identity": name}
            row = more | {"day": one.day}
            counts = {"questions": one.questions, "positions": one.positions, "new_positions": new}
            # Behind the row's lock from here on: nobody else counts for this name meanwhile.
            connection.execute(_LEAVES, row | counts)
            if one.quoted:
                begins = [begin for begin, _ in one.quoted]
                before = connection.execute(_QUOTED_BEFORE, more | {"begins": begins})
                made = len(set(one.quoted) - {(row.begins, row.ends) for row in before})
                rows = [more | {"begins": begin, "ends": end} for begin, end in sorted(one.quoted)]
                connection.execute(_IS_QUOTED, rows)
                if made:
                    new += made
                    connection.execute(_IS_NEW, row | {"made": made})
            if name not in caller.bounded:
                continue
            has = connection.execute(_HAS, row).one()
            one.budget.check(has.positions, has.questions, has.new_positions if new else 0)
            for what in ("positions", "questions", "new_positions"):
                if most := getattr(one.budget, what):
                    key_left = f"{what}_left"
                    still = max(0, most - getattr(has, what))  # a bound may be lowered below what has left
                    left[key_left] = min(still, left.get(key_left, still))
    return left


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
    columns = (_Left.day, _Left.identity, _Left.questions, _Left.positions, _Left.new_positions)
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
