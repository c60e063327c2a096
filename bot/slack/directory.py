"""People, groups and e-mail addresses of the workspace, as Slack has them now.

A person counts as a member only if Slack confirms a full, active membership of this workspace or organisation.
A failed lookup raises DirectoryUnavailable or leaves the name out. It never grants access.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.ports import DirectoryUnavailable, Person
from bot.policy.model import EMAIL, PERSON
from bot.slack.emails import EmailLookup
from bot.slack.render.text import clean
from bot.slack.user_groups import FRESH_SECONDS, UserGroups

CACHE_MAX = 10_000
MEMBERS_PAGE = 1000
SLACKBOT = "USLACKBOT"
UNKNOWN_PERSON_CODES = frozenset({"user_not_found", "user_not_visible", "users_not_found"})
NON_MEMBER_FLAGS = (
    ("deleted", "deactivated"),
    ("is_bot", "a bot"),
    ("is_workflow_bot", "a workflow"),
    ("is_restricted", "a guest"),
    ("is_ultra_restricted", "a guest"),
    ("is_stranger", "not of this workspace"),
    ("is_invited_user", "invited, but not yet a member"),
)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The workspace in which the bot is installed, and its Enterprise Grid organisation, if any."""

    team_id: str
    enterprise_id: str | None
    scopes: tuple[str, ...]


