"""Members of user groups, cached for a minute.

A group whose members Slack does not return is missing from the result. Callers must not treat it as an empty group.
"""

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
"""The longest wait for an answer. A form must be acknowledged within three seconds."""

SlackCall: TypeAlias = Callable[..., Awaitable[Any]]
log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class GroupSnapshot:
    """All groups of the workspace at one moment. A disabled group has no members."""

    at: float
    members: Mapping[str, frozenset[str]]
    ids: Mapping[str, str]
    """``@handle`` → id."""


@dataclass
class UserGroups:
    """Fetches all groups with one call, which concurrent callers share: ``usergroups.list`` allows some twenty calls a minute.

    ``call`` calls the Web API and raises DirectoryUnavailable. ``team`` returns the arguments that name the workspace,
    which the token of an organisation needs.
    """

    call: SlackCall
    team: Callable[[], Awaitable[Mapping[str, str]]]
    clock: Callable[[], float]
    _snapshot: GroupSnapshot | None = None
    _pending: asyncio.Task[GroupSnapshot] | None = field(default=None, repr=False)
    _failed_at: float | None = None

    def forget(self) -> None:
        """Drop the cache. The result of a call that is under way is dropped, too."""
        self._snapshot = self._pending = self._failed_at = None

    async def snapshot(self) -> GroupSnapshot | None:
        """Return the groups, at most ``FRESH_SECONDS`` old, or None if Slack does not answer within ``WAIT_SECONDS``."""
        if self._snapshot is not None and self.clock() - self._snapshot.at < FRESH_SECONDS:
            return self._snapshot
        if self._failed_at is not None and self.clock() - self._failed_at < WAIT_SECONDS:
            return None  # another caller has just waited for this answer in vain
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._fetch())
        pending = self._pending
        try:
            found = await asyncio.wait_for(asyncio.shield(pending), WAIT_SECONDS)
        except (DirectoryUnavailable, TimeoutError) as error:
            pending.add_done_callback(self._store_late)
            self._failed_at = self.clock()
            log.warning("groups_unavailable", reason=str(error) or "timeout")
            return None
        if pending is self._pending:
            self._snapshot = found
        return found

    def _store_late(self, task: asyncio.Task[GroupSnapshot]) -> None:
        """Cache an answer that came too late for its callers. Reading the exception keeps asyncio from reporting it as lost."""
        if not task.cancelled() and task.exception() is None and task is self._pending:
            self._snapshot = task.result()

    async def _fetch(self) -> GroupSnapshot:
        at = self.clock()
        answer = await self.call("usergroups.list", include_users="true", include_disabled="true", **await self.team())
        try:
            groups = answer["usergroups"]
            found = {str(group["id"]): await self._members(group) for group in groups}
            ids = {f"@{group['handle']}": str(group["id"]) for group in groups}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise DirectoryUnavailable("usergroups.list: the response is not from Slack") from None
        return GroupSnapshot(
            at=at, members={group: people for group, people in found.items() if people is not None}, ids=ids
        )

    async def _members(self, group: Mapping[str, Any]) -> frozenset[str] | None:
        """Return None if Slack truncated the list and does not return the whole one. Only this group is unknown then."""
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
        """Return the members by group id or handle. Groups that Slack does not know are missing."""
        if not any(GROUP.fullmatch(name) for name in names) or (snapshot := await self.snapshot()) is None:
            return {}
        found = {name: snapshot.members.get(snapshot.ids.get(name, name)) for name in names}
        return {name: people for name, people in found.items() if people is not None}
