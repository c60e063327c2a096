"""Raise alerts: an audit event, and the task that sends it, in one transaction."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access.context import Context
from bot.access.descriptions import shorten
from storage.audit_events import Event
from storage.audit_log import AuditKind
from storage.records import Json, Request, TaskKind
from storage.transitions import TaskPlan

WHAT_MAX = 1000
STEP_MAX = 1000
STEPS_MAX = 12
"""The bounds of an alert: characters of ``what`` and of each step, and the number of steps. Slack refuses longer messages."""

log = structlog.get_logger(__name__)


async def raise_alert(
    context: Context, request: Request | None, what: str, *, tries: int = 0, steps: tuple[str, ...] = ()
) -> None:
    """Record an alert and plan the task that sends it.

    ``what`` is the problem as one sentence, ``steps`` is what to do about it, ``tries`` is how often it was tried. None of
    them holds a secret: adapters remove secrets from their errors. Longer texts are cut.
    """
    (kind, actor, facts), plan = plan_alert(what, await context.ledger.now(), tries=tries, steps=steps)
    await context.ledger.record(kind, actor=actor, request_id=request.id if request else None, facts=facts, plan=plan)


def plan_alert(what: str, now: datetime, *, tries: int = 0, steps: tuple[str, ...] = ()) -> tuple[Event, TaskPlan]:
    """The audit event and the task of an alert, for a transaction that writes more than these. Parameters as in ``raise_alert``."""
    what, shown = shorten(what, WHAT_MAX), [shorten(step, STEP_MAX) for step in steps[:STEPS_MAX]]
    payload: Json = {"what": what, "tries": tries, "steps": shown, "since": now.isoformat()}
    plan = TaskPlan(kind=TaskKind.ALERT, lock_key="slack:alerts", due_at=now, payload=payload)
    return (AuditKind.ALERT, "bot", {"what": what, "tries": tries}), plan
