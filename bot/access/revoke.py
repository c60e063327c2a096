"""End a grant early: by its requester, by people who may revoke it, or by an operator whose server is gone.

The use case only begins the end; ``bot.jobs.revoke`` drops the user on the server.
"""

from __future__ import annotations

from bot.access import log_events, membership
from bot.access.alerts import resolve_end_alert
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle, describe_state
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import Person
from bot.policy import authorization
from bot.policy.facts import NO_FACTS
from storage.commands import ConfirmRevocation, RevokeGrant
from storage.errors import NoSuchRequest, NotPossible
from storage.records import Cause, Receipt, ReceiptOutcome, Request, State


async def done(context: Context, person: Person, request_id: int) -> Request:
    """End one's own grant. Returns it REVOKING. Raises UnknownRequest for everybody but the requester, TooLate where it is not live."""
    request = await _find(context, request_id)
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request_id}")
    return await _end(context, request, person, Cause.DONE)


async def revoke(context: Context, person: Person, request_id: int) -> Request:
    """End the grant of another person. Returns it REVOKING.

    Its approvers, people who could have approved it, admins and operators may do this. Raises Refused where this person may
    see the request but not revoke it, UnknownRequest where they may not see it, TooLate where it is not live.
    """
    request = await _find(context, request_id)
    if not person.is_operator:  # an operator has the right already and must not wait for Slack
        await _authorize(context, person, request)
    return await _end(context, request, person, Cause.REVOKED)


async def _authorize(context: Context, person: Person, request: Request) -> None:
    """Raises Refused or UnknownRequest where this person may not revoke the grant."""
    context.files.refresh()
    config, decisions = context.files.config, await context.ledger.requests.decisions(request.id)
    facts = await membership.facts(context, config) if config else NO_FACTS
    if config is not None and authorization.may_revoke(config, request, decisions, person.id, facts):
        return
    await log_events.click_refused(context, person, "revoke", request.id)
    if config is None or not authorization.may_see(config, request, decisions, person.id, facts):
        raise UnknownRequest(f"#{request.id}")
    raise Refused(
        f"Only those who can approve #{request.id} and admins can revoke it. To give back your own, use I'm done."
    )


async def declare_gone(context: Context, person: Person, request_id: int, reason: str) -> Request:
    """End a grant without proof, because its server no longer exists. Returns it REVOKED.

    The receipt says so, with the operator's ``reason``. Raises Refused for everybody but an operator, UnknownRequest, TooLate.
    """
    if not person.is_operator:
        raise Refused("Only the command line can declare a server gone.")
    request = await _find(context, request_id)
    if request.state is not State.REVOKING:
        request = await _end(context, request, person, Cause.GONE)
    receipt = Receipt(outcome=ReceiptOutcome.DECLARED_GONE, reason=reason)
    confirm = ConfirmRevocation(actor=person.id, receipt=receipt, facts={"gone": True}, text=reason)
    try:
        ended = await context.ledger.requests.advance(request_id, confirm)
    except NotPossible as error:
        raise TooLate(describe_obstacle(error)) from None
    await resolve_end_alert(context, ended)
    return ended


async def _find(context: Context, request_id: int) -> Request:
    try:
        return await context.ledger.requests.get(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None


async def _end(context: Context, request: Request, person: Person, cause: Cause) -> Request:
    try:
        return await context.ledger.requests.advance(request.id, RevokeGrant(actor=person.id, cause=cause))
    except NotPossible as error:
        raise TooLate(_describe_not_live(error)) from None


def _describe_not_live(error: NotPossible) -> str:
    if error.request.state is State.PENDING:
        return f"#{error.request.id} is still waiting: there is nothing to end."
    return describe_state(error.request, error.decisions)
