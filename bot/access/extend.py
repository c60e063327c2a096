"""Ask for more time on a live grant, and move its end on the server. The request is one of its own; the grant lives on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from adapters.base import ForeignUser, Rejected, ServerDown
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.errors import Refused, TooLate, Unknown
from bot.jobs.job import JobContext
from bot.access.ports import Person
from bot.jobs.provision import target_of
from bot.access.request_access import RequestOutcome, Typed, request_access
from bot.access.descriptions import what_happened
from bot.engines import Share
from storage.errors import NoSuchRequest
from storage.records import Request, RequestKind, State

ALERT_AT = 3


async def extendable(context: Context, person: Person, request_id: int) -> Request:
    """The live grant, for its requester. Raises Unknown for everybody else, TooLate where it is not live."""
    try:
        grant = await context.ledger.request(request_id)
    except NoSuchRequest:
        raise Unknown(f"#{request_id}") from None
    if grant.requester_id != person.id or grant.kind is RequestKind.EXTENSION:
        raise Unknown(f"#{request_id}")
    if grant.state is State.APPROVED:
        raise Refused(f"#{grant.id} is just being made. Please try again in a moment.")
    if grant.state is not State.ACTIVE:
        raise TooLate(what_happened(grant, await context.ledger.decisions(grant.id)))
    return grant


async def extend(context: Context, person: Person, request_id: int, typed: Typed) -> RequestOutcome:
    """Ask for more time: ``typed`` has the duration and the reason. Raises as ``request_access.request_access`` does, and as ``extendable``."""
    grant = await extendable(context, person, request_id)
    wanted = replace(typed, kind=RequestKind.EXTENSION, database=grant.database, level=grant.level)
    return await request_access(context, person, wanted, grant=grant)


async def move_expiry(context: Context, work: JobContext) -> None:
    """Effect of ``move_expiry``, in the grant's own lock key: the server's end follows the ledger's. Sessions live on.

    Until it is done the server may end the grant earlier than the ledger, never later.
    """
    grant = await work.request()
    if grant.state is not State.ACTIVE or grant.username is None or grant.expires_at is None:
        return
    username, remaining = grant.username, grant.expires_at - await context.ledger.now()
    if remaining <= timedelta(0):
        return
    await work.hold()
    try:
        await context.engines.call(
            target_of(grant),
            lambda adapter: adapter.set_expiry(username, remaining.total_seconds()),
            share=Share.GRANTS,
        )
    except ServerDown as away:
        if work.tries == ALERT_AT:
            await _alert(context, grant, f"{grant.database} does not answer ({away})")
        raise
    except (Rejected, ForeignUser) as no:
        await _alert(context, grant, str(no))


async def _alert(context: Context, grant: Request, why: str) -> None:
    await raise_alert(
        context,
        grant,
        f"The end of #{grant.id} was moved, but not on the server: {why}.",
        steps=("The server may end it at its former end; the requester can ask anew.",),
    )
