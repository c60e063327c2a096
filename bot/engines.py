"""Installed engines by name, and the only way from the event loop to the synchronous adapters.

An engine is a class that implements ``adapters.base.Adapter``. It is found through the entry point group
``dbaccess.engines``, so an engine from another package needs no change here.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from importlib.metadata import entry_points
from typing import TypeVar

import structlog

from adapters.base import Adapter, AdapterError, Enforced, Health, Level, Rejected, Secrets, ServerDown, Target
from bot.databases import resolve

GROUP = "dbaccess.engines"


class Share(StrEnum):
    """The purpose of a call to a server. Each share has its own threads per server, so that no end waits for anything else."""

    ENDS = "ends"
    GRANTS = "grants"
    QUERIES = "queries"
    PROBES = "probes"
    SWEEP = "sweep"


WORKERS: Mapping[Share, int] = {Share.ENDS: 10, Share.GRANTS: 4, Share.QUERIES: 4, Share.PROBES: 2, Share.SWEEP: 2}
"""Threads per server, and so connections at a time: many ends at once must not use up the server's connections.

The runner claims no more tasks per server than these, so that no task waits here. Queries come from outside the runner
(status, a password shown, doctor) and wait only for each other. Probes block the users of ends that fall together. The sweep and
the hourly measurement have threads of their own: a server that hangs holds up nobody who asks for something.
"""

CARD_WARNINGS_AT_MOST = 2

T = TypeVar("T")
log = structlog.get_logger(__name__)


class InstalledEngines(Mapping[str, type[Adapter]]):
    """Engine name → adapter class, for every installed engine. A class is imported when it is first asked for: its driver takes memory."""

    def __init__(self) -> None:
        self._points = {point.name: point for point in entry_points(group=GROUP)}

    def __getitem__(self, name: str) -> type[Adapter]:
        try:
            found: type[Adapter] = self._points[name].load()
        except ImportError:
            log.exception("engine_not_importable", engine=name)
            raise KeyError(name) from None
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def installed_engines() -> Mapping[str, type[Adapter]]:
    """Engine name → adapter class, for every installed engine."""
    return InstalledEngines()


def _resolve_or_empty(reference: str) -> str:
    try:
        return resolve(reference)
    except Rejected:
        return ""


class AdapterFailed(ServerDown):
    """An adapter raised an exception that is no ``AdapterError``. As after no answer, a statement may have run, and a retry may help."""


def _unexpected_failure(target: Target, unforeseen: Exception) -> AdapterFailed:
    """Turn an unexpected exception into ``AdapterFailed``: the end is tried again and alerted, and other servers are not affected."""
    reference, frame = secrets.token_hex(4).upper(), traceback.extract_tb(unforeseen.__traceback__)[-1]
    where, kind = f"{frame.filename}:{frame.lineno}", type(unforeseen).__name__  # its message may contain an admin URL
    log.error("adapter_failed", database=target.name, reference=reference, error=kind, where=where)
    return AdapterFailed(f"its adapter failed: {kind}, reference {reference}", is_ambiguous=True)


class Engines:
    """Runs adapter calls in threads, at most ``WORKERS`` at once per server."""

    def __init__(self, classes: Mapping[str, type[Adapter]] | None = None) -> None:
        self._classes = installed_engines() if classes is None else classes
        self._pools: dict[tuple[str, str, Share], ThreadPoolExecutor] = {}
        self._running = RunningCalls()
        self._measured: dict[tuple[str, str], Enforced] = {}
        self._card_warnings: dict[tuple[str, str, str, str], tuple[str, ...]] = {}

    def adapter_class(self, engine: str) -> type[Adapter]:
        """Raises Rejected where the engine is not installed."""
        try:
            return self._classes[engine]
        except KeyError:
            raise Rejected(
                f"no engine {engine} is installed",
                remedy=f"install the package that brings it; there are {', '.join(sorted(self._classes))}",
            ) from None

    def label(self, engine: str) -> str:
        """The engine's name for people, such as ``PostgreSQL``."""
        found = self._classes.get(engine)
        return found.label if found else engine

    def enforces(self, engine: str, admin_url: str | None = None) -> Enforced:
        """The server's own enforcement, as last measured. Before the first measurement: what the engine enforces without set-up."""
        if admin_url is not None and (measured := self._measured.get((engine, admin_url))) is not None:
            return measured
        found = self._classes.get(engine)
        return found.enforces if found else Enforced.NOTHING

    async def measure(self, target: Target, levels: Sequence[Level] = (), *, share: Share = Share.QUERIES) -> Health:
        """Run the adapter's ``check``. Remember what the server enforces, and what of each level may outlive a grant. Raises AdapterError."""
        health = await self.call(target, lambda adapter: adapter.check(levels), share=share)
        self._measured[target.engine, target.admin_url] = health.enforced
        for level in levels:
            sentences = [f.on_card for f in health.findings if f.on_card and f.level in (None, level.name)]
            key = (target.engine, target.admin_url, target.name, level.name)
            self._card_warnings[key] = tuple(dict.fromkeys(sentences))[:CARD_WARNINGS_AT_MOST]
        return health

    def card_warnings(self, engine: str, admin_url: str, database: str, level: str) -> tuple[str, ...]:
        """What of a grant of this level may outlive it, as sentences that ``measure`` found last. Empty before the first time."""
        return self._card_warnings.get((engine, admin_url, database, level), ())

    def open(self, target: Target) -> Adapter:
        """The adapter with its secrets resolved now; makes no connection. Raises Rejected where the admin URL cannot be read.

        A replica's URL that cannot be read stays empty. The adapter refuses it when it reaches the replica, and has
        blocked the login by then.
        """
        resolved = Secrets(admin_url=resolve(target.admin_url), replicas=tuple(map(_resolve_or_empty, target.replicas)))
        return self.adapter_class(target.engine)(target, resolved)

    async def call(self, target: Target, verb: Callable[[Adapter], T], *, share: Share = Share.QUERIES) -> T:
        """Run ``verb`` on the target's adapter in a thread. Raises only AdapterError, whatever the adapter raises."""

        def work() -> T:
            try:
                with self._running:
                    return verb(self.open(target))
            except AdapterError:
                raise
            except Exception as unforeseen:  # noqa: BLE001 - engines may come from other packages
                raise _unexpected_failure(target, unforeseen) from None

        return await asyncio.get_running_loop().run_in_executor(self._pool(target, share), work)

    def _pool(self, target: Target, share: Share) -> ThreadPoolExecutor:
        where = (target.engine, target.admin_url, share)
        if where not in self._pools:
            self._pools[where] = ThreadPoolExecutor(WORKERS[share], f"db-{target.name}-{share}")
        return self._pools[where]

    def close(self) -> None:
        """Wait for the running calls. Each adapter call has its own time limits."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools.clear()

    def close_within(self, seconds: float) -> bool:
        """Wait for the running calls at most this long. False where one is still running: its thread goes on until the process ends."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()
        return self._running.wait_until_none(seconds)


class RunningCalls:
    """Counts the calls that run now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._number = 0

    def __enter__(self) -> None:
        with self._changed:
            self._number += 1

    def __exit__(self, *_error: object) -> None:
        with self._changed:
            self._number -= 1
            self._changed.notify_all()

    def wait_until_none(self, seconds: float) -> bool:
        """Whether no call runs any more, after waiting at most this long."""
        with self._changed:
            return self._changed.wait_for(lambda: self._number == 0, seconds)
