"""User groups and e-mail addresses, as Slack has them now. What gives no answer is left out; nobody takes that for an empty group."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import structlog

from bot.access.ports import DirectoryUnavailable
from bot.policy.model import GROUP

FRESH_SECONDS = 60.0
WAIT_SECONDS = 2.0
"""A click waits no longer: Slack gives an answer to a form three seconds."""

NO_SUCH_ADDRESS = "users_not_found"

SlackCall: TypeAlias = Callable[..., Awaitable[Any]]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class GroupSnapshot:
    """All groups of the workspace at one moment. A disabled group has nobody in it."""

    at: float
    members: Mapping[str, frozenset[str]]
    ids: Mapping[str, str]
    """``@handle`` → id."""


@dataclass
class UserGroups:
    """One call for all groups (``usergroups.list`` allows some twenty a minute), shared by all who ask at once.

    ``call`` raises DirectoryUnavailable; ``team`` names the workspace where an organisation has several.
    """

    call: SlackCall
    team: Callable[[], Awaitable[Mapping[str, str]]]
    clock: Callable[[], float]
    _seen: GroupSnapshot | None = None
    _asking: asyncio.Task[GroupSnapshot] | None = field(default=None, repr=False)
    _silent_at: float | None = None

    def forget(self) -> None:
        """What is known, and what is just being asked, may be old."""
        self._seen = self._asking = self._silent_at = None

    async def now(self) -> GroupSnapshot | None:
        """At most ``FRESH_SECONDS`` old, or None where Slack gave no answer in time."""
        if self._seen is not None and self.clock() - self._seen.at < FRESH_SECONDS:
            return self._seen
        if self._silent_at is not None and self.clock() - self._silent_at < WAIT_SECONDS:
            return None  # it kept somebody waiting just now; nobody waits twice for one answer
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        asking = self._asking
        try:
            found = await asyncio.wait_for(asyncio.shield(asking), WAIT_SECONDS)
        except (DirectoryUnavailable, TimeoutError) as silent:
            asking.add_done_callback(self._keep_late)
            self._silent_at = self.clock()
            log.warning("Slack does not say who is in its groups", why=str(silent) or "too slow")
            return None
        if asking is self._asking:
            self._seen = found
        return found

    def _keep_late(self, asked: asyncio.Task[GroupSnapshot]) -> None:
        """An answer that came when nobody waited any more is there for the next; a failure is taken note of."""
        if not asked.cancelled() and asked.exception() is None and asked is self._asking:
            self._seen = asked.result()

    async def _ask(self) -> GroupSnapshot:
        at = self.clock()
        answer = await self.call("usergroups.list", include_users="true", include_disabled="true", **await self.team())
        try:
            listed = answer["usergroups"]
            found = {str(group["id"]): await self._members(group) for group in listed}
            ids = {f"@{group['handle']}": str(group["id"]) for group in listed}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DirectoryUnavailable("usergroups.list: no answer of Slack's") from None
        return GroupSnapshot(at=at, members={group: who for group, who in found.items() if who is not None}, ids=ids)

    async def _members(self, group: Mapping[str, Any]) -> frozenset[str] | None:
        """None where Slack cut the list off and does not give the whole one: this group alone is unknown then."""
        if group.get("date_delete"):
            return frozenset()
        users = group.get("users")
        if users is None or len(users) < int(group.get("user_count") or 0):
            try:
                answer = await self.call("usergroups.users.list", usergroup=str(group["id"]), **await self.team())
            except DirectoryUnavailable:
                return None
            users = answer["users"]
        return frozenset(map(str, users))

    async def members(self, names: Collection[str]) -> dict[str, frozenset[str]]:
        """Of ids and handles; what is unknown to Slack is left out."""
        if not any(GROUP.fullmatch(name) for name in names) or (seen := await self.now()) is None:
            return {}
        found = {name: seen.members.get(seen.ids.get(name, name)) for name in names}
        return {name: people for name, people in found.items() if people is not None}
