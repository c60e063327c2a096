"""Sign off a break-glass grant."""

from __future__ import annotations

import structlog

from bot.access import log_events, membership_facts
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle
from bot.access.errors import Refused, TooLate
from bot.access.ports import Person
from bot.policy import authorization
from storage.audit_log import AuditKind
from storage.commands import SignOff
from storage.errors import NotPossible
from storage.records import Decision, Request, RequestKind, Verdict

log = structlog.get_logger(__name__)


async def sign_off(context: Context, person: Person, request: Request) -> Request:
    """Someone else answers for what was done. Raises Refused where it is not theirs to do, TooLate where it was done."""
    request, config = await context.ledger.request(request.id), context.config_in_force()
    no = authorization.may_review(config, request, person.id, await membership_facts.gather(context, config))
    if no is not None:
        await context.ledger.record(
            AuditKind.CLICK_REFUSED, actor=person.id, request_id=request.id, facts={"verb": "review"}
        )
        log_events.click_refused(person, "review", request.id)
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
    try:
        return await context.ledger.advance(request.id, SignOff(actor=person.id, decision=decision))
    except NotPossible as lost:
        raise TooLate(describe_obstacle(lost)) from None
