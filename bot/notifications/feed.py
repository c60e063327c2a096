"""The audit channel: shows the audit log from a stored cursor on, with at most one message a second."""

from __future__ import annotations

from datetime import datetime, timedelta

from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from bot.access.ports import Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.notices import FeedNotice
from storage.audit_kinds import AuditKind
from storage.records import AuditEvent

FEED_LINES = 25
FEED_PAUSE = timedelta(seconds=1)
CLOSED = "audit_channel"
"""The cause of the alert about an audit channel that cannot be written."""
HIDDEN = frozenset({AuditKind.NOTED, AuditKind.CLICK_REFUSED})


async def post_feed(context: Context, job: JobContext) -> None:
    """Job of ``audit_feed``: post the next lines in one message. Without a channel the cursor stays, so no line is lost."""
    channel = context.files.config.policy.audit_channel if context.files.config else None
    if channel is None:
        return
    now, last = await context.ledger.now(), await context.ledger.observations.cursor("feed_at")
    if (pause := datetime.fromtimestamp(last / 1000, tz=now.tzinfo) + FEED_PAUSE) > now:
        raise Retry("at most one message a second", at=pause)
    events = await context.ledger.audit.events_after(await context.ledger.observations.cursor("feed"), limit=FEED_LINES)
    if not events:
        return
    shown = [event for event in events if event.kind not in HIDDEN]
    if shown:
        await job.check_claim()
        await _post_feed(context, channel, shown)
        await context.ledger.observations.set_cursor("feed_at", int(now.timestamp() * 1000))
    await context.ledger.observations.set_cursor("feed", events[-1].id)
    if len(events) == FEED_LINES:
        raise Retry("more lines wait", at=now + FEED_PAUSE)


async def _post_feed(context: Context, channel: str, events: list[AuditEvent]) -> None:
    ids = {event.request_id for event in events if event.request_id is not None}
    requests = {request_id: await context.ledger.requests.get(request_id) for request_id in ids}
    try:
        await context.messenger.post(channel, FeedNotice(events=events, requests=requests))
    except Undeliverable as error:
        steps = (f"Invite the bot to {channel}, or name another audit_channel in policy.yml. No line is lost.",)
        what = f"The audit channel {channel} cannot be written: {error}."
        await raise_alert(context, None, what, cause=CLOSED, steps=steps)
        raise Retry(f"the audit channel cannot be written: {error}") from None
    await resolve_alert(context, CLOSED, f"The audit channel {channel} can be written.")
