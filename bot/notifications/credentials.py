"""The credential message: fill it, and remove the password when the grant ends."""

from __future__ import annotations

import structlog

from adapters.base import Endpoint
from bot.access.context import Context
from bot.access.ports import MessageGone, Posted, Undeliverable
from bot.jobs.job import JobContext
from bot.notifications.messages import place_of, record_posted
from bot.notifications.notices import ClosedNotice, CredentialsNotice, PreparingNotice
from storage.records import Message, Purpose, Request, State

log = structlog.get_logger(__name__)


def credentials_notice(request: Request, endpoint: Endpoint, password: str) -> CredentialsNotice:
    """The content of the credential message. It holds the password only where the rule delivers by ``dm``."""
    shown = password if request.terms.delivery == "dm" else None
    return CredentialsNotice(request=request, endpoint=endpoint, password=shown)


async def deliver(job: JobContext, request: Request, message: Message, notice: CredentialsNotice) -> None:
    """Put the credentials into the credential message.

    Where that message was deleted, a new one is posted without them, recorded, and then filled: a message that the ledger
    does not know must never hold a password.
    """
    context = job.context
    await job.check_claim()
    if message.ts is not None:
        try:
            await context.messenger.update(Posted(channel=message.channel, ts=message.ts), notice)
        except MessageGone:
            await job.check_claim()
        else:
            return  # its version in the ledger stays: only ``close_credentials`` reads it, and every end is newer
    posted = await context.messenger.post(request.requester_id, PreparingNotice(request=request))
    await record_posted(context, message, posted, request)
    await job.check_claim()
    await context.messenger.update(posted, notice)


async def close_credentials(context: Context, job: JobContext) -> None:
    """Job of ``close_credentials``: remove the password from the message; after the end, show the receipt there."""
    request = await job.request()
    if request.state not in (State.REVOKING, State.REVOKED):
        return
    for message in await context.ledger.messages.of(request.id, Purpose.CREDENTIALS):
        if message.ts is not None and message.version < request.version:
            await job.check_claim()
            try:
                await context.messenger.update(place_of(message), ClosedNotice(request=request))
            except Undeliverable as error:
                log.warning("credentials_undeliverable", request=request.id, reason=str(error))
            else:
                await context.ledger.messages.rendered(message.id, request.version)
