"""Queries about requests. None of them changes anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import serialization
from storage.database import Database
from storage.errors import NoSuchRequest
from storage.records import LIVE, Decision, Draft, Request, RequestKind, State, UsageCounts
from storage.schema import decisions, lockdowns, requests

DAY = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Lockdown:
    """While it is in force, matching grants are ended and new ones refused. None matches every database or person."""

    id: int
    database: str | None
    person_id: str | None
    locked_by: str
    at: datetime


class RequestQueries(Database):
    """Queries about requests. Lists of requests have the newest first, lists of decisions the oldest."""

    async def request(self, request_id: int) -> Request:
        """One request by its number. Raises NoSuchRequest."""
        async with self.reading() as tx:
            return await load_request(tx, request_id)

    async def requests(
        self, *, person_id: str | None = None, database: str | None = None, limit: int | None = None
    ) -> tuple[Request, ...]:
        """All requests of any state, or those of a person or a database. ``limit``: at most this many, the newest."""
        return await self.read_all(_requests_of(person_id, database).limit(limit), serialization.request)

    async def live_grants(self, *, person_id: str | None = None, database: str | None = None) -> tuple[Request, ...]:
        """Requests whose user exists on a server, or may exist."""
        live = requests.c.state.in_([state.value for state in LIVE])
        return await self.read_all(_requests_of(person_id, database).where(live), serialization.request)

    async def pending_requests(
        self, *, person_id: str | None = None, database: str | None = None
    ) -> tuple[Request, ...]:
        """Requests that are not decided yet."""
        pending = requests.c.state == State.PENDING
        return await self.read_all(_requests_of(person_id, database).where(pending), serialization.request)

    async def usage(self, person_id: str, database: str, *, now: datetime) -> UsageCounts:
        """The grants and requests that count towards the limits of this person and this database."""
        async with self.reading() as tx:
            return await count_usage(tx, person_id, database, now)

    async def decisions(self, request_id: int) -> tuple[Decision, ...]:
        """The decisions on a request, the oldest first."""
        async with self.reading() as tx:
            return await load_decisions(tx, request_id)


def _requests_of(person_id: str | None, database: str | None) -> Select[Any]:
    query = select(requests).order_by(requests.c.id.desc())
    if person_id is not None:
        query = query.where(requests.c.requester_id == person_id)
    return query if database is None else query.where(requests.c.database == database)


async def load_request(tx: AsyncConnection, request_id: int, *, for_update: bool = False) -> Request:
    """One request inside a transaction. ``for_update`` locks its row until the commit. Raises NoSuchRequest."""
    query = select(requests).where(requests.c.id == request_id)
    found = (await tx.execute(query.with_for_update() if for_update else query)).mappings().first()
    if found is None:
        raise NoSuchRequest(request_id)
    return serialization.request(found)


async def load_decisions(tx: AsyncConnection, request_id: int) -> tuple[Decision, ...]:
    """The decisions on a request inside a transaction, the oldest first."""
    query = select(decisions).where(decisions.c.request_id == request_id).order_by(decisions.c.id)
    return tuple(serialization.decision(row) for row in (await tx.execute(query)).mappings())


async def pending_duplicate(tx: AsyncConnection, draft: Draft) -> Request | None:
    """The oldest pending request of this person with the same database, level, kind, duration and parent."""
    same = {
        "requester_id": draft.requester_id,
        "database": draft.database,
        "level": draft.level,
        "kind": draft.kind.value,
        "state": State.PENDING.value,
    }
    more = (
        requests.c.requested_duration == draft.terms.duration,
        requests.c.parent_id.is_not_distinct_from(draft.parent_id),
    )
    query = select(requests).filter_by(**same).where(*more).order_by(requests.c.id).limit(1)
    found = (await tx.execute(query)).mappings().first()
    return None if found is None else serialization.request(found)


async def count_usage(tx: AsyncConnection, person_id: str, database: str, now: datetime) -> UsageCounts:
    """The usage inside a transaction.

    The transaction that inserts a request counts again, so that two simultaneous requests cannot both take the last place.
    """
    of_person = requests.c.requester_id == person_id
    is_live = requests.c.state.in_([state.value for state in LIVE])
    is_access, is_break_glass = requests.c.kind == RequestKind.ACCESS, requests.c.kind == RequestKind.BREAK_GLASS
    is_pending = requests.c.state == State.PENDING
    was_automatic = (
        ~is_break_glass,
        requests.c.is_automatic.is_(True),
        or_(requests.c.approved_at.is_not(None), is_pending),  # a pending one is about to be approved
        requests.c.requested_at > now - DAY,
    )
    is_given = or_(
        requests.c.state.in_([State.PENDING, State.APPROVED, State.ACTIVE]), requests.c.started_at.is_not(None)
    )
    unreviewed = select(requests.c.id).where(of_person, is_break_glass, requests.c.reviewed_at.is_(None), is_given)
    by_rule = select(requests.c.rule, func.count()).where(of_person, *was_automatic).group_by(requests.c.rule)
    return UsageCounts(
        live_of_person=await _count(tx, of_person, is_live, is_access),
        live_of_database=await _count(tx, is_live, is_access, requests.c.database == database),
        waiting_of_person=await _count(tx, of_person, is_pending, ~is_break_glass),
        automatic={rule: number for rule, number in (await tx.execute(by_rule)).all() if rule is not None},
        unreviewed=(await tx.execute(unreviewed.order_by(requests.c.id).limit(1))).scalar_one_or_none(),
    )


async def _count(tx: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
    return int((await tx.execute(select(func.count()).select_from(requests).where(*conditions))).scalar_one())


async def lockdowns_in_force(tx: AsyncConnection) -> tuple[Lockdown, ...]:
    """Lockdowns that are not ended. Their rows are locked for reading until the commit."""
    query = select(lockdowns).where(lockdowns.c.unlocked_at.is_(None)).with_for_update(read=True)
    names = ("id", "database", "person_id", "locked_by", "at")
    return tuple(Lockdown(**{n: row[n] for n in names}) for row in (await tx.execute(query)).mappings())
