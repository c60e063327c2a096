"""Current members of groups and current owners of addresses. The functions only read.

A failed lookup never grants access: a group or an address without an answer is left out of the result. ``bot.monitors.groups`` follows
the groups, pins the handles and raises the alerts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.access.context import Context
from bot.access.ports import Person
from bot.policy.config import Config
from bot.policy.facts import NO_FACTS, Facts
from bot.policy.model import EMAIL
from storage.records import UsageCounts


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A handle that the policy names.

    ``first`` is the group it meant when it was pinned. ``group`` is the group it means now; None without an answer.
    """

    name: str
    group: str | None
    first: str | None

    @property
    def is_unchanged(self) -> bool:
        """Whether the handle means the group it was pinned to. False without an answer: the known members may be of another group."""
        return self.group is not None and self.first in (None, self.group)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """``members`` by name of group or address. Names without an answer, and handles that mean another group than before, are left out."""

    members: Mapping[str, frozenset[str]]
    handles: tuple[Handle, ...]


async def read(context: Context, config: Config) -> Membership:
    """The members of each group, and the owner of each address, that the policy names."""
    members = dict(await context.directory.members(config.directory_names))
    handles = await _handles(context, config)
    for handle in handles:
        if not handle.is_unchanged:
            members.pop(handle.name, None)
    return Membership(members=members, handles=handles)


async def _handles(context: Context, config: Config) -> tuple[Handle, ...]:
    names = {name for name in config.group_names if name.startswith("@")}
    if not names:
        return ()
    found, pins = await context.directory.group_ids(names), await context.ledger.observations.pins()
    return tuple(Handle(name=name, group=found.get(name), first=pins.get(name)) for name in sorted(names))


async def facts(context: Context, config: Config, *, tally: UsageCounts | None = None) -> Facts:
    """The facts for an evaluation or a decision. ``tally`` counts what the requester and the database have; None where limits do not matter."""
    return Facts(members=(await read(context, config)).members, usage=tally)


async def facts_in_force(context: Context) -> Facts:
    """As ``facts``, with the policy in force. Without a policy in force nothing is known."""
    config = context.files.config
    return await facts(context, config) if config else NO_FACTS


async def facts_for_request(context: Context, config: Config, person: Person, database: str | None) -> Facts:
    """As ``facts``, with the counts of what this person and this database have already."""
    now = await context.ledger.now()
    tally = await context.ledger.requests.usage(person.id, database, now=now) if database else None
    return await facts(context, config, tally=tally)


async def mentionable(context: Context, names: Iterable[str]) -> tuple[str, ...]:
    """The names as Slack can mention them: handles and addresses as ids where Slack knows them, everything else unchanged."""
    listed = list(names)
    ids = dict(await context.directory.group_ids([name for name in listed if name.startswith("@")]))
    addresses = [name for name in listed if EMAIL.fullmatch(name)]
    for address, found in (await context.directory.members(addresses) if addresses else {}).items():
        ids[address] = next(iter(found), address)
    return tuple(ids.get(name, name) for name in listed)


async def remembered_groups(context: Context) -> Mapping[str, frozenset[str]]:
    """The members of each group at the last check of ``bot.monitors.groups``, for evaluations without Slack."""
    return await context.ledger.observations.groups()
