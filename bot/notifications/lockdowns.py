"""Follow a lockdown: end what is left to end, and show in one message how many grants still end.

The message goes to the alert channel; where that fails, to each admin. It is edited while grants end, and says at last who lifted it.
"""

from __future__ import annotations

from datetime import timedelta

import structlog

from bot.access import membership
from bot.access.context import Context
from bot.access.lockdown import end_matching_grants
from bot.access.ports import Delayed, MessageGone, Posted, Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.notices import LockdownNotice
from storage.records import Lockdown, LockdownMessage

EDIT_EVERY = timedelta(seconds=2)
SLOWEST = timedelta(seconds=15)
"""The longest pause between two looks, where the ends do not get on."""

UNREACHED_PAUSE = timedelta(minutes=1)
"""The pause before a message that reached nobody is tried again."""

log = structlog.get_logger(__name__)


async def follow_lockdown(context: Context, job: JobContext) -> None:
    """Job of ``lockdown``. Ends grants before it says anything, so that Slack never holds up an end.

    Raises Retry until every matching grant has ended, or the lockdown is lifted.
    """
    lockdown = await context.ledger.lockdowns.get(int(job.payload["lockdown"]))
    if lockdown is None:
        return
    left = await _end_and_count(context, lockdown) if lockdown.is_in_force else 0
    if lockdown.is_in_force and left == 0:
        lockdown = await context.ledger.lockdowns.all_ended(lockdown.id) or lockdown
    has_changed = await _show(context, job, LockdownNotice(lockdown=lockdown, left=left))
    if left:
        raise await _look_again(context, job, lockdown, left, has_changed=has_changed)


async def _end_and_count(context: Context, lockdown: Lockdown) -> int:
    """The number of matching grants that have not ended. The end of each has begun."""
    await end_matching_grants(context, lockdown)
    return await context.ledger.lockdowns.count_live(lockdown)


async def _look_again(context: Context, job: JobContext, lockdown: Lockdown, left: int, *, has_changed: bool) -> Retry:
    """The Retry to raise: after ``EDIT_EVERY`` while the ends get on, and later each time where they do not."""
    pause = EDIT_EVERY if has_changed else min(EDIT_EVERY * job.tries, SLOWEST)
    at = await context.ledger.now() + pause
    return Retry(f"{left} grants of lockdown {lockdown.id} still end", at=at, is_untried=has_changed)


async def _show(context: Context, job: JobContext, notice: LockdownNotice) -> bool:
    """Post the message, or edit those that say something else. True where something was posted or edited.

    Raises Retry where nobody was reached, and Delayed.
    """
    messages = await context.ledger.lockdowns.messages(notice.lockdown.id)
    outdated = [one for one in messages if one.shown != _content(notice)]
    if messages and not outdated:
        return False
    await job.check_claim()
    if not messages:
        await _post(context, job, notice)
    for one in outdated:
        await job.check_claim()
        await _edit(context, notice, one)
    return True


def _content(notice: LockdownNotice) -> str:
    """What a message says, for the comparison with what it shows now."""
    return "lifted" if not notice.lockdown.is_in_force else f"{notice.left} left"


async def _post(context: Context, job: JobContext, notice: LockdownNotice) -> None:
    """Post to the alert channel; where that fails, to each admin. Raises Retry where nobody was reached, and Delayed."""
    config = context.files.config
    if config is None:
        raise Retry("no configuration says where messages go", at=await context.ledger.now() + UNREACHED_PAUSE)
    channel = config.policy.alert_channel
    if channel is not None and await _is_posted(context, notice, channel):
        return
    people = (await membership.facts(context, config)).expand(config.policy.admins)
    reached, delay = False, None
    for person_id in sorted(people):
        await job.check_claim()
        try:
            reached = await _is_posted(context, notice, person_id) or reached
        except Delayed as error:
            delay = error
    if delay is not None and not reached:
        raise delay
    if not reached:
        raise Retry("the message reached nobody", at=await context.ledger.now() + UNREACHED_PAUSE)


async def _is_posted(context: Context, notice: LockdownNotice, place: str) -> bool:
    """Post to a channel or person. False where it cannot be delivered there. Raises Delayed."""
    try:
        posted = await context.messenger.post(place, notice)
    except Undeliverable as error:
        log.warning("lockdown_undeliverable", place=place, reason=str(error))
        return False
    await _record(context, notice, place, posted)
    return True


async def _edit(context: Context, notice: LockdownNotice, message: LockdownMessage) -> None:
    posted = Posted(channel=message.channel, ts=message.ts)
    try:
        await context.messenger.update(posted, notice)
    except MessageGone:
        posted = await context.messenger.post(message.place, notice)
    except Undeliverable as error:
        log.warning("lockdown_undeliverable", place=message.place, reason=str(error))
    await _record(context, notice, message.place, posted)


async def _record(context: Context, notice: LockdownNotice, place: str, posted: Posted) -> None:
    message = LockdownMessage(
        lockdown_id=notice.lockdown.id, place=place, channel=posted.channel, ts=posted.ts, shown=_content(notice)
    )
    await context.ledger.lockdowns.shown(message)
