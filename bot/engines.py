"""Engines by name, and the one seam between the event loop and the synchronous adapters.

An engine is a class that implements ``adapters.base.Adapter``, found through the entry point group
``dbaccess.engines``; one that a package brings needs no change here.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from importlib.metadata import entry_points
from typing import TypeVar

import structlog

from adapters.base import Adapter, AdapterError, Enforced, Health, Level, Rejected, Secrets, ServerDown, Target
from bot.databases import resolve

GROUP = "dbaccess.engines"


class Share(StrEnum):
    """What a call to a server is for. Each share has threads of its own on each server, so that no end waits for anything else."""

    ENDS = "ends"
    GRANTS = "grants"
    QUESTIONS = "questions"


WORKERS: Mapping[Share, int] = {Share.ENDS: 8, Share.GRANTS: 4, Share.QUESTIONS: 4}
"""Threads on each server, so also connections at a time: an expiry of many grants must not use up those that the server has.

The runner claims no more tasks of a server than these, so that none of them waits here. Questions are what people ask
outside the runner (status, a password shown, doctor, sweep): they wait for each other alone.
"""

T = TypeVar("T")
log = structlog.get_logger(__name__)


def installed() -> Mapping[str, type[Adapter]]:
    """Engine name → adapter class, for all that are installed."""
    return {point.name: point.load() for point in entry_points(group=GROUP)}


def _or_empty(reference: str) -> str:
    try:
        return resolve(reference)
    except Rejected:
        return ""


def _failed(target: Target, unforeseen: Exception) -> ServerDown:
    """As trouble that may pass: an end is then tried again, and told to those who can help; one server's failure stops no look at the others."""
    reference, frame = secrets.token_hex(4).upper(), traceback.extract_tb(unforeseen.__traceback__)[-1]
    where, kind = f"{frame.filename}:{frame.lineno}", type(unforeseen).__name__  # its words may hold an admin URL
    log.error("an adapter failed", database=target.name, reference=reference, error=kind, where=where)
    return ServerDown(f"its adapter failed: {kind}, reference {reference}", is_ambiguous=True)


class Engines:
    """Runs a verb of an adapter in a thread, at most ``WORKERS`` at once on each server."""

    def __init__(self, classes: Mapping[str, type[Adapter]] | None = None) -> None:
        self._classes = dict(installed() if classes is None else classes)
        self._pools: dict[tuple[str, str, Share], ThreadPoolExecutor] = {}
        self._measured: dict[tuple[str, str], Enforced] = {}

    def adapter_class(self, engine: str) -> type[Adapter]:
        """Raises Rejected where nothing installed serves the engine."""
        try:
            return self._classes[engine]
        except KeyError:
            raise Rejected(
                f"no engine {engine} is installed",
                remedy=f"install the package that brings it; there are {', '.join(sorted(self._classes))}",
            ) from None

    def label(self, engine: str) -> str:
        """The engine's name as people write it."""
        found = self._classes.get(engine)
        return found.label if found else engine

    def enforces(self, engine: str, admin_url: str | None = None) -> Enforced:
        """What the server behind this reference ends by itself, as last measured; before that, what such a server does without any set-up."""
        if admin_url is not None and (measured := self._measured.get((engine, admin_url))) is not None:
            return measured
        found = self._classes.get(engine)
        return found.enforces if found else Enforced.NOTHING

    async def measure(self, target: Target, levels: Sequence[Level] = ()) -> Health:
        """What the adapter's ``check`` finds; what the server enforces is remembered. Raises what the adapter raises."""
        health = await self.call(target, lambda adapter: adapter.check(levels))
        self._measured[target.engine, target.admin_url] = health.enforced
        return health

    def open(self, target: Target) -> Adapter:
        """The adapter with its secrets resolved now; makes no connection. Raises Rejected where the admin URL is not to be had.

        A replica's that is not is left empty: the adapter refuses it when its turn comes, and has blocked the login by then.
        """
        resolved = Secrets(admin_url=resolve(target.admin_url), replicas=tuple(map(_or_empty, target.replicas)))
        return self.adapter_class(target.engine)(target, resolved)

    async def call(self, target: Target, verb: Callable[[Adapter], T], *, share: Share = Share.QUESTIONS) -> T:
        """``verb`` on the target's adapter, off the event loop. Raises only AdapterError, whatever an adapter raises."""

        def work() -> T:
            try:
                return verb(self.open(target))
            except AdapterError:
                raise
            except Exception as unforeseen:  # noqa: BLE001 - engines are packages of others too
                raise _failed(target, unforeseen) from None

        return await asyncio.get_running_loop().run_in_executor(self._pool(target, share), work)

    def _pool(self, target: Target, share: Share) -> ThreadPoolExecutor:
        where = (target.engine, target.admin_url, share)
        if where not in self._pools:
            self._pools[where] = ThreadPoolExecutor(WORKERS[share], f"db-{target.name}-{share}")
        return self._pools[where]

    def close(self) -> None:
        """Wait for what runs: each adapter call has its own time limits."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools.clear()
