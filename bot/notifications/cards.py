"""The approval card: post it, copy it to approvers, update it.

A card is rendered from the ledger when it is sent. An update that comes late or twice shows the same.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote

import structlog

from bot.access import membership
from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from bot.access.decide import extended_grant
from bot.access.descriptions import shorten
from bot.access.ports import DirectoryUnavailable, MessageGone, Undeliverable
from bot.jobs.job import JobContext
from bot.notifications.messages import place_of, post_to_requester, record_posted
from bot.notifications.notices import CardNotice, StateChangeNotice
from bot.policy import authorization
from bot.policy.model import TICKET_PLACEHOLDER
from storage.records import Decision, Message, Purpose, Request, RequestKind, State
from storage.transitions import open_stage

COPIES_MAX = 50
"""At most this many people get a copy of the card: Slack takes about one message a second, and the card is in the channel."""

ROLES_MAX = 100
"""Characters of the roles that a warning names."""

CARDS = (Purpose.CARD, Purpose.CARD_COPY)

log = structlog.get_logger(__name__)


async def card_notice(context: Context, request: Request) -> CardNotice:
    """The card of the request as it is now."""
    engine, admin_url = _engine_and_url(context, request)
    decisions = await context.ledger.requests.decisions(request.id)
    return CardNotice(
        request=request,
        decisions=decisions,
        waits_for=await waits_for(context, request, decisions),
        ticket_url=_ticket_url(context, request),
        grant=await extended_grant(context, request),
        enforced=context.engines.enforces(engine, admin_url).value,
        engine=context.engines.label(engine),
        reaches=str(request.terms.level.get("description") or ""),
        warnings=_warnings(context, request, engine, admin_url),
    )


def _warnings(context: Context, request: Request, engine: str, admin_url: str) -> tuple[str, ...]:
    """What may outlive a grant of this level: by its ``set_role``, and as the server was last measured."""
    found = context.engines.card_warnings(engine, admin_url, request.database, request.level)
    if not request.terms.level.get("set_role"):
        return found
    roles = ", ".join(map(str, request.terms.level.get("roles") or ()))
    acts = f"Its user may act as {shorten(roles, ROLES_MAX)}: what it makes as that role outlives this access."
    return (acts, *found)


async def waits_for(context: Context, request: Request, decisions: tuple[Decision, ...]) -> tuple[str, ...]:
    """The people who may decide the open stage now, as the policy in force names them; groups and addresses as Slack can mention them."""
    stage, config = open_stage(request, decisions), context.files.config
    if stage is None:
        return ()
    stages = authorization.current_stages(config, request) if config else request.terms.stages
    wider = authorization.escalation_targets(request, request.terms, at=await context.ledger.now())
    return await membership.mentionable(context, dict.fromkeys((*stages[stage].approvers, *wider)))


def _ticket_url(context: Context, request: Request) -> str | None:
    pattern = context.files.config.policy.ticket_url if context.files.config else None
    if pattern is None or request.ticket is None:
        return None
    return pattern.replace(TICKET_PLACEHOLDER, quote(request.ticket, safe=""))


def _engine_and_url(context: Context, request: Request) -> tuple[str, str]:
    """Engine and admin URL reference of the server: frozen after the approval, configured before it."""
    if request.target:
        return str(request.target["engine"]), str(request.target["admin_url"])
    entry = context.files.config.databases.get(request.database) if context.files.config else None
    return (entry.engine, entry.admin_url) if entry else ("", "")


async def post_card(context: Context, job: JobContext) -> None:
    """Job of ``post_card``: post to the rule's channel, or to each approver where the bot cannot post there."""
    request = await job.request()
    for message in await context.ledger.messages.of(request.id, Purpose.CARD):
        if message.ts is None:
            try:
                await post_card_copy(context, job, message, request)
            except Undeliverable as error:
                await _post_to_approvers(context, job, request, error)
                break
    else:
        await _post_to_approvers_outside(context, job, request)
    if request.kind is RequestKind.BREAK_GLASS:
        await post_copies(context, job, request, ())  # one reviewer was notified before the grant, the others now


async def _post_to_approvers_outside(context: Context, job: JobContext, request: Request) -> None:
    """Approvers who are not in the channel get the card as a DM, with the same buttons."""
    if request.state is not State.PENDING:
        return
    try:
        approvers = sorted(await _approvers(context, request))
        outside = await context.directory.outside(request.terms.channel, approvers[:COPIES_MAX])
    except DirectoryUnavailable:
        return  # the card in the channel mentions them
    await _post_first_copies(context, job, request, set(outside))


