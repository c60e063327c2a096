"""The connection to Slack: Web client, Bolt app, and a supervised Socket Mode connection.

The Socket Mode client of slack_sdk retries a refused ticket for ever, and it may receive nothing after a reconnect. Its
maintainers recommend a new client in that case. The supervisor therefore builds one after a minute without a connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
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
IDLE_CONNECTION_SECONDS = 15.0
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
    """Slack does not accept a token. A retry does not help."""

    def __init__(self, variable: str, code: str) -> None:
        super().__init__(f"{variable}: Slack refused it ({code}); {TOKEN_REMEDIES[variable]}")


class InvalidAnswer(SlackClientError):
    """The response is not from Slack, for example an error page of a gateway. The text has no part of the response."""


class WebClient(AsyncWebClient):
    """Raises SlackApiError if Slack refuses a call, and SlackClientError or a network error if there is no valid response.

    slack_sdk itself raises AttributeError if the body is not a JSON object, which is common behind gateways.
    """

    async def api_call(self, api_method: str, **arguments: Any) -> AsyncSlackResponse:
        try:
            return await super().api_call(api_method, **arguments)
        except SlackApiError as error:
            if isinstance(error.response, AsyncSlackResponse) and isinstance(error.response.data, dict):
                raise
            raise InvalidAnswer(f"{api_method}: the response is not from Slack") from None
        except (AttributeError, ValueError):
            raise InvalidAnswer(f"{api_method}: the response is not from Slack") from None


def web_client(token: str, base_url: str | None) -> AsyncWebClient:
    """Build a client without retry handlers. Calls before an acknowledgement must not wait, and later calls are retried as tasks."""
    if base_url is None:
        return WebClient(token=token, timeout=CALL_SECONDS, retry_handlers=[])
    return WebClient(token=token, timeout=CALL_SECONDS, retry_handlers=[], base_url=base_url)


@asynccontextmanager
async def shared_connections(client: AsyncWebClient) -> AsyncIterator[None]:
    """Within the block, the calls of this client share connections: otherwise each call opens one, with a TLS handshake.

    Their number has no limit: calls that hang must not keep others waiting. An idle connection is closed before Slack closes it.
    """
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_SECONDS)
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        client.session = session
        try:
            yield
        finally:
            client.session = None


def build_bolt_app(client: AsyncWebClient, context: Context) -> AsyncApp:
    """Build the Bolt app with all listeners."""
    app = AsyncApp(client=client)
    for module in (commands, actions, forms, events):
        module.register(app, context)
    return app


class SocketConnection:
    """A Socket Mode connection that is kept alive until ``run`` is stopped."""

    def __init__(
        self, app: AsyncApp, app_token: str, *, on_first_connection: Callable[[str], None] = lambda _workspace: None
    ) -> None:
        """``on_first_connection`` is called once, with the name of the workspace."""
        self._on_first_connection: Callable[[str], None] | None = on_first_connection
        self._app = app
        self._app_token = app_token
        self._handler: AsyncSocketModeHandler | None = None

    @property
    def is_connected(self) -> bool:
        """The socket is open, and so is the HTTP session that it needs. Readiness checks this."""
        client = self._handler.client if self._handler else None
        if client is None or client.aiohttp_client_session.closed or client.current_session is None:
            return False
        return not client.current_session.closed

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, and connect again after each failure, until ``stop`` is set. Raises TokenRefused."""
        try:
            while not stop.is_set():
                if await self._connect():
                    await self._watch(stop)
                else:
                    await _pause(stop, RETRY_SECONDS)
                await self._close()
        finally:
            await self._close()

    async def _connect(self) -> bool:
        """Return whether there is a connection now. Raises TokenRefused."""
        variable = "SLACK_BOT_TOKEN"
        try:
            workspace = str((await self._app.client.auth_test()).get("team") or "")
            variable = "SLACK_APP_TOKEN"
            await self._app.client.apps_connections_open(app_token=self._app_token)
            self._handler = AsyncSocketModeHandler(self._app, self._app_token)
            await asyncio.wait_for(self._handler.connect_async(), CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except SlackApiError as error:
            code = str(error.response.get("error"))
            if code in FATAL_CODES:
                raise TokenRefused(variable, code) from None
            log.warning("connection_failed", code=code)
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("connection_failed", error=type(error).__name__)
        else:
            log.info("connected")
            if self._on_first_connection is not None:
                self._on_first_connection(workspace)
                self._on_first_connection = None
            return True
        return False

    async def _watch(self, stop: asyncio.Event) -> None:
        """Return when the connection was down for ``UNHEALTHY_SECONDS``, or when ``stop`` is set."""
        connected_at = time.monotonic()
        while not stop.is_set() and time.monotonic() - connected_at < UNHEALTHY_SECONDS:
            await _pause(stop, CHECK_SECONDS)
            if self.is_connected:
                connected_at = time.monotonic()
        if not stop.is_set():
            log.warning("connection_lost", seconds=UNHEALTHY_SECONDS)

    async def _close(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            with suppress(Exception):
                await asyncio.wait_for(handler.close_async(), CLOSE_SECONDS)  # type: ignore[no-untyped-call]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
