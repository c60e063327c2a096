"""End a grant early: its requester, those who may revoke it, or an operator whose server is gone. ``bot.jobs.revoke`` carries it through."""

from __future__ import annotations

from bot.access import log_events, membership_facts
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle, describe_state
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import Person
from bot.policy import authorization
from bot.policy.facts import NOTHING_KNOWN
from storage.audit_log import AuditKind
from storage.commands import ConfirmRevocation, RevokeGrant
from storage.errors import NoSuchRequest, NotPossible
from storage.records import Cause, Receipt, ReceiptOutcome, Request, State


async def done(context: Context, person: Person, request_id: int) -> Request:
    """The requester gives their grant back early. Raises Unknown for everybody else, TooLate where it is over."""
    request = await _find(context, request_id)
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request_id}")
    return await _end(context, request, person, Cause.DONE)


async def revoke(context: Context, person: Person, request_id: int) -> Request:
    """End someone's grant: its approvers, those who could have approved it, admins. Raises Refused, Unknown, TooLate."""
    request = await _find(context, request_id)
    if not person.is_operator:  # who has the command line needs no word of Slack's, and must not wait for it
        await _may_revoke(context, person, request)
    return await _end(context, request, person, Cause.REVOKED)


async def _may_revoke(context: Context, person: Person, request: Request) -> None:
    context.files.refresh()
    config, decisions = context.files.config, await context.ledger.decisions(request.id)
    facts = await membership_facts.gather(context, config) if config else NOTHING_KNOWN
    if config is not None and authorization.may_revoke(config, request, decisions, person.id, facts):
        return
    await context.ledger.record(
        AuditKind.CLICK_REFUSED, actor=person.id, request_id=request.id, facts={"verb": "revoke"}
    )
    log_events.click_refused(person, "revoke", request.id)
    if config is None or not authorization.may_see(config, request, decisions, person.id, facts):
        raise UnknownRequest(f"#{request.id}")
    raise Refused(
        f"Only those who can approve #{request.id} and admins can revoke it. To give back your own, use I'm done."
    )


async def declare_gone(context: Context, person: Person, request_id: int, reason: str) -> Request:
    """The server is no more: end the grant without proof, on an operator's word, and say so for ever in the receipt."""
    if not person.is_operator:
        raise Refused("Only the command line can declare a server gone.")
    request = await _find(context, request_id)
    if request.state is not State.REVOKING:
        request = await _end(context, request, person, Cause.GONE)
    receipt = Receipt(outcome=ReceiptOutcome.DECLARED_GONE, reason=reason)
    confirm = ConfirmRevocation(actor=person.id, receipt=receipt, facts={"gone": True}, text=reason)
    try:
        return await context.ledger.advance(request_id, confirm)
    except NotPossible as lost:
        raise TooLate(describe_obstacle(lost)) from None


async def _find(context: Context, request_id: int) -> Request:
    try:
        return await context.ledger.request(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None


async def _end(context: Context, request: Request, person: Person, cause: Cause) -> Request:
    try:
        return await context.ledger.advance(request.id, RevokeGrant(actor=person.id, cause=cause))
    except NotPossible as lost:
        raise TooLate(_not_live(lost)) from None


def _not_live(lost: NotPossible) -> str:
    if lost.request.state is State.PENDING:
        return f"#{lost.request.id} is still waiting: there is nothing to end."
    return describe_state(lost.request, lost.decisions)
