"""The audit log: append events, and read them. An event is never changed, and only removed when its time is over (``storage.retention``).

The personal text of an event (a reason, a name) is in a table of its own. The event holds its salted SHA-256 digest only, so the
text can be erased and the event stays. Every new event wakes the task that posts the audit feed.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, Select, func, insert, select

from storage import serialization
from storage.audit_kinds import AuditKind
from storage.database import Database
from storage.records import AuditEvent, Json, TaskKind
from storage.schema import audit_events, audit_texts
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan

Event: TypeAlias = tuple[AuditKind, str, Json]
"""An event to append: its kind, its actor and its facts."""

FEED_LOCK_KEY = "message:feed"
SALT_BYTES = 16
INSERT_EVENT = insert(audit_events).returning(audit_events.c.id)


class AuditLog:
    """The audit log of the ledger. Events are in order of their ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self,
        kind: AuditKind,
        *,
        actor: str,
        request_id: int | None = None,
        facts: Json | None = None,
        text: str | None = None,
        plan: TaskPlan | None = None,
    ) -> None:
        """Append an event that belongs to no transition. ``plan`` is a task that is stored in the same transaction."""

        def transaction(tx: Connection) -> None:
            now = self._database.now_in(tx)
            append_event(tx, kind, actor=actor, request_id=request_id, facts=facts or {}, text=text, now=now)
            if plan is not None:
                schedule_task(tx, plan, request_id=request_id, now=now)

        await self._database.write(transaction)

    async def history(self, request_id: int) -> tuple[AuditEvent, ...]:
        """The events of a request."""
        query = _with_text().where(audit_events.c.request_id == request_id)
        return await self._database.read_all(query, serialization.event)

    async def events_after(self, event_id: int, *, limit: int) -> tuple[AuditEvent, ...]:
        """Up to ``limit`` events with a higher id, for a reader with a cursor. No event with a lower id is committed later.

        PostgreSQL assigns ids before the commit. There, the reader waits for the transactions that write events.
        """
        query = _with_text().where(audit_events.c.id > event_id).limit(limit)

        def transaction(tx: Connection) -> tuple[AuditEvent, ...]:
            if not self._database.is_sqlite:
                tx.exec_driver_sql("LOCK TABLE audit_events IN SHARE MODE")
            return tuple(serialization.event(row) for row in tx.execute(query).mappings())

        return await self._database.read(transaction)

    async def last_event(self) -> int:
        """The id of the newest event; 0 if there is none."""
        query = select(func.coalesce(func.max(audit_events.c.id), 0))
        return await self._database.read(lambda tx: int(tx.execute(query).scalar_one()))

    async def newest_time(self) -> datetime | None:
        """The time of the newest event. None if there is none."""
        query = select(audit_events.c.at).order_by(audit_events.c.id.desc()).limit(1)
        return await self._database.read(lambda tx: tx.execute(query).scalar_one_or_none())

    async def events_by(self, actors: Collection[str], *, after: int) -> tuple[AuditEvent, ...]:
        """The events of these actors with an id above ``after``. Does not wait for transactions that write."""
        query = _with_text().where(audit_events.c.id > after, audit_events.c.actor.in_(actors))
        return await self._database.read_all(query, serialization.event)


def _with_text() -> Select[Any]:
    joined = audit_events.outerjoin(audit_texts, audit_texts.c.event_id == audit_events.c.id)
    return select(audit_events, audit_texts.c.text).select_from(joined).order_by(audit_events.c.id)


def append_event(
    tx: Connection,
    kind: AuditKind,
    *,
    actor: str,
    request_id: int | None,
    facts: Mapping[str, Any],
    text: str | None,
    now: datetime,
) -> None:
    """Append one event inside a transaction, and schedule the task of the audit feed."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.sha256(salt + text.encode()).hexdigest() if text else None
    values: dict[str, Any] = {
        "at": now,
        "kind": kind,
        "actor": actor,
        "request_id": request_id,
        "facts": dict(facts),
        "text_digest": digest,
    }
    event_id = tx.execute(INSERT_EVENT, values).scalar_one()
    if text:
        tx.execute(insert(audit_texts).values(event_id=event_id, salt=salt, text=text))
    feed = TaskPlan(kind=TaskKind.AUDIT_FEED, lock_key=FEED_LOCK_KEY, due_at=now, is_single=True, keeps_time=True)
    schedule_task(tx, feed, request_id=None, now=now)
