"""Grant break-glass access: access first, review afterwards.

One reviewer is notified before anything is granted. Everybody else is notified right after.
"""

from __future__ import annotations

from collections.abc import Sequence

from bot.access import membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import approve_by_policy
from bot.access.errors import AccessError, Refused
from bot.access.ports import Delayed, Undeliverable
from bot.jobs.job import JobContext, Retry
from bot.notifications.cards import post_card_copy
from bot.policy import authorization
from bot.policy.config import Config
from bot.policy.facts import Facts
from storage.commands import DenyRequest
from storage.records import Message, Purpose, Request, State

NO_REVIEWER = "Nobody who could review it was reached, so nothing was granted. An alert was raised."


async def grant_break_glass(context: Context, job: JobContext) -> None:
    """Job of ``grant_break_glass``: notify a reviewer, or an admin where no reviewer can be reached; then grant.

    A retry notifies only people who have no card yet. The request is denied where nobody can be notified.
    """
    request = await job.request()
    if request.state is not State.PENDING:
        return
    config = await _newest_configuration(context)
    facts = await membership.facts(context, config)
    for people in (authorization.reviewers(config, request, facts), _admins(config, request, facts)):
        if await _notify_one_of(context, job, request, people):
            await _grant(context, request)
            return
    await raise_alert(
        context,
        request,
        f"Break-glass #{request.id} was refused: neither a reviewer nor an admin can be reached.",
        cause=f"break_glass:{request.id}:refused",
        is_event=True,
    )
    await job.advance(request, DenyRequest(actor="policy", note=NO_REVIEWER, text=NO_REVIEWER))


async def _newest_configuration(context: Context) -> Config:
    """The configuration in force. Raises Retry where another replica has a newer one: it may name other reviewers."""
    try:
        await context.check_configuration_is_newest()
    except Refused as error:
        raise Retry(str(error)) from None
    return context.config_in_force()


def _admins(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    return facts.expand(config.policy.admins) - {request.requester_id}


async def _notify_one_of(context: Context, job: JobContext, request: Request, people: frozenset[str]) -> bool:
    """Send copies of the card, with **Sign off**, by direct message. True as soon as one of the people has it."""
    before = await context.ledger.messages.of(request.id, Purpose.CARD_COPY)
    known = {message.channel for message in before}
    if not any(message.ts for message in before):
        for person_id in sorted(people - known):
            await context.ledger.messages.add(request.id, Purpose.CARD_COPY, person_id)
    copies = await context.ledger.messages.of(request.id, Purpose.CARD_COPY)
    return await _post_until_one_arrives(context, job, request, copies)


async def _post_until_one_arrives(
    context: Context, job: JobContext, request: Request, copies: Sequence[Message]
) -> bool:
    """True as soon as one copy is posted; the others follow after the grant. Raises Delayed where a retry may still post one."""
    if any(message.ts for message in copies):
        return True
    delay = None
    for message in copies:
        try:
            await post_card_copy(context, job, message, request)
        except Undeliverable:
            continue
        except Delayed as error:
            delay = error
        else:
            return True
    if delay is not None:
        raise delay
    return False


async def _grant(context: Context, request: Request) -> None:
    """Approve by the policy in force. Raises Retry where it refuses, until the request lapses: the refusal may come from a failed lookup."""
    try:
        await approve_by_policy(context, request)
    except Refused as error:
        raise Retry(str(error)) from None
    except AccessError:
        return  # the request was closed meanwhile, and its requester is notified
