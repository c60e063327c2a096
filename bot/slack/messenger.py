"""Posts and updates lasting messages through ``chat.*``, each in its turn (``bot.slack.pacing``), and translates Slack's errors.

No error and no log line contains text of a message, because a message may contain a password.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import aiohttp
import structlog
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access.ports import Delayed, DeliveryError, MessageGone, Notice, Posted, Undeliverable
from bot.notifications.notices import (
    AlertNotice,
    CardNotice,
    ClosedNotice,
    CredentialsNotice,
    PreparingNotice,
)
from bot.slack.pacing import Pacing, Urgency
from bot.slack.render.notices import render
from storage.records import RequestKind, State

TOO_MANY_REQUESTS = 429
SLEEP_MAX = 1.1
"""The longest time in seconds that an urgent message waits for its turn inside a call. Every other one comes again when it is its turn."""
DIRECT_MESSAGES_MAX = 5000
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
    """Implements ``bot.access.ports.Messenger`` with the Web API. The client has no retry handlers, because the tasks retry.

    Calls do not wait for each other: a call that hangs holds up its own caller for the time limit of the client, and nobody else.
    """

    def __init__(
        self,
        client: AsyncWebClient,
        pacing: Pacing | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._pacing = pacing or Pacing()
        self._sleep = sleep
        self._people: dict[str, str] = {}

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """Post a message. With a person's id as ``channel`` it goes to the bot's DM with them, and ``Posted`` has the id of that DM."""
        reply = {"thread_ts": thread} if thread else {}
        place, key, urgency = self._people.get(channel, channel), (thread, *_identity(notice)), urgency_of(notice)
        await self._take_turn(urgency, lambda: self._pacing.wait_to_post(place, key, urgency))
        try:
            found = await self._call(
                "chat.postMessage", channel, notice, unfurl_links=False, unfurl_media=False, **reply
            )
        except Delayed as error:
            if error.retry_after is not None:
                self._pacing.on_posts_refused(place, error.retry_after)
            raise
        posted = Posted(channel=str(found["channel"]), ts=str(found["ts"]))
        self._remember_person(channel, posted)
        return posted

    async def update(self, posted: Posted, notice: Notice) -> None:
        """Replace text and blocks of a message. Text alone would remove the blocks; blocks alone would leave the notification empty."""
        key, urgency = (posted.channel, posted.ts), urgency_of(notice)
        await self._take_turn(urgency, lambda: self._pacing.wait_to_update(key, urgency))
        try:
            await self._call("chat.update", posted.channel, notice, ts=posted.ts)
        except Delayed as error:
            if error.retry_after is not None:
                self._pacing.on_updates_refused(error.retry_after)
            raise

    async def _take_turn(self, urgency: Urgency, seconds_left: Callable[[], float]) -> None:
        """Return when it is the turn of this message. Raises Delayed where that takes longer than a call may wait."""
        seconds = seconds_left()
        if 0 < seconds <= SLEEP_MAX and urgency is not Urgency.OTHER:
            await self._sleep(seconds)
            seconds = seconds_left()
        if seconds > 0:
            raise Delayed("it is not the turn of this message yet", retry_after=seconds, is_paced=True)

    def _remember_person(self, channel: str, posted: Posted) -> None:
        """Posts to a person and to the DM with that person share their turns."""
        if channel != posted.channel:
            if len(self._people) >= DIRECT_MESSAGES_MAX:
                self._people.clear()
            self._people[posted.channel] = channel

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


def urgency_of(notice: Notice) -> Urgency:
    """The share that pays for a message. The password of a grant that has ended is worthless, so its message is not urgent."""
    match notice:
        case AlertNotice():
            return Urgency.ALERT
        case PreparingNotice() | CredentialsNotice():
            return Urgency.CREDENTIALS
        case ClosedNotice(request=request) if request.state is State.REVOKING:
            return Urgency.CLOSING
        case CardNotice(request=request) if (request.kind, request.state) == (RequestKind.BREAK_GLASS, State.PENDING):
            return Urgency.CREDENTIALS  # break-glass access waits until a reviewer has the card
        case _:
            return Urgency.OTHER


def _identity(notice: Notice) -> tuple[Hashable, ...]:
    """What a message is about: the same in each of its tries."""
    request = getattr(notice, "request", None)
    return (type(notice).__name__, request.id if request is not None else getattr(notice, "what", None))


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
