"""Show alerts in the alert channel; where that fails, to each admin. One message for each alert, edited while it lasts. Every alert is also in the log."""

from __future__ import annotations

import structlog

from bot.access.context import Context
from bot.access.ports import MessageGone, Posted, Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.notices import AlertNotice
from storage.alerts import Alert, AlertMessage

log = structlog.get_logger(__name__)


async def send_alert(context: Context, job: JobContext) -> None:
    """Job of ``alert``: post the alert, or edit its messages that show an older version."""
    alert = await context.ledger.alerts.get(int(job.payload["alert"]))
    if alert is None:
        return
    _log(alert)
    shown = await context.ledger.alerts.messages(alert.id)
    if not shown:
        await _post(context, job, alert)
    for message in shown:
        if message.version < alert.version:
            await job.check_claim()
            await _edit(context, alert, message)


def alert_notice(alert: Alert) -> AlertNotice:
    """The content of the message of an alert."""
    is_over = alert.resolution is not None
    return AlertNotice(
        what=alert.what,
        since=alert.since,
        tries=alert.tries,
        steps=() if is_over else alert.steps,
        enforced=None if is_over else alert.enforced,
        next_try_at=None if is_over else alert.next_try_at,
        resolved_at=alert.resolved_at if is_over else None,
        resolution=alert.resolution,
    )


def _log(alert: Alert) -> None:
    if alert.resolution is not None:
        log.info("alert_resolved", what=alert.what, resolution=alert.resolution)
    elif alert.version == 1:
        log.error("alert_raised", what=alert.what, steps=alert.steps)
    else:
        log.warning("alert_changed", what=alert.what, tries=alert.tries)


async def _post(context: Context, job: JobContext, alert: Alert) -> None:
    """Post the alert. Raises Retry where nobody was reached: it stays due. Without a policy in force the log has it."""
    policy = context.files.config.policy if context.files.config else None
    await job.check_claim()
    if policy is None:
        return
    channels = [policy.alert_channel] if policy.alert_channel else []
    if not await _post_to(context, channels, alert) and not await _post_to(context, list(policy.admins), alert):
        raise Retry("the alert reached nobody")


async def _post_to(context: Context, places: list[str], alert: Alert) -> bool:
    """Post to all places. True where at least one of them took the alert."""
    is_posted = False
    for place in places:
        try:
            posted = await context.messenger.post(place, alert_notice(alert))
        except Undeliverable as error:
            log.warning("alert_undeliverable", place=place, reason=str(error))
        else:
            is_posted = True
            await context.ledger.alerts.shown(
                AlertMessage(
                    alert_id=alert.id, place=place, channel=posted.channel, ts=posted.ts, version=alert.version
                )
            )
    return is_posted


async def _edit(context: Context, alert: Alert, message: AlertMessage) -> None:
    posted = Posted(channel=message.channel, ts=message.ts)
    try:
        await context.messenger.update(posted, alert_notice(alert))
    except MessageGone:
        posted = await context.messenger.post(message.place, alert_notice(alert))
    except Undeliverable as error:
        log.warning("alert_undeliverable", place=message.place, reason=str(error))
    await context.ledger.alerts.shown(
        AlertMessage(
            alert_id=alert.id, place=message.place, channel=posted.channel, ts=posted.ts, version=alert.version
        )
    )
