"""People and groups as the directory has them now: the facts that judging is given, and what follows when they change.

In many workspaces anyone may edit a group, so a change of one that the policy names is on the record and before those
who look after the policy. What gives no answer is never a yes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog

from bot.access.alerts import planned, raise_alert
from bot.access.context import Context
from bot.access.ports import DirectoryUnavailable, Person
from bot.policy.config import Config
from bot.policy.facts import Facts
from bot.policy.model import EMAIL
from bot.policy.questions import NotAllowed
from storage.audit_log import AuditKind
from storage.errors import NotPossible
from storage.records import Cause, Request, State, UsageCounts
from storage.transitions import Transition, TransitionInput

ALERT_PAUSE = timedelta(hours=1)
NAME_MAX = 50

log = structlog.get_logger(__name__)


# Facts.


async def facts(context: Context, config: Config, *, tally: UsageCounts | None = None) -> Facts:
    """Who is in every group, and has every address, that the policy names. What gave no answer stays unknown."""
    members = dict(await context.directory.members(config.directory_names))
    for handle in await moved_handles(context, config):
        members.pop(handle, None)
    await _alert_of_silence(context, sorted(config.directory_names - members.keys()))
    return Facts(members=members, usage=tally)


async def _alert_of_silence(context: Context, silent: Sequence[str]) -> None:
    """One alert for each group; one for all addresses, of which there may be hundreds."""
    addresses = [name for name in silent if EMAIL.fullmatch(name)]
    for name in [name for name in silent if name not in addresses]:
        await _alert_once(
            context,
            f"silent:{name}",
            f"Slack does not say who is in {name}, which the policy names: nobody gets access, or decides, by it.",
            "See whether the group is there under this name, and by dbaccess doctor whether Slack answers.",
        )
    if addresses:
        more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        await _alert_once(
            context,
            "silent:addresses",
            f"Slack does not say whose address {addresses[0]}{more} is: nobody gets access, or decides, by it.",
            "After a start this passes within minutes; else see by dbaccess doctor whether Slack answers.",
        )


async def mentionable(context: Context, names: Iterable[str]) -> tuple[str, ...]:
    """Handles and addresses as the ids that Slack mentions, where it says which; the rest as the policy names them."""
    listed = list(names)
    ids = dict(await context.directory.group_ids([name for name in listed if name.startswith("@")]))
    addresses = [name for name in listed if EMAIL.fullmatch(name)]
    for address, found in (await context.directory.members(addresses) if addresses else {}).items():
        ids[address] = next(iter(found), address)
    return tuple(ids.get(name, name) for name in listed)


async def facts_about(context: Context, config: Config, person: Person, database: str | None) -> Facts:
    """The same, with what this person and this database have already: for an ask."""
    now = await context.ledger.now()
    tally = await context.ledger.tally(person.id, database, now=now) if database else None
    return await facts(context, config, tally=tally)


async def trouble(context: Context, no: NotAllowed) -> None:
    """Somebody was refused because of who is in a group: those who look after the policy are told."""
    names = ", ".join(no.unknown)
    await _alert_once(
        context,
        f"refused:{names}",
        f"An ask was refused because of who is in {names}: {no.reason}",
        "See in Slack who is in these groups; somebody other than the requester must be able to decide.",
    )


async def _alert_once(context: Context, key: str, what: str, step: str) -> None:
    """At most one alert an hour about the same thing."""
    key, now = f"alerted:{key}"[:NAME_MAX], await context.ledger.now()
    last = await context.ledger.cursor(key)
    if now.timestamp() - last >= ALERT_PAUSE.total_seconds():
        await context.ledger.set_cursor(key, int(now.timestamp()))
        await raise_alert(context, None, what, steps=(step,))


# Handles: the group that had it first is the one the policy means.


async def moved_handles(context: Context, config: Config) -> set[str]:
    """Handles that mean another group than when they were first seen: refused, until the policy names the group by its id.

    So is one of which Slack does not say now what it means: its members were perhaps told by an earlier answer.
    """
    handles = {name for name in config.group_names if name.startswith("@")}
    found = await context.directory.group_ids(handles)
    return {handle for handle in handles if not await _is_the_same(context, handle, found.get(handle))}


async def _is_the_same(context: Context, handle: str, group: str | None) -> bool:
    if group is None:
        return False
    key = f"pin:{handle}"[:NAME_MAX]
    first = await context.ledger.remembered(key)
    if first is None:
        await context.ledger.remember(key, group, was=None)
        return True
    if first != group:
        await _alert_once(
            context,
            f"moved:{handle}",
            f"The handle {handle} now means the group {group}; when the policy began to name it, it was {first}. It counts as unknown.",
            f"Name the group by its id in policy.yml: {first}, or {group} if that is what you mean.",
        )
    return first == group


# Groups that change.


async def check_groups(context: Context) -> None:
    """Put on the record who came into and left the groups that the policy names; at first sight they are only remembered."""
    config = context.files.config
    if config is None:
        return
    seen = await context.directory.members(config.group_names)
    for name in sorted(seen):
        await _follow(context, name, seen[name])
    await _forget_unnamed(context, config.group_names)


async def _follow(context: Context, name: str, people: frozenset[str]) -> None:
    key, after = f"group:{name}"[:NAME_MAX], json.dumps(sorted(people))
    before = await context.ledger.remembered(key)
    if before == after:
        return
    if before is None:
        await context.ledger.remember(key, after, was=None)
        return
    was = frozenset(json.loads(before))
    added, removed = sorted(people - was), sorted(was - people)
    changes = [f"{word} {await _names(context, who)}" for word, who in (("added", added), ("removed", removed)) if who]
    words = f"The group {name}, which the policy names, was changed in Slack: {'; '.join(changes)}."
    step = "If nobody meant that: put the group right in Slack, and see dbaccess list for what was granted since."
    alert, plan = planned(words, await context.ledger.now(), steps=(step,))
    change = (AuditKind.GROUP_CHANGED, "slack", {"group": name, "added": added, "removed": removed})
    await context.ledger.remember(key, after, was=before, events=(change, alert), plan=plan)


async def _names(context: Context, people: Iterable[str]) -> str:
    return ", ".join([await _name(context, person_id) for person_id in people])


async def _name(context: Context, person_id: str) -> str:
    try:
        return f"@{(await context.directory.person(person_id)).name} ({person_id})"
    except DirectoryUnavailable:
        return person_id


async def remembered_groups(context: Context) -> dict[str, frozenset[str]]:
    """Who was in each group when the bot last looked: for what is judged without Slack."""
    found: dict[str, frozenset[str]] = {}
    for name in await context.ledger.remembered_names("group:"):
        if (people := await context.ledger.remembered(name)) is not None:
            found[name.removeprefix("group:")] = frozenset(json.loads(people))
    return found


async def _forget_unnamed(context: Context, named: frozenset[str]) -> None:
    """What the policy no longer names is no longer followed; named again, a group is seen for the first time."""
    for prefix in ("group:", "pin:"):
        for name in await context.ledger.remembered_names(prefix):
            if name not in {f"{prefix}{one}"[:NAME_MAX] for one in named}:
                await context.ledger.remember(name, None, was=await context.ledger.remembered(name))


# People who leave.


async def check_members(context: Context) -> None:
    """Everybody who has or wants access is still one of us: events get lost, so this is asked again and again."""
    there = (*await context.ledger.live_grants(), *await context.ledger.waiting_requests())
    for person_id in sorted({request.requester_id for request in there}):
        await left(context, person_id)


async def left(context: Context, person_id: str) -> None:
    """End what somebody has who is no longer a full member, and close what they wait for. No answer ends nothing."""
    live = await context.ledger.live_grants(person_id=person_id)
    waiting = await context.ledger.waiting_requests(person_id=person_id)
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
    words = f"the requester is no longer a member of the workspace ({person.why_not})."
    waits = request.state is State.PENDING
    change = TransitionInput(actor="directory", cause=Cause.OUTDATED if waits else Cause.LEFT, words=words)
    try:
        await context.ledger.advance(request.id, Transition.OUTDATE if waits else Transition.REVOKE, change)
    except NotPossible as lost:
        log.info("somebody who left has lost it already", request=request.id, why=str(lost.why))
