"""Figures about the ledger for readiness, metrics and monitors. They are counted in SQL; no function here changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, case, func, or_, select

from storage import serialization
from storage.audit_kinds import AuditKind
from storage.database import Database
from storage.records import LIVE, Priority, Request, State, TaskKind
from storage.schema import alerts, audit_events, recoveries, requests, tasks

EVENTS_SEEN = 2000
"""The newest audit events that are looked at for times in the future and for grants that just ended."""

IS_LIVE = requests.c.state.in_([state.value for state in LIVE])
BEGINS_END = [AuditKind.REVOKING.value, AuditKind.FAILED.value]

OPEN_NUMBERS = select(
    select(func.count()).select_from(alerts).where(alerts.c.resolved_at.is_(None)).scalar_subquery(),
    select(func.count()).select_from(recoveries).where(recoveries.c.ended_at.is_(None)).scalar_subquery(),
)
"""Alerts and recoveries that are not over."""


@dataclass(frozen=True, kw_only=True)
class OverdueEnds:
    """Ends whose time has come and that are not confirmed. ``late`` are those for longer than the given time; ``oldest`` is how long the oldest is due."""

    due: int
    late: int
    oldest: timedelta


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """Unfinished tasks of one priority. ``oldest`` is how long the oldest due and unclaimed one waits."""

    unfinished: int
    due: int
    oldest: timedelta


@dataclass(frozen=True, kw_only=True)
class LedgerFigures:
    """The content of the ledger in numbers. ``live`` counts the grants that are being ended, too."""

    live: int
    ending: int
    open_alerts: int
    tasks: Mapping[Priority, TaskFigures]
    ends: OverdueEnds
    is_in_recovery: bool


@dataclass(frozen=True, kw_only=True)
class Grants:
    """Live grants, and started grants that ended a short time ago, as one consistent state. Those that cannot be read are left out."""

    live: tuple[Request, ...]
    ended: tuple[Request, ...]


@dataclass(frozen=True, kw_only=True)
class LedgerTimes:
    """``now``, and the newest time that something in the ledger happened at."""

    now: datetime
    newest: datetime | None


class Figures:
    """Figures about the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def overdue_ends(self, late_after: timedelta) -> OverdueEnds:
        """Ends that are due; those that are late by more than ``late_after``, and the age of the oldest."""
        return await self._database.read(lambda tx: _overdue(tx, self._database.now_in(tx), late_after))

    async def all(self, late_after: timedelta) -> LedgerFigures:
        """All figures, from one transaction of few statements."""

        def count(tx: Connection) -> LedgerFigures:
            now = self._database.now_in(tx)
            states = _rows(tx, select(requests.c.state, func.count()).where(IS_LIVE).group_by(requests.c.state))
            open_alerts, recoveries_now = tx.execute(OPEN_NUMBERS).one()
            return LedgerFigures(
                live=sum(states.values()),
                ending=states.get(State.REVOKING.value, 0),
                open_alerts=open_alerts,
                tasks=_tasks(tx, now),
                ends=_overdue(tx, now, late_after),
                is_in_recovery=recoveries_now > 0,
            )

        return await self._database.read(count)

    async def grants(self, *, ended_within: timedelta, request_ids: Sequence[int] = ()) -> Grants:
        """Live grants, and started ones that ended within this time (among the newest ``EVENTS_SEEN`` audit events) or have one of these numbers."""

        def read(tx: Connection) -> Grants:
            since = self._database.now_in(tx) - ended_within
            newest = select(func.coalesce(func.max(audit_events.c.id), 0)).scalar_subquery()
            is_end = (audit_events.c.kind == AuditKind.REVOKED, audit_events.c.at >= since)
            ids = select(audit_events.c.request_id).where(audit_events.c.id > newest - EVENTS_SEEN, *is_end)
            has_ended = (requests.c.state == State.REVOKED, requests.c.started_at.is_not(None))
            is_wanted = or_(requests.c.id.in_(ids), requests.c.id.in_(list(request_ids)))
            ended = select(requests).where(is_wanted, *has_ended).order_by(requests.c.id)
            live = select(requests).where(IS_LIVE).order_by(requests.c.id)
            found, _ = serialization.readable(tx, live, requests.c.id, serialization.request)
            over, _ = serialization.readable(tx, ended, requests.c.id, serialization.request)
            return Grants(live=tuple(found), ended=tuple(over))

        return await self._database.read(read)

    async def times(self) -> LedgerTimes:
        """The clock of the ledger, and the newest time of an audit event or of a live grant."""
        newest = select(func.coalesce(func.max(audit_events.c.id), 0)).scalar_subquery()
        event = select(func.max(audit_events.c.at)).where(audit_events.c.id > newest - EVENTS_SEEN)
        of_grants = (
            func.max(requests.c.approved_at),
            func.max(requests.c.started_at),
            func.max(requests.c.activated_at),
        )
        queries = [event, *(select(one).where(IS_LIVE) for one in of_grants)]
        query = select(*(one.scalar_subquery() for one in queries))

        def read(tx: Connection) -> LedgerTimes:
            found = [at for at in tx.execute(query).one() if at is not None]
            return LedgerTimes(now=self._database.now_in(tx), newest=max(found, default=None))

        return await self._database.read(read)


def _rows(tx: Connection, query: object) -> dict[str, int]:
    return {str(name): int(number) for name, number in tx.execute(query)}  # type: ignore[call-overload]


def _tasks(tx: Connection, now: datetime) -> dict[Priority, TaskFigures]:
    is_due = tasks.c.due_at <= now
    waits_since = case((is_due & tasks.c.claim.is_(None), tasks.c.due_at))
    query = select(tasks.c.priority, func.count(), func.sum(case((is_due, 1), else_=0)), func.min(waits_since)).where(
        tasks.c.set_aside.is_(None)
    )
    return {
        Priority(priority): TaskFigures(unfinished=count, due=due, oldest=_age(oldest, now))
        for priority, count, due, oldest in tx.execute(query.group_by(tasks.c.priority))
    }


def _overdue(tx: Connection, now: datetime, late_after: timedelta) -> OverdueEnds:
    """Count by the time at which the end should have come: a task that is tried again is due later and later."""
    since = _end_came_at().label("since")
    is_end = (tasks.c.kind == TaskKind.REVOKE, tasks.c.set_aside.is_(None))
    joined = select(since).join_from(tasks, requests, tasks.c.request_id == requests.c.id)
    ends = joined.where(*is_end, IS_LIVE).subquery()
    is_late = case((ends.c.since < now - late_after, 1), else_=0)
    due, late, oldest = tx.execute(
        select(func.count(), func.sum(is_late), func.min(ends.c.since)).where(ends.c.since <= now)
    ).one()
    return OverdueEnds(due=due, late=late or 0, oldest=_age(oldest, now))


def _end_came_at() -> ColumnElement[datetime]:
    """The time at which the end of a grant came: its expiry, or the earlier time at which somebody began to end it."""
    began = (
        select(func.max(audit_events.c.at))
        .where(audit_events.c.request_id == requests.c.id, audit_events.c.kind.in_(BEGINS_END))
        .correlate(requests)
        .scalar_subquery()
    )
    planned = case((requests.c.state == State.REVOKING, func.coalesce(began, tasks.c.due_at)), else_=tasks.c.due_at)
    is_earlier = requests.c.expires_at < planned
    return case((is_earlier, requests.c.expires_at), else_=planned)


def _age(since: datetime | None, now: datetime) -> timedelta:
    return max(now - since, timedelta(0)) if since is not None else timedelta(0)
