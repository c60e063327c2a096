"""Tell people what came of a request: the requester at each turn, and those whom the rule or break-glass access tells."""

from __future__ import annotations

from collections.abc import Collection

from bot.access import membership_facts
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.decide import extended_grant
from bot.access.membership_facts import gather_in_force
from bot.durations import format_duration
from bot.jobs.job import JobContext
from bot.notifications.cards import COPIES_MAX
from bot.notifications.messages import post_or_warn, post_to_requester
from bot.notifications.notices import GrantedNotice, StateChangeNotice
from bot.policy import authorization
from bot.policy.model import CHANNEL
from storage.records import Request, RequestKind, Verdict


async def announce_break_glass(context: Context, request: Request) -> frozenset[str]:
    """The alert channel hears of it; those who would have been asked are named, to be told one by one."""
    config = context.files.config
    what = f"{request.level} on {request.database} for {format_duration(request.effective_duration)}"
    await raise_alert(
        context,
        request,
        f"@{request.requester_name} broke the glass: #{request.id}, {what}. Why stands on its card.",
        steps=(f"If that is not right, end it: /dbaccess revoke {request.id}", "Its reviewers sign it off in time."),
    )
    if config is None:
        return frozenset()
    return authorization.would_be_asked(config, request, await membership_facts.gather(context, config))


async def notify_requester(context: Context, job: JobContext) -> None:
    """Effect of ``tell``: one line to the requester about the turn the request took."""
    request = await job.request()
    denied = [d for d in await context.ledger.decisions(request.id) if d.verdict is Verdict.DENY]
    await job.check_claim()
    grant = await extended_grant(context, request)
    await post_to_requester(
        context, request, StateChangeNotice(request=request, decision=denied[-1] if denied else None, grant=grant)
    )


async def notify(context: Context, job: JobContext) -> None:
    """Effect of ``notify``: those whom the rule tells, and does not ask, hear of what was given."""
    request = await job.request()
    loud = await announce_break_glass(context, request) if request.kind is RequestKind.BREAK_GLASS else frozenset()
    notice = GrantedNotice(request=request, decisions=await context.ledger.decisions(request.id))
    for place in await _places(context, (*request.terms.notify, *sorted(loud)), but=request.requester_id):
        await job.check_claim()
        await post_or_warn(context, place, notice)


async def _places(context: Context, listed: Collection[str], *, but: str) -> list[str]:
    """Channels as they are; people, and everybody in a group, by DM."""
    channels = [name for name in listed if CHANNEL.fullmatch(name)]
    facts = await gather_in_force(context)
    people_told = sorted(facts.people(name for name in listed if name not in channels) - {but})
    return channels + people_told[:COPIES_MAX]
