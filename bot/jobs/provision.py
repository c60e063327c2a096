"""Provisioning: message first, then the server, the clock, the user, the message filled, the grant active.

Every step may be the last one before a crash; the task is then claimed again and starts from what is on
disk. A password lives in ``_make`` and nowhere else: a retry makes a new one and overwrites the message.
"""

from __future__ import annotations

from datetime import timedelta

from adapters.base import (
    CREATE_LIMIT_SECONDS,
    Adapter,
    Endpoint,
    ForeignUser,
    Rejected,
    ServerDown,
    UserSpec,
)
from bot.access import log_events
from bot.access.context import Context
from bot.access.password import make_password
from bot.access.ports import Delayed, DirectoryUnavailable, Posted, Undeliverable
from bot.access.targets import level_of, target_of
from bot.engines import Share
from bot.jobs.job import JobContext, Retry, backoff
from bot.notifications.credentials import credentials_notice, deliver
from bot.notifications.messages import record_posted
from bot.notifications.notices import PreparingNotice
from storage.commands import ActivateGrant, FailGrant, RetryProvision, RevokeGrant, StartGrant
from storage.errors import NotPossible
from storage.records import Cause, Json, Message, Purpose, Request, State
from storage.transitions import FILL_WITHIN, Obstacle


async def provision(context: Context, job: JobContext) -> None:
    """Effect of the ``provision`` task: from APPROVED to ACTIVE, or to the end where that cannot be."""
    request = await job.request()
    if request.state is not State.APPROVED:
        return
    if (note := await _hopeless(context, request)) is not None:
        await fail(job, request, note)
        return
    try:
        message = await _announce(context, job, request)
        started = await _start(context, job, request)
        if started is not None:
            await _make(context, job, started, message)
    except Undeliverable as closed:
        await fail(job, request, f"Its credentials cannot be delivered: {closed}.")
    except (Rejected, ForeignUser) as no:
        await fail(job, request, f"The database said no: {no}.")


async def _hopeless(context: Context, request: Request) -> str | None:
    """Why it makes no sense to try (again), in words, or None."""
    now = await context.ledger.now()
    if request.started_at is None:
        within = request.start_before is None or now < request.start_before
        return None if within else f"{request.database} could not be reached in time, so nothing was granted."
    late = now >= request.started_at + FILL_WITHIN
    return "The credentials could not be delivered in time, so the access was taken back." if late else None


async def fail(job: JobContext, request: Request, note: str) -> None:
    """End what cannot be completed; the drop follows, and both sides are told."""
    await job.advance(request, FailGrant(actor="bot", note=note, text=note))


# Message first: it proves that the credentials can be delivered before there are any.


async def _announce(context: Context, job: JobContext, request: Request) -> Message:
    (message,) = await context.ledger.messages(request.id, Purpose.CREDENTIALS)
    if message.ts is not None:
        return message
    await job.hold()
    posted = await job.unless_ending(context.messenger.post(request.requester_id, PreparingNotice(request=request)))
    return await record_posted(context, message, posted, request)


async def _explain_delay(context: Context, job: JobContext, request: Request, trouble: str) -> None:
    """Redraw the message while the server does not answer; that it cannot be shown is no reason to stop."""
    (message,) = await context.ledger.messages(request.id, Purpose.CREDENTIALS)
    if message.ts is not None:
        try:
            notice = PreparingNotice(request=request, trouble=trouble)
            await job.unless_ending(context.messenger.redraw(Posted(channel=message.channel, ts=message.ts), notice))
        except (Delayed, Undeliverable):
            return


# The clock starts when the server is reached, not at the approval.


async def _start(context: Context, job: JobContext, request: Request) -> Request | None:
    """The request with its clock running, or None where it ends instead."""
    identity = await _reach(context, job, request)
    settled = await context.ledger.now() + timedelta(seconds=CREATE_LIMIT_SECONDS)
    facts: Json = {"try": job.tries}
    if request.expires_at is not None:
        return await job.advance(request, RetryProvision(actor="bot", unsettled_until=settled, facts=facts))
    start = StartGrant(
        actor="bot",
        identity=identity,
        unsettled_until=settled,
        requester_is_member=await _is_member(job, request),
        facts=facts,
    )
    try:
        return await job.advance(request, start)
    except NotPossible as lost:
        await _not_started(job, request, lost)
        return None


async def _not_started(job: JobContext, request: Request, lost: NotPossible) -> None:
    causes = {Obstacle.NOT_A_MEMBER: Cause.LEFT, Obstacle.LOCKED_DOWN: Cause.LOCKDOWN}
    if lost.obstacle in causes:
        actor = "directory" if lost.obstacle is Obstacle.NOT_A_MEMBER else "lockdown"
        await job.advance(request, RevokeGrant(actor=actor, cause=causes[lost.obstacle]))
    elif lost.obstacle is Obstacle.TOO_LATE:
        await fail(job, request, f"{request.database} could not be reached in time, so nothing was granted.")
    elif lost.obstacle is not Obstacle.STATE:
        raise lost


async def _reach(context: Context, job: JobContext, request: Request) -> str:
    """The server's identity. Where it does not answer the requester is told, and it is tried until provision_within is over."""
    await job.hold()
    try:
        return await context.engines.call(target_of(request), lambda adapter: adapter.identity(), share=Share.GRANTS)
    except ServerDown as silent:
        trouble = f"{request.database} does not answer. I keep trying; your time starts when it does."
        await _explain_delay(context, job, request, trouble)
        at = await context.ledger.now() + backoff(job.tries)
        if request.started_at is None and request.start_before is not None:
            at = min(at, request.start_before)
        raise Retry(str(silent), at=at) from None


async def _is_member(job: JobContext, request: Request) -> bool:
    looked_up = job.context.directory.person(request.requester_id, fresh=True)
    try:
        return (await job.unless_ending(looked_up)).is_member
    except DirectoryUnavailable:
        raise Retry("Slack did not say whether the requester is still a member") from None


# The user, and the only function in which its password exists.


async def _make(context: Context, job: JobContext, request: Request, message: Message) -> None:
    assert request.username is not None, "frozen at the approval"
    assert request.expires_at is not None, "written at START"
    remaining = (request.expires_at - await context.ledger.now()).total_seconds()
    if remaining <= 0:
        return  # the revoke task behind us in this lock key is due
    level = level_of(request)
    password = make_password()
    spec = UserSpec(
        username=request.username, password=password, level=level, remaining=remaining, request_id=request.id
    )
    await job.hold()
    endpoint = await context.engines.call(
        target_of(request), lambda adapter: _create(adapter, spec), share=Share.GRANTS
    )
    if (await job.request()).state is not State.APPROVED:
        return  # it was ended meanwhile: its revoke is next in this lock key and finds the user
    await deliver(job, request, message, credentials_notice(request, endpoint, password))
    try:
        log_events.grant_live(
            await job.advance(request, ActivateGrant(actor="bot", facts={"username": request.username}))
        )
    except NotPossible as lost:
        if lost.obstacle is Obstacle.LOCKED_DOWN:
            await job.advance(request, RevokeGrant(actor="lockdown", cause=Cause.LOCKDOWN))
        elif lost.obstacle not in (Obstacle.STATE, Obstacle.ENDED):
            raise


def _create(adapter: Adapter, spec: UserSpec) -> Endpoint:
    adapter.create_user(spec)
    return adapter.endpoint(spec.level)
