"""Break-glass: access first, review after. Somebody who can review it is told before anything is given, everybody else right after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from bot.access import membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import approve_alone
from bot.access.errors import AccessError, Refused
from bot.access.job import JobContext, Retry
from bot.access.ports import Delayed, Undeliverable
from bot.durations import format_duration
from bot.policy import authorization
from bot.policy.config import Config
from bot.policy.facts import Facts
from storage.records import Cause, Message, Purpose, Request, State
from storage.transitions import Transition, TransitionInput

Post: TypeAlias = Callable[[Message], Awaitable[None]]

NOBODY = "Nobody who could review it was reached, so the glass stays whole. An alert was raised."


async def announce(context: Context, work: JobContext, request: Request, post: Post) -> None:
    """Tell the reviewers, or where none can be reached the admins; then grant. Repeated, it tells only whom it had not told.

    ``post`` draws a card into its place and remembers it; it raises Undeliverable.
    """
    if request.state is not State.PENDING:
        return
    config = context.in_force()
    facts = await membership.facts(context, config)
    for wanted in (authorization.reviewers(config, request, facts), _admins(config, request, facts)):
        if await _reaches(context, request, wanted, post):
            await _grant(context, request)
            return
    await raise_alert(
        context, request, f"Break-glass #{request.id} was refused: neither a reviewer nor an admin can be reached."
    )
    await work.advance(
        request, Transition.DENY, TransitionInput(actor="policy", cause=Cause.DENIED, words=NOBODY, text=NOBODY)
    )


def _admins(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    return facts.people(config.policy.admins) - {request.requester_id}


async def _reaches(context: Context, request: Request, wanted: frozenset[str], post: Post) -> bool:
    """A card of their own, with **Sign off**, for each; True where one of them has it."""
    there = await context.ledger.messages(request.id, Purpose.CARD_COPY)
    known = {message.channel for message in there}
    if not any(message.ts for message in there):
        for person_id in sorted(wanted - known):
            await context.ledger.add_message(request.id, Purpose.CARD_COPY, person_id)
    return await _posted(await context.ledger.messages(request.id, Purpose.CARD_COPY), post)


async def _posted(copies: Sequence[Message], post: Post) -> bool:
    """True as soon as one has it: the others are told when access was given. Delayed where nobody has it and somebody still may."""
    if any(message.ts for message in copies):
        return True
    delayed = None
    for message in copies:
        try:
            await post(message)
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
        await approve_alone(context, request)
    except Refused as no:
        raise Retry(str(no)) from None
    except AccessError:
        return  # closed meanwhile, and its requester is told


async def tell_loudly(context: Context, request: Request) -> frozenset[str]:
    """The alert channel hears of it; those who would have been asked are named, to be told one by one."""
    config = context.files.config
    what = f"{request.level} on {request.database} for {format_duration(request.duration or request.terms.duration)}"
    await raise_alert(
        context,
        request,
        f"@{request.requester_name} broke the glass: #{request.id}, {what}. Why stands on its card.",
        steps=(f"If that is not right, end it: /dbaccess revoke {request.id}", "Its reviewers sign it off in time."),
    )
    if config is None:
        return frozenset()
    return authorization.regular_approvers(config, request, await membership.facts(context, config))
