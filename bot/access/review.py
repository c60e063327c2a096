"""Sign off a break-glass grant: a reviewer confirms that the access was in order."""

from __future__ import annotations

from bot.access import log_events, membership
from bot.access.alerts import resolve_alert
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle
from bot.access.errors import Refused, TooLate
from bot.access.ports import Person
from bot.policy import authorization
from storage.commands import SignOff
from storage.errors import NotPossible
from storage.records import Decision, Request, RequestKind, Verdict


async def sign_off(context: Context, person: Person, request: Request) -> Request:
    """Record the sign-off of a reviewer, who is never the requester.

    Raises Refused where this person is no reviewer, and TooLate where it is signed off already or was never granted.
    """
    request, config = await context.ledger.requests.get(request.id), context.config_in_force()
    refusal = authorization.may_review(config, request, person.id, await membership.facts(context, config))
    if refusal is not None:
        await log_events.click_refused(context, person, "review", request.id)
        raise Refused(refusal.reason)
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
        reviewed = await context.ledger.requests.advance(request.id, SignOff(actor=person.id, decision=decision))
    except NotPossible as error:
        raise TooLate(describe_obstacle(error)) from None
    await resolve_alert(context, f"review:{request.id}", f"#{request.id} was signed off by @{person.name}.")
    return reviewed
