"""Alerts: one for each cause, from the moment it is noticed until it is over.

While an alert is open, the same cause changes it and raises no second one. Its messages are edited, and show at last that it is resolved.
An alert about something that happened once is stored as over from the beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from storage.audit_kinds import AuditKind
from storage.audit_log import append_event
from storage.database import Database, advisory_lock_key
from storage.records import TaskKind
from storage.schema import alert_messages, alerts
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan

SHOWN = ("what", "enforced", "steps", "tries", "next_try_at")


@dataclass(frozen=True, kw_only=True)
class AlertDraft:
    """What is wrong. ``cause`` identifies the problem, for example ``end:42``: there is one open alert for each cause.

    ``what`` is the problem as one sentence, ``enforced`` what is already safe, ``steps`` what to do about it, statements to paste
    included. ``tries`` is how often it was tried, ``next_try_at`` when it is tried again. ``is_event``: it happened once and is not resolved later.
    """

    cause: str
    what: str
    enforced: str | None = None
    steps: tuple[str, ...] = ()
    tries: int = 0
    since: datetime | None = None
    next_try_at: datetime | None = None
    request_id: int | None = None
    is_event: bool = False


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A stored alert. ``version`` counts its changes; each of its messages stores the version that it shows."""

    id: int
    cause: str
    request_id: int | None
    what: str
    enforced: str | None
    steps: tuple[str, ...]
    tries: int
    since: datetime
    next_try_at: datetime | None
    updated_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    version: int

    @property
    def is_open(self) -> bool:
        return self.resolved_at is None


@dataclass(frozen=True, kw_only=True)
class AlertMessage:
    """A message that shows an alert. ``place`` is where it was sent to, ``channel`` and ``ts`` where it is."""

    alert_id: int
    place: str
    channel: str
    ts: str
    version: int


class AlertRepository:
    """The alerts of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def raise_alert(self, draft: AlertDraft) -> None:
        """Store a new alert, or change the open one of the same cause, and plan the task that shows it."""
        await self._database.write(lambda tx: self.raise_in(tx, draft))

    def raise_in(self, tx: Connection, draft: AlertDraft) -> None:
        """``raise_alert`` inside a transaction."""
        now = self._database.now_in(tx)
        self._take_turn(tx, draft.cause)
        found = _open_alert(tx, draft.cause)
        if found is None:
            _plan_message(tx, _insert(tx, draft, now), draft.request_id, now)
        elif changed := {name: value for name, value in _shown(draft).items() if value != getattr(found, name)}:
            changed |= {"updated_at": now, "version": found.version + 1}
            tx.execute(update(alerts).where(alerts.c.id == found.id).values(**_stored(changed)))
            _plan_message(tx, found.id, found.request_id, now)

    async def resolve(self, cause: str, resolution: str) -> bool:
        """The problem is over: close its alert and plan the task that shows it. False if there is no open alert of this cause."""
        return await self._database.write(lambda tx: self.resolve_in(tx, cause, resolution))

    def resolve_in(self, tx: Connection, cause: str, resolution: str) -> bool:
        """``resolve`` inside a transaction."""
        self._take_turn(tx, cause)
        found = _open_alert(tx, cause)
        if found is None:
            return False
        now = self._database.now_in(tx)
        values = {"resolved_at": now, "resolution": resolution, "updated_at": now, "version": found.version + 1}
        tx.execute(update(alerts).where(alerts.c.id == found.id, alerts.c.resolved_at.is_(None)).values(**values))
        _plan_message(tx, found.id, found.request_id, now)
        return True

    def _take_turn(self, tx: Connection, cause: str) -> None:
        """On PostgreSQL, wait until no other transaction changes the alert of this cause. SQLite has one writer at a time."""
        if not self._database.is_sqlite:
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(f"alert {cause}"),))

    async def get(self, alert_id: int) -> Alert | None:
        """One alert; None if there is none with this number."""
        query = select(alerts).where(alerts.c.id == alert_id)
        found = await self._database.read_all(query, _alert)
        return found[0] if found else None

    async def open(self, *, prefix: str = "") -> tuple[Alert, ...]:
        """The open alerts, or those whose cause starts with ``prefix``; the oldest first."""
        query = select(alerts).where(alerts.c.resolved_at.is_(None), alerts.c.cause.startswith(prefix, autoescape=True))
        return await self._database.read_all(query.order_by(alerts.c.id), _alert)

    async def messages(self, alert_id: int) -> tuple[AlertMessage, ...]:
        """The messages that show an alert."""
        query = select(alert_messages).where(alert_messages.c.alert_id == alert_id)
        return await self._database.read_all(query, lambda row: AlertMessage(**row))

    async def shown(self, message: AlertMessage) -> None:
        """Note that a message was posted, or shows this version now."""

        def transaction(tx: Connection) -> None:
            same = (alert_messages.c.alert_id == message.alert_id, alert_messages.c.place == message.place)
            values = {"channel": message.channel, "ts": message.ts, "version": message.version}
            if tx.execute(update(alert_messages).where(*same).values(**values)).rowcount == 0:
                tx.execute(insert(alert_messages).values(alert_id=message.alert_id, place=message.place, **values))

        await self._database.write(transaction, announce=False)


def _open_alert(tx: Connection, cause: str) -> Alert | None:
    query = select(alerts).where(alerts.c.cause == cause, alerts.c.resolved_at.is_(None))
    row = tx.execute(query).mappings().first()
    return None if row is None else _alert(row)


def _insert(tx: Connection, draft: AlertDraft, now: datetime) -> int:
    values = {
        **_stored(_shown(draft)),
        "cause": draft.cause,
        "request_id": draft.request_id,
        "since": draft.since or now,
        "updated_at": now,
        "resolved_at": now if draft.is_event else None,
        "version": 1,
    }
    facts = {"what": draft.what, "tries": draft.tries, "cause": draft.cause}
    append_event(tx, AuditKind.ALERT, actor="bot", request_id=draft.request_id, facts=facts, text=None, now=now)
    return int(tx.execute(insert(alerts).values(**values).returning(alerts.c.id)).scalar_one())


def _plan_message(tx: Connection, alert_id: int, request_id: int | None, now: datetime) -> None:
    plan = TaskPlan(
        kind=TaskKind.ALERT,
        lock_key=f"message:alert:{alert_id}",
        due_at=now,
        payload={"alert": alert_id},
        is_single=True,
    )
    schedule_task(tx, plan, request_id=request_id, now=now)


def _shown(draft: AlertDraft) -> dict[str, object]:
    return {name: getattr(draft, name) for name in SHOWN}


def _stored(values: dict[str, object]) -> dict[str, object]:
    steps = values.get("steps")
    return values if steps is None else {**values, "steps": list(steps)}  # type: ignore[call-overload]


def _alert(row: RowMapping) -> Alert:
    return Alert(**{**row, "steps": tuple(row["steps"])})
