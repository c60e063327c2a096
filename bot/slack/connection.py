"""The way to Slack: the Web client, the Bolt app, and a supervisor that keeps a Socket Mode connection alive.

The client of slack_sdk tries a refused ticket for ever and may fall silent after a reconnect; the cure its
maintainers name is a new client, so the supervisor builds one when the old has not been well for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import structlog
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bot.access.context import Context
from bot.slack import actions, commands, events, forms

CHECK_SECONDS = 2.0
UNHEALTHY_SECONDS = 60.0
CONNECT_SECONDS = 20.0
CLOSE_SECONDS = 5.0
RETRY_SECONDS = 5.0
CALL_SECONDS = 15
FATAL_CODES = frozenset(
    {
        "invalid_auth",
        "not_authed",
        "token_revoked",
        "account_inactive",
        "not_allowed_token_type",
        "link_disabled",
        "missing_scope",
    }
)

TOKEN_REMEDIES = {
    "SLACK_BOT_TOKEN": "copy the Bot User OAuth Token (xoxb-…) of the installed app",
    "SLACK_APP_TOKEN": "make an app-level token (xapp-…) with connections:write",
}

log = structlog.get_logger(__name__)


class TokenRefused(Exception):
    """Slack does not accept a token. Trying again will not help."""

    def __init__(self, variable: str, code: str) -> None:
        super().__init__(f"{variable}: Slack refused it ({code}); {TOKEN_REMEDIES[variable]}")


class InvalidAnswer(SlackClientError):
    """What came back was not Slack's: a gateway's page, half an answer. Says nothing of what it held."""


class WebClient(AsyncWebClient):
    """Fails with SlackApiError where Slack said no, and with SlackClientError or an error of the network where it said nothing.

    slack_sdk itself raises AttributeError at a body that is no JSON object, and such come from every gateway on the way.
    """

    async def api_call(self, api_method: str, **about: Any) -> AsyncSlackResponse:
        try:
            return await super().api_call(api_method, **about)
        except SlackApiError as error:
            if isinstance(error.response, AsyncSlackResponse) and isinstance(error.response.data, dict):
                raise
            raise InvalidAnswer(f"{api_method}: the answer is not Slack's") from None
        except (AttributeError, ValueError):
            raise InvalidAnswer(f"{api_method}: the answer is not Slack's") from None


def web_client(token: str, base_url: str | None) -> AsyncWebClient:
    """A client without retry handlers: nothing before an ack may wait, and everything after it is a task that is retried."""
    if base_url is None:
        return WebClient(token=token, timeout=CALL_SECONDS, retry_handlers=[])
    return WebClient(token=token, timeout=CALL_SECONDS, retry_handlers=[], base_url=base_url)


def build_bolt_app(client: AsyncWebClient, context: Context) -> AsyncApp:
    """The app with all listeners."""
    app = AsyncApp(client=client)
    for module in (commands, actions, forms, events):
        module.register(app, context)
    return app


class SocketConnection:
    """Socket Mode, kept alive until told to stop. ``is_connected`` is what readiness asks."""

    def __init__(
        self, app: AsyncApp, app_token: str, *, on_first: Callable[[str], None] = lambda _workspace: None
    ) -> None:
        """``on_first`` is told the workspace's name at the first connection."""
        self._on_first: Callable[[str], None] | None = on_first
        self._app = app
        self._app_token = app_token
        self._handler: AsyncSocketModeHandler | None = None

    @property
    def is_connected(self) -> bool:
        """A socket is open and its session is not closed behind its back."""
        client = self._handler.client if self._handler else None
        if client is None or client.aiohttp_client_session.closed or client.current_session is None:
            return False
        return not client.current_session.closed

    async def run(self, stop: asyncio.Event) -> None:
        """Raises SlackRefused for a token that Slack does not accept."""
        try:
            while not stop.is_set():
                if await self._connected():
                    await self._watch(stop)
                else:
                    await _pause(stop, RETRY_SECONDS)
                await self._close()
        finally:
            await self._close()

    async def _connected(self) -> bool:
        asking = ""
        try:
            asking = "SLACK_BOT_TOKEN"
            workspace = str((await self._app.client.auth_test()).get("team") or "")
            asking = "SLACK_APP_TOKEN"
            await self._app.client.apps_connections_open(app_token=self._app_token)
            self._handler = AsyncSocketModeHandler(self._app, self._app_token)
            await asyncio.wait_for(self._handler.connect_async(), CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except SlackApiError as error:
            code = str(error.response.get("error"))
            if code in FATAL_CODES:
                raise TokenRefused(asking, code) from None
            log.warning("no connection to Slack", code=code)
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("no connection to Slack", error=type(error).__name__)
        else:
            log.info("connected to Slack")
            if self._on_first is not None:
                self._on_first(workspace)
                self._on_first = None
            return True
        return False

    async def _watch(self, stop: asyncio.Event) -> None:
        well_at = time.monotonic()
        while not stop.is_set() and time.monotonic() - well_at < UNHEALTHY_SECONDS:
            await _pause(stop, CHECK_SECONDS)
            if self.is_connected:
                well_at = time.monotonic()
        if not stop.is_set():
            log.warning("the connection to Slack was not well for a minute; building a new one")

    async def _close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            with suppress(Exception):
                await asyncio.wait_for(handler.close_async(), CLOSE_SECONDS)  # type: ignore[no-untyped-call]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
