"""Messages at certain times: reminders with back-off, the escalation, the warning before the end, the overdue review."""

from __future__ import annotations

from datetime import timedelta

from bot.access import membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.ports import Notice
from bot.jobs.job import JobContext, Retry
from bot.notifications.cards import post_copies, waits_for
from bot.notifications.messages import post_or_warn
from bot.notifications.notices import EndingSoonNotice, ReminderNotice, ReviewNotice
from bot.policy import authorization
from storage.audit_kinds import AuditKind
from storage.commands import Escalate
from storage.records import Purpose, Request, State
from storage.transitions import warn_at

REVIEW_REMINDER_PAUSE = timedelta(hours=24)

MAX_DOUBLINGS = 6
"""Reminders come after 1, 3, 7, 15 … times ``remind_after``; from the seventh on, the pause stays the same."""


async def remind(context: Context, job: JobContext) -> None:
    """Job of ``remind``: remind the people who can decide, with longer and longer pauses, until the request is closed."""
    request = await job.request()
    if request.state is not State.PENDING or request.terms.remind_after is None:
        return
    now = await context.ledger.now()
    await _post_next_to_cards(context, job, request, await _reminder_notice(context, request))
    await context.ledger.audit.record(AuditKind.REMINDED, actor="clock", request_id=request.id)
    pause = request.terms.remind_after * 2 ** min(job.tries, MAX_DOUBLINGS)
    raise Retry("until it is decided", at=now + pause)


async def _reminder_notice(context: Context, request: Request, *, is_escalation: bool = False) -> ReminderNotice:
    names = await waits_for(context, request, await context.ledger.requests.decisions(request.id))
    return ReminderNotice(request=request, waits_for=names, is_escalation=is_escalation)


async def _post_next_to_cards(context: Context, job: JobContext, request: Request, notice: Notice) -> None:
    """Post in the thread of the card, and in each conversation that has a copy of it."""
    cards = {
        message.channel: message.ts if message.purpose is Purpose.CARD else None
        for message in await context.ledger.messages.of(request.id)
        if message.ts is not None and message.purpose in (Purpose.CARD, Purpose.CARD_COPY)
    }
    await job.post_to_each(cards, lambda channel: post_or_warn(context, channel, notice, thread=cards[channel]))


async def escalate(context: Context, job: JobContext) -> None:
    """Job of ``escalate``: further approvers may decide from now on. They are mentioned and get a copy of the card."""
    request = await job.request()
    if request.state is not State.PENDING or request.terms.escalation is None:
        return
    further = list(request.terms.escalation.to)
    if not job.is_resumed:
        await job.check_claim()
        request = await job.advance(
            request, Escalate(actor="clock", facts={"to": further})
        )  # its update_card task names them on the cards
    await _post_next_to_cards(context, job, request, await _reminder_notice(context, request, is_escalation=True))
    facts = await membership.facts_in_force(context)
    already_asked = facts.expand(who for stage in request.terms.stages for who in stage.approvers)
    await post_copies(context, job, request, facts.expand(further) - already_asked - {request.requester_id})


async def warn_before_end(context: Context, job: JobContext) -> None:
    """Job of ``warn_before_end``: warn the requester in time to ask for more time or to end the access."""
    request = await job.request()
    if request.state is not State.ACTIVE or request.expires_at is None:
        return
    if await context.ledger.now() < (due := warn_at(request)):
        raise Retry("its end was moved", at=due)
    await job.check_claim()
    await post_or_warn(context, request.requester_id, EndingSoonNotice(request=request))


async def review_overdue(context: Context, job: JobContext) -> None:
    """Job of ``review``, due when the time to sign off is over: an alert and a message to each reviewer, every day."""
    request = await job.request()
    if not request.needs_review:
        return
    if not job.is_resumed:
        await context.ledger.audit.record(AuditKind.REVIEW_OVERDUE, actor="clock", request_id=request.id)
    await raise_alert(
        context,
        request,
        f"Break-glass #{request.id} of @{request.requester_name} on {request.database} is not signed off, and its time is over.",
        cause=f"review:{request.id}",
        steps=(f"See what was done with it: dbaccess show {request.id}", f"Sign it off: /dbaccess review {request.id}"),
    )
    reviewers, notice = sorted(await _reviewers(context, request)), ReviewNotice(request=request)
    await job.post_to_each(reviewers, lambda person_id: post_or_warn(context, person_id, notice))
    raise Retry("until it is signed off", at=await context.ledger.now() + REVIEW_REMINDER_PAUSE)


async def _reviewers(context: Context, request: Request) -> frozenset[str]:
    config = context.files.config
    return authorization.reviewers(config, request, await membership.facts(context, config)) if config else frozenset()
