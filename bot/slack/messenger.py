"""Posts and updates lasting messages through ``chat.*``, and translates Slack's errors.

No error and no log line contains text of a message, because a message may contain a password.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.ports import Delayed, DeliveryError, MessageGone, Notice, Posted, Undeliverable
from bot.slack.render.notices import render

TOO_MANY_REQUESTS = 429
MESSAGE_GONE_CODES = frozenset({"message_not_found", "thread_not_found"})
UNDELIVERABLE_CODES = frozenset({
    "channel_not_found", "not_in_channel", "is_archived", "is_inactive", "messages_tab_disabled", "user_not_found",
    "user_disabled", "user_not_visible", "cannot_dm_bot", "cant_update_message",
    "edit_window_closed", "ekm_access_denied", "team_access_not_granted", "no_permission", "access_denied",
    "msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "too_many_attachments", "no_text",
    "block_mismatch", "as_user_not_supported", "slack_connect_file_link_sharing_blocked",
})  # fmt: skip
"""A retry does not help with these codes. The last two lines are faults of the bot itself."""

RESTRICTED_PREFIX = "restricted_action"
"""Prefix of a family of codes: the administrators of the workspace allow no posts in this channel."""

INVALID_MESSAGE_CODES = frozenset(
    {"msg_too_long", "msg_blocks_too_long", "invalid_blocks", "invalid_blocks_format", "no_text"}
)
"""The bot rendered a message that Slack does not accept."""

BOT_REFUSED_CODES = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "missing_scope"}
)

log = structlog.get_logger(__name__)


class SlackMessenger:
    """Implements ``bot.access.ports.Messenger`` with the Web API. The client has no retry handlers, because the tasks retry."""

    def __init__(self, client: AsyncWebClient) -> None:
        self._client = client

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """Post a message. With a person's id as ``channel`` it goes to the bot's DM with them, and ``Posted`` has the id of that DM."""
        reply = {"thread_ts": thread} if thread else {}
        found = await self._call("chat.postMessage", channel, notice, unfurl_links=False, unfurl_media=False, **reply)
        return Posted(channel=str(found["channel"]), ts=str(found["ts"]))

    async def update(self, posted: Posted, notice: Notice) -> None:
        """Replace text and blocks of a message. Text alone would remove the blocks; blocks alone would leave the notification empty."""
        await self._call("chat.update", posted.channel, notice, ts=posted.ts)

    async def _call(self, method: str, channel: str, notice: Notice, **arguments: Any) -> dict[str, Any]:
        rendered = render(notice)
        body = {"channel": channel, "text": rendered.text, "blocks": rendered.blocks, **arguments}
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
    """Translate Slack's error code. Unknown codes are logged and become ``Delayed``, so that the task retries."""
    code = str(error.response.get("error", "unknown")) if error.response is not None else "unknown"
    if code == "ratelimited" or getattr(error.response, "status_code", 200) == TOO_MANY_REQUESTS:
        return Delayed("Slack asks to wait", retry_after=_retry_after(error.response))
    if code in MESSAGE_GONE_CODES:
        return MessageGone(code)
    if code in UNDELIVERABLE_CODES or code.startswith(RESTRICTED_PREFIX):
        if code in INVALID_MESSAGE_CODES:
            log.error("message_invalid", method=method, code=code)
        return Undeliverable(code)
    if code in BOT_REFUSED_CODES:
        log.error("bot_refused", method=method, code=code)
    else:
        log.warning("call_failed", method=method, code=code)
    return Delayed(f"Slack answered {code}")


def _retry_after(response: Any) -> float:
    """Return the seconds to wait: 1 if the header is missing or cannot be parsed."""
    headers = getattr(response, "headers", {}) or {}
    try:
        return max(float(headers.get("Retry-After", headers.get("retry-after", 1))), 0.0)
    except ValueError:
        return 1.0
