"""Raise alerts: an audit event, and the task that sends it, in one transaction."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access.context import Context
from storage.audit_events import Event
from storage.audit_log import AuditKind
from storage.records import Json, Request, TaskKind
from storage.transitions import TaskPlan

log = structlog.get_logger(__name__)


async def raise_alert(
    context: Context, request: Request | None, what: str, *, tries: int = 0, steps: tuple[str, ...] = ()
) -> None:
    """Record an alert and plan the task that sends it.

    ``what`` is the problem as one sentence, ``steps`` is what to do about it, ``tries`` is how often it was tried. None of
    them holds a secret: adapters remove secrets from their errors.
    """
    (kind, actor, facts), plan = plan_alert(what, await context.ledger.now(), tries=tries, steps=steps)
    await context.ledger.record(kind, actor=actor, request_id=request.id if request else None, facts=facts, plan=plan)


def plan_alert(what: str, now: datetime, *, tries: int = 0, steps: tuple[str, ...] = ()) -> tuple[Event, TaskPlan]:
    """The audit event and the task of an alert, for a transaction that writes more than these. Parameters as in ``raise_alert``."""
    payload: Json = {"what": what, "tries": tries, "steps": list(steps), "since": now.isoformat()}
    plan = TaskPlan(kind=TaskKind.ALERT, lock_key="slack:alerts", due_at=now, payload=payload)
    return (AuditKind.ALERT, "bot", {"what": what, "tries": tries}), plan
