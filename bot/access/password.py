"""A new password for a live grant: the old one ends, open sessions live on."""

from __future__ import annotations

from adapters.base import Adapter, Endpoint, Rejected
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.errors import TooLate, Unknown
from bot.access.ports import CredentialsNotice, Person
from bot.access.provision import deliver, level_of, make_password, target_of
from bot.access.words import what_happened
from bot.access.work import Work
from storage.audit import AuditKind
from storage.lifecycle import Change, Move, Plan, db_lane
from storage.records import Purpose, Request, State, TaskKind


async def renew(context: Context, person: Person, request: Request) -> None:
    """The requester asks for a new password; it appears in the credential message. Raises Unknown for all others, TooLate after the end."""
    if request.requester_id != person.id:
        raise Unknown(f"#{request.id}")
    request = await context.ledger.request(request.id)
    if request.state is not State.ACTIVE:
        raise TooLate(what_happened(request, await context.ledger.decisions(request.id)))
    plan = Plan(kind=TaskKind.PASSWORD, lane=db_lane(request), due_at=await context.ledger.now(), is_single=True)
    await context.ledger.add_task(plan, request_id=request.id)


async def password(context: Context, work: Work) -> None:
    """Effect of the ``password`` task."""
    request = await work.request()
    if request.state is State.ACTIVE:
        await set_fresh_password(context, work, request, audit=AuditKind.PASSWORD_RENEWED)


async def set_fresh_password(context: Context, work: Work, request: Request, *, audit: AuditKind) -> None:
    """Set it on the server, then show it in the credential message. A retry sets another one, so the message is never behind for long."""
    assert request.username is not None, "an active grant has its user"
    username, level, fresh = request.username, level_of(request), make_password()

    def renewed(adapter: Adapter) -> Endpoint:
        adapter.set_password(username, fresh)
        return adapter.endpoint(level)

    await work.hold()
    try:
        endpoint = await context.engines.call(target_of(request), renewed)
    except Rejected as no:
        await raise_alert(context, request, f"No new password for #{request.id} on {request.database}: {no}.")
        return
    if (await work.request()).state is not State.ACTIVE:
        return  # it is being ended: the revoke behind us in this lane takes user and message
    (message,) = await context.ledger.messages(request.id, Purpose.CREDENTIALS)
    await deliver(work, request, message, CredentialsNotice(request=request, endpoint=endpoint, password=fresh))
    await work.advance(
        request,
        Move.NOTE,
        Change(actor=request.requester_id if audit is AuditKind.PASSWORD_RENEWED else "bot", audit=audit),
    )
