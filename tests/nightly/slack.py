"""The fake Slack of these tests: kills at a call, several connected bots, and people who try again."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, web

from tests.e2e.messages import buttons, credentials
from tests.fake_slack.server import FakeSlack, WaitTimeout, served

READY = re.compile(r"is ready \(#(\d+)\)")
CARD = re.compile(r"(?:Access request|Break-glass access|More time) #(\d+)")
LOST_WITH_THE_BOT = ("was not acked within three seconds", "an ack of an envelope", "an envelope was acked twice")
"""What Slack notes where a bot is killed: a person sees an error and tries again."""

Hook = Callable[[int, str, bool], None]
"""Gets the port of the caller, the method, and whether the call was carried out."""


@dataclass
class NightSlack(FakeSlack):
    """``hook`` sees each call before and after it is carried out. ``cards``: the number of each card with its channel and ts, also of repeats."""

    hook: Hook | None = None
    logins: dict[int, dict[str, str]] = field(default_factory=dict)
    """The newest credentials that were delivered, by the number of the request."""
    passwords: set[str] = field(default_factory=set)
    cards: dict[int, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    reasons: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    counts: Counter[str] = field(default_factory=Counter)

    async def on_api(self, request: web.Request) -> web.Response:
        method, transport = request.match_info["method"], request.transport
        port = transport.get_extra_info("peername")[1] if transport is not None else 0
        if self.hook is not None:
            self.hook(port, method, False)
        body = await request.text()
        answer = await super().on_api(request)
        self.calls.clear()
        self.counts[method] += 1
        self._remember(method, body, answer)
        if self.hook is not None:
            self.hook(port, method, True)
        return answer

    def _remember(self, method: str, body: str, answer: web.Response) -> None:
        if method not in ("chat.postMessage", "chat.update") or not body or answer.text is None:
            return
        result = json.loads(answer.text)
        if not result.get("ok"):
            return
        message = self.workspace.messages[result["channel"]][result["ts"]]
        text = json.dumps(message.get("blocks") or "", ensure_ascii=False) + str(message["text"])
        if method == "chat.postMessage" and (found := CARD.search(text)) and result["channel"].startswith("C0CARDS"):
            self.cards[int(found[1])].add((result["channel"], result["ts"]))
            self.reasons[int(found[1])].update(re.findall(r"\bwhy\d+\b", text))
        if (ready := READY.search(str(message["text"]))) and "*Password*" in text:
            login = self.logins[int(ready[1])] = credentials(message)
            self.passwords.add(login["Password"])

    async def deliver(self, kind: str, payload: dict[str, Any], *, retry: int = 0) -> Any:
        """Slack sends each envelope to any one of the connected bots."""
        random.shuffle(self._sockets)
        return await super().deliver(kind, payload, retry=retry)

    async def persist(
        self,
        what: str,
        act: Callable[[], Awaitable[Any]],
        is_done: Callable[[], bool],
        seconds: float,
        *,
        pause: float = 4.0,
    ) -> int:
        """A person acts, and again while nothing comes of it. Returns how often. Raises WaitTimeout."""
        deadline, times = asyncio.get_running_loop().time() + seconds, 0
        while not is_done():
            if asyncio.get_running_loop().time() > deadline:
                raise WaitTimeout(f"{what}, tried {times} times")
            times += 1
            try:
                await act()
            except (WaitTimeout, OSError, ClientError, KeyError, StopIteration):
                await asyncio.sleep(0.2)
            until = asyncio.get_running_loop().time() + pause
            while not is_done() and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.05)
        return times

    def message(self, channel: str, ts: str) -> dict[str, Any]:
        return dict(self.workspace.messages[channel][ts])

    def labels(self, channel: str, ts: str) -> set[str]:
        """The buttons of a message."""
        return set(buttons(self.workspace.messages[channel][ts]))

    def says(self, person: str, text: str) -> bool:
        """Whether a direct message or an ephemeral answer to this person has this text."""
        own = self.workspace.messages.get(f"D{person[1:]}", {}).values()
        return any(text in json.dumps(m, ensure_ascii=False) for m in own) or any(
            text in answer for answer in self.answers(person)
        )

    @property
    def faults(self) -> list[str]:
        """What real Slack would have refused, without what a kill explains."""
        return [p for p in self.problems if not any(known in p for known in LOST_WITH_THE_BOT)]


@asynccontextmanager
async def running_night_slack() -> AsyncIterator[NightSlack]:
    """Run it on a free port of loopback."""
    async with served(NightSlack()) as slack:
        yield slack
