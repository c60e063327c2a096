"""Send alerts to the alert channel; where that fails, to each admin. Every alert is also in the log."""

from __future__ import annotations

from datetime import datetime

import structlog

from bot.access.context import Context
from bot.access.ports import Undeliverable
from bot.jobs.job import JobContext
from bot.notifications.notices import AlertNotice

log = structlog.get_logger(__name__)


async def send_alert(context: Context, job: JobContext) -> None:
    """Job of ``alert``: what is wrong, since when, how often it was tried, what to do now."""
    payload = job.payload
    notice = AlertNotice(
        what=payload["what"],
        since=datetime.fromisoformat(payload["since"]),
        tries=payload.get("tries", 0),
        steps=tuple(payload.get("steps", ())),
    )
    log.error("alert_raised", what=notice.what, steps=notice.steps)
    policy = context.files.config.policy if context.files.config else None
    await job.check_claim()
    if policy is None:
        return
    if not await _is_posted(context, [policy.alert_channel] if policy.alert_channel else [], notice):
        await _is_posted(context, list(policy.admins), notice)


async def _is_posted(context: Context, places: list[str], notice: AlertNotice) -> bool:
    """Post to all places. True where at least one of them took the alert."""
    is_posted = False
    for place in places:
        try:
            await context.messenger.post(place, notice)
        except Undeliverable as error:
            log.warning("alert_undeliverable", place=place, reason=str(error))
        else:
            is_posted = True
    return is_posted
