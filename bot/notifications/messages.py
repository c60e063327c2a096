"""Shared by the jobs that send messages: where a message is, and posts whose failure does not stop the job."""

from __future__ import annotations

from dataclasses import replace

import structlog

from bot.access.context import Context
from bot.access.ports import MessageGone, Notice, Posted, Undeliverable
from bot.notifications.notices import StateChangeNotice
from storage.errors import ClaimLost
from storage.records import Message, Request

log = structlog.get_logger(__name__)


async def record_posted(context: Context, message: Message, posted: Posted, request: Request) -> Message:
    """Record where a message is, so that any replica can update it. Returns the message with its place.

    Raises ClaimLost if another worker has posted it meanwhile: this one was away for longer than its lease.
    """
    is_recorded = await context.ledger.messages.posted(
        message.id, channel=posted.channel, ts=posted.ts, version=request.version, before=message.ts
    )
    if not is_recorded:
        raise ClaimLost("another worker posted the message")
    return replace(message, channel=posted.channel, ts=posted.ts, version=request.version)


def place_of(message: Message) -> Posted:
    """The place of a posted message."""
    assert message.ts is not None, "only a posted message has a place"
    return Posted(channel=message.channel, ts=message.ts)


async def post_to_requester(context: Context, request: Request, notice: StateChangeNotice) -> None:
    """Post to the requester. A message that cannot be delivered is logged. Raises Delayed."""
    try:
        await context.messenger.post(request.requester_id, notice)
    except Undeliverable as error:
        log.warning("notice_undeliverable", request=request.id, place=request.requester_id, reason=str(error))


async def post_or_warn(context: Context, place: str, notice: Notice, *, thread: str | None = None) -> None:
    """Post to a channel or person; outside the thread where its first message is gone. Otherwise as ``post_to_requester``."""
    try:
        try:
            await context.messenger.post(place, notice, thread=thread)
        except MessageGone:
            await context.messenger.post(place, notice)
    except Undeliverable as error:
        log.warning("notice_undeliverable", place=place, reason=str(error))
