"""Create the database user of an approved grant and deliver its credentials.

The order of the steps: post the credential message without credentials, while Slack says whether the requester is a member and the server
says who it is; make the transition START (it writes the expiry once); create the user; fill the message; make the transition ACTIVATE.
The lock key of the user is held from START to the creation: while Slack fills the message, the user can be ended. If the bot crashes
after any step, the runner claims the task again, and the job continues from the state in the ledger. The password is made in
``_create_and_deliver`` and ends with it. A retry makes a new password and overwrites the message.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from adapters.base import (
    CREATE_LIMIT_SECONDS,
    Adapter,
    Blocked,
    Endpoint,
    ForeignUser,
    ManagedUser,
    Rejected,
    ServerDown,
    UserSpec,
)
from bot.access import log_events
from bot.access.context import Context
from bot.access.descriptions import shorten
from bot.access.password import make_password
from bot.access.ports import Delayed, DirectoryUnavailable, Posted, Undeliverable
from bot.access.recovery import note_comparison
from bot.access.targets import level_of, server_key, target_of
from bot.engines import Share
from bot.jobs.job import JobContext, Retry, backoff
from bot.notifications.credentials import credentials_notice, deliver
from bot.notifications.messages import record_posted
from bot.notifications.notices import PreparingNotice
from storage.commands import ActivateGrant, FailGrant, RetryProvision, RevokeGrant, StartGrant
from storage.errors import NotPossible
from storage.records import Cause, Json, Message, Purpose, Request, State
from storage.task_plans import user_lock_key
from storage.transitions import FILL_WITHIN, Obstacle

T = TypeVar("T")

OLDER_PAUSE = timedelta(seconds=2)
"""The pause before a grant that this replica may not start: another one may claim it meanwhile."""

REFUSAL_MAX = 700
"""Characters of a refusal that the requester reads."""
RECOVERY_PAUSE = timedelta(seconds=15)
IN_RECOVERY = "The ledger is in recovery mode, so nothing is granted."


async def provision(context: Context, job: JobContext) -> None:
    """Job of ``provision``. Moves a request from APPROVED to ACTIVE. If that is not possible, ends the request."""
    request, recovery = await asyncio.gather(job.request(), context.ledger.recovery.current())
    if request.state is not State.APPROVED:
        return
    if request.started_at is None and recovery is not None:
        raise await _wait_for_recovery(context)
    if (note := await _reason_to_give_up(context, request)) is not None:
        await _fail(job, request, note)
        return
    try:
        await _create_and_deliver(context, job, request, await _prepare(context, job, request))
    except Undeliverable as error:
        await _fail(job, request, f"Its credentials cannot be delivered: {error}.")
    except (Rejected, ForeignUser) as error:
        await _fail(job, request, f"The database said no: {shorten(str(error), REFUSAL_MAX)}.")


async def _reason_to_give_up(context: Context, request: Request) -> str | None:
    """The reason to stop trying, as a sentence for the requester. None if the job continues."""
    now = await context.ledger.now()
    if request.started_at is None:
        is_in_time = request.start_before is None or now < request.start_before
        return None if is_in_time else _not_reached_in_time(request)
    is_late = now >= request.started_at + FILL_WITHIN
    return "The credentials could not be delivered in time, so the access was taken back." if is_late else None


def _not_reached_in_time(request: Request) -> str:
    return f"{request.database} could not be reached in time, so nothing was granted."


async def _fail(job: JobContext, request: Request, note: str) -> None:
    """End a grant that cannot be completed. The requester reads ``note``. A ``revoke`` task drops the user."""
    await job.advance(request, FailGrant(actor="bot", note=note, text=note))


# The job posts the message before the credentials exist. So it knows that it can deliver them.


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known before anything is created. ``level_state`` is that of the level before START, as JSON."""

    message: Message
    is_member: bool
    identity: str
    level_state: str | None


async def _prepare(context: Context, job: JobContext, request: Request) -> Prepared:
    """Post the credential message, and ask Slack and the server at the same time: is the requester still a member, and which server is it.

    Raises Retry, after the message says why, where the server gives no usable answer.
    """
    posted, asked, reached = await asyncio.gather(
        _post_credential_message(context, job, request),
        _is_member(context, request),
        _reach_server(context, job, request),
        return_exceptions=True,
    )
    message, is_member = _result(posted), _result(asked)
    if isinstance(reached, ServerNotReached):
        raise await _retry_later(context, job, request, reached)
    identity, level_state = _result(reached)
    return Prepared(message=message, is_member=is_member, identity=identity, level_state=level_state)


