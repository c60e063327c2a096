"""Check the groups that the policy names for changes. Each change is recorded and raises an alert.

In many workspaces every member may edit a group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from bot.access.alerts import plan_alert
from bot.access.context import Context
from bot.access.membership import NAME_MAX
from bot.access.ports import DirectoryUnavailable
from storage.audit_log import AuditKind


async def check_groups(context: Context) -> None:
    """Record who was added to and removed from the groups that the policy names. At first sight a group is only remembered.

    A group without an answer from Slack is skipped.
    """
    config = context.files.config
    if config is None:
        return
    members = await context.directory.members(config.group_names)
    for name in sorted(members):
        await _record_change(context, name, members[name])
    await _forget_unnamed(context, config.group_names)


async def _record_change(context: Context, name: str, members: frozenset[str]) -> None:
    key, after = f"group:{name}"[:NAME_MAX], json.dumps(sorted(members))
    before = await context.ledger.seen(key)
    if before == after:
        return
    if before is None:
        await context.ledger.set_seen(key, after, was=None)
        return
    was = frozenset(json.loads(before))
    added, removed = sorted(members - was), sorted(was - members)
    changes = [
        f"{verb} {await _names(context, people)}" for verb, people in (("added", added), ("removed", removed)) if people
    ]
    what = f"The group {name}, which the policy names, was changed in Slack: {'; '.join(changes)}."
    step = "If this change is wrong: correct the group in Slack, and see dbaccess list for what was granted since."
    alert, plan = plan_alert(what, await context.ledger.now(), steps=(step,))
    event = (AuditKind.GROUP_CHANGED, "slack", {"group": name, "added": added, "removed": removed})
    await context.ledger.set_seen(key, after, was=before, events=(event, alert), plan=plan)


async def _names(context: Context, people: Iterable[str]) -> str:
    return ", ".join([await _name(context, person_id) for person_id in people])


async def _name(context: Context, person_id: str) -> str:
    try:
        return f"@{(await context.directory.person(person_id)).name} ({person_id})"
    except DirectoryUnavailable:
        return person_id


async def _forget_unnamed(context: Context, named: frozenset[str]) -> None:
    """Forget the groups that the policy no longer names. A group that it names again later is at first sight then."""
    for prefix in ("group:", "pin:"):
        for name in await context.ledger.seen_names(prefix):
            if name not in {f"{prefix}{one}"[:NAME_MAX] for one in named}:
                await context.ledger.set_seen(name, None, was=await context.ledger.seen(name))
