"""Approve a request that the policy asks nobody about. Called by ``post_card``."""

from __future__ import annotations

from contextlib import suppress

from bot.access.context import Context
from bot.access.decide import approve_alone
from bot.access.errors import AccessError
from storage.records import Request, RequestKind, State


async def approve_automatically(context: Context, request: Request) -> Request:
    """Where the policy asks nobody, the ask itself approves; this is the net under an ask that died before it did."""
    if request.state is not State.PENDING or request.terms.stages or request.kind is RequestKind.BREAK_GLASS:
        return await context.ledger.request(request.id)
    with suppress(AccessError):
        await approve_alone(context, request)
    return await context.ledger.request(request.id)
