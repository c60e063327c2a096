"""The only ``chat.*`` calls for messages that last. Errors are translated here; none of them holds a word of the message."""

from __future__ import annotations

from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.ports import Delayed, DeliveryError, MessageGone, Notice, Posted, Undeliverable
from bot.slack.render.notices import render

TOO_MANY_REQUESTS = 429
GONE = frozenset({"message_not_found", "thread_not_found"})
CLOSED = frozenset({
    "channel_not_found", "not_in_channel", "is_archived", "is_inactive", "messages_tab_disabled", "user_not_found",
    "user_disabled", "user_not_visible", "cannot_dm_bot", "cant_update_message",
    "edit_window_closed", "ekm_access_denied", "team_access_not_granted", "no_permission", "access_denied",
    "msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "too_many_attachments", "no_text",
    "block_mismatch", "as_user_not_supported", "slack_connect_file_link_sharing_blocked",
})  # fmt: skip
"""With these it will not help to try again. The last lines are our own mistakes: loud in the log, and told as undeliverable."""

RESTRICTED = "restricted_action"
"""Begins a family of codes: the workspace's administrators allow no posts there."""

OURS = frozenset({"msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "no_text"})
LOCKED_OUT = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"}
)

log = structlog.get_logger(__name__)


class SlackMessenger:
    """``bot.access.ports.Messenger`` over the Web API. The client has no retry handlers: the tasks retry."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """A person's id opens the bot's DM with them; the id of that DM is what comes back."""
        more = {"thread_ts": thread} if thread else {}
        found = await self._call("chat.postMessage", channel, notice, unfurl_links=False, unfurl_media=False, **more)
        return Posted(channel=str(found["channel"]), ts=str(found["ts"]))

    async def update(self, posted: Posted, notice: Notice) -> None:
        """Text and blocks together: text alone would remove the blocks, blocks alone leave the notification empty."""
        await self._call("chat.update", posted.channel, notice, ts=posted.ts)

    async def _call(self, method: str, channel: str, notice: Notice, **more: Any) -> dict[str, Any]:
        rendered = render(notice)
        body = {"channel": channel, "text": rendered.text, "blocks": rendered.blocks, **more}
        try:
            answer = await self._client.api_call(method, json=body)
        except SlackApiError as error:
            raise translate(error, method) from None
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Delayed(f"Slack does not answer ({type(error).__name__})") from None
        found = answer.data
        assert isinstance(found, dict), "the Web API answers with JSON"
        return found


def translate(error: SlackApiError, method: str) -> DeliveryError:
    """By Slack's error code. What is not known is tried again, and logged."""
    code = str(error.response.get("error", "unknown")) if error.response is not None else "unknown"
    if code == "ratelimited" or getattr(error.response, "status_code", 200) == TOO_MANY_REQUESTS:
        return Delayed("Slack asks to wait", retry_after=_retry_after(error.response))
    if code in GONE:
        return MessageGone(code)
    if code in CLOSED or code.startswith(RESTRICTED):
        if code in OURS:
            log.error("Slack refused what we drew", method=method, code=code)
        return Undeliverable(code)
    if code in LOCKED_OUT:
        log.error("Slack does not accept the bot", method=method, code=code)
    else:
        log.warning("Slack said no", method=method, code=code)
    return Delayed(f"Slack said {code}")


def _retry_after(response: Any) -> float:
    """Seconds, one where Slack named none that can be read."""
    headers = getattr(response, "headers", {}) or {}
    try:
        return max(float(headers.get("Retry-After", headers.get("retry-after", 1))), 0.0)
    except ValueError:
        return 1.0
