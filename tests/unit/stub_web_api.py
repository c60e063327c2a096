"""A Web API on loopback with the answers that a test sets, also answers that only a gateway gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

AUTH_TEST: dict[str, Any] = {"ok": True, "team_id": "T0TEAM", "user_id": "U0BOT"}


@dataclass
class StubWebApi:
    """``answers`` by method: a JSON object, or (status, content type, body). ``calls`` has every call with its arguments."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=lambda: {"auth.test": AUTH_TEST})
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hangs: set[str] = field(default_factory=set)
    """Methods that do not answer before the test is over."""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    peers: list[Any] = field(default_factory=list)
    """The client's address of every call: another one for another connection."""

    async def on_call(self, request: web.Request) -> web.Response:
        self.peers.append(request.transport.get_extra_info("peername") if request.transport else None)
        method = request.match_info["method"]
        is_json = request.content_type == "application/json"
        self.calls.append((method, await request.json() if is_json else {**request.query, **await request.post()}))
        await asyncio.sleep(self.delay)
        if method in self.hangs:
            await self.is_over.wait()
        answer = self.answers[method]
        if isinstance(answer, dict):
            return web.Response(body=json.dumps(answer), content_type="application/json", headers=self.headers)
        status, content_type, body = answer
        return web.Response(status=status, body=body, headers={"Content-Type": content_type, **self.headers})

    def times(self, method: str) -> int:
        return sum(1 for called, _ in self.calls if called == method)


@asynccontextmanager
async def stub_web_api() -> AsyncIterator[StubWebApi]:
    stub, app = StubWebApi(), web.Application()
    app.router.add_route("*", "/api/{method}", stub.on_call)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    stub.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/"
    try:
        yield stub
    finally:
        stub.is_over.set()
        await runner.cleanup()
