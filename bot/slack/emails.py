"""Owners of e-mail addresses, cached. Slack needs one call for each address and allows some fifty calls a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

from bot.access.ports import DirectoryUnavailable
from bot.slack.user_groups import WAIT_SECONDS

FRESH_SECONDS = 600.0
"""An address rarely changes its owner, and Slack reports the change (``user_change``). A person who acts is checked again in any case."""

UNOWNED_SECONDS = 60.0
CONCURRENT_MAX = 8


@dataclass
class EmailLookup:
    """``fetch`` returns the owner's id in a set, or an empty set, and raises DirectoryUnavailable. A slow answer is cached for the next call."""

    fetch: Callable[[str], Awaitable[frozenset[str]]]
    clock: Callable[[], float]
    _cache: dict[str, tuple[float, frozenset[str]]] = field(default_factory=dict)
    _pending: dict[str, asyncio.Task[None]] = field(default_factory=dict, repr=False)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT_MAX), repr=False)

    def forget(self, person_id: str) -> None:
        """Drop the addresses of a person who changed: one of them may have another owner now."""
        self._cache = {address: (at, owner) for address, (at, owner) in self._cache.items() if person_id not in owner}

    async def owners(self, addresses: Collection[str]) -> dict[str, frozenset[str]]:
        """Return the owner of each address. Addresses without an answer within ``WAIT_SECONDS`` are missing."""
        missing = [address for address in addresses if self._fresh(address) is None]
        for address in missing:
            if address not in self._pending:
                self._pending[address] = asyncio.create_task(self._refresh(address))
        if missing:
            await asyncio.wait([self._pending[address] for address in missing], timeout=WAIT_SECONDS)
        found = {address: self._fresh(address) for address in addresses}
        return {address: owner for address, owner in found.items() if owner is not None}

    def _fresh(self, address: str) -> frozenset[str] | None:
        at, owner = self._cache.get(address, (None, frozenset()))
        within = FRESH_SECONDS if owner else UNOWNED_SECONDS
        return owner if at is not None and self.clock() - at < within else None

    async def _refresh(self, address: str) -> None:
        try:
            async with self._slots:
                self._cache[address] = (self.clock(), await self.fetch(address))
        except DirectoryUnavailable:
            pass  # the address stays unknown; the next call fetches it again
        finally:
            del self._pending[address]
