"""Notify people of the outcome of a request: the requester, the people and channels of the rule, and everybody whom break-glass access concerns."""

from __future__ import annotations

from collections.abc import Collection

from bot.access import membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import extended_grant
from bot.durations import format_duration
from bot.jobs.job import JobContext
from bot.notifications.cards import COPIES_MAX
from bot.notifications.messages import post_or_warn, post_to_requester
from bot.notifications.notices import GrantedNotice, StateChangeNotice
from bot.policy import authorization
from bot.policy.model import CHANNEL
from storage.records import Request, RequestKind, Verdict


async def announce_break_glass(context: Context, request: Request) -> None:
    """Raise an alert: break-glass access was used."""
    what = f"{request.level} on {request.database} for {format_duration(request.effective_duration)}"
    await raise_alert(
        context,
        request,
        f"@{request.requester_name} used break-glass access: #{request.id}, {what}.",
        cause=f"break_glass:{request.id}",
        is_event=True,
        steps=(f"If that is not right, end it: /dbaccess revoke {request.id}", "Its reviewers sign it off in time."),
    )


async def _would_be_asked(context: Context, request: Request) -> frozenset[str]:
    """The ids of the people who would have been asked to approve the same access without break-glass."""
    config = context.files.config
    if config is None:
        return frozenset()
    return authorization.regular_approvers(config, request, await membership.facts(context, config))


async def notify_requester(context: Context, job: JobContext) -> None:
    """Job of ``notify_requester``: one line to the requester about the new state of the request."""
    request = await job.request()
    denials = [d for d in await context.ledger.requests.decisions(request.id) if d.verdict is Verdict.DENY]
    await job.check_claim()
    grant = await extended_grant(context, request)
    await post_to_requester(
        context, request, StateChangeNotice(request=request, decision=denials[-1] if denials else None, grant=grant)
    )


async def notify(context: Context, job: JobContext) -> None:
    """Job of ``notify``: the people and channels of the rule learn that access was granted. Break-glass access also raises an alert."""
    request = await job.request()
    concerned: frozenset[str] = frozenset()
    if request.kind is RequestKind.BREAK_GLASS:
        await announce_break_glass(context, request)
        concerned = await _would_be_asked(context, request)
    notice = GrantedNotice(request=request, decisions=await context.ledger.requests.decisions(request.id))
    places = await _places(context, (*request.terms.notify, *sorted(concerned)), without=request.requester_id)
    await job.post_to_each(places, lambda place: post_or_warn(context, place, notice))


async def _places(context: Context, listed: Collection[str], *, without: str) -> list[str]:
    """The places to post to: channels, and the ids of people and group members, ``without`` one person."""
    channels = [name for name in listed if CHANNEL.fullmatch(name)]
    facts = await membership.facts_in_force(context)
    people = sorted(facts.expand(name for name in listed if name not in channels) - {without})
    return channels + people[:COPIES_MAX]
