"""Effects that show what is true: cards, the credential message after its end, turns, feed, alerts.

Messages are drawn from the rows at send time, so a redraw that comes late or twice shows the same.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta
from urllib.parse import quote

import structlog

from bot.access import break_glass, membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import approve_alone, grant_of
from bot.access.errors import AccessError
from bot.access.job import JobContext, Retry
from bot.access.ports import (
    CardNotice,
    ClosedNotice,
    DirectoryUnavailable,
    FeedNotice,
    MessageGone,
    Posted,
    TurnNotice,
    Undeliverable,
)
from bot.access.provision import remember
from bot.policy import authorization
from bot.policy.model import TICKET_PLACEHOLDER
from storage.audit_log import AuditKind
from storage.records import AuditEvent, Decision, Message, Purpose, Request, RequestKind, State, Verdict
from storage.transitions import open_stage

FEED_LINES = 25
COPIES_MAX = 50
"""Nobody gets a card of their own beyond so many: the card is in the channel, and Slack takes about one message a second."""

FEED_PAUSE = timedelta(seconds=1)
UNSHOWN = frozenset({AuditKind.NOTED, AuditKind.CLICK_REFUSED})
CARDS = (Purpose.CARD, Purpose.CARD_COPY)

log = structlog.get_logger(__name__)


# The card.


async def card(context: Context, request: Request) -> CardNotice:
    """The card as it stands now."""
    engine, admin_url = _server(context, request)
    decisions = await context.ledger.decisions(request.id)
    return CardNotice(
        request=request,
        decisions=decisions,
        waits_for=await waits_for(context, request, decisions),
        ticket_url=_ticket_url(context, request),
        grant=await grant_of(context, request),
        enforced=context.engines.enforces(engine, admin_url).value,
        engine=context.engines.label(engine),
        reaches=str(request.terms.level.get("description") or ""),
    )


async def waits_for(context: Context, request: Request, decisions: tuple[Decision, ...]) -> tuple[str, ...]:
    """Who may decide now, as the policy names them today."""
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


def _server(context: Context, request: Request) -> tuple[str, str]:
    """Engine and reference of the server: the frozen one, or before the approval today's."""
    if request.target:
        return str(request.target["engine"]), str(request.target["admin_url"])
    entry = context.files.config.databases.get(request.database) if context.files.config else None
    return (entry.engine, entry.admin_url) if entry else ("", "")


async def post_card(context: Context, work: JobContext) -> None:
    """Effect of ``post_card``: into the rule's channel, or to each approver where the channel is closed to us."""
    request = await work.request()
    if request.kind is RequestKind.BREAK_GLASS:
        await break_glass.announce(context, work, request, lambda message: _post(context, work, message, request))
    request = await _granted_by_itself(context, request)
    for message in await context.ledger.messages(request.id, Purpose.CARD):
        if message.ts is None:
            try:
                await _post(context, work, message, request)
            except Undeliverable as closed:
                await _to_approvers(context, work, request, closed)
                break
    else:
        await _to_those_outside(context, work, request)
    if request.kind is RequestKind.BREAK_GLASS:
        await post_copies(context, work, request, ())  # one reviewer was told before; now the others


async def _granted_by_itself(context: Context, request: Request) -> Request:
    """Where the policy asks nobody, the ask itself approves; this is the net under an ask that died before it did."""
    if request.state is not State.PENDING or request.terms.stages or request.kind is RequestKind.BREAK_GLASS:
        return await context.ledger.request(request.id)
    with suppress(AccessError):
        await approve_alone(context, request)
    return await context.ledger.request(request.id)


async def _to_those_outside(context: Context, work: JobContext, request: Request) -> None:
    """Approvers who are not in the channel get the card as a DM, with the same buttons."""
    if request.state is not State.PENDING:
        return
    try:
        asked = sorted(await _approvers(context, request))
        outside = await context.directory.outside(request.terms.channel, asked[:COPIES_MAX])
    except DirectoryUnavailable:
        return  # the card is in the channel and mentions them
    await _copies(context, work, request, set(outside))


async def _post(context: Context, work: JobContext, message: Message, request: Request) -> None:
    await work.hold()
    posted = await context.messenger.post(message.channel, await card(context, request))
    await remember(context, message, posted, request)


async def _to_approvers(context: Context, work: JobContext, request: Request, closed: Undeliverable) -> None:
    """The channel cannot be written: every approver gets the card as a DM, and the requester learns of it."""
    if request.state is State.PENDING:
        reached = await _copies(context, work, request, set(sorted(await _approvers(context, request))[:COPIES_MAX]))
        await _say(context, request, TurnNotice(request=request, trouble=_closed_words(request, any(reached))))
    await _alert_about_channel(context, request, closed)


async def _copies(context: Context, work: JobContext, request: Request, membership: set[str]) -> list[bool]:
    """A card of their own for each; True for those who could be reached. Repeated, it posts only what is missing."""
    if await context.ledger.messages(request.id, Purpose.CARD_COPY):
        membership = set()
    return await post_copies(context, work, request, membership)


