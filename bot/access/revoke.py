"""End a grant: the verbs that begin it, and the effect that carries it through and proves it.

``revoke`` never gives up. It is done when the server was read back, or when an administrator declares the
server gone; everything else is tried again, with an alert that says what to do by hand.
"""

from __future__ import annotations

from datetime import datetime

from adapters.base import AdapterError, Blocked, ForeignUser, Rejected, Removal, ServerDown, WrongServer
from bot.access import journal, membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.errors import Refused, TooLate, Unknown
from bot.access.job import JobContext, Retry
from bot.access.ports import Person
from bot.access.provision import level_of, target_of
from bot.access.runner import backoff, is_alert_due
from bot.access.words import what_happened, why_not
from bot.engines import Share
from bot.policy import authorization
from bot.policy.facts import NO_FACTS
from storage.audit_log import AuditKind
from storage.errors import NoSuchRequest, NotPossible
from storage.records import Cause, Json, Request, State
from storage.transitions import Obstacle, Transition, TransitionInput, latest_end

# Verbs.


async def done(context: Context, person: Person, request_id: int) -> Request:
    """The requester gives their grant back early. Raises Unknown for everybody else, TooLate where it is over."""
    request = await _find(context, request_id)
    if request.requester_id != person.id:
        raise Unknown(f"#{request_id}")
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
    facts = await membership.facts(context, config) if config else NO_FACTS
    if config is not None and authorization.may_revoke(config, request, decisions, person.id, facts):
        return
    await context.ledger.record(
        AuditKind.CLICK_REFUSED, actor=person.id, request_id=request.id, facts={"verb": "revoke"}
    )
    journal.click_refused(person, "revoke", request.id)
    if config is None or not authorization.may_see(config, request, decisions, person.id, facts):
        raise Unknown(f"#{request.id}")
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
    change = TransitionInput(actor=person.id, set={"receipt": {"gone": reason}}, facts={"gone": True}, text=reason)
    try:
        return await context.ledger.advance(request_id, Transition.CONFIRM, change)
    except NotPossible as lost:
        raise TooLate(why_not(lost)) from None


async def _find(context: Context, request_id: int) -> Request:
    try:
        return await context.ledger.request(request_id)
    except NoSuchRequest:
        raise Unknown(f"#{request_id}") from None


async def _end(context: Context, request: Request, person: Person, cause: Cause) -> Request:
    try:
        return await context.ledger.advance(
            request.id, Transition.REVOKE, TransitionInput(actor=person.id, cause=cause)
        )
    except NotPossible as lost:
        raise TooLate(_not_live(lost)) from None


def _not_live(lost: NotPossible) -> str:
    if lost.request.state is State.PENDING:
        return f"#{lost.request.id} is still waiting: there is nothing to end."
    return what_happened(lost.request, lost.decisions)


# The effect.


async def end(context: Context, work: JobContext) -> None:
    """Effect of the ``revoke`` task, written with the approval: due at the end, or now when it is ended early."""
    request = await work.request()
    if request.state in (State.APPROVED, State.ACTIVE):
        request = await _by_the_clock(work, request)
    if request.state is not State.REVOKING:
        return
    receipt = await _proven(context, work, request)
    change = TransitionInput(actor="bot", set={"receipt": receipt}, facts=_facts(receipt))
    journal.ended(await work.advance(request, Transition.CONFIRM, change))


async def _by_the_clock(work: JobContext, request: Request) -> Request:
    cause = Cause.NOT_STARTED if request.expires_at is None else Cause.EXPIRED
    if (
        request.unclaimed_at is not None
        and request.expires_at is not None
        and request.unclaimed_at < request.expires_at
    ):
        cause = Cause.UNCLAIMED
    try:
        return await work.advance(request, Transition.REVOKE, TransitionInput(actor="clock", cause=cause))
    except NotPossible as lost:
        if lost.request.state.is_over:
            raise
        if lost.why is not Obstacle.NOT_ENDED:
            raise Retry("it is being ended by somebody else", at=await work.context.ledger.now()) from None
        ends = lost.request.expires_at or latest_end(lost.request)
        at = min(ends, lost.request.unclaimed_at or ends)
        raise Retry("its end was moved", at=at, is_untried=True) from None