def _result(answer: T | BaseException) -> T:
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def _post_credential_message(context: Context, job: JobContext, request: Request) -> Message:
    (message,) = await context.ledger.messages.of(request.id, Purpose.CREDENTIALS)
    if message.ts is not None:
        return message
    await job.check_claim()
    posted = await context.messenger.post(request.requester_id, PreparingNotice(request=request))
    return await record_posted(context, message, posted, request)


async def _explain_delay(context: Context, request: Request, trouble: str) -> None:
    """Show in the credential message why provisioning is late. If Slack fails, the job continues."""
    (message,) = await context.ledger.messages.of(request.id, Purpose.CREDENTIALS)
    if message.ts is not None:
        try:
            notice = PreparingNotice(request=request, trouble=trouble)
            await context.messenger.update(Posted(channel=message.channel, ts=message.ts), notice)
        except (Delayed, Undeliverable):
            return


# The time of the grant starts when the server answers, not at the approval.


async def _start(context: Context, job: JobContext, request: Request, prepared: Prepared) -> Request | None:
    """The request with its ``expires_at`` set; the job has the lock key of the user then. None if a guard refused START."""
    unsettled_until = await context.ledger.now() + timedelta(seconds=CREATE_LIMIT_SECONDS)
    facts: Json = {"try": job.tries}
    start = StartGrant(
        actor="bot",
        identity=prepared.identity,
        level_state=prepared.level_state,
        unsettled_until=unsettled_until,
        requester_is_member=prepared.is_member,
        facts=facts,
        configuration=context.files.config.digest if context.files.config else None,
    )
    retry = RetryProvision(actor="bot", unsettled_until=unsettled_until, facts=facts)
    try:
        command = start if request.expires_at is None else retry
        return await job.advance(request, command, holds=user_lock_key(request))
    except NotPossible as error:
        if error.obstacle is Obstacle.CONFIGURATION_OLDER:
            raise await _leave_to_another(context) from None
        await _end_unstarted(context, job, request, error)
        return None


async def _leave_to_another(context: Context) -> Retry:
    """The Retry to raise where another replica has a newer configuration. That one takes the task, or this one once it has loaded it."""
    at = await context.ledger.now()
    if not await context.ledger.replicas.has_newest(context.config_in_force().digest):
        at += OLDER_PAUSE
    return Retry("a newer configuration is in force on another replica", at=at, is_untried=True)


async def _end_unstarted(context: Context, job: JobContext, request: Request, error: NotPossible) -> None:
    """End a grant whose START or RETRY_PROVISION was refused. Raises Retry where it may start later, ``error`` if its obstacle is unexpected."""
    if request.started_at is not None and error.obstacle is not Obstacle.IN_RECOVERY:
        raise error
    match error.obstacle:
        case Obstacle.IN_RECOVERY if request.started_at is None:
            raise await _wait_for_recovery(context)
        case Obstacle.IN_RECOVERY:
            await _fail(job, request, IN_RECOVERY)
        case Obstacle.NOT_A_MEMBER:
            await job.advance(request, RevokeGrant(actor="directory", cause=Cause.LEFT))
        case Obstacle.LOCKED_DOWN:
            await job.advance(request, RevokeGrant(actor="lockdown", cause=Cause.LOCKDOWN))
        case Obstacle.TOO_LATE:
            await _fail(job, request, _not_reached_in_time(request))
        case Obstacle.STATE:
            return  # somebody ended it meanwhile
        case _:
            raise error


async def _reach_server(context: Context, job: JobContext, request: Request) -> tuple[str, str | None]:
    """The identity that the server reports, and before START the state of the level as JSON. Raises ServerNotReached.

    Where this process has not compared the server with the ledger yet, it does so now: an old copy of the ledger is in recovery mode
    afterwards, and the guards refuse what follows.
    """
    level, target = level_of(request), target_of(request)
    is_compared = server_key(target) in context.compared

    def reach(adapter: Adapter) -> tuple[str, str | None, Sequence[ManagedUser]]:
        users: Sequence[ManagedUser] = ()
        if not is_compared:
            adapter.identity()  # an engine whose servers have no identity of their own gives them one, before anything else
            users = adapter.list_users()
        is_before_start = request.started_at is None  # later, the user may have changed something
        state = json.dumps(adapter.level_state(level).to_json()) if is_before_start else None
        return adapter.identity(), state, users

    await job.check_claim()
    try:
        identity, state, users = await context.engines.call(target, reach, share=Share.GRANTS)
    except (ServerDown, Blocked) as error:
        is_blocked = isinstance(error, Blocked)
        problem = "answers, but another session holds this up" if is_blocked else "does not answer"
        trouble = f"{request.database} {problem}. I keep trying; your time starts when it does."
        raise ServerNotReached(trouble, error) from None
    if not is_compared:
        await note_comparison(context, target, users)
    return identity, state


