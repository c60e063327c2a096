"""Look again at the groups that the policy names: who came in and who left is on the record, with an alert.

In many workspaces anyone may edit a group.
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
    """Put on the record who came into and left the groups that the policy names; at first sight they are only remembered."""
    config = context.files.config
    if config is None:
        return
    seen = await context.directory.members(config.named_groups)
    for name in sorted(seen):
        await _follow(context, name, seen[name])
    await _forget_unnamed(context, config.named_groups)


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
    alert, plan = plan_alert(words, await context.ledger.now(), steps=(step,))
    change = (AuditKind.GROUP_CHANGED, "slack", {"group": name, "added": added, "removed": removed})
    await context.ledger.remember(key, after, was=before, events=(change, alert), plan=plan)


async def _names(context: Context, people: Iterable[str]) -> str:
    return ", ".join([await _name(context, person_id) for person_id in people])


async def _name(context: Context, person_id: str) -> str:
    try:
        return f"@{(await context.directory.person(person_id)).name} ({person_id})"
    except DirectoryUnavailable:
        return person_id


async def _forget_unnamed(context: Context, named: frozenset[str]) -> None:
    """What the policy no longer names is no longer followed; named again, a group is seen for the first time."""
    for prefix in ("group:", "pin:"):
        for name in await context.ledger.remembered_names(prefix):
            if name not in {f"{prefix}{one}"[:NAME_MAX] for one in named}:
                await context.ledger.remember(name, None, was=await context.ledger.remembered(name))