async def post_card_copy(context: Context, job: JobContext, message: Message, request: Request) -> None:
    """Post one card and record where it is. Raises Delayed and Undeliverable."""
    await job.check_claim()
    posted = await context.messenger.post(message.channel, await card_notice(context, request))
    await record_posted(context, message, posted, request)
    if message.purpose is Purpose.CARD:
        await resolve_alert(context, f"card:{message.channel}", f"The card of #{request.id} was posted there.")


async def _post_to_approvers(context: Context, job: JobContext, request: Request, error: Undeliverable) -> None:
    """The bot cannot post in the channel: every approver gets the card as a DM, and the requester is notified."""
    if request.state is State.PENDING and request.terms.stages:  # nobody is asked about other requests
        approvers = set(sorted(await _approvers(context, request))[:COPIES_MAX])
        is_posted = any(await _post_first_copies(context, job, request, approvers))
        await post_to_requester(
            context, request, StateChangeNotice(request=request, trouble=_describe_closed_channel(request, is_posted))
        )
    await _alert_about_channel(context, request, error)


async def _post_first_copies(context: Context, job: JobContext, request: Request, person_ids: set[str]) -> list[bool]:
    """Post a copy to each person. Where copies exist already, as in a retry, post only those that are missing."""
    if await context.ledger.messages.of(request.id, Purpose.CARD_COPY):
        person_ids = set()
    return await post_copies(context, job, request, person_ids)


async def post_copies(context: Context, job: JobContext, request: Request, person_ids: Collection[str]) -> list[bool]:
    """Post a copy to each of these people, and the copies of earlier tries that are not posted yet.

    Returns for each copy of the request whether it is posted.
    """
    for person_id in sorted(person_ids):
        await context.ledger.messages.add(request.id, Purpose.CARD_COPY, person_id)
    copies = await context.ledger.messages.of(request.id, Purpose.CARD_COPY)
    return [await _is_copy_posted(context, job, copy, request) for copy in copies]


def _describe_closed_channel(request: Request, is_posted: bool) -> str:
    if is_posted:
        return f"The channel for #{request.id} cannot be written, so I asked the approvers directly."
    return f"Nobody could be asked about #{request.id}: neither its channel nor its approvers can be reached. An alert was raised."


async def _approvers(context: Context, request: Request) -> set[str]:
    """The ids of the people who may decide the open stage now. Empty where no policy is in force."""
    config = context.files.config
    stage = open_stage(request, await context.ledger.requests.decisions(request.id))
    if config is None or stage is None:
        return set()
    now, facts = await context.ledger.now(), await membership.facts(context, config)
    return set(authorization.current_approvers(config, request, facts, at=now, stage=stage))


async def _is_copy_posted(context: Context, job: JobContext, message: Message, request: Request) -> bool:
    if message.ts is not None:
        return True
    try:
        await post_card_copy(context, job, message, request)
    except Undeliverable:
        return False
    return True


async def _alert_about_channel(context: Context, request: Request, error: Undeliverable) -> None:
    steps = (f"Invite the bot to {request.terms.channel}, or name another channel in policy.yml.",)
    await raise_alert(
        context,
        request,
        f"The card of #{request.id} cannot be posted in {request.terms.channel}: {error}.",
        cause=f"card:{request.terms.channel}",
        steps=steps,
    )


async def update_card(context: Context, job: JobContext) -> None:
    """Job of ``update_card``: update every card and copy that shows an older version of the request."""
    request = await job.request()
    for message in await context.ledger.messages.of(request.id):
        if message.purpose in CARDS and message.ts is not None and message.version < request.version:
            await _update_one_card(context, job, message, request)


async def _update_one_card(context: Context, job: JobContext, message: Message, request: Request) -> None:
    await job.check_claim()
    try:
        await context.messenger.update(place_of(message), await card_notice(context, request))
    except MessageGone:
        await context.ledger.messages.deleted(message.id)
        if not request.state.is_over:
            await post_card_copy(context, job, message, request)
    except Undeliverable as error:
        log.warning("card_undeliverable", request=request.id, reason=str(error))
    else:
        await context.ledger.messages.rendered(message.id, request.version)
