"""Check that everybody with a grant or a pending request is still a member of the workspace. Former members lose both."""

from __future__ import annotations

import structlog

from bot.access.context import Context
from bot.access.ports import DirectoryUnavailable, Person
from storage.commands import OutdateRequest, RevokeGrant
from storage.errors import NotPossible
from storage.records import Cause, Request, State

log = structlog.get_logger(__name__)


async def check_members(context: Context) -> None:
    """Check every requester of a live grant or a pending request. Events from Slack get lost, so this runs again and again."""
    requests = (*await context.ledger.requests.live_grants(), *await context.ledger.requests.pending())
    for person_id in sorted({request.requester_id for request in requests}):
        await end_access_of_former_member(context, person_id)


async def end_access_of_former_member(context: Context, person_id: str) -> None:
    """End the grants and close the pending requests of a person who is no longer a full member. A failed lookup ends nothing."""
    live = await context.ledger.requests.live_grants(person_id=person_id)
    pending = await context.ledger.requests.pending(person_id=person_id)
    if not live and not pending:
        return
    try:
        person = await context.directory.person(person_id, fresh=True)
    except DirectoryUnavailable as error:
        log.warning("membership_unknown", person=person_id, reason=str(error))
        return
    if not person.is_member:
        for request in (*pending, *(r for r in live if r.state is not State.REVOKING)):
            await _end_access(context, request, person)


async def _end_access(context: Context, request: Request, person: Person) -> None:
    note = f"the requester is no longer a member of the workspace ({person.not_member_reason})."
    command = (
        OutdateRequest(actor="directory", note=note)
        if request.state is State.PENDING
        else RevokeGrant(actor="directory", cause=Cause.LEFT, note=note)
    )
    try:
        await context.ledger.requests.advance(request.id, command)
    except NotPossible as error:
        log.info("revocation_skipped", request=request.id, reason=str(error.obstacle))
