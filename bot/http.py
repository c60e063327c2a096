"""The HTTP endpoints. ``/healthz``: the process is alive. ``/readyz``: it can work, or why not. ``/metrics``: Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from storage.errors import LedgerError
from storage.ledger import Ledger
from storage.records import State, TaskKind

NOT_READY = 503
ReadinessCheck: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""Returns the problems that make the bot not ready: name → description. Empty when it is ready."""

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be used. The message names the settings."""


class HealthServer:
    """Serves the endpoints until stopped. ``port`` is set by ``start``."""

    def __init__(self, ledger: Ledger, readiness: ReadinessCheck) -> None:
        self._ledger = ledger
        self._readiness = readiness
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Raises CannotListen where the address is in use, or does not belong to this machine."""
        app = web.Application()
        app.add_routes(
            [web.get("/healthz", self._alive), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        self._runner = web.AppRunner(app, access_log=None)
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

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        problems = await self._readiness()
        return web.json_response(
            {"ready": not problems, "not_well": dict(problems)}, status=NOT_READY if problems else 200
        )

    async def _metrics(self, _request: web.Request) -> web.Response:
        try:
            live, now, tasks = (
                await self._ledger.requests.live_grants(),
                await self._ledger.now(),
                await self._ledger.tasks.all(),
            )
        except LedgerError as error:
            return web.Response(text=f"{error}\n", status=NOT_READY)
        registry = CollectorRegistry()
        overdue = [t for t in tasks if t.kind is TaskKind.REVOKE and t.due_at <= now]
        figures = {
            "dbaccess_live_grants": ("Grants whose user exists, or may exist", len(live)),
            "dbaccess_ending_grants": ("Grants that are being ended", sum(r.state is State.REVOKING for r in live)),
            "dbaccess_overdue_revocations": ("Revocations that are due and not confirmed", len(overdue)),
            "dbaccess_tasks": ("Unfinished tasks", len(tasks)),
        }
        for name, (about, value) in figures.items():
            Gauge(name, about, registry=registry).set(value)
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")
