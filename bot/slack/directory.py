"""People, as Slack has them now. Whoever is not certainly a full, active member of our own workspace is not ours."""

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
from bot.slack.emails import Emails
from bot.slack.render.text import clean
from bot.slack.user_groups import FRESH_SECONDS, UserGroups

CACHE_MAX = 10_000
MEMBERS_PAGE = 1000
SLACKBOT = "USLACKBOT"
UNKNOWN_PERSON = frozenset({"user_not_found", "user_not_visible", "users_not_found"})
REFUSED = (
    ("deleted", "deactivated"),
    ("is_bot", "a bot"),
    ("is_workflow_bot", "a workflow"),
    ("is_restricted", "a guest"),
    ("is_ultra_restricted", "a guest"),
    ("is_stranger", "not of this workspace"),
    ("is_invited_user", "invited, but not yet a member"),
)


@dataclass(frozen=True, kw_only=True)
class Home:
    """Our own workspace, and the Grid organisation it is in, if any."""

    team_id: str
    enterprise_id: str | None
    bot_user_id: str
    scopes: tuple[str, ...]


class SlackDirectory:
    """``bot.access.ports.Directory``. Answers are at most ``FRESH_SECONDS`` old; no answer is an error, never a yes."""

    def __init__(self, client: AsyncWebClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._home: Home | None = None
        self._people: dict[str, tuple[float, Person]] = {}
        self._groups = UserGroups(call=self._call, team=self._team, clock=clock)
        self._addresses = Emails(ask=self._ask_address, clock=clock)

    async def home(self) -> Home:
        """Asked once (``auth.test``). Raises DirectoryUnavailable."""
        if self._home is None:
            answer = await self._call("auth.test")
            scopes = str(answer.headers.get("x-oauth-scopes") or answer.headers.get("X-OAuth-Scopes") or "")
            self._home = Home(
                team_id=str(answer["team_id"]),
                enterprise_id=answer.get("enterprise_id") or None,
                bot_user_id=str(answer.get("user_id") or ""),
                scopes=tuple(s.strip() for s in scopes.split(",") if s.strip()),
            )
        return self._home

    async def team_id(self) -> str:
        return (await self.home()).team_id

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        """Raises DirectoryUnavailable."""
        seen = self._people.get(person_id)
        if seen is not None and not fresh and self._clock() - seen[0] < FRESH_SECONDS:
            return seen[1]
        found = await self._ask(person_id)
        if len(self._people) >= CACHE_MAX:
            self._people.clear()
        self._people[person_id] = (self._clock(), found)
        return found

    async def outside(self, channel: str, people: Sequence[str]) -> tuple[str, ...]:
        """Page by page until all are found or the channel ends. Raises DirectoryUnavailable."""
        missing, cursor = set(people), ""
        while missing:
            answer = await self._call("conversations.members", channel=channel, limit=str(MEMBERS_PAGE), cursor=cursor)
            missing.difference_update(answer["members"])
            cursor = str((answer.get("response_metadata") or {}).get("next_cursor") or "")
            if not cursor:
                break
        return tuple(sorted(missing))

    async def members(self, names: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Groups by one call for all of them, addresses one by one, the first time slowly."""
        people = {name: frozenset({name}) for name in names if PERSON.fullmatch(name)}
        addresses, groups = await asyncio.gather(
            self._addresses.owners([name for name in names if EMAIL.fullmatch(name)]), self._groups.members(names)
        )
        return {**people, **addresses, **groups}

    async def group_ids(self, handles: Collection[str]) -> Mapping[str, str]:
        """Those that Slack knows."""
        seen = await self._groups.now() if handles else None
        return {handle: seen.ids[handle] for handle in handles if handle in seen.ids} if seen else {}

    def forget_groups(self) -> None:
        """Slack said that groups changed."""
        self._groups.forget()

    async def _ask_address(self, address: str) -> frozenset[str]:
        home = await self.home()
        try:
            user = _user(await self._call("users.lookupByEmail", email=address))
        except NoSuchPerson:
            return frozenset()
        return frozenset() if why_not_a_member(user, home) else frozenset({str(user["id"])})

    async def _team(self) -> Mapping[str, str]:
        """An organisation's token must name the workspace."""
        home = await self.home()
        return {"team_id": home.team_id} if home.enterprise_id else {}

    def forget(self, person_id: str) -> None:
        """Slack said that this person changed, perhaps their address."""
        self._people.pop(person_id, None)
        self._addresses.forget(person_id)

    async def _ask(self, person_id: str) -> Person:
        home = await self.home()
        try:
            user = _user(await self._call("users.info", user=person_id))
        except NoSuchPerson:
            return Person(id=person_id, name=person_id, is_member=False, not_member_reason="unknown here")
        not_member_reason = why_not_a_member(user, home)
        return Person(
            id=person_id, name=_name(user), is_member=not not_member_reason, not_member_reason=not_member_reason
        )

    async def _call(self, method: str, **arguments: str) -> Any:
        try:
            return await self.client.api_call(method, params=arguments)
        except SlackApiError as error:
            code = (
                str(error.response.get("error", "unknown"))
                if hasattr(error.response, "get")
                else "no answer of Slack's"
            )
            if code in UNKNOWN_PERSON:
                raise NoSuchPerson from None
            raise DirectoryUnavailable(f"{method}: {code}") from None
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DirectoryUnavailable(f"{method}: {type(error).__name__}") from None


class NoSuchPerson(Exception):
    """Slack knows nobody of this id, or does not show them to us."""


def _user(answer: Any) -> Mapping[str, Any]:
    """Raises DirectoryUnavailable for what Slack would never say: gateways stand in between."""
    try:
        user = answer["user"]
    except (KeyError, TypeError, ValueError):
        user = None
    if not isinstance(user, dict) or not user.get("id"):
        raise DirectoryUnavailable("no answer of Slack's")
    return user


def why_not_a_member(user: Mapping[str, Any], home: Home) -> str:
    """Empty for a full member of our own workspace or organisation, else why not, in words.

    What counts is the person's home as ``users.info`` has it, whatever a click's payload says: people of other
    organisations click our buttons in shared channels under our own team id.
    """
    if user.get("id") == SLACKBOT:
        return "a bot"
    flagged = next((words for flag, words in REFUSED if user.get(flag)), "")
    if flagged:
        return flagged
    enterprise = user.get("enterprise_user") or {}
    is_member = user.get("team_id") in (home.team_id, home.enterprise_id) and user.get("team_id") is not None
    if home.enterprise_id is not None and enterprise.get("enterprise_id") == home.enterprise_id:
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
