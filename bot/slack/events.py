"""Listeners for Slack events: changed members, changed groups, an opened Home tab.

All other events are acknowledged and ignored. Slack would send an event without a listener again.
"""

from __future__ import annotations

import re
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.context import Context
from bot.monitors import groups, members
from bot.slack.home import publish_home
from bot.slack.payload import text_part

GROUP_EVENTS = ("subteam_updated", "subteam_members_changed")

log = structlog.get_logger(__name__)


def register(app: AsyncApp, context: Context) -> None:
    """Add the listeners to the app. The listener for all other events must be the last one."""

    async def on_user_change(event: dict[str, Any]) -> None:
        person_id = text_part(event, "user", "id") or ""
        context.directory.forget(person_id)
        await members.end_access_of_former_member(context, person_id)

    async def on_group_change(event: dict[str, Any]) -> None:
        log.info("group_changed", kind=event.get("type"))
        context.directory.forget_groups()
        await groups.check_groups(context)

    async def on_home_opened(event: dict[str, Any], client: AsyncWebClient) -> None:
        if event.get("tab") == "home":
            await publish_home(client, text_part(event, "user") or "")

    async def on_other_event(event: dict[str, Any]) -> None:
        log.debug("event_ignored", kind=event.get("type"))

    app.event("user_change")(on_user_change)
    for kind in GROUP_EVENTS:
        app.event(kind)(on_group_change)
    app.event("app_home_opened")(on_home_opened)
    app.event(re.compile(".*"))(on_other_event)
