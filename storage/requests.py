"""Reads of the ledger, named by the question they answer. None of them changes anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import RowMapping, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import serialization
from storage.database import Database
from storage.errors import NoSuchRequest
from storage.records import (
    LIVE,
    AuditEvent,
    Decision,
    Draft,
    Lockdown,
    Message,
    Purpose,
    Request,
    RequestKind,
    State,
    UsageCounts,
)
from storage.schema import audit_events, audit_texts, decisions, lockdowns, messages, meta, requests

T = TypeVar("T")
A_DAY = timedelta(hours=24)


class RequestQueries(Database):
    """Questions. Lists of requests are newest first, everything else in order of creation."""

    async def _all(self, query: Select[Any], record: Callable[[RowMapping], T]) -> tuple[T, ...]:
        async with self.reading() as tx:
            return tuple(record(row) for row in (await tx.execute(query)).mappings())

    async def request(self, request_id: int) -> Request:
        """Raises NoSuchRequest."""
        async with self.reading() as tx:
            return await one_request(tx, request_id)

    async def requests(
        self, *, person_id: str | None = None, database: str | None = None, limit: int | None = None
    ) -> tuple[Request, ...]:
        """All there ever were, of a person or a database where one is named."""
        return await self._all(_of(person_id, database).limit(limit), serialization.request)

    async def live_grants(self, *, person_id: str | None = None, database: str | None = None) -> tuple[Request, ...]:
        """Requests for which a user exists on a server, or may."""
        live = requests.c.state.in_([state.value for state in LIVE])
        return await self._all(_of(person_id, database).where(live), serialization.request)

    async def waiting_requests(
        self, *, person_id: str | None = None, database: str | None = None
    ) -> tuple[Request, ...]:
        """Requests that nobody has decided."""
        return await self._all(_of(person_id, database).where(requests.c.state == State.PENDING), serialization.request)

    async def tally(self, person_id: str, database: str, *, now: datetime) -> UsageCounts:
        """How much this person, and this database, have already."""
        async with self.reading() as tx:
            return await tally_of(tx, person_id, database, now)

    async def decisions(self, request_id: int) -> tuple[Decision, ...]:
        """Who said what, in order."""
        async with self.reading() as tx:
            return await all_decisions(tx, request_id)

    async def messages(self, request_id: int, purpose: Purpose | None = None) -> tuple[Message, ...]:
        """Where a request is shown."""
        query = select(messages).where(messages.c.request_id == request_id).order_by(messages.c.id)
        if purpose is not None:
            query = query.where(messages.c.purpose == purpose)
        return await self._all(query, serialization.message)

    async def history(self, request_id: int) -> tuple[AuditEvent, ...]:
        """The audit events of a request."""
        return await self._all(_events().where(audit_events.c.request_id == request_id), serialization.event)

    async def events_after(self, event_id: int, *, limit: int) -> tuple[AuditEvent, ...]:
        """The next events of the record, for a reader with a cursor: none with a lower number appears later.

        Numbers are given out before they are committed, so on PostgreSQL the reader waits for those who write.
        """
        query = _events().where(audit_events.c.id > event_id).limit(limit)
        async with self.reading() as tx:
            if not self.is_sqlite:
                await tx.exec_driver_sql("LOCK TABLE audit_events IN SHARE MODE")
            return tuple(serialization.event(row) for row in (await tx.execute(query)).mappings())

    async def last_event(self) -> int:
        """The number of the newest audit event; 0 where there is none."""
        async with self.reading() as tx:
            return int((await tx.execute(select(func.coalesce(func.max(audit_events.c.id), 0)))).scalar_one())

    async def changed_by(self, actors: Collection[str], *, after: int) -> tuple[AuditEvent, ...]:
        """The events of these actors that are newer than the event ``after``. It waits for nobody who writes."""
        query = _events().where(audit_events.c.id > after, audit_events.c.actor.in_(actors))
        return await self._all(query, serialization.event)

    async def remembered(self, name: str) -> str | None:
        """What was last written under this name by ``remember``."""
        async with self.reading() as tx:
            return await meta_value(tx, f"seen:{name}")

    async def remembered_names(self, prefix: str) -> tuple[str, ...]:
        """The names that begin so."""
        names = select(meta.c.name).where(meta.c.name.startswith(f"seen:{prefix}", autoescape=True))
        async with self.reading() as tx:
            return tuple(name.removeprefix("seen:") for name in (await tx.execute(names)).scalars())

    async def cursor(self, name: str) -> int:
        """How far a reader has come; 0 at the beginning."""
        async with self.reading() as tx:
            return int(await meta_value(tx, f"cursor:{name}") or 0)


def _of(person_id: str | None, database: str | None) -> Select[Any]:
    query = select(requests).order_by(requests.c.id.desc())
    if person_id is not None:
        query = query.where(requests.c.requester_id == person_id)
    return query if database is None else query.where(requests.c.database == database)


def _events() -> Select[Any]:
    joined = audit_events.outerjoin(audit_texts, audit_texts.c.event_id == audit_events.c.id)
    return select(audit_events, audit_texts.c.text).select_from(joined).order_by(audit_events.c.id)


async def one_request(tx: AsyncConnection, request_id: int, *, for_update: bool = False) -> Request:
    """The request, with its row taken where it is to be changed. Raises NoSuchRequest."""
    query = select(requests).where(requests.c.id == request_id)
    found = (await tx.execute(query.with_for_update() if for_update else query)).mappings().first()
    if found is None:
        raise NoSuchRequest(request_id)
    return serialization.request(found)


async def all_decisions(tx: AsyncConnection, request_id: int) -> tuple[Decision, ...]:
    """Inside a transaction."""
    query = select(decisions).where(decisions.c.request_id == request_id).order_by(decisions.c.id)
    return tuple(serialization.decision(row) for row in (await tx.execute(query)).mappings())


async def waiting_like(tx: AsyncConnection, draft: Draft) -> Request | None:
    """A waiting request of the same person for the same thing and time."""
    same = {
        "requester_id": draft.requester_id,
        "database": draft.database,
        "level": draft.level,
        "kind": draft.kind.value,
        "state": State.PENDING.value,
    }
    query = select(requests).filter_by(**same).order_by(requests.c.id)
    found = [serialization.request(row) for row in (await tx.execute(query)).mappings()]
    return next((r for r in found if r.terms.duration == draft.terms.duration and r.parent_id == draft.parent_id), None)


async def tally_of(tx: AsyncConnection, person_id: str, database: str, now: datetime) -> UsageCounts:
    """Inside a transaction: the one that asks counts again, so that two asks at once cannot both be the last."""
    live = (requests.c.state.in_([state.value for state in LIVE]), requests.c.kind == RequestKind.ACCESS)
    there = (await tx.execute(select(func.count()).where(*live, requests.c.database == database))).scalar_one()
    still = (requests.c.state == State.PENDING, *live[:1])
    recent = or_(*still, requests.c.requested_at > now - A_DAY, requests.c.kind == RequestKind.BREAK_GLASS)
    query = select(requests).where(requests.c.requester_id == person_id, recent).order_by(requests.c.id)
    mine = [serialization.request(row) for row in (await tx.execute(query)).mappings()]
    return UsageCounts(
        live_of_person=sum(r.is_live and r.kind is RequestKind.ACCESS for r in mine),
        live_of_database=there,
        waiting_of_person=sum(r.state is State.PENDING and r.kind is not RequestKind.BREAK_GLASS for r in mine),
        automatic=Counter(r.terms.rule for r in mine if _was_automatic(r) and r.requested_at > now - A_DAY),
        unreviewed=next((r.id for r in mine if r.needs_review or _breaks_the_glass(r)), None),
    )


def _was_automatic(request: Request) -> bool:
    """Also one that is on its way to be: two at once must not both be the last."""
    counts = request.approved_at is not None or request.state is State.PENDING
    return request.kind is not RequestKind.BREAK_GLASS and not request.terms.stages and counts


def _breaks_the_glass(request: Request) -> bool:
    return request.kind is RequestKind.BREAK_GLASS and request.state is State.PENDING


async def lockdowns_in_force(tx: AsyncConnection) -> tuple[Lockdown, ...]:
    """Those nobody has ended; read under a lock by the moves that name a lockdown."""
    query = select(lockdowns).where(lockdowns.c.unlocked_at.is_(None)).with_for_update(read=True)
    names = ("id", "database", "person_id", "locked_by", "at")
    return tuple(Lockdown(**{n: row[n] for n in names}) for row in (await tx.execute(query)).mappings())


async def meta_value(tx: AsyncConnection, name: str) -> str | None:
    """A value of the ledger about itself."""
    return (await tx.execute(select(meta.c.value).where(meta.c.name == name))).scalar_one_or_none()
