"""Put an alert on the record, together with the task that sends it."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access.context import Context
from storage.audit_log import AuditKind
from storage.ledger import Event
from storage.records import Json, Request, TaskKind
from storage.transitions import TaskPlan

log = structlog.get_logger(__name__)


async def raise_alert(
    context: Context, request: Request | None, what: str, *, tries: int = 0, steps: tuple[str, ...] = ()
) -> None:
    """Put an alert on the record and on its way to the alert channel. The words hold no secret: adapters scrub theirs."""
    (kind, actor, facts), plan = plan_alert(what, await context.ledger.now(), tries=tries, steps=steps)
    await context.ledger.record(kind, actor=actor, request_id=request.id if request else None, facts=facts, plan=plan)


def plan_alert(what: str, now: datetime, *, tries: int = 0, steps: tuple[str, ...] = ()) -> tuple[Event, TaskPlan]:
    """The alert's event and its task, for a transaction that writes more than these."""
    payload: Json = {"what": what, "tries": tries, "steps": list(steps), "since": now.isoformat()}
    plan = TaskPlan(kind=TaskKind.ALERT, lock_key="slack:alerts", due_at=now, payload=payload)
    return (AuditKind.ALERT, "bot", {"what": what, "tries": tries}), plan
