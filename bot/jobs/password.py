"""Set a new password for a live grant and show it in the credential message. Open sessions live on."""

from __future__ import annotations

from adapters.base import Adapter, Endpoint, Rejected
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.password import make_password
from bot.access.targets import level_of, target_of
from bot.engines import Share
from bot.jobs.job import JobContext
from bot.notifications.credentials import credentials, deliver
from storage.audit_log import AuditKind
from storage.records import Purpose, Request, State
from storage.transitions import Transition, TransitionInput


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
