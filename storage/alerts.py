"""Alerts: one for each cause, from the moment it is noticed until it is over.

While an alert is open, the same cause changes it and raises no second one. Its messages are edited, and show at last that it is resolved.
An alert about something that happened once is stored as over from the beginning. A message is edited at most once in ``EDIT_PAUSE``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, insert, select, update

from storage.audit_kinds import AuditKind
from storage.audit_log import append_event
from storage.database import Database, advisory_lock_key
from storage.records import TaskKind
from storage.schema import alert_messages, alerts
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan

SHOWN = ("what", "enforced", "steps", "statements", "tries", "next_try_at")
LISTS = ("steps", "statements")
EDIT_PAUSE = timedelta(minutes=1)
"""The shortest time between two edits of an open alert. That it is over is shown at once."""


@dataclass(frozen=True, kw_only=True)
class AlertDraft:
    """What is wrong. ``cause`` identifies the problem, for example ``end:42``: there is one open alert for each cause.

    ``what`` is the problem as one sentence, ``enforced`` what is already safe, ``steps`` what to do about it, as sentences, and
    ``statements`` what to paste after the last step. ``tries`` is how often it was tried, ``next_try_at`` when it is tried again.
    ``is_event``: it happened once and is not resolved later; the same event of a request is told once.
    """

    cause: str
    what: str
    enforced: str | None = None
    steps: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    tries: int = 0
    since: datetime | None = None
    next_try_at: datetime | None = None
    request_id: int | None = None
    is_event: bool = False


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A stored alert. ``version`` counts its changes; each of its messages stores the version that it shows. ``shown_at``: the last time at which one did."""

    id: int
    cause: str
    request_id: int | None
    what: str
    enforced: str | None
    steps: tuple[str, ...]
    statements: tuple[str, ...]
    tries: int
    since: datetime
    next_try_at: datetime | None
    updated_at: datetime
    shown_at: datetime | None
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
            if not (draft.is_event and draft.request_id is not None and _was_raised(tx, draft)):
                _plan_message(tx, _insert(tx, draft, now), draft.request_id, now)
        elif changed := {name: value for name, value in _shown(draft).items() if value != getattr(found, name)}:
            changed |= {"updated_at": now, "version": found.version + 1}
            tx.execute(update(alerts).where(alerts.c.id == found.id).values(**_stored(changed)))
            _plan_message(tx, found.id, found.request_id, now, edit_at=_next_edit(found, now))

    async def resolve(self, cause: str, resolution: str) -> bool:
        """The problem is over: close its alert and plan the task that shows it. False if there is no open alert of this cause."""
        if await self._database.read(lambda tx: _open_alert(tx, cause)) is None:
            return False
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
            shown_at = {"shown_at": self._database.now_in(tx)}
            tx.execute(update(alerts).where(alerts.c.id == message.alert_id).values(**shown_at))

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


def _was_raised(tx: Connection, draft: AlertDraft) -> bool:
    """Whether the same event of the same request has an alert: a job that is tried again may raise it twice."""
    same = (alerts.c.cause == draft.cause, alerts.c.what == draft.what)
    return tx.execute(select(alerts.c.id).where(*same).limit(1)).first() is not None


def _next_edit(alert: Alert, now: datetime) -> datetime:
    return now if alert.shown_at is None else max(now, alert.shown_at + EDIT_PAUSE)


def _plan_message(
    tx: Connection, alert_id: int, request_id: int | None, now: datetime, *, edit_at: datetime | None = None
) -> None:
    """Plan the task that shows the alert, due now. With ``edit_at`` it is due then, and a task that waits already keeps its time."""
    plan = TaskPlan(
        kind=TaskKind.ALERT,
        lock_key=f"message:alert:{alert_id}",
        due_at=edit_at or now,
        payload={"alert": alert_id},
        is_single=True,
        keeps_time=edit_at is not None,
    )
    schedule_task(tx, plan, request_id=request_id, now=now)


def _shown(draft: AlertDraft) -> dict[str, object]:
    return {name: getattr(draft, name) for name in SHOWN}


def _stored(values: dict[str, object]) -> dict[str, object]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _alert(row: RowMapping) -> Alert:
    return Alert(**{**row, **{name: tuple(row[name]) for name in LISTS}})