async def post_copies(context: Context, work: JobContext, request: Request, membership: Collection[str]) -> list[bool]:
    """Further cards, for these people; and those that were begun before and are not posted yet."""
    for person_id in sorted(membership):
        await context.ledger.add_message(request.id, Purpose.CARD_COPY, person_id)
    copies = await context.ledger.messages(request.id, Purpose.CARD_COPY)
    return [await _copy(context, work, copy, request) for copy in copies]


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
    now, facts = await context.ledger.now(), await membership.facts(context, config)
    return set(authorization.current_approvers(config, request, facts, at=now, stage=stage))


async def _copy(context: Context, work: JobContext, message: Message, request: Request) -> bool:
    if message.ts is not None:
        return True
    try:
        await _post(context, work, message, request)
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


async def update_card(context: Context, work: JobContext) -> None:
    """Effect of ``update_card``: every copy that shows an older version is redrawn in place."""
    request = await work.request()
    for message in await context.ledger.messages(request.id):
        if message.purpose in CARDS and message.ts is not None and message.version < request.version:
            await _redraw_card(context, work, message, request)


async def _redraw_card(context: Context, work: JobContext, message: Message, request: Request) -> None:
    await work.hold()
    try:
        await context.messenger.redraw(_place(message), await card(context, request))
    except MessageGone:
        await context.ledger.message_gone(message.id)
        if not request.state.is_over:
            await _post(context, work, message, request)
    except Undeliverable as closed:
        log.warning("a card cannot be redrawn", request=request.id, why=str(closed))
    else:
        await context.ledger.message_rendered(message.id, request.version)


def _place(message: Message) -> Posted:
    assert message.ts is not None, "only a posted message has a place"
    return Posted(channel=message.channel, ts=message.ts)


# The requester.


async def tell(context: Context, work: JobContext) -> None:
    """Effect of ``tell``: one line to the requester about the turn the request took."""
    request = await work.request()
    denied = [d for d in await context.ledger.decisions(request.id) if d.verdict is Verdict.DENY]
    await work.hold()
    grant = await grant_of(context, request)
    await _say(context, request, TurnNotice(request=request, decision=denied[-1] if denied else None, grant=grant))


async def _say(context: Context, request: Request, notice: TurnNotice) -> None:
    try:
        await context.messenger.post(request.requester_id, notice)
    except Undeliverable as closed:
        log.warning("the requester cannot be told", request=request.id, why=str(closed))


async def close_credentials(context: Context, work: JobContext) -> None:
    """Effect of ``close_credentials``: the password goes from the message; later the receipt comes."""
    request = await work.request()
    if request.state not in (State.REVOKING, State.REVOKED):
        return
    for message in await context.ledger.messages(request.id, Purpose.CREDENTIALS):
        if message.ts is not None and message.version < request.version:
            await work.hold()
            try:
                await work.unless_ending(context.messenger.redraw(_place(message), ClosedNotice(request=request)))
            except Undeliverable as closed:
                log.warning("a credential message cannot be overwritten", request=request.id, why=str(closed))
            else:
                await context.ledger.message_rendered(message.id, request.version)


# The audit channel: a reader of the record with a cursor, at most one message a second.


async def feed(context: Context, work: JobContext) -> None:
    """Effect of ``feed``: the lines that wait share a message. Without a channel the cursor stays; nothing is lost."""
    channel = context.files.config.policy.audit_channel if context.files.config else None
    if channel is None:
        return
    now, last = await context.ledger.now(), await context.ledger.cursor("feed_at")
    if (pause := datetime.fromtimestamp(last / 1000, tz=now.tzinfo) + FEED_PAUSE) > now:
        raise Retry("at most one message a second", at=pause)
    events = await context.ledger.events_after(await context.ledger.cursor("feed"), limit=FEED_LINES)
    if not events:
        return
    shown = [event for event in events if event.kind not in UNSHOWN]
    if shown:
        await work.hold()
        await _post_feed(context, channel, shown)
        await context.ledger.set_cursor("feed_at", int(now.timestamp() * 1000))
    await context.ledger.set_cursor("feed", events[-1].id)
    if len(events) == FEED_LINES:
        raise Retry("more lines wait", at=now + FEED_PAUSE)


async def _post_feed(context: Context, channel: str, events: list[AuditEvent]) -> None:
    ids = {event.request_id for event in events if event.request_id is not None}
    requests = {request_id: await context.ledger.request(request_id) for request_id in ids}
    try:
        await context.messenger.post(channel, FeedNotice(events=events, requests=requests))
    except Undeliverable as closed:
        if not await context.ledger.cursor("feed_closed"):
            await context.ledger.set_cursor("feed_closed", 1)
            steps = (f"Invite the bot to {channel}, or name another audit_channel in policy.yml. No line is lost.",)
            await raise_alert(context, None, f"The audit channel {channel} cannot be written: {closed}.", steps=steps)
        raise Retry(f"the audit channel cannot be written: {closed}") from None
    if await context.ledger.cursor("feed_closed"):
        await context.ledger.set_cursor("feed_closed", 0)
