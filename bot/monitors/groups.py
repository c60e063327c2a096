"""Follow the groups and handles that the policy names. Each change is recorded and raises an alert.

In many workspaces every member may edit a group. Use cases only read who is in a group; pins and alerts are written here.
"""

from __future__ import annotations

from collections.abc import Iterable

from bot.access import membership
from bot.access.alerts import draft_alert, raise_alert, resolve_alert
from bot.access.context import Context
from bot.access.membership import Handle
from bot.access.ports import DirectoryUnavailable
from bot.policy.config import Config
from bot.policy.model import EMAIL
from storage.audit_kinds import AuditKind

REFUSED = "refused:"
SILENT = "silent:"
ADDRESSES = f"{SILENT}addresses"


async def check_groups(context: Context) -> None:
    """Record who was added to and removed from the groups that the policy names, and what Slack does not answer.

    At first sight a group is only remembered, and a handle is pinned to its group. A group without an answer from Slack raises an alert.
    """
    config = context.files.config
    if config is None or context.ledger.replicas.is_older:
        return  # another replica follows the groups of the newest policy
    found = await membership.read(context, config)
    for handle in found.handles:
        await _check_handle(context, handle)
    remembered = await context.ledger.observations.groups()
    for name in sorted(config.group_names & found.members.keys()):
        await _record_change(context, name, found.members[name], remembered.get(name))
    await _check_unanswered(context, config, found.members.keys())
    await context.ledger.observations.forget_all_but(config.group_names)


async def _record_change(context: Context, name: str, members: frozenset[str], was: frozenset[str] | None) -> None:
    if members == was:
        return
    observations = context.ledger.observations
    if was is None:
        await observations.set_group(name, members, was=None)
        return
    added, removed = sorted(members - was), sorted(was - members)
    changes = [
        f"{verb} {await _names(context, people)}" for verb, people in (("added", added), ("removed", removed)) if people
    ]
    alert = draft_alert(
        f"The group {name}, which the policy names, was changed in Slack: {'; '.join(changes)}.",
        cause=f"group:{name}",
        steps=(
            "If this change is wrong: correct the group in Slack, and see dbaccess list for what was granted since.",
        ),
        is_event=True,
    )
    event = (AuditKind.GROUP_CHANGED, "slack", {"group": name, "added": added, "removed": removed})
    await observations.set_group(name, members, was=was, events=[event], alerts=[alert])


async def _names(context: Context, people: Iterable[str]) -> str:
    return ", ".join([await _name(context, person_id) for person_id in people])


async def _name(context: Context, person_id: str) -> str:
    try:
        return f"@{(await context.directory.person(person_id)).name} ({person_id})"
    except DirectoryUnavailable:
        return person_id


async def _check_handle(context: Context, handle: Handle) -> None:
    """Pin the group of a handle at first sight. Raise an alert while the handle means another group."""
    cause = f"moved:{handle.name}"
    if handle.group is None:
        return
    if handle.first is None:
        await context.ledger.observations.pin(handle.name, handle.group)
    elif handle.is_unchanged:
        await resolve_alert(context, cause, f"{handle.name} means {handle.first} again.")
    else:
        await raise_alert(
            context,
            None,
            f"The handle {handle.name} now means the group {handle.group}; when the policy began to name it, it was {handle.first}. It counts as unknown.",
            cause=cause,
            steps=(
                f"Name the group by its id in policy.yml: {handle.first}, or {handle.group} if that is what you mean.",
            ),
        )


async def _check_unanswered(context: Context, config: Config, answered: Iterable[str]) -> None:
    """One alert for each group without an answer, and one for all addresses: there may be hundreds of them. Those that are answered are resolved."""
    unanswered = sorted(config.directory_names - set(answered))
    addresses = [name for name in unanswered if EMAIL.fullmatch(name)]
    for name in unanswered:
        if name not in addresses:
            await raise_alert(
                context,
                None,
                f"Slack does not say who is in {name}, which the policy names: nobody gets access, or decides, by it.",
                cause=f"{SILENT}{name}",
                steps=(
                    "See whether the group is there under this name, and by dbaccess doctor whether Slack answers.",
                ),
            )
    if addresses:
        more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        await raise_alert(
            context,
            None,
            f"Slack does not say whose address {addresses[0]}{more} is: nobody gets access, or decides, by it.",
            cause=ADDRESSES,
            steps=("After a start this passes within minutes; else see by dbaccess doctor whether Slack answers.",),
        )
    await _resolve_answered(context, unanswered, has_addresses=bool(addresses))


async def _resolve_answered(context: Context, unanswered: Iterable[str], *, has_addresses: bool) -> None:
    still = {f"{SILENT}{name}" for name in unanswered} | ({ADDRESSES} if has_addresses else set())
    for alert in await context.ledger.alerts.open(prefix=SILENT):
        if alert.cause not in still:
            await resolve_alert(context, alert.cause, "Slack answers again, or the policy no longer names it.")
    if not still:
        for alert in await context.ledger.alerts.open(prefix=REFUSED):
            await resolve_alert(context, alert.cause, "Slack answers who is in these groups.")
