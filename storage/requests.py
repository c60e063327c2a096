"""Queries of the ledger, named by the question they answer. None of them changes anything."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Select, func, or_, select
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
    """Queries. Lists of requests are newest first, everything else in order of creation."""

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

    async def pending_requests(
        self, *, person_id: str | None = None, database: str | None = None
    ) -> tuple[Request, ...]:
        """Requests that nobody has decided."""
        return await self._all(_of(person_id, database).where(requests.c.state == State.PENDING), serialization.request)

    async def usage(self, person_id: str, database: str, *, now: datetime) -> UsageCounts:
        """How much this person, and this database, have already."""
        async with self.reading() as tx:
            return await usage_of(tx, person_id, database, now)

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


async def pending_like(tx: AsyncConnection, draft: Draft) -> Request | None:
    """The oldest pending request of the same person for the same thing and duration."""
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


async def usage_of(tx: AsyncConnection, person_id: str, database: str, now: datetime) -> UsageCounts:
    """Inside a transaction. The one that writes a request counts again, so that two requests at once cannot both be the last."""
    mine = requests.c.requester_id == person_id
    is_live = requests.c.state.in_([state.value for state in LIVE])
    is_access, is_break_glass = requests.c.kind == RequestKind.ACCESS, requests.c.kind == RequestKind.BREAK_GLASS
    is_pending = requests.c.state == State.PENDING
    was_automatic = (
        ~is_break_glass,
        requests.c.is_automatic.is_(True),
        or_(requests.c.approved_at.is_not(None), is_pending),  # also one that is about to be approved
        requests.c.requested_at > now - A_DAY,
    )
    is_given = or_(
        requests.c.state.in_([State.PENDING, State.APPROVED, State.ACTIVE]), requests.c.started_at.is_not(None)
    )
    unreviewed = select(requests.c.id).where(mine, is_break_glass, requests.c.reviewed_at.is_(None), is_given)
    by_rule = select(requests.c.rule, func.count()).where(mine, *was_automatic).group_by(requests.c.rule)
    return UsageCounts(
        live_of_person=await _count(tx, mine, is_live, is_access),
        live_of_database=await _count(tx, is_live, is_access, requests.c.database == database),
        waiting_of_person=await _count(tx, mine, is_pending, ~is_break_glass),
        automatic={rule: number for rule, number in (await tx.execute(by_rule)).all() if rule is not None},
        unreviewed=(await tx.execute(unreviewed.order_by(requests.c.id).limit(1))).scalar_one_or_none(),
    )


async def _count(tx: AsyncConnection, *conditions: ColumnElement[bool]) -> int:
    return int((await tx.execute(select(func.count()).select_from(requests).where(*conditions))).scalar_one())


async def lockdowns_in_force(tx: AsyncConnection) -> tuple[Lockdown, ...]:
    """Those nobody has ended; read under a lock by the moves that name a lockdown."""
    query = select(lockdowns).where(lockdowns.c.unlocked_at.is_(None)).with_for_update(read=True)
    names = ("id", "database", "person_id", "locked_by", "at")
    return tuple(Lockdown(**{n: row[n] for n in names}) for row in (await tx.execute(query)).mappings())


async def meta_value(tx: AsyncConnection, name: str) -> str | None:
    """A value of the ledger about itself."""
    return (await tx.execute(select(meta.c.value).where(meta.c.name == name))).scalar_one_or_none()
