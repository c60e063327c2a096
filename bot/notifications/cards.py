"""The approval card: post it, copy it to approvers, redraw it.

Messages are drawn from the rows at send time, so a redraw that comes late or twice shows the same.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

import structlog

from bot.access import membership, membership_facts
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import extended_grant
from bot.access.ports import DirectoryUnavailable, MessageGone, Undeliverable
from bot.jobs.job import JobContext
from bot.notifications.messages import place_of, post_to_requester, record_posted
from bot.notifications.notices import CardNotice, StateChangeNotice
from bot.policy import authorization
from bot.policy.model import TICKET
from storage.records import Decision, Message, Purpose, Request, RequestKind, State
from storage.transitions import open_stage

COPIES_MAX = 50
"""Nobody gets a card of their own beyond so many: the card is in the channel, and Slack takes about one message a second."""

CARDS = (Purpose.CARD, Purpose.CARD_COPY)

log = structlog.get_logger(__name__)


async def card_notice(context: Context, request: Request) -> CardNotice:
    """The card as it stands now."""
    engine, admin_url = _server(context, request)
    decisions = await context.ledger.decisions(request.id)
    return CardNotice(
        request=request,
        decisions=decisions,
        waits_for=await waits_for(context, request, decisions),
        ticket_url=_ticket_url(context, request),
        grant=await extended_grant(context, request),
        enforced=context.engines.enforces(engine, admin_url).value,
        engine=context.engines.label(engine),
        reaches=str(request.terms.level.get("description") or ""),
    )


async def waits_for(context: Context, request: Request, decisions: tuple[Decision, ...]) -> tuple[str, ...]:
    """Who may decide now, as the policy names them today."""
    stage, config = open_stage(request, decisions), context.files.config
    if stage is None:
        return ()
    stages = authorization.stages_today(config, request) if config else request.terms.stages
    wider = authorization.escalated_to(request, request.terms, at=await context.ledger.now())
    return await membership.mentionable(context, dict.fromkeys((*stages[stage].approvers, *wider)))


def _ticket_url(context: Context, request: Request) -> str | None:
    pattern = context.files.config.policy.ticket_url if context.files.config else None
    if pattern is None or request.ticket is None:
        return None
    return pattern.replace(TICKET, quote(request.ticket, safe=""))


def _server(context: Context, request: Request) -> tuple[str, str]:
    """Engine and reference of the server: the frozen one, or before the approval today's."""
    if request.target:
        return str(request.target["engine"]), str(request.target["admin_url"])
    entry = context.files.config.databases.get(request.database) if context.files.config else None
    return (entry.engine, entry.admin_url) if entry else ("", "")


async def post_card(context: Context, job: JobContext) -> None:
    """Effect of ``post_card``: into the rule's channel, or to each approver where the channel is closed to us."""
    request = await job.request()
    for message in await context.ledger.messages(request.id, Purpose.CARD):
        if message.ts is None:
            try:
                await post_card_copy(context, job, message, request)
            except Undeliverable as closed:
                await _to_approvers(context, job, request, closed)
                break
    else:
        await _to_those_outside(context, job, request)
    if request.kind is RequestKind.BREAK_GLASS:
        await post_copies(context, job, request, ())  # one reviewer was told before; now the others


async def _to_those_outside(context: Context, job: JobContext, request: Request) -> None:
    """Approvers who are not in the channel get the card as a DM, with the same buttons."""
    if request.state is not State.PENDING:
        return
    try:
        asked = sorted(await _approvers(context, request))
        outside = await context.directory.outside(request.terms.channel, asked[:COPIES_MAX])
    except DirectoryUnavailable:
        return  # the card is in the channel and mentions them
    await _copies(context, job, request, set(outside))


async def post_card_copy(context: Context, job: JobContext, message: Message, request: Request) -> None:
    await job.check_claim()
    posted = await context.messenger.post(message.channel, await card_notice(context, request))
    await record_posted(context, message, posted, request)


async def _to_approvers(context: Context, job: JobContext, request: Request, closed: Undeliverable) -> None:
    """The channel cannot be written: every approver gets the card as a DM, and the requester learns of it."""
    if request.state is State.PENDING:
        reached = await _copies(context, job, request, set(sorted(await _approvers(context, request))[:COPIES_MAX]))
        await post_to_requester(
            context, request, StateChangeNotice(request=request, trouble=_closed_words(request, any(reached)))
        )
    await _alert_about_channel(context, request, closed)


async def _copies(context: Context, job: JobContext, request: Request, membership: set[str]) -> list[bool]:
    """A card of their own for each; True for those who could be reached. Repeated, it posts only what is missing."""
    if await context.ledger.messages(request.id, Purpose.CARD_COPY):
        membership = set()
    return await post_copies(context, job, request, membership)


async def post_copies(context: Context, job: JobContext, request: Request, membership: Collection[str]) -> list[bool]:
    """Further cards, for these people; and those that were begun before and are not posted yet."""
    for person_id in sorted(membership):
        await context.ledger.add_message(request.id, Purpose.CARD_COPY, person_id)
    copies = await context.ledger.messages(request.id, Purpose.CARD_COPY)
    return [await _copy(context, job, copy, request) for copy in copies]


def _closed_words(request: Request, is_reached: bool) -> str:
    if is_reached:
        return f"The channel for #{request.id} cannot be written, so I asked the approvers directly."
    return f"Nobody could be asked about #{request.id}: neither its channel nor its approvers can be reached. An alert was raised."


async def _approvers(context: Context, request: Request) -> set[str]:
    """Who may decide now in the stage that is open; nobody while no policy is in force."""
    config = context.files.config
    stage = open_stage(request, await context.ledger.decisions(request.id))
    if config is None or stage is None:
        return set()
    now, facts = await context.ledger.now(), await membership_facts.gather(context, config)
    return set(authorization.who_is_asked(config, request, facts, at=now, stage=stage))


async def _copy(context: Context, job: JobContext, message: Message, request: Request) -> bool:
    if message.ts is not None:
        return True
    try:
        await post_card_copy(context, job, message, request)
    except Undeliverable:
        return False
    return True


async def _alert_about_channel(context: Context, request: Request, closed: Undeliverable) -> None:
    """Tell those who can invite the bot."""
    steps = (f"Invite the bot to {request.terms.channel}, or name another channel in policy.yml.",)
    await raise_alert(
        context,
        request,
        f"The card of #{request.id} cannot be posted in {request.terms.channel}: {closed}.",
        steps=steps,
    )


async def update_card(context: Context, job: JobContext) -> None:
    """Effect of ``update_card``: every copy that shows an older version is redrawn in place."""
    request = await job.request()
    for message in await context.ledger.messages(request.id):
        if message.purpose in CARDS and message.ts is not None and message.version < request.version:
            await _redraw_card(context, job, message, request)


async def _redraw_card(context: Context, job: JobContext, message: Message, request: Request) -> None:
    await job.check_claim()
    try:
        await context.messenger.update(place_of(message), await card_notice(context, request))
    except MessageGone:
        await context.ledger.message_gone(message.id)
        if not request.state.is_over:
            await post_card_copy(context, job, message, request)
    except Undeliverable as closed:
        log.warning("a card cannot be redrawn", request=request.id, why=str(closed))
    else:
        await context.ledger.message_rendered(message.id, request.version)
