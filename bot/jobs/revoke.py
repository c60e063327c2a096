"""End a grant on its server and read back that it has ended.

This job runs until there is a receipt: the server confirms that the user is gone, dbaccess created no user, or an
administrator declares the server gone. Every other outcome is retried, and an alert says what to do by hand.
"""

from __future__ import annotations

from adapters.base import AdapterError, ForeignUser, Removal
from bot.access import log_events
from bot.access.alerts import raise_alert, resolve_end_alert
from bot.access.context import Context
from bot.access.targets import level_of, state_before, target_of
from bot.engines import Share
from bot.jobs.end_retries import retry_with_alert
from bot.jobs.job import JobContext, Retry
from bot.jobs.receipts import NOTHING_CREATED, audit_facts, verified_receipt
from storage.commands import ConfirmRevocation, RevokeGrant
from storage.errors import NotPossible
from storage.records import Cause, Receipt, Request, State
from storage.transitions import Obstacle, latest_end

MAYBE_DROPPED = "maybe_dropped"
"""The key of a payload: the answer to a drop of several users was lost, so an absent user may have been dropped by it."""


async def revoke(context: Context, job: JobContext) -> None:
    """Job of ``revoke``. The approval stores the task. It is due at the end of the grant, or immediately if the grant ends early."""
    request = await job.request()
    if request.state in (State.APPROVED, State.ACTIVE):
        request = await _begin_end_by_clock(job, request)
    if request.state is not State.REVOKING:
        return
    receipt = await _end_on_server(context, job, request)
    confirm = ConfirmRevocation(actor="bot", receipt=receipt, facts=audit_facts(receipt))
    ended = await job.advance(request, confirm, is_last=True)
    log_events.grant_ended(ended)
    if job.tries > 1:
        await resolve_end_alert(context, ended)


async def _begin_end_by_clock(job: JobContext, request: Request) -> Request:
    """The request in REVOKING. Raises Retry if its end was moved, or if another caller is ending it now."""
    try:
        return await job.advance(request, RevokeGrant(actor="clock", cause=cause_by_clock(request)))
    except NotPossible as error:
        if error.request.state.is_over:
            raise
        if error.obstacle is not Obstacle.NOT_ENDED:
            raise Retry("another caller is ending the grant", at=await job.context.ledger.now()) from None
        end = error.request.expires_at or latest_end(error.request)
        at = min(end, error.request.unclaimed_at or end)
        raise Retry("the end of the grant was moved", at=at, is_untried=True) from None


def cause_by_clock(request: Request) -> Cause:
    """The time limit that ends the grant."""
    if request.expires_at is None:
        return Cause.NOT_STARTED
    is_unclaimed = request.unclaimed_at is not None and request.unclaimed_at < request.expires_at
    return Cause.UNCLAIMED if is_unclaimed else Cause.EXPIRED


async def _end_on_server(context: Context, job: JobContext, request: Request) -> Receipt:
    """Drop the user and return the receipt. Raises Retry until the server confirms that the user is gone."""
    if request.started_at is None and not await context.ledger.recovery.may_have_started(request):
        return NOTHING_CREATED  # START is committed before the first statement that creates a user
    try:
        removal = await drop_user(context, job, request)
    except ForeignUser as error:
        return await _leave_foreign_user(context, job, request, error)
    except AdapterError as error:
        raise await retry_with_alert(context, job, request, error) from None
    lands_until = request.unsettled_until
    if lands_until is not None and await context.ledger.now() < lands_until:
        raise Retry("a create whose answer was lost may still land", at=lands_until)
    is_surprise = request.activated_at is not None and not job.payload.get(MAYBE_DROPPED)
    if removal.was_absent and removal.left_with is None and is_surprise:
        await raise_alert(
            context,
            request,
            f"#{request.id}: the user {request.username} on {request.database} was already gone when dbaccess came to remove it. Somebody else dropped it.",
            cause=f"dropped:{request.id}",
            is_event=True,
        )
    return verified_receipt(removal)


async def drop_user(context: Context, job: JobContext, request: Request) -> Removal:
    """Drop the user of a started grant on its server. The removal says what was read back. Raises AdapterError, ClaimLost."""
    assert request.username is not None, "frozen at the approval"
    username, level, before = request.username, level_of(request), state_before(request)
    await job.check_claim()
    return await context.engines.call(
        target_of(request), lambda adapter: adapter.drop_user(username, level, before), share=Share.ENDS
    )


async def _leave_foreign_user(context: Context, job: JobContext, request: Request, error: ForeignUser) -> Receipt:
    """The receipt if a foreign user has the username. The job never changes a foreign user. Raises Retry if this grant was active."""
    if request.activated_at is not None:
        raise await retry_with_alert(context, job, request, error)
    what = f"#{request.id} failed: {error}. It was not touched."
    await raise_alert(context, request, what, cause=f"foreign:{request.id}", is_event=True)
    return NOTHING_CREATED
