"""Look again at the people who have or want access: who left the workspace loses it."""

from __future__ import annotations

import structlog

from bot.access.context import Context
from bot.access.ports import DirectoryUnavailable, Person
from storage.commands import OutdateRequest, RevokeGrant
from storage.errors import NotPossible
from storage.records import Cause, Request, State

log = structlog.get_logger(__name__)


async def check_members(context: Context) -> None:
    """Everybody who has or wants access is still one of us: events get lost, so this is asked again and again."""
    there = (*await context.ledger.live_grants(), *await context.ledger.pending_requests())
    for person_id in sorted({request.requester_id for request in there}):
        await end_access_of_former_member(context, person_id)


async def end_access_of_former_member(context: Context, person_id: str) -> None:
    """End what somebody has who is no longer a full member, and close what they wait for. No answer ends nothing."""
    live = await context.ledger.live_grants(person_id=person_id)
    waiting = await context.ledger.pending_requests(person_id=person_id)
    if not live and not waiting:
        return
    try:
        person = await context.directory.person(person_id, fresh=True)
    except DirectoryUnavailable as silent:
        log.warning("Slack does not say whether somebody is still a member", person=person_id, why=str(silent))
        return
    if not person.is_member:
        for request in (*waiting, *(r for r in live if r.state is not State.REVOKING)):
            await _taken_back(context, request, person)


async def _taken_back(context: Context, request: Request, person: Person) -> None:
    note = f"the requester is no longer a member of the workspace ({person.not_member_reason})."
    command = (
        OutdateRequest(actor="directory", note=note)
        if request.state is State.PENDING
        else RevokeGrant(actor="directory", cause=Cause.LEFT, note=note)
    )
    try:
        await context.ledger.advance(request.id, command)
    except NotPossible as lost:
        log.info("somebody who left has lost it already", request=request.id, why=str(lost.obstacle))
