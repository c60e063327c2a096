"""The fake Slack of the tests, with the time of every call, and futures for what the bot will send."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fake_slack.server import FakeSlack, _arguments, served

PATIENCE = 120.0
CARD = re.compile(r"Access request #(\d+)")
READY = re.compile(r"is ready \(#(\d+)\)")


class TooLate(Exception):
    """Something that the bot must do did not happen in time."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of the Web API. Times are of ``time.monotonic``."""

    method: str
    arguments: dict[str, Any]
    received_at: float
    answered_at: float

    @property
    def text(self) -> str:
        return json.dumps(self.arguments.get("blocks") or "", ensure_ascii=False) + str(self.arguments.get("text"))


Expected = tuple[Callable[[Call], bool], "asyncio.Future[Call]"]


@dataclass
class TimedSlack(FakeSlack):
    """``timeline`` has every call in the order of its answer."""

    timeline: list[Call] = field(default_factory=list)
    slow_everywhere: float = 0.0
    """Seconds that each call takes, except of the methods in ``quick``."""
    quick: frozenset[str] = frozenset()
    ephemeral_times: list[float] = field(default_factory=list)
    """When each ephemeral message arrived."""
    _expected: list[Expected] = field(default_factory=list)

    async def on_api(self, request: web.Request) -> web.Response:
        received_at, arguments = time.monotonic(), await _arguments(request)
        method = request.match_info["method"]
        await asyncio.sleep(0 if method in self.quick else self.slow_everywhere)
        answer = await super().on_api(request)
        self._note_ephemerals()
        self._note(
            Call(
                method=method,
                arguments=arguments,
                received_at=received_at,
                answered_at=time.monotonic(),
            )
        )
        return answer

    async def on_response_url(self, request: web.Request) -> web.Response:
        answer = await super().on_response_url(request)
        self._note_ephemerals()
        return answer

    def _note_ephemerals(self) -> None:
        new = len(self.workspace.ephemerals) - len(self.ephemeral_times)
        self.ephemeral_times += [time.monotonic()] * new

    @property
    def is_connected(self) -> bool:
        return any(not socket.closed for socket in self._sockets)

    def _note(self, call: Call) -> None:
        self.timeline.append(call)
        for is_wanted, future in list(self._expected):
            if not future.done() and is_wanted(call):
                future.set_result(call)

    def expect(self, is_wanted: Callable[[Call], bool]) -> asyncio.Future[Call]:
        """The first call from now on for which ``is_wanted`` is true."""
        future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        entry = (is_wanted, future)
        self._expected.append(entry)
        future.add_done_callback(lambda _done: self._expected.remove(entry))
        return future

    def expect_card(self, reason: str) -> asyncio.Future[Call]:
        """The card of the request with this reason."""
        pattern = re.compile(rf"\b{re.escape(reason)}\b")
        return self.expect(
            lambda call: call.method == "chat.postMessage" and is_card(call) and bool(pattern.search(call.text))
        )

    def expect_credentials(self, number: int) -> asyncio.Future[Call]:
        """The call that puts the password into the credential message of this request."""
        return self.expect(lambda call: call.method == "chat.update" and _ready_number(call) == number)

    def message_of(self, call: Call) -> dict[str, Any]:
        """The message that a ``chat.postMessage`` made, or a ``chat.update`` changed."""
        channel = call.arguments["channel"]
        channel = self.workspace.dm_of(channel) if channel in self.workspace.users else channel
        if ts := call.arguments.get("ts"):
            return self.workspace.messages[channel][ts]
        text = call.arguments["text"]
        return next(m for m in reversed(self.workspace.messages[channel].values()) if m["text"] == text)

    def post_as_bot(self, channel: str, text: str) -> str:
        """A message of the bot that an earlier run posted. Returns its timestamp."""
        return str(self.workspace.post(channel, text=text, blocks=[])["ts"])


def is_card(call: Call) -> bool:
    return CARD.search(call.text) is not None


def card_number(call: Call) -> int:
    found = CARD.search(call.text)
    assert found is not None, call.text[:300]
    return int(found[1])


def _ready_number(call: Call) -> int | None:
    found = READY.search(str(call.arguments.get("text")))
    return int(found[1]) if found else None


async def within(what: str, waiting: asyncio.Future[Call], seconds: float = PATIENCE) -> Call:
    """The awaited call. Raises TooLate."""
    try:
        return await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        raise TooLate(f"not within {seconds:.0f} s: {what}") from None


async def until(what: str, is_true: Callable[[], bool], seconds: float = PATIENCE, pause: float = 0.05) -> float:
    """Wait until ``is_true``. Returns the time of ``time.monotonic``. Raises TooLate."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TooLate(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(pause)
    return time.monotonic()


@asynccontextmanager
async def running_slack() -> AsyncIterator[TimedSlack]:
    """Run the fake on a free port of loopback."""
    async with served(TimedSlack()) as slack:
        yield slack
