"""Show alerts in the alert channel; where that fails, to each admin. One message for each alert, edited while it lasts. Every alert is also in the log.

An alert that reached nobody stays due. Its task runs in a pool of its own, so it waits for no other message.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from bot.access import membership
from bot.access.context import Context
from bot.access.ports import Delayed, MessageGone, Posted, Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.notices import AlertNotice
from bot.policy.model import CHANNEL
from storage.alerts import Alert, AlertMessage
from storage.errors import NoSuchRequest
from storage.records import Request, RequestKind

UNREACHED_PAUSE = timedelta(minutes=1)
"""The longest pause before an alert that reached nobody is tried again."""

log = structlog.get_logger(__name__)


async def send_alert(context: Context, job: JobContext) -> None:
    """Job of ``alert``: post the alert, or edit its messages that show an older version."""
    alert = await context.ledger.alerts.get(int(job.payload["alert"]))
    if alert is None:
        return
    _log(alert)
    notice = alert_notice(alert, await _concerned(context, alert))
    shown = await context.ledger.alerts.messages(alert.id)
    for message in shown:
        if message.version < alert.version:
            await job.check_claim()
            await _edit(context, alert, message, notice)
    await _post(context, job, alert, notice, {message.place for message in shown})


def alert_notice(alert: Alert, request: Request | None = None) -> AlertNotice:
    """The content of the message of an alert. ``request``: the break-glass access that it tells of."""
    is_over = alert.resolution is not None
    return AlertNotice(
        what=alert.what,
        since=alert.since,
        is_event=alert.resolved_at is not None and not is_over,
        tries=alert.tries,
        steps=() if is_over else alert.steps,
        statements=() if is_over else alert.statements,
        enforced=None if is_over else alert.enforced,
        next_try_at=None if is_over else alert.next_try_at,
        resolved_at=alert.resolved_at if is_over else None,
        resolution=alert.resolution,
        request=request,
    )


async def _concerned(context: Context, alert: Alert) -> Request | None:
    """The break-glass access to which the alert has buttons."""
    try:
        request = await context.ledger.requests.get(alert.request_id) if alert.request_id is not None else None
    except NoSuchRequest:
        return None
    return request if request is not None and request.kind is RequestKind.BREAK_GLASS else None


def _log(alert: Alert) -> None:
    if alert.resolution is not None:
        log.info("alert_resolved", what=alert.what, resolution=alert.resolution)
    elif alert.version == 1:
        log.error("alert_raised", what=alert.what, steps=alert.steps)
    else:
        log.warning("alert_changed", what=alert.what, tries=alert.tries)


async def _post(context: Context, job: JobContext, alert: Alert, notice: AlertNotice, shown: set[str]) -> None:
    """Post the alert where it is not shown yet. Raises Retry where nobody was reached: it stays due."""
    if shown and (alert.resolution is not None or any(map(CHANNEL.fullmatch, shown))):
        return
    if context.files.config is None:
        context.files.refresh()
    config = context.files.config
    if config is None:
        raise Retry("no configuration says where alerts go", at=await context.ledger.now() + UNREACHED_PAUSE)
    channel = config.policy.alert_channel
    if channel is not None and not shown:
        await job.check_claim()
        if await _is_posted(context, alert, notice, channel):
            return
    people = (await membership.facts(context, config)).expand(config.policy.admins)
    if not await _post_to_people(context, job, alert, notice, people - shown) and not shown:
        raise Retry("the alert reached nobody", at=await context.ledger.now() + UNREACHED_PAUSE)


async def _post_to_people(
    context: Context, job: JobContext, alert: Alert, notice: AlertNotice, people: frozenset[str]
) -> bool:
    """Post to each of these people. True where at least one has it. Raises Delayed, after the others, where Slack delays one of them."""
    reached, delay = False, None
    for person_id in sorted(people):
        await job.check_claim()
        try:
            reached = await _is_posted(context, alert, notice, person_id) or reached
        except Delayed as error:
            delay = error
    if delay is not None:
        raise delay
    return reached


async def _is_posted(context: Context, alert: Alert, notice: AlertNotice, place: str) -> bool:
    """Post to a channel or person. False where it cannot be delivered there. Raises Delayed."""
    try:
        posted = await context.messenger.post(place, notice)
    except Undeliverable as error:
        log.warning("alert_undeliverable", place=place, reason=str(error))
        return False
    await _record(context, alert, place, posted)
    return True


async def _edit(context: Context, alert: Alert, message: AlertMessage, notice: AlertNotice) -> None:
    posted = Posted(channel=message.channel, ts=message.ts)
    try:
        await context.messenger.update(posted, notice)
    except MessageGone:
        posted = await context.messenger.post(message.place, notice)
    except Undeliverable as error:
        log.warning("alert_undeliverable", place=message.place, reason=str(error))
    await _record(context, alert, message.place, posted)


async def _record(context: Context, alert: Alert, place: str, posted: Posted) -> None:
    await context.ledger.alerts.shown(
        AlertMessage(alert_id=alert.id, place=place, channel=posted.channel, ts=posted.ts, version=alert.version)
    )
