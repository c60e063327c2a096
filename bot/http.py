"""``/healthz``: the process is alive. ``/readyz``: it can do its work, or what keeps it from that. ``/metrics``: Prometheus."""

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
Readiness: TypeAlias = Callable[[], Awaitable[Mapping[str, str]]]
"""What is not well, in words by name; empty when all is."""

log = structlog.get_logger(__name__)


class CannotListen(Exception):
    """The address cannot be had; the text names the settings."""


class HealthServer:
    """Listens until stopped. ``port`` is known after ``start``."""

    def __init__(self, ledger: Ledger, not_well: Readiness) -> None:
        self._ledger = ledger
        self._not_well = not_well
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Raises CannotListen where the address is taken, or not this machine's."""
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
        log.info("health endpoints are up", host=host, port=self.port)

    async def stop(self) -> None:
        """Also when it never started."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, _request: web.Request) -> web.Response:
        wrong = await self._not_well()
        return web.json_response({"ready": not wrong, "not_well": dict(wrong)}, status=NOT_READY if wrong else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        try:
            live, now, tasks = await self._ledger.live_grants(), await self._ledger.now(), await self._ledger.tasks()
        except LedgerError as error:
            return web.Response(text=f"{error}\n", status=NOT_READY)
        registry = CollectorRegistry()
        overdue = [t for t in tasks if t.kind is TaskKind.REVOKE and t.due_at <= now]
        figures = {
            "dbaccess_live_grants": ("Grants for which a user exists, or may", len(live)),
            "dbaccess_ending_grants": ("Grants that are being ended", sum(r.state is State.REVOKING for r in live)),
            "dbaccess_overdue_revocations": ("Revocations that are due and not confirmed", len(overdue)),
            "dbaccess_tasks": ("Unfinished tasks", len(tasks)),
        }
        for name, (about, value) in figures.items():
            Gauge(name, about, registry=registry).set(value)
        return web.Response(body=generate_latest(registry), content_type="text/plain", charset="utf-8")
