"""Whose an e-mail address is, as Slack has it. Each is a call of its own, of which Slack takes some fifty a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from bot.access.ports import DirectoryUnavailable
from bot.slack.user_groups import WAIT_SECONDS

FRESH_SECONDS = 600.0
"""An address changes its owner rarely, and Slack says so (``user_change``); whoever acts is looked at anew in any case."""

UNOWNED_SECONDS = 60.0
CONCURRENT_MAX = 8


@dataclass
class EmailLookup:
    """``ask`` gives the person, or nobody, and raises DirectoryUnavailable. What takes too long is there the next time."""

    ask: Callable[[str], Awaitable[frozenset[str]]]
    clock: Callable[[], float]
    _known: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[None]] = field(default_factory=dict, repr=False)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT_MAX), repr=False)

    def forget(self, person_id: str) -> None:
        """Somebody changed: the address that was theirs may not be any more."""
        self._known = {address: (at, who) for address, (at, who) in self._known.items() if person_id not in who}

    async def owners(self, addresses: Collection[str]) -> dict[str, frozenset[str]]:
        """Of those that are known in time; the others are left out."""
        wanted = [address for address in addresses if self._fresh(address) is None]
        for address in wanted:
            if address not in self._asking:
                self._asking[address] = asyncio.create_task(self._look_up(address))
        if wanted:
            await asyncio.wait([self._asking[address] for address in wanted], timeout=WAIT_SECONDS)
        found = {address: self._fresh(address) for address in addresses}
        return {address: who for address, who in found.items() if who is not None}

    def _fresh(self, address: str) -> frozenset[str] | None:
        at, who = self._known.get(address, (None, frozenset()))
        within = FRESH_SECONDS if who else UNOWNED_SECONDS
        return who if at is not None and self.clock() - at < within else None

    async def _look_up(self, address: str) -> None:
        try:
            async with self._turns:
                self._known[address] = (self.clock(), await self.ask(address))
        except DirectoryUnavailable:
            pass  # nobody is told for certain; asked again the next time
        finally:
            del self._asking[address]
