"""Servers that give no usable answer. One probe for each of them, with back-off; the tasks of that server wait for it in the ledger.

A job that finds no answer starts a probe. Only a probe that fails closes the server, so a single failed step delays nobody. One alert
for each server says how many ends wait.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

import structlog

from adapters.base import AdapterError, ServerDown
from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from bot.access.descriptions import count
from bot.access.server_errors import describe_server_error
from bot.access.server_side import describe_enforced_for_all, statements_by_hand
from bot.access.targets import target_of
from bot.engines import AdapterFailed, Share
from bot.jobs.end_together import ServerAnswer, begin_due_ends, block_due_users
from storage.errors import LedgerError
from storage.records import Request, Task

BACKOFF_MAX_SECONDS = 15.0
ALERT_AT_PROBE = 3
"""A server on which no end waits raises an alert at this failed probe. Where ends wait, the first failed probe does."""
ALERT_PAUSE_SECONDS = 60.0
NAMED_AT_MOST = 5
CAUSE = "server:"
"""The cause of the alert about a server begins with it; its address follows."""

log = structlog.get_logger(__name__)


@dataclass
class _Watch:
    """The probe of one server address. ``request`` is a grant there, whose frozen target says how to reach it."""

    request: Request
    since: datetime
    failed: int = 0
    alerted_at: float = -ALERT_PAUSE_SECONDS
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Probes:
    """The probes of a runner. ``wake`` is called when a server answers again."""

    def __init__(self, context: Context, worker: str, wake: Callable[[], None]) -> None:
        self._context = context
        self._worker = worker
        self._wake = wake
        self._watches: dict[str, _Watch] = {}

    @property
    def closed(self) -> frozenset[str]:
        """The addresses of the servers whose last probe failed."""
        return frozenset(server for server, watch in self._watches.items() if watch.failed)

    @property
    def failed(self) -> Mapping[str, int]:
        """By address, how many probes of a closed server have failed."""
        return {server: watch.failed for server, watch in self._watches.items() if watch.failed}

    async def suspect(self, task: Task) -> None:
        """A job got no usable answer from the server of this task: probe it, unless it is probed already."""
        server, request_id = task.server, task.request_id
        if server is None or request_id is None or server in self._watches:
            return
        request = await self._context.ledger.requests.get(request_id)
        self._watch(server, _Watch(request=request, since=await self._context.ledger.now()))

    def _watch(self, server: str, watch: _Watch) -> None:
        if server not in self._watches:
            self._watches[server] = watch
            watch.task = asyncio.create_task(self._probe(server, watch))

    async def check_again(self) -> None:
        """Probe each server whose alert is open and which no probe watches: the bot was restarted. Its alert is resolved when it answers."""
        for alert in await self._context.ledger.alerts.open(prefix=CAUSE):
            server = alert.cause.removeprefix(CAUSE)
            if server in self._watches:
                continue
            request = await self._context.ledger.requests.newest_on(server)
            if request is None:
                await resolve_alert(self._context, alert.cause, "No grant is left on this server.")
            else:
                self._watch(server, _Watch(request=request, since=alert.since))

    async def stop(self) -> None:
        """Stop probing."""
        running = [watch.task for watch in self._watches.values() if watch.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._watches.clear()

    async def _probe(self, server: str, watch: _Watch) -> None:
        """Probe until the server answers. A probe that fails itself stops: the jobs of the server find out for themselves."""
        try:
            await self._probe_until_it_answers(server, watch)
        except Exception:
            log.exception("probe_failed", server=server)
        finally:
            self._watches.pop(server, None)
            self._wake()

    async def _probe_until_it_answers(self, server: str, watch: _Watch) -> None:
        while True:
            try:
                answer = await self._ask(server, watch)
                if answer.error is None:
                    break
                watch.failed += 1
                log.warning("server_down", server=server, probes=watch.failed, error=str(answer.error))
                waiting = await self._context.ledger.tasks.due_ends(server)
                await self._alert(server, watch, answer.error, waiting)
            except LedgerError:
                log.exception("ledger_unavailable")
            await asyncio.sleep(_pause(watch.failed))
        if watch.failed:
            log.info("server_answers", server=server)
            watch.failed = 0
            self._wake()
        await resolve_alert(self._context, f"{CAUSE}{server}", f"{watch.request.database} answers again.")

    async def _ask(self, server: str, watch: _Watch) -> ServerAnswer:
        """Block the users whose end is due, and ask for the identity of the server at the same time: a dead server lets both wait.

        A server that gives its identity is not closed: a user that breaks the connection which blocks it would delay everybody else.
        """
        await begin_due_ends(self._context, server)
        waiting = await self._context.ledger.tasks.due_ends(server)
        answer, error = await asyncio.gather(
            block_due_users(self._context, server, self._worker, untried=False), self._connect(server, watch, waiting)
        )
        is_blocked = bool(answer.waiting) and answer.error is None
        return answer if is_blocked else ServerAnswer(error=error, waiting=answer.waiting)

    async def _connect(self, server: str, watch: _Watch, waiting: tuple[Task, ...]) -> ServerDown | None:
        """As ``_connection_error``. The first failure closes the server and raises its alert at once: a block may take much longer to find out."""
        error = await self._connection_error(watch)
        if error is not None and not watch.failed:
            watch.failed = 1
            await self._alert(server, watch, error, waiting)
        return error

    async def _connection_error(self, watch: _Watch) -> ServerDown | None:
        """Why the server cannot be connected to; None where it answers in any way.

        It decides, not the block: if the server is open to a connection, each end is tried by its own task.
        """
        try:
            await self._context.engines.call(
                target_of(watch.request), lambda adapter: adapter.identity(), share=Share.PROBES
            )
        except AdapterFailed:
            return None  # a fault of the adapter; the server may be well
        except ServerDown as error:
            return error
        except AdapterError:
            return None
        return None

    async def _alert(self, server: str, watch: _Watch, error: ServerDown, waiting: tuple[Task, ...]) -> None:
        if (not waiting and watch.failed < ALERT_AT_PROBE) or monotonic() - watch.alerted_at < ALERT_PAUSE_SECONDS:
            return
        watch.alerted_at = monotonic()
        ids = [task.request_id for task in waiting[:NAMED_AT_MOST] if task.request_id is not None]
        named = tuple((await self._context.ledger.requests.get_many(ids)).values())
        ends = f"{count(len(waiting), 'end')} {'waits' if len(waiting) == 1 else 'wait'}" if waiting else "no end waits"
        await raise_alert(
            self._context,
            None,
            f"{describe_server_error(watch.request.database, error)}: {ends} for it.",
            cause=f"{CAUSE}{server}",
            since=watch.since,
            tries=watch.failed,
            steps=_steps(watch.request.database, named, len(waiting)),
            statements=tuple(one for request in named for one in statements_by_hand(self._context, request)),
            enforced=describe_enforced_for_all(self._context, named),
            next_try_at=await self._context.ledger.now() + timedelta(seconds=_pause(watch.failed)),
        )


def _steps(database: str, named: tuple[Request, ...], waiting: int) -> tuple[str, ...]:
    steps = [f"Make {database} answer again; dbaccess goes on by itself."]
    if named:
        which = ", ".join(f"#{one.id} ({one.username})" for one in named)
        steps.append(f"To end {which} by hand: block each login, end its sessions, drop it.")
    if waiting > len(named):
        steps.append(f"And {waiting - len(named)} more: dbaccess list --database {database}")
    return tuple(steps)


def _pause(failed: int) -> float:
    """Seconds until the next probe: 1, 2, 4 … 15, each up to a quarter longer."""
    return min(BACKOFF_MAX_SECONDS, 2.0 ** min(max(failed, 1) - 1, 10)) * (1 + random.random() / 4)  # noqa: S311 - no secret
