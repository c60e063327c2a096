"""Send alerts: to the alert channel, else to the admins, and to the log in any case."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access.context import Context
from bot.access.ports import Undeliverable
from bot.jobs.job import JobContext
from bot.notifications.notices import AlertNotice

log = structlog.get_logger(__name__)


async def alert(context: Context, job: JobContext) -> None:
    """Effect of ``alert``: what is wrong, since when, what was tried, what to do now."""
    payload = job.payload
    notice = AlertNotice(
        what=payload["what"],
        since=datetime.fromisoformat(payload["since"]),
        tries=payload.get("tries", 0),
        steps=tuple(payload.get("steps", ())),
    )
    log.error("alert", what=notice.what, steps=notice.steps)
    policy = context.files.config.policy if context.files.config else None
    await job.check_claim()
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
