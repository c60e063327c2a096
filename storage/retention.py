"""Retention: remove what ended before a time, with everything that belongs to it.

A request goes as a whole, together with its extensions: decisions, messages, resolved alerts, audit events. It stays while any of them is
younger, an alert is open, a task is unfinished or a review is missing. Its number is never given again. Audit events and resolved alerts
that belong to no request go, too. Each removal is an audit event itself, and those stay.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, FromClause, Select, and_, delete, exists, or_, select

from storage.audit_kinds import AuditKind
from storage.audit_log import append_event
from storage.database import Database
from storage.records import RequestKind, State
from storage.schema import alert_messages, alerts, audit_events, audit_texts, decisions, messages, requests, tasks

AT_ONCE = 50
"""Requests, without their extensions, that one transaction removes. It is small, so that no claim waits for it."""
EVENTS_AT_ONCE = 250
OVER = [state.value for state in State if state.is_over]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """The result of one transaction. ``last`` is the highest number that was looked at; None where no request was left to look at."""

    requests: int
    events: int
    last: int | None

    @property
    def is_all(self) -> bool:
        return self.last is None and self.events < EVENTS_AT_ONCE


class Retention:
    """Removes what is older than the time to keep it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove(self, before: datetime, *, after: int = 0, up_to_event: int | None = None) -> Removed:
        """Remove the next requests with a higher number than ``after`` that ended before this time, and old events without a request.

        ``up_to_event``: an event with a higher id stays. Call it again with ``after=result.last`` until ``is_all``.
        """
        roots = await self._database.read(lambda tx: _numbers(tx, _removable(before, after)))
        events = await self._database.read(lambda tx: _numbers(tx, _old_events(tx, before, up_to_event)))
        if not roots and not events:
            return Removed(requests=0, events=0, last=None)

        def transaction(tx: Connection) -> Removed:
            found = self._remove_requests(tx, roots, before, up_to_event)
            gone = _remove_events(tx, events)
            _remove_alerts(tx, and_(alerts.c.request_id.is_(None), alerts.c.resolved_at < before))
            facts = {"requests": found, "events": gone, "before": before.isoformat(timespec="seconds")}
            if found or gone:
                now = self._database.now_in(tx)
                append_event(
                    tx, AuditKind.ENTRIES_REMOVED, actor="bot", request_id=None, facts=facts, text=None, now=now
                )
            return Removed(requests=found, events=gone, last=max(roots, default=None))

        return await self._database.write(transaction)

    def _remove_requests(
        self, tx: Connection, roots: Collection[int], before: datetime, up_to_event: int | None
    ) -> int:
        """Remove these requests and their extensions, as far as they may still go. Returns how many there were."""
        rows = requests.c.id.in_(roots) | requests.c.parent_id.in_(roots)
        tx.execute(select(requests.c.id).where(rows).order_by(requests.c.id).with_for_update())
        may_go = set(_numbers(tx, _removable(before, 0).where(requests.c.id.in_(roots))))
        found = _numbers(tx, select(requests.c.id).where(requests.c.id.in_(may_go) | requests.c.parent_id.in_(may_go)))
        if up_to_event is not None:
            shown = exists().where(audit_events.c.request_id.in_(found), audit_events.c.id > up_to_event)
            if tx.execute(select(shown)).scalar_one():
                return 0
        _remove_events(tx, _numbers(tx, select(audit_events.c.id).where(audit_events.c.request_id.in_(found))))
        _remove_alerts(tx, alerts.c.request_id.in_(found))
        for table in (decisions, messages):
            tx.execute(delete(table).where(table.c.request_id.in_(found)))
        for is_extension in (True, False):  # the row of a grant is removed after those that name it
            same = requests.c.parent_id.is_not(None) if is_extension else requests.c.parent_id.is_(None)
            tx.execute(delete(requests).where(requests.c.id.in_(found), same))
        return len(found)


def _removable(before: datetime, after: int) -> Select[tuple[int]]:
    """Requests that extend no grant, and may go with all their extensions."""
    extension = requests.alias("extension")
    kept = exists().where(extension.c.parent_id == requests.c.id, ~_may_go(extension, before))
    is_next = (requests.c.id > after, requests.c.parent_id.is_(None))
    return (
        select(requests.c.id).where(*is_next, _may_go(requests, before), ~kept).order_by(requests.c.id).limit(AT_ONCE)
    )


def _may_go(one: FromClause, before: datetime) -> ColumnElement[bool]:
    is_missing_review = and_(
        one.c.kind == RequestKind.BREAK_GLASS.value, one.c.started_at.is_not(None), one.c.reviewed_at.is_(None)
    )
    is_young = exists().where(audit_events.c.request_id == one.c.id, audit_events.c.at >= before)
    has_open_alert = exists().where(
        alerts.c.request_id == one.c.id, or_(alerts.c.resolved_at.is_(None), alerts.c.resolved_at >= before)
    )
    has_task = exists().where(tasks.c.request_id == one.c.id)
    is_old = (one.c.requested_at < before, or_(one.c.ended_at.is_(None), one.c.ended_at < before))
    is_over = (one.c.state + "").in_(OVER)  # not by the index of states, which would read and sort all of them
    return and_(is_over, *is_old, ~is_missing_review, ~is_young, ~has_open_alert, ~has_task)


def _old_events(tx: Connection, before: datetime, up_to_event: int | None) -> Select[tuple[int]]:
    """Old events without a request, the oldest first. The scan ends at the first young event."""
    young = select(audit_events.c.id).where(audit_events.c.at >= before).order_by(audit_events.c.id).limit(1)
    first_young = tx.execute(young).scalar_one_or_none()
    limits = [one for one in (first_young, None if up_to_event is None else up_to_event + 1) if one is not None]
    is_old = (
        audit_events.c.request_id.is_(None),
        audit_events.c.at < before,
        audit_events.c.kind != AuditKind.ENTRIES_REMOVED,
    )
    query = select(audit_events.c.id).where(*is_old, *([audit_events.c.id < min(limits)] if limits else []))
    return query.order_by(audit_events.c.id).limit(EVENTS_AT_ONCE)


def _numbers(tx: Connection, query: Select[Any]) -> list[int]:
    return [int(number) for number in tx.execute(query).scalars()]


def _remove_events(tx: Connection, ids: Collection[int]) -> int:
    """Returns how many there were: another replica may have removed some."""
    tx.execute(delete(audit_texts).where(audit_texts.c.event_id.in_(ids)))
    return tx.execute(delete(audit_events).where(audit_events.c.id.in_(ids))).rowcount


def _remove_alerts(tx: Connection, which: ColumnElement[bool]) -> None:
    ids = select(alerts.c.id).where(which)
    tx.execute(delete(alert_messages).where(alert_messages.c.alert_id.in_(ids)))
    tx.execute(delete(alerts).where(which))
