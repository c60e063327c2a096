"""End a grant on its server and prove it.

The job never gives up. It is done when the server was read back, or when an administrator declares the
server gone; everything else is tried again, with an alert that says what to do by hand.
"""

from __future__ import annotations

from datetime import datetime

from adapters.base import AdapterError, Blocked, ForeignUser, Rejected, Removal, ServerDown, WrongServer
from bot.access import log_events
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.targets import level_of, target_of
from bot.engines import Share
from bot.jobs.job import JobContext, Retry, backoff, is_alert_due
from storage.commands import ConfirmRevocation, RevokeGrant
from storage.errors import NotPossible
from storage.records import Cause, Json, Receipt, ReceiptOutcome, Request, State
from storage.transitions import Obstacle, latest_end

NOTHING_CREATED = Receipt(outcome=ReceiptOutcome.NOTHING_CREATED)


async def revoke(context: Context, job: JobContext) -> None:
    """Effect of the ``revoke`` task, written with the approval: due at the end, or now when it is ended early."""
    request = await job.request()
    if request.state in (State.APPROVED, State.ACTIVE):
        request = await _by_the_clock(job, request)
    if request.state is not State.REVOKING:
        return
    receipt = await _proven(context, job, request)
    log_events.grant_ended(
        await job.advance(request, ConfirmRevocation(actor="bot", receipt=receipt, facts=_facts(receipt)))
    )


async def _by_the_clock(job: JobContext, request: Request) -> Request:
    cause = Cause.NOT_STARTED if request.expires_at is None else Cause.EXPIRED
    if (
        request.unclaimed_at is not None
        and request.expires_at is not None
        and request.unclaimed_at < request.expires_at
    ):
        cause = Cause.UNCLAIMED
    try:
        return await job.advance(request, RevokeGrant(actor="clock", cause=cause))
    except NotPossible as lost:
        if lost.request.state.is_over:
            raise
        if lost.obstacle is not Obstacle.NOT_ENDED:
            raise Retry("it is being ended by somebody else", at=await job.context.ledger.now()) from None
        ends = lost.request.expires_at or latest_end(lost.request)
        at = min(ends, lost.request.unclaimed_at or ends)
        raise Retry("its end was moved", at=at, is_untried=True) from None


async def _proven(context: Context, job: JobContext, request: Request) -> Receipt:
    """The receipt. Raises Retry while there is none."""
    if request.started_at is None:
        return NOTHING_CREATED  # START is in the ledger before the first statement that creates anything
    try:
        removal = await drop_user(context, job, request)
    except ForeignUser as foreign:
        return await _foreign(context, job, request, foreign)
    except AdapterError as trouble:
        raise await retry_after_alert(context, job, request, trouble) from None
    lands_until = _lands_until(request)
    if lands_until is not None and await context.ledger.now() < lands_until:
        raise Retry("a create whose answer was lost may still land", at=lands_until)
    if removal.was_absent and request.activated_at is not None:
        await raise_alert(
            context,
            request,
            f"#{request.id}: the user {request.username} on {request.database} was already gone when dbaccess came to remove it. Somebody else dropped it.",
        )
    return verified_receipt(removal)


async def drop_user(context: Context, job: JobContext, request: Request) -> Removal:
    """Take the user away and read back. Raises AdapterError, ClaimLost."""
    assert request.username is not None, "frozen at the approval"
    username, level = request.username, level_of(request)
    await job.hold()
    return await context.engines.call(
        target_of(request), lambda adapter: adapter.drop_user(username, level), share=Share.ENDS
    )


def verified_receipt(removal: Removal) -> Receipt:
    """The receipt of what the server showed."""
    return Receipt(
        outcome=ReceiptOutcome.VERIFIED,
        was_absent=removal.was_absent,
        sessions_ended=removal.sessions_ended,
        left_behind=removal.left_behind,
        left_with=removal.left_with,
        read_back_at=removal.read_back_at,
        notes=removal.notes,
    )


def _facts(receipt: Receipt) -> Json:
    """What of the receipt is in the audit event."""
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return {"nothing_made": True}
    return {
        "was_absent": receipt.was_absent,
        "sessions_ended": receipt.sessions_ended,
        "kept_by": receipt.left_with,
    }


def _lands_until(request: Request) -> datetime | None:
    """Until when a create whose answer was lost may still make the user; None once the server answered."""
    return request.unsettled_until if request.activated_at is None else None


async def _foreign(context: Context, job: JobContext, request: Request, foreign: ForeignUser) -> Receipt:
    """A user of that name that is not ours is never touched. Where we never made one, there is nothing of ours to end."""
    if request.activated_at is not None:
        raise await retry_after_alert(context, job, request, foreign)
    await raise_alert(context, request, f"#{request.id} failed: {foreign}. It was not touched.")
    return NOTHING_CREATED


async def retry_after_alert(context: Context, job: JobContext, request: Request, trouble: AdapterError) -> Retry:
    """The error that puts an end back, after an alert where one is due."""
    next_try = await context.ledger.now() + backoff(job.tries)
    if is_alert_due(job.tries) or (job.tries == 1 and isinstance(trouble, WrongServer | ForeignUser)):
        await raise_alert(
            context, request, _cannot(request, trouble), tries=job.tries, steps=_by_hand(request, trouble)
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
