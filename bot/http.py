"""The HTTP endpoints. ``/healthz``: the process is alive. ``/readyz``: it can work, or why not. ``/metrics``: Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog
from aiohttp import web

NOT_READY = 503
STOP_SECONDS = 1.0
"""The time that requests have to finish when the server stops."""

ReadinessCheck: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the problems that make the bot not ready: name → description. Empty when it is ready."""
Metrics: TypeAlias = Callable[[], Awaitable[bytes]]
"""Returns the metrics in the text format of Prometheus."""

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be used. The message names the settings."""


class HealthServer:
    """Serves the endpoints until stopped. ``port`` is set by ``start``."""

    def __init__(self, readiness: ReadinessCheck, metrics: Metrics) -> None:
        self._readiness = readiness
        self._metrics = metrics
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Raises CannotListen where the address is in use, or does not belong to this machine."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._on_healthz),
                web.get("/readyz", self._on_readyz),
                web.get("/metrics", self._on_metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise CannotListen(
                f"DBACCESS_HTTP_HOST, DBACCESS_HTTP_PORT: cannot listen on {host}:{port} ({error.strerror}); "
                "name another port, or 0 for a free one"
            ) from None
        self.port = self._runner.addresses[0][1]
        log.info("health_server_started", host=host, port=self.port)

    async def stop(self) -> None:
        """Stop serving. Does nothing where the server never started."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _on_healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _on_readyz(self, _request: web.Request) -> web.Response:
        problems = await self._readiness()
        return web.json_response(
            {"ready": not problems, "not_well": dict(problems)}, status=NOT_READY if problems else 200
        )

    async def _on_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=await self._metrics(), content_type="text/plain", charset="utf-8")
