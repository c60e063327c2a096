"""What the sending jobs share: where a message is, and posts that may fail without stopping the job."""

from __future__ import annotations

from dataclasses import replace

import structlog

from bot.access.context import Context
from bot.access.ports import MessageGone, Notice, Posted, Undeliverable
from bot.notifications.notices import StateChangeNotice
from storage.records import Message, Request

log = structlog.get_logger(__name__)


async def record_posted(context: Context, message: Message, posted: Posted, request: Request) -> Message:
    """Write down where a message is, so that any replica can redraw it."""
    await context.ledger.message_posted(message.id, channel=posted.channel, ts=posted.ts, version=request.version)
    return replace(message, channel=posted.channel, ts=posted.ts, version=request.version)


def place_of(message: Message) -> Posted:
    assert message.ts is not None, "only a posted message has a place"
    return Posted(channel=message.channel, ts=message.ts)


async def post_to_requester(context: Context, request: Request, notice: StateChangeNotice) -> None:
    try:
        await context.messenger.post(request.requester_id, notice)
    except Undeliverable as closed:
        log.warning("the requester cannot be told", request=request.id, why=str(closed))


async def post_or_warn(context: Context, place: str, notice: Notice, *, thread: str | None = None) -> None:
    try:
        try:
            await context.messenger.post(place, notice, thread=thread)
        except MessageGone:
            await context.messenger.post(place, notice)
    except Undeliverable as closed:
        log.warning("somebody cannot be told", place=place, why=str(closed))