async def _proven(context: Context, work: JobContext, request: Request) -> Json:
    """The receipt, or Again until there is one."""
    if request.started_at is None:
        return {"nothing_made": True}  # START is on disk before the first statement that makes anything
    try:
        receipt = await drop(context, work, request)
    except ForeignUser as foreign:
        return await _foreign(context, work, request, foreign)
    except AdapterError as trouble:
        raise await again(context, work, request, trouble) from None
    lands_until = _lands_until(request)
    if lands_until is not None and await context.ledger.now() < lands_until:
        raise Retry("a create whose answer was lost may still land", at=lands_until)
    if receipt.was_absent and request.activated_at is not None:
        await raise_alert(
            context,
            request,
            f"#{request.id}: the user {request.username} on {request.database} was already gone when dbaccess came to remove it. Somebody else dropped it.",
        )
    return receipt_json(receipt)


async def drop(context: Context, work: JobContext, request: Request) -> Removal:
    """Take the user away and read back. Raises AdapterError, ClaimLost."""
    assert request.username is not None, "frozen at the approval"
    username, level = request.username, level_of(request)
    await work.hold()
    return await context.engines.call(
        target_of(request), lambda adapter: adapter.drop_user(username, level), share=Share.ENDS
    )


def receipt_json(removal: Removal) -> Json:
    """The receipt as the ledger keeps it; times in RFC 3339."""
    return {
        "was_absent": removal.was_absent,
        "sessions_ended": removal.sessions_ended,
        "kept": list(removal.left_behind),
        "kept_by": removal.left_with,
        "read_back_at": removal.read_back_at.isoformat(),
        "notes": list(removal.notes),
    }


def _facts(receipt: Json) -> Json:
    return {key: receipt[key] for key in ("was_absent", "sessions_ended", "kept_by", "nothing_made") if key in receipt}


def _lands_until(request: Request) -> datetime | None:
    """Until when a create whose answer was lost may still make the user; None once the server answered."""
    return request.unsettled_until if request.activated_at is None else None


async def _foreign(context: Context, work: JobContext, request: Request, foreign: ForeignUser) -> Json:
    """A user of that name that is not ours is never touched. Where we never made one, there is nothing of ours to end."""
    if request.activated_at is not None:
        raise await again(context, work, request, foreign)
    await raise_alert(context, request, f"#{request.id} failed: {foreign}. It was not touched.")
    return {"nothing_made": True}


# Trouble.


async def again(context: Context, work: JobContext, request: Request, trouble: AdapterError) -> Retry:
    """The error that puts an end back, after an alert where one is due."""
    next_try = await context.ledger.now() + backoff(work.tries)
    if is_alert_due(work.tries) or (work.tries == 1 and isinstance(trouble, WrongServer | ForeignUser)):
        await raise_alert(
            context, request, _cannot(request, trouble), tries=work.tries, steps=_by_hand(request, trouble)
        )
    return Retry(str(trouble), at=next_try)


def _cannot(request: Request, trouble: AdapterError) -> str:
    """What is wrong, in words. A server that answers is not blamed for a lock that somebody holds."""
    if isinstance(trouble, ServerDown) and not isinstance(trouble, Blocked):
        return f"Cannot end #{request.id}: {request.database} does not answer ({trouble})."
    words = trouble.what if isinstance(trouble, Blocked) else str(trouble)
    return f"Cannot end #{request.id} on {request.database}: {words}."


def _first_steps(request: Request, trouble: AdapterError) -> list[str]:
    """What lets dbaccess go on by itself."""
    if isinstance(trouble, Blocked):
        return [trouble.remedy] if trouble.remedy else []
    if isinstance(trouble, ServerDown):
        return [f"Make {request.database} answer again; dbaccess goes on by itself."]
    return [trouble.remedy] if isinstance(trouble, Rejected) and trouble.remedy else []


def _by_hand(request: Request, trouble: AdapterError) -> tuple[str, ...]:
    return (
        *_first_steps(request, trouble),
        f"To end it by hand: block the login of {request.username}, end its sessions, drop it. dbaccess then finds it gone and says so.",
        f"If the server is no more: dbaccess revoke {request.id} --gone REASON",
    )
