"""What Slack tells unasked: people who change, the Home tab that is opened. All other events are taken and do nothing yet."""

from __future__ import annotations

import re
from typing import Any

import structlog
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.context import Context
from bot.monitors import groups, members
from bot.slack.render import replies
from bot.slack.render.blocks import section

GROUP_EVENTS = ("subteam_updated", "subteam_members_changed")

log = structlog.get_logger(__name__)


def register(app: AsyncApp, context: Context) -> None:
    """Put the listeners on the app; an event without one would be sent again and again."""

    async def on_user_change(event: dict[str, Any]) -> None:
        person_id = str((event.get("user") or {}).get("id") or "")
        context.directory.forget(person_id)
        await members.end_access_of_former_member(context, person_id)

    async def on_group_change(event: dict[str, Any]) -> None:
        log.info("a group changed", kind=event.get("type"))
        context.directory.forget_groups()
        await groups.check_groups(context)

    async def on_home_opened(event: dict[str, Any], client: AsyncWebClient) -> None:
        if event.get("tab") == "home":
            await publish_home(client, str(event.get("user")))

    async def on_other(event: dict[str, Any]) -> None:
        log.debug("an event", kind=event.get("type"))

    app.event("user_change")(on_user_change)
    for kind in GROUP_EVENTS:
        app.event(kind)(on_group_change)
    app.event("app_home_opened")(on_home_opened)
    app.event(re.compile(".*"))(on_other)


async def publish_home(client: AsyncWebClient, user_id: str) -> None:
    """The commands; a Home of one's own grants comes with a later version."""
    blocks = [
        section("*dbaccess* gives temporary access to databases. Ask with `/dbaccess request`."),
        *replies.help_for(None).blocks,
    ]
    try:
        await client.views_publish(user_id=user_id, view={"type": "home", "blocks": blocks})
    except SlackApiError as error:
        log.warning("the Home tab cannot be shown", code=error.response.get("error"))
