"""What time brings while a request waits or a grant lives: reminders with back-off, escalation, the warning before the end, those who are told."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from bot.access import membership
from bot.access.break_glass import tell_loudly
from bot.access.context import Context
from bot.access.job import JobContext, Retry
from bot.access.ports import EndingSoonNotice, GrantedNotice, MessageGone, Notice, ReminderNotice, Undeliverable
from bot.access.tell import COPIES_MAX, post_copies, waits_for
from bot.policy.facts import NO_FACTS, Facts
from bot.policy.model import CHANNEL
from storage.audit_log import AuditKind
from storage.records import Purpose, Request, RequestKind, State
from storage.transitions import Transition, TransitionInput, warn_at

DOUBLED_AT_MOST = 6
"""A reminder comes after 1, 3, 7, 15 … times ``remind_after``; from the seventh on at even distances."""

log = structlog.get_logger(__name__)


async def remind(context: Context, work: JobContext) -> None:
    """Effect of ``remind``: whoever can decide is told again, less often each time, until the request is closed."""
    request = await work.request()
    if request.state is not State.PENDING or request.terms.remind_after is None:
        return
    now = await context.ledger.now()
    await work.hold()
    await _beside_the_cards(context, request, await _reminder(context, request))
    await context.ledger.record(AuditKind.REMINDED, actor="clock", request_id=request.id)
    pause = request.terms.remind_after * 2 ** min(work.tries, DOUBLED_AT_MOST)
    raise Retry("until it is decided", at=now + pause)


async def _reminder(context: Context, request: Request, *, is_escalation: bool = False) -> ReminderNotice:
    names = await waits_for(context, request, await context.ledger.decisions(request.id))
    return ReminderNotice(request=request, waits_for=names, is_escalation=is_escalation)


async def _beside_the_cards(context: Context, request: Request, notice: Notice) -> None:
    """In the thread of the card; whoever has a copy of their own is told in that conversation."""
    for message in await context.ledger.messages(request.id):
        if message.ts is not None and message.purpose in (Purpose.CARD, Purpose.CARD_COPY):
            thread = message.ts if message.purpose is Purpose.CARD else None
            await _said(context, message.channel, notice, thread=thread)


async def _said(context: Context, place: str, notice: Notice, *, thread: str | None = None) -> None:
    try:
        try:
            await context.messenger.post(place, notice, thread=thread)
        except MessageGone:
            await context.messenger.post(place, notice)
    except Undeliverable as closed:
        log.warning("somebody cannot be told", place=place, why=str(closed))


async def escalate(context: Context, work: JobContext) -> None:
    """Effect of ``escalate``: from now on others may decide as well; they are mentioned, and get a card of their own."""
    request = await work.request()
    if request.state is not State.PENDING or request.terms.escalation is None:
        return
    wider = list(request.terms.escalation.to)
    await work.hold()
    change = TransitionInput(actor="clock", audit=AuditKind.ESCALATED, facts={"to": wider})
    request = await work.advance(
        request, Transition.NOTE, change
    )  # a new version: every card is redrawn with them on it
    await _beside_the_cards(context, request, await _reminder(context, request, is_escalation=True))
    facts = await _facts(context)
    asked = facts.people(who for stage in request.terms.stages for who in stage.approvers)
    await post_copies(context, work, request, facts.people(wider) - asked - {request.requester_id})


async def _facts(context: Context) -> Facts:
    config = context.files.config
    return await membership.facts(context, config) if config else NO_FACTS


async def warn(context: Context, work: JobContext) -> None:
    """Effect of ``warn_before_end``: the requester hears of the end in time to ask for more, or to give it back."""
    request = await work.request()
    if request.state is not State.ACTIVE or request.expires_at is None:
        return
    if await context.ledger.now() < (due := warn_at(request)):
        raise Retry("its end was moved", at=due)
    await work.hold()
    await _said(context, request.requester_id, EndingSoonNotice(request=request))


async def notify(context: Context, work: JobContext) -> None:
    """Effect of ``notify``: those whom the rule tells, and does not ask, hear of what was given."""
    request = await work.request()
    loud = await tell_loudly(context, request) if request.kind is RequestKind.BREAK_GLASS else frozenset()
    notice = GrantedNotice(request=request, decisions=await context.ledger.decisions(request.id))
    for place in await _places(context, (*request.terms.notify, *sorted(loud)), but=request.requester_id):
        await work.hold()
        await _said(context, place, notice)


async def _places(context: Context, listed: Collection[str], *, but: str) -> list[str]:
    """Channels as they are; people, and everybody in a group, by DM."""
    channels = [name for name in listed if CHANNEL.fullmatch(name)]
    facts = await _facts(context)
    people_told = sorted(facts.people(name for name in listed if name not in channels) - {but})
    return channels + people_told[:COPIES_MAX]
