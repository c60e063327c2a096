"""The checks of ``dbaccess doctor`` that need Slack: tokens, scopes, channels, people and groups."""

from __future__ import annotations

from typing import Any

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from adapters.base import Finding
from bot.access.ports import DirectoryUnavailable
from bot.policy.config import Config
from bot.policy.model import CHANNEL, PERSON
from bot.policy.rules import groups_in, names_in
from bot.slack.directory import SlackDirectory

SCOPES = (
    "commands",
    "chat:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "channels:read",
    "groups:read",
)
PEOPLE_MAX = 200


def _finding(what: str, *, is_ok: bool = False, is_fatal: bool = True, remedy: str | None = None) -> Finding:
    return Finding(is_ok=is_ok, is_fatal=is_fatal, what=what, remedy=remedy)


async def examine_slack(client: AsyncWebClient, app_token: str | None, config: Config | None) -> list[Finding]:
    """Return the findings about Slack. Stops after the first finding if the bot token does not work."""
    directory = SlackDirectory(client)
    try:
        workspace = await directory.workspace()
    except DirectoryUnavailable as error:
        code = str(error).rpartition(": ")[2]
        if code in ("invalid_auth", "not_authed", "token_revoked", "account_inactive"):
            return [
                _finding(
                    f"Slack does not accept the bot token ({code})",
                    remedy="copy the Bot User OAuth Token (xoxb-…) of the installed app into SLACK_BOT_TOKEN",
                )
            ]
        return [
            _finding(
                f"Slack does not answer ({code})", remedy="look at SLACK_API_URL and at the way out of this network"
            )
        ]
    found = [
        _finding(f"the bot token is good, workspace {workspace.team_id}", is_ok=True),
        *_scope_findings(workspace.scopes),
    ]
    found.append(await _app_token_finding(client, app_token))
    for name, channel in _named_channels(config):
        found.append(await _channel_finding(client, name, channel))
    found += await _person_findings(directory, config)
    return found


def _scope_findings(given: tuple[str, ...]) -> list[Finding]:
    if not given:
        return [_finding("Slack did not say which scopes the token has", is_fatal=False)]
    missing = [scope for scope in SCOPES if scope not in given]
    if not missing:
        return [_finding("all scopes are there", is_ok=True)]
    return [
        _finding(f"the scope {scope} is missing", remedy="add it under OAuth & Permissions and install the app again")
        for scope in missing
    ]


async def _app_token_finding(client: AsyncWebClient, app_token: str | None) -> Finding:
    if app_token is None:
        return _finding("SLACK_APP_TOKEN is not set")
    code = await _app_token_error(client, app_token)
    if code is None:
        return _finding("the app token opens Socket Mode", is_ok=True)
    return _finding(
        f"Slack does not accept the app token ({code})", remedy="make an app-level token with connections:write"
    )


async def _app_token_error(client: AsyncWebClient, app_token: str) -> str | None:
    try:
        await client.apps_connections_open(app_token=app_token)
    except SlackApiError as error:
        return str(error.response.get("error"))
    except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"apps.connections.open: {type(error).__name__}"
    return None


def _named_channels(config: Config | None) -> list[tuple[str, str]]:
    """Return each channel of the policy once, as (description of its first use, channel id)."""
    if config is None:
        return []
    named = [("audit channel", config.policy.audit_channel), ("alert channel", config.policy.alert_channel)]
    named += [(f"channel of rule “{rule.name}”", rule.channel) for rule in config.rules]
    notified = [(rule.name, name) for rule in config.rules for name in rule.notify if CHANNEL.fullmatch(name)]
    named += [(f"channel notified by rule “{rule}”", channel) for rule, channel in notified]
    names: dict[str, str] = {}
    for name, channel in named:
        if channel:
            names.setdefault(channel, name)
    return [(name, channel) for channel, name in names.items()]


async def _channel_finding(client: AsyncWebClient, name: str, channel: str) -> Finding:
    try:
        answer = await client.conversations_info(channel=channel)
    except SlackApiError as error:
        return _finding(
            f"{name} {channel}: {error.response.get('error')}",
            remedy="name the channel's id, and invite the bot where the channel is private",
        )
    except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
        return _finding(f"{name} {channel}: Slack does not answer ({type(error).__name__})")
    return _channel_state(name, channel, answer["channel"])


def _channel_state(name: str, channel: str, found: dict[str, Any]) -> Finding:
    if found.get("is_archived"):
        return _finding(f"{name} {channel} is archived", remedy="name another channel")
    if found.get("is_ext_shared") or found.get("is_pending_ext_shared"):
        return _finding(
            f"{name} {channel} is shared with another organisation",
            remedy="name a channel of your own: approvals are not for outsiders to see",
        )
    if not found.get("is_member"):
        return _finding(
            f"the bot is not in the {name} {channel}", remedy=f"/invite it there: #{found.get('name', channel)}"
        )
    return _finding(f"{name} {channel} (#{found.get('name', '')})", is_ok=True)


async def _person_findings(directory: SlackDirectory, config: Config | None) -> list[Finding]:
    """Return the findings about people named by id, then about groups and e-mail addresses."""
    if config is None:
        return []
    named = sorted(name for name in names_in(config.policy) if PERSON.fullmatch(name))
    found: list[Finding] = []
    for who in named[:PEOPLE_MAX]:
        try:
            person = await directory.person(who)
        except DirectoryUnavailable as error:
            return [*found, _finding(f"Slack did not say who {who} is ({error})")]
        if not person.is_member:
            found.append(
                _finding(f"{who} is named in the policy and cannot act: {person.not_member_reason}", is_fatal=False)
            )
    found = found or [_finding(f"all {len(named)} people the policy names by id are members", is_ok=True)]
    return found + await _group_findings(directory, config)


async def _group_findings(directory: SlackDirectory, config: Config) -> list[Finding]:
    """Return a finding for each group and address. A group without members grants nothing to anyone."""
    members = await directory.members(config.directory_names)
    return [_group_finding(name, members.get(name)) for name in sorted(config.directory_names)]


def _group_finding(name: str, people: frozenset[str] | None) -> Finding:
    if people is None:
        remedy = "name a group that is there, by its id (S…); or look whether Slack answers"
        return _finding(f"Slack does not say who is in {name}: it counts for nobody", remedy=remedy)
    if not people:
        remedy = (
            "put people into it in Slack, or enable it"
            if name in groups_in([name])
            else "name somebody who is a member"
        )
        return _finding(f"there is nobody in {name}", is_fatal=False, remedy=remedy)
    return _finding(f"{name}: {len(people)} {'person' if len(people) == 1 else 'people'}", is_ok=True)
