"""Who is in which group and has which address now. Every function here reads and writes nothing.

A failed lookup never grants access: a group or an address without an answer is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.access.context import Context
from bot.policy.config import Config
from bot.policy.facts import Facts
from bot.policy.model import EMAIL
from storage.records import UsageCounts

NAME_MAX = 50


@dataclass(frozen=True, kw_only=True)
class Handle:
    """A handle that the policy names. ``first``: the group it meant when it was pinned. ``group``: the one it means now; None without an answer."""

    name: str
    group: str | None
    first: str | None

    @property
    def is_the_same(self) -> bool:
        """The group that had the handle first is the one the policy means. False without an answer: its members were perhaps told by an earlier one."""
        return self.group is not None and self.first in (None, self.group)


@dataclass(frozen=True, kw_only=True)
class Membership:
    """``members`` by name, without names that gave no answer and without handles that mean another group than before."""

    members: Mapping[str, frozenset[str]]
    handles: tuple[Handle, ...]


def pin_of(handle: str) -> str:
    """The name under which the ledger remembers the first group of a handle."""
    return f"pin:{handle}"[:NAME_MAX]


async def read(context: Context, config: Config) -> Membership:
    """Who is in every group, and has every address, that the policy names."""
    members = dict(await context.directory.members(config.directory_names))
    handles = await _handles(context, config)
    for handle in handles:
        if not handle.is_the_same:
            members.pop(handle.name, None)
    return Membership(members=members, handles=handles)


async def _handles(context: Context, config: Config) -> tuple[Handle, ...]:
    names = {name for name in config.group_names if name.startswith("@")}
    found = await context.directory.group_ids(names)
    return tuple(
        [
            Handle(name=name, group=found.get(name), first=await context.ledger.seen(pin_of(name)))
            for name in sorted(names)
        ]
    )


async def facts(context: Context, config: Config, *, tally: UsageCounts | None = None) -> Facts:
    """As ``gathering.gather``, for questions that must change nothing."""
    return Facts(members=(await read(context, config)).members, usage=tally)


async def mentionable(context: Context, names: Iterable[str]) -> tuple[str, ...]:
    """Handles and addresses as the ids that Slack mentions, where it says which; the rest as the policy names them."""
    listed = list(names)
    ids = dict(await context.directory.group_ids([name for name in listed if name.startswith("@")]))
    addresses = [name for name in listed if EMAIL.fullmatch(name)]
    for address, found in (await context.directory.members(addresses) if addresses else {}).items():
        ids[address] = next(iter(found), address)
    return tuple(ids.get(name, name) for name in listed)


async def remembered_groups(context: Context) -> dict[str, frozenset[str]]:
    """Who was in each group when the bot last looked: for what is judged without Slack."""
    found: dict[str, frozenset[str]] = {}
    for name in await context.ledger.seen_names("group:"):
        if (people := await context.ledger.seen(name)) is not None:
            found[name.removeprefix("group:")] = frozenset(json.loads(people))
    return found
