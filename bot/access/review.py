"""Sign off a break-glass grant, and what comes of one that nobody signs off in time."""

from __future__ import annotations

from datetime import timedelta

import structlog

from bot.access import journal, membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.errors import Refused, TooLate
from bot.jobs.job import JobContext, Retry
from bot.access.ports import Person, ReviewNotice, Undeliverable
from bot.access.descriptions import why_not
from bot.policy import authorization
from storage.audit_log import AuditKind
from storage.errors import NotPossible
from storage.records import Decision, Request, RequestKind, Verdict
from storage.transitions import Transition, TransitionInput

AGAIN_AFTER = timedelta(hours=24)

log = structlog.get_logger(__name__)


async def sign_off(context: Context, person: Person, request: Request) -> Request:
    """Someone else answers for what was done. Raises Refused where it is not theirs to do, TooLate where it was done."""
    request, config = await context.ledger.request(request.id), context.in_force()
    no = authorization.may_review(config, request, person.id, await membership.facts(context, config))
    if no is not None:
        await context.ledger.record(
            AuditKind.CLICK_REFUSED, actor=person.id, request_id=request.id, facts={"verb": "review"}
        )
        journal.click_refused(person, "review", request.id)
        raise Refused(no.reason)
    if request.kind is RequestKind.BREAK_GLASS and not request.needs_review and request.reviewed_at is None:
        raise TooLate(f"#{request.id} was never given: there is nothing to sign off.")
    decision = Decision(
        request_id=request.id,
        person_id=person.id,
        person_name=person.name,
        verdict=Verdict.SIGN_OFF,
        stage=0,
        at=await context.ledger.now(),
    )
    change = TransitionInput(actor=person.id, decision=decision, audit=AuditKind.SIGNED_OFF)
    try:
        return await context.ledger.advance(request.id, Transition.NOTE, change)
    except NotPossible as lost:
        raise TooLate(why_not(lost)) from None


async def overdue(context: Context, work: JobContext) -> None:
    """Effect of ``review``, due when the time to sign off is over: an alert, and the reviewers are asked again, every day."""
    request = await work.request()
    if not request.needs_review:
        return
    await context.ledger.record(AuditKind.REVIEW_OVERDUE, actor="clock", request_id=request.id)
    await raise_alert(
        context,
        request,
        f"Break-glass #{request.id} of @{request.requester_name} on {request.database} is not signed off, and its time is over.",
        steps=(f"See what was done with it: dbaccess show {request.id}", f"Sign it off: /dbaccess review {request.id}"),
    )
    for person_id in sorted(await _reviewers(context, request)):
        await work.hold()
        try:
            await context.messenger.post(person_id, ReviewNotice(request=request))
        except Undeliverable as closed:
            log.warning("a reviewer cannot be told", request=request.id, why=str(closed))
    raise Retry("until it is signed off", at=await context.ledger.now() + AGAIN_AFTER)


async def _reviewers(context: Context, request: Request) -> frozenset[str]:
    config = context.files.config
    return authorization.reviewers(config, request, await membership.facts(context, config)) if config else frozenset()
