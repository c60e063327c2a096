"""Ask for more time on a live grant.

An extension is a request of its own; the grant stays live meanwhile. ``bot.jobs.move_expiry`` moves the expiry on the server.
"""

from __future__ import annotations

from dataclasses import replace

from bot.access.context import Context
from bot.access.descriptions import describe_state
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import Person
from bot.access.request_access import request_access
from bot.access.use_case_types import RequestInput, RequestOutcome
from storage.errors import NoSuchRequest
from storage.records import Request, RequestKind, State


async def extendable(context: Context, person: Person, request_id: int) -> Request:
    """The live grant, for its requester.

    Raises UnknownRequest for everybody else, Refused while it is being provisioned, TooLate after its end.
    """
    try:
        grant = await context.ledger.requests.get(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None
    if grant.requester_id != person.id or grant.kind is RequestKind.EXTENSION:
        raise UnknownRequest(f"#{request_id}")
    if grant.state is State.APPROVED:
        raise Refused(f"#{grant.id} is just being made. Please try again in a moment.")
    if grant.state is not State.ACTIVE:
        raise TooLate(describe_state(grant, await context.ledger.requests.decisions(grant.id)))
    return grant


async def extend(context: Context, person: Person, request_id: int, wanted: RequestInput) -> RequestOutcome:
    """Submit an extension: ``wanted`` has the duration and the reason. Raises what ``extendable`` and ``request_access`` raise."""
    grant = await extendable(context, person, request_id)
    wanted = replace(wanted, kind=RequestKind.EXTENSION, database=grant.database, level=grant.level)
    return await request_access(context, person, wanted, grant=grant)