async def _wait_for_recovery(context: Context) -> Retry:
    """The Retry to raise in recovery mode.

    The grant may have started in a newer state of the ledger, so it does not fail: ``dbaccess store resume`` ends it, or its end comes.
    """
    return Retry(IN_RECOVERY, at=await context.ledger.now() + RECOVERY_PAUSE, is_untried=True)


class ServerNotReached(Exception):
    """The server gives no usable answer, or another session holds the step up. ``trouble`` is the sentence for the requester."""

    def __init__(self, trouble: str, error: ServerDown | Blocked) -> None:
        super().__init__(str(error))
        self.trouble = trouble
        self.is_server_down = isinstance(error, ServerDown)


async def _retry_later(context: Context, job: JobContext, request: Request, error: ServerNotReached) -> Retry:
    """The Retry to raise. Its time is never after the end of ``provision_within``, when the job gives up. The requester is told first."""
    await _explain_delay(context, request, error.trouble)
    at = await context.ledger.now() + backoff(job.tries)
    if request.started_at is None and request.start_before is not None:
        at = min(at, request.start_before)
    return Retry(str(error), at=at, is_server_down=error.is_server_down)


async def _is_member(context: Context, request: Request) -> bool:
    """Whether the requester is a member now. True after START, which asked before."""
    if request.started_at is not None:
        return True
    try:
        return (await context.directory.person(request.requester_id, fresh=True)).is_member
    except DirectoryUnavailable:
        raise Retry("Slack did not say whether the requester is still a member") from None


# The password is made here and ends with this call. The lock key of the user is held for the steps on the server only.


async def _create_and_deliver(context: Context, job: JobContext, request: Request, prepared: Prepared) -> None:
    password = make_password()
    started = await _start(context, job, request, prepared)
    if started is None:
        return
    try:
        endpoint = await _create(context, job, started, password)
    finally:
        state = await job.let_go()
    if endpoint is None or state is not State.APPROVED:
        return  # its end has come, or somebody ended it meanwhile: the revoke task drops the user
    await deliver(job, started, prepared.message, credentials_notice(started, endpoint, password))
    await _activate(job, started, unsettled_until=request.unsettled_until)


async def _create(context: Context, job: JobContext, request: Request, password: str) -> Endpoint | None:
    """Create the user. None where its end has come."""
    assert request.username is not None, "frozen at the approval"
    assert request.expires_at is not None, "written at START"
    remaining = (request.expires_at - await context.ledger.now()).total_seconds()
    if remaining <= 0:
        return None
    level = level_of(request)
    spec = UserSpec(
        username=request.username, password=password, level=level, remaining=remaining, request_id=request.id
    )
    await job.check_claim()
    return await context.engines.call(
        target_of(request), lambda adapter: _create_user(adapter, spec), share=Share.GRANTS
    )


def _create_user(adapter: Adapter, spec: UserSpec) -> Endpoint:
    adapter.create_user(spec)
    return adapter.endpoint(spec.level)


async def _activate(job: JobContext, request: Request, *, unsettled_until: datetime | None) -> None:
    """``unsettled_until`` is that of the earlier tries: the answer of this one came."""
    activate = ActivateGrant(actor="bot", unsettled_until=unsettled_until, facts={"username": request.username})
    try:
        log_events.grant_live(await job.advance(request, activate, is_last=True))
    except NotPossible as error:
        if error.obstacle is Obstacle.LOCKED_DOWN:
            await job.advance(request, RevokeGrant(actor="lockdown", cause=Cause.LOCKDOWN))
        elif error.obstacle is Obstacle.IN_RECOVERY:
            await _fail(job, request, IN_RECOVERY)
        elif error.obstacle not in (Obstacle.STATE, Obstacle.ENDED):
            raise
