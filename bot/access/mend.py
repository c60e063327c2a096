"""What a lost claim may have left on a server is put right, in its turn in the same lane."""

from __future__ import annotations

from adapters.base import NotOurs
from bot.access.context import Context
from bot.access.password import set_fresh_password
from bot.access.revoke import drop
from bot.access.tell import close_credentials
from bot.access.work import Work
from storage.audit import AuditKind
from storage.moves import Change, Move
from storage.records import State


async def mend(context: Context, work: Work) -> None:
    """Effect of the ``mend`` task.

    Somebody lost the task while a statement of theirs was on its way. ACTIVE: their late statement may have set
    another password, so a fresh one goes into the message. Over: their late statement may have made the user
    again, so it is dropped and read back, and its message closed. Otherwise the lane's own ``provision`` or ``revoke`` sees to it.
    """
    request = await work.request()
    if request.state is State.ACTIVE:
        await set_fresh_password(context, work, request, audit=AuditKind.MENDED)
    elif request.state is State.REVOKED and request.started_at is not None and not (request.receipt or {}).get("gone"):
        try:
            receipt = await drop(context, work, request)
        except NotOurs:
            return
        await close_credentials(context, work)
        if not receipt.was_absent:
            await work.advance(
                request,
                Move.NOTE,
                Change(actor="bot", audit=AuditKind.MENDED, facts={"sessions_ended": receipt.sessions_ended}),
            )