class SlackDirectory:
    """Implements ``bot.access.ports.Directory`` with the Web API. Persons and groups are at most ``FRESH_SECONDS`` old."""

    def __init__(self, client: AsyncWebClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._workspace: Workspace | None = None
        self._persons: dict[str, tuple[float, Person]] = {}
        self._seen_in: dict[str, dict[str, float]] = {}
        self._groups = UserGroups(call=self._call, team=self._team, clock=clock)
        self._addresses = EmailLookup(fetch=self._fetch_owner, clock=clock)

    async def workspace(self) -> Workspace:
        """Return the workspace of the bot token. ``auth.test`` is called once. Raises DirectoryUnavailable."""
        if self._workspace is None:
            answer = await self._call("auth.test")
            scopes = str(answer.headers.get("x-oauth-scopes") or answer.headers.get("X-OAuth-Scopes") or "")
            self._workspace = Workspace(
                team_id=str(answer["team_id"]),
                enterprise_id=answer.get("enterprise_id") or None,
                scopes=tuple(s.strip() for s in scopes.split(",") if s.strip()),
            )
        return self._workspace

    async def team_id(self) -> str:
        return (await self.workspace()).team_id

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        """Return a person; ``fresh`` skips the cache. An unknown id is a Person who is not a member. Raises DirectoryUnavailable."""
        cached = self._persons.get(person_id)
        if cached is not None and not fresh and self._clock() - cached[0] < FRESH_SECONDS:
            return cached[1]
        found = await self._fetch_person(person_id)
        if len(self._persons) >= CACHE_MAX:
            self._persons.clear()
        self._persons[person_id] = (self._clock(), found)
        return found

    async def outside(self, channel: str, people: Sequence[str]) -> tuple[str, ...]:
        """Return those of ``people`` who are not in the channel. Reads page by page until all are found. Raises DirectoryUnavailable.

        Whoever was seen in the channel within ``FRESH_SECONDS`` counts as being there.
        """
        seen = self._seen_in.setdefault(channel, {})
        missing, cursor = {one for one in people if self._clock() - seen.get(one, -FRESH_SECONDS) >= FRESH_SECONDS}, ""
        while missing:
            answer = await self._call("conversations.members", channel=channel, limit=str(MEMBERS_PAGE), cursor=cursor)
            seen.update(dict.fromkeys(missing.intersection(answer["members"]), self._clock()))
            missing.difference_update(answer["members"])
            cursor = str((answer.get("response_metadata") or {}).get("next_cursor") or "")
            if not cursor:
                break
        return tuple(sorted(missing))

    async def members(self, names: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return the members by name. Names without an answer in time are missing. Addresses need a call each, so the first time is slow."""
        people = {name: frozenset({name}) for name in names if PERSON.fullmatch(name)}
        addresses, groups = await asyncio.gather(
            self._addresses.owners([name for name in names if EMAIL.fullmatch(name)]), self._groups.members(names)
        )
        return {**people, **addresses, **groups}

    async def group_ids(self, handles: Collection[str]) -> Mapping[str, str]:
        """Return the group ids by handle. Handles that Slack does not know are missing."""
        snapshot = await self._groups.snapshot() if handles else None
        return {handle: snapshot.ids[handle] for handle in handles if handle in snapshot.ids} if snapshot else {}

    def forget_groups(self) -> None:
        """Drop the cached groups, because Slack reported a change."""
        self._groups.forget()

    async def _fetch_owner(self, address: str) -> frozenset[str]:
        workspace = await self.workspace()
        try:
            user = _user(await self._call("users.lookupByEmail", email=address))
        except NoSuchPerson:
            return frozenset()
        return frozenset() if non_member_reason(user, workspace) else frozenset({str(user["id"])})

    async def _team(self) -> Mapping[str, str]:
        """Return the arguments that name the workspace. Calls with the token of an organisation need them."""
        workspace = await self.workspace()
        return {"team_id": workspace.team_id} if workspace.enterprise_id else {}

    def forget(self, person_id: str) -> None:
        """Drop what is cached of this person, because Slack reported a change. The address may have changed, too."""
        self._persons.pop(person_id, None)
        self._addresses.forget(person_id)

    async def _fetch_person(self, person_id: str) -> Person:
        workspace = await self.workspace()
        try:
            user = _user(await self._call("users.info", user=person_id))
        except NoSuchPerson:
            return Person(id=person_id, name=person_id, is_member=False, not_member_reason="unknown here")
        reason = non_member_reason(user, workspace)
        return Person(id=person_id, name=_name(user), is_member=not reason, not_member_reason=reason)

    async def _call(self, method: str, **arguments: str) -> Any:
        try:
            return await self.client.api_call(method, params=arguments)
        except SlackApiError as error:
            code = (
                str(error.response.get("error", "unknown"))
                if hasattr(error.response, "get")
                else "the response is not from Slack"
            )
            if code in UNKNOWN_PERSON_CODES:
                raise NoSuchPerson from None
            raise DirectoryUnavailable(f"{method}: {code}") from None
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DirectoryUnavailable(f"{method}: {type(error).__name__}") from None


class NoSuchPerson(Exception):
    """Slack does not know this id or address, or does not show the person to the bot."""


def _user(answer: Any) -> Mapping[str, Any]:
    """Return the user object of an answer. Raises DirectoryUnavailable if there is none, which happens behind gateways."""
    try:
        user = answer["user"]
    except (KeyError, TypeError, ValueError):
        user = None
    if not isinstance(user, dict) or not user.get("id"):
        raise DirectoryUnavailable("the response is not from Slack")
    return user


def non_member_reason(user: Mapping[str, Any], workspace: Workspace) -> str:
    """Return an empty string for a full member of the workspace or organisation, else the reason in plain words.

    The team in ``users.info`` decides, not the team in the payload of a click: in a shared channel, clicks of people of
    other organisations arrive under the team id of this workspace.
    """
    if user.get("id") == SLACKBOT:
        return "a bot"
    flagged = next((reason for flag, reason in NON_MEMBER_FLAGS if user.get(flag)), "")
    if flagged:
        return flagged
    enterprise = user.get("enterprise_user") or {}
    is_member = user.get("team_id") in (workspace.team_id, workspace.enterprise_id) and user.get("team_id") is not None
    if workspace.enterprise_id is not None and enterprise.get("enterprise_id") == workspace.enterprise_id:
        is_member = True
    return "" if is_member else "not of this workspace"


def _name(user: Mapping[str, Any]) -> str:
    profile = user.get("profile") or {}
    found = (
        profile.get("display_name")
        or user.get("name")
        or profile.get("real_name")
        or user.get("real_name")
        or user.get("id")
    )
    return clean(str(found))
