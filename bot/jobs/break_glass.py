"""Break-glass: access first, review after. Somebody who can review it is told before anything is given, everybody else right after."""

from __future__ import annotations

from collections.abc import Sequence

from bot.access import membership_facts
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import approve_by_policy
from bot.access.errors import AccessError, Refused
from bot.access.ports import Delayed, Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.cards import post_card_copy
from bot.policy import authorization
from bot.policy.facts import Facts
from bot.policy.loader import Config
from storage.commands import DenyRequest
from storage.records import Message, Purpose, Request, State

NOBODY = "Nobody who could review it was reached, so the glass stays whole. An alert was raised."


async def grant_break_glass(context: Context, job: JobContext) -> None:
    """Job of ``grant_break_glass``: tell a reviewer, or an admin where no reviewer can be reached; then grant.

    Repeated, it tells only those whom it has not told. The request is denied where nobody can be told.
    """
    request = await job.request()
    if request.state is not State.PENDING:
        return
    config = context.config_in_force()
    facts = await membership_facts.gather(context, config)
    for wanted in (authorization.reviewers(config, request, facts), _admins(config, request, facts)):
        if await _reaches(context, job, request, wanted):
            await _grant(context, request)
            return
    await raise_alert(
        context, request, f"Break-glass #{request.id} was refused: neither a reviewer nor an admin can be reached."
    )
    await job.advance(request, DenyRequest(actor="policy", note=NOBODY, text=NOBODY))


def _admins(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    return facts.people(config.policy.admins) - {request.requester_id}


async def _reaches(context: Context, job: JobContext, request: Request, wanted: frozenset[str]) -> bool:
    """A card of their own, with **Sign off**, for each; True where one of them has it."""
    there = await context.ledger.messages(request.id, Purpose.CARD_COPY)
    known = {message.channel for message in there}
    if not any(message.ts for message in there):
        for person_id in sorted(wanted - known):
            await context.ledger.add_message(request.id, Purpose.CARD_COPY, person_id)
    copies = await context.ledger.messages(request.id, Purpose.CARD_COPY)
    return await _posted(context, job, request, copies)


async def _posted(context: Context, job: JobContext, request: Request, copies: Sequence[Message]) -> bool:
    """True as soon as one has it: the others are told when access was given. Delayed where nobody has it and somebody still may."""
    if any(message.ts for message in copies):
        return True
    delayed = None
    for message in copies:
        try:
            await post_card_copy(context, job, message, request)
        except Undeliverable:
            continue
        except Delayed as slow:
            delayed = slow
        else:
            return True
    if delayed is not None:
        raise delayed
    return False


async def _grant(context: Context, request: Request) -> None:
    """Today's policy is asked once more. Where it is silent about somebody, this is tried again until the request lapses."""
    try:
        await approve_by_policy(context, request)
    except Refused as no:
        raise Retry(str(no)) from None
    except AccessError:
        return  # closed meanwhile, and its requester is told
