"""The Home tab of the app."""

from __future__ import annotations

import structlog
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.slack.render import replies
from bot.slack.render.blocks import section

log = structlog.get_logger(__name__)


async def publish_home(client: AsyncWebClient, user_id: str) -> None:
    """Show the list of commands. A failure is logged, because Slack sends the event again the next time the tab is opened."""
    blocks = [
        section("*dbaccess* gives temporary access to databases. Ask with `/dbaccess request`."),
        *replies.help_reply(None).blocks,
    ]
    try:
        await client.views_publish(user_id=user_id, view={"type": "home", "blocks": blocks})
    except SlackApiError as error:
        log.warning("home_failed", code=error.response.get("error"))
