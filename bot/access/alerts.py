"""Alerts: to the alert channel, else to the admins, and to the log in any case."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access import journal
from bot.access.context import Context
from bot.jobs.job import JobContext
from bot.access.ports import AlertNotice, Undeliverable
from storage.audit_log import AuditKind
from storage.ledger import Event
from storage.records import Json, Request, TaskKind
from storage.transitions import TaskPlan

SHOWN_PROBLEMS = 10

log = structlog.get_logger(__name__)


async def raise_alert(
    context: Context, request: Request | None, what: str, *, tries: int = 0, steps: tuple[str, ...] = ()
) -> None:
    """Put an alert on the record and on its way to the alert channel. The words hold no secret: adapters scrub theirs."""
    (kind, actor, facts), plan = planned(what, await context.ledger.now(), tries=tries, steps=steps)
    await context.ledger.record(kind, actor=actor, request_id=request.id if request else None, facts=facts, plan=plan)


def planned(what: str, now: datetime, *, tries: int = 0, steps: tuple[str, ...] = ()) -> tuple[Event, TaskPlan]:
    """The alert's event and its task, for a transaction that writes more than these."""
    payload: Json = {"what": what, "tries": tries, "steps": list(steps), "since": now.isoformat()}
    plan = TaskPlan(kind=TaskKind.ALERT, lock_key="slack:alerts", due_at=now, payload=payload)
    return (AuditKind.ALERT, "bot", {"what": what, "tries": tries}), plan


async def alert(context: Context, work: JobContext) -> None:
    """Effect of ``alert``: what is wrong, since when, what was tried, what to do now."""
    payload = work.payload
    notice = AlertNotice(
        what=payload["what"],
        since=datetime.fromisoformat(payload["since"]),
        tries=payload.get("tries", 0),
        steps=tuple(payload.get("steps", ())),
    )
    log.error("alert", what=notice.what, steps=notice.steps)
    policy = context.files.config.policy if context.files.config else None
    await work.hold()
    if policy is None or not await _reaches(context, [policy.alert_channel] if policy.alert_channel else [], notice):
        await _reaches(context, list(policy.admins) if policy else [], notice)


async def _reaches(context: Context, places: list[str], notice: AlertNotice) -> bool:
    reached = False
    for place in places:
        try:
            await context.messenger.post(place, notice)
        except Undeliverable as closed:
            log.warning("an alert cannot be delivered", place=place, why=str(closed))
        else:
            reached = True
    return reached


async def announce_files(context: Context, *, is_start: bool = False) -> None:
    """Put a changed configuration on the record, and a broken one before those who look after it."""
    files = context.files
    files.refresh()
    if not files.is_news:
        return
    files.is_news = False
    if not is_start:
        journal.reloaded(files)
    if files.problems is not None:
        await context.ledger.record(
            AuditKind.POLICY_REFUSED, actor="files", facts={"problems": len(files.problems.problems)}
        )
        await raise_alert(
            context,
            None,
            "The changed configuration has mistakes and is not in force.",
            steps=_first(str(files.problems)),
        )
    elif files.config is not None:
        await context.ledger.record(AuditKind.POLICY_LOADED, actor="files", facts={"digest": files.config.digest})


def _first(problems: str) -> tuple[str, ...]:
    lines = problems.splitlines()
    return (
        *lines[:SHOWN_PROBLEMS],
        *([f"… and {len(lines) - SHOWN_PROBLEMS} more"] if len(lines) > SHOWN_PROBLEMS else []),
    )
