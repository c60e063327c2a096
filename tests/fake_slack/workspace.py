"""The state of a workspace: people, channels, messages, views, triggers and response URLs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fake_slack.fair_clock import FairClock

TEAM, OTHER_TEAM, BOT_USER, APP = "T0TEAM", "T0OTHER", "U0BOT", "A0APP"
BOT_TOKEN, APP_TOKEN = "xoxb-strict-bot-token", "xapp-strict-app-token"
TRIGGER_SECONDS = 3.0
RESPONSE_USES, RESPONSE_SECONDS = 5, 1800.0
SCOPES = (
    "commands",
    "chat:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "channels:read",
    "groups:read",
)


@dataclass
class Trigger:
    user: str
    made_at: float
    is_used: bool = False


@dataclass
class ResponseUrl:
    user: str
    channel: str
    message_ts: str | None
    made_at: float
    uses: int = 0


@dataclass
class Workspace:
    """The state without a network. A test may replace ``now`` to let triggers and response URLs expire."""

    now: Callable[[], float] = field(default_factory=FairClock)
    scopes: set[str] = field(default_factory=lambda: set(SCOPES))
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    ephemerals: list[dict[str, Any]] = field(default_factory=list)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    homes: dict[str, dict[str, Any]] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    response_urls: dict[str, ResponseUrl] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    members_page: int = 2
    _count: int = 0

    def __post_init__(self) -> None:
        self.add_person(BOT_USER, "dbaccess", is_bot=True)
        self.add_person("USLACKBOT", "slackbot")

    # People.

    def add_person(self, user: str, name: str, **flags: Any) -> None:
        """Add a full member. ``flags`` change that (deleted, is_restricted, is_stranger, team_id …)."""
        self.users[user] = {
            "id": user, "team_id": TEAM, "name": name, "deleted": False, "real_name": name.title(), "is_bot": False,
            "is_restricted": False, "is_ultra_restricted": False, "is_email_confirmed": True,
            "profile": {"display_name": name, "real_name": name.title(), "email": f"{name}@example.com"}, **flags,
        }  # fmt: skip

    def add_outsider(self, user: str, name: str) -> None:
        """Add a person of another organisation in a shared channel. Slack leaves out ``is_stranger`` for people in shared channels."""
        self.add_person(user, name, team_id=OTHER_TEAM)

    # Groups.

    def add_group(self, group: str, handle: str, *users: str) -> None:
        """Add a group as ``usergroups.list`` returns it. ``date_delete`` is 0 while it is enabled, and ``handle`` has no @."""
        self.groups[group] = {
            "id": group, "team_id": TEAM, "is_usergroup": True, "is_subteam": True, "is_external": False, "name": handle,
            "handle": handle, "date_delete": 0, "users": list(users), "user_count": len(users),
        }  # fmt: skip

    def change_group(self, group: str, *users: str, disabled: bool = False) -> tuple[list[str], list[str]]:
        """Change the members and return the added and the removed ones."""
        was = self.groups[group]["users"]
        self.groups[group] |= {"users": list(users), "user_count": len(users), "date_delete": int(disabled)}
        return [u for u in users if u not in was], [u for u in was if u not in users]

    # Channels and messages.

    def add_channel(self, channel: str, name: str, *, bot: bool = True, **flags: Any) -> None:
        self.channels[channel] = {
            "id": channel,
            "name": name,
            "is_member": bot,
            "is_archived": False,
            "is_ext_shared": False,
            "is_im": False,
            **flags,
        }
        self.messages[channel] = {}

    def dm_of(self, user: str) -> str:
        channel = f"D{user[1:]}"
        if channel not in self.channels:
            self.add_channel(channel, user, is_im=True, user=user)
        return channel

    def new_ts(self) -> str:
        self._count += 1
        return f"17000000{self._count:02d}.{self._count:06d}"

    def post(self, channel: str, **content: Any) -> dict[str, Any]:
        ts = self.new_ts()
        self.messages[channel][ts] = {
            "type": "message",
            "channel": channel,
            "ts": ts,
            "user": BOT_USER,
            "bot_id": "B0BOT",
            "app_id": APP,
            **content,
        }
        return self.messages[channel][ts]

    # Triggers, response URLs and views.

    def new_trigger(self, user: str) -> str:
        trigger = f"{secrets.randbits(40)}.{secrets.token_hex(8)}"
        self.triggers[trigger] = Trigger(user, self.now())
        return trigger

    def use_trigger(self, trigger: str) -> str | None:
        """Use a trigger once. Returns Slack's error code, or None."""
        found = self.triggers.get(trigger)
        if found is None:
            return "invalid_trigger_id"
        if found.is_used:
            return "exchanged_trigger_id"
        if self.now() - found.made_at > TRIGGER_SECONDS:
            return "expired_trigger_id"
        found.is_used = True
        return None

    def new_response_url(self, user: str, channel: str, message_ts: str | None) -> str:
        token = secrets.token_hex(12)
        self.response_urls[token] = ResponseUrl(user, channel, message_ts, self.now())
        return token

    def new_view(self, view: dict[str, Any], user: str) -> dict[str, Any]:
        self._count += 1
        found = {
            **view,
            "id": f"V{self._count:08d}",
            "team_id": TEAM,
            "app_id": APP,
            "app_installed_team_id": TEAM,
            "hash": secrets.token_hex(8),
            "state": {"values": {}},
            "user": user,
        }
        self.views[found["id"]] = found
        return found
