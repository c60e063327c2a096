"""A new password for a live grant: the old one ends, open sessions live on."""

from __future__ import annotations

from adapters.base import Adapter, AdapterError, Endpoint, Rejected
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.errors import Refused, TooLate, Unknown
from bot.jobs.job import JobContext
from bot.access.ports import Person, Shown
from bot.jobs.provision import credentials, deliver, level_of, make_password, target_of
from bot.access.descriptions import what_happened
from bot.engines import Share
from storage.audit_log import AuditKind
from storage.records import Purpose, Request, State, TaskKind
from storage.task_plans import user_lock_key
from storage.transitions import TaskPlan, Transition, TransitionInput


async def renew(context: Context, person: Person, request: Request) -> None:
    """The requester asks for a new password; it appears in the credential message. Raises Unknown for all others, TooLate after the end."""
    if request.requester_id != person.id:
        raise Unknown(f"#{request.id}")
    request = await context.ledger.request(request.id)
    if request.state is not State.ACTIVE or request.terms.delivery == "reveal":
        raise TooLate(what_happened(request, await context.ledger.decisions(request.id)))
    plan = TaskPlan(
        kind=TaskKind.PASSWORD, lock_key=user_lock_key(request), due_at=await context.ledger.now(), is_single=True
    )
    await context.ledger.add_task(plan, request_id=request.id)


async def password(context: Context, work: JobContext) -> None:
    """Effect of the ``password`` task: asked for by the requester, or the ``remedy`` of an active grant."""
    request = await work.request()
    if request.state is State.ACTIVE:
        audit = AuditKind.REPAIRED if work.payload.get("mends") else AuditKind.PASSWORD_RENEWED
        await _set_fresh_password(context, work, request, audit=audit)


async def _set_fresh_password(context: Context, work: JobContext, request: Request, *, audit: AuditKind) -> None:
    """Set it on the server, then show it in the credential message. A retry sets another one, so the message is never behind for long."""
    assert request.username is not None, "an active grant has its user"
    username, level, fresh = request.username, level_of(request), make_password()

    def renewed(adapter: Adapter) -> Endpoint:
        adapter.set_password(username, fresh)
        return adapter.endpoint(level)

    await work.hold()
    try:
        endpoint = await context.engines.call(target_of(request), renewed, share=Share.GRANTS)
    except Rejected as no:
        await raise_alert(context, request, f"No new password for #{request.id} on {request.database}: {no}.")
        return
    if (await work.request()).state is not State.ACTIVE:
        return  # it is being ended: the revoke behind us in this lock key takes user and message
    (message,) = await context.ledger.messages(request.id, Purpose.CREDENTIALS)
    await deliver(work, request, message, credentials(request, endpoint, fresh))
    await work.advance(
        request,
        Transition.NOTE,
        TransitionInput(actor=request.requester_id if audit is AuditKind.PASSWORD_RENEWED else "bot", audit=audit),
    )


async def revealable(context: Context, person: Person, request: Request) -> Request:
    """The live grant whose password is shown on demand, for its requester. Raises Unknown, Refused, TooLate."""
    if request.requester_id != person.id:
        raise Unknown(f"#{request.id}")
    request = await context.ledger.request(request.id)
    if request.terms.delivery != "reveal":
        raise Refused(f"The password of #{request.id} is in its credential message.")
    if request.state is not State.ACTIVE:
        raise TooLate(what_happened(request, await context.ledger.decisions(request.id)))
    return request


async def reveal(context: Context, person: Person, request: Request) -> Shown:
    """Set a fresh password and hand it to whoever shows it; on the record before it is seen. Open sessions live on."""
    request = await revealable(context, person, request)
    assert request.username is not None, "an active grant has its user"
    username, level, fresh = request.username, level_of(request), make_password()

    def renewed(adapter: Adapter) -> Endpoint:
        adapter.set_password(username, fresh)
        return adapter.endpoint(level)

    try:
        endpoint = await context.engines.call(target_of(request), renewed)
    except AdapterError as trouble:
        raise Refused(f"No password for #{request.id} now: {trouble}. Please try again.") from None
    request = await context.ledger.advance(
        request.id, Transition.NOTE, TransitionInput(actor=person.id, audit=AuditKind.PASSWORD_SHOWN)
    )
    if request.state is not State.ACTIVE:
        raise TooLate(what_happened(request, await context.ledger.decisions(request.id)))
    shown = [e for e in await context.ledger.history(request.id) if e.kind == AuditKind.PASSWORD_SHOWN]
    return Shown(request=request, endpoint=endpoint, times=len(shown), password=fresh)
