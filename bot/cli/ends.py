"""Wait for ends that a command has begun. Where no bot runs, this process does the work meanwhile."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TypeAlias

from rich.console import Console
from rich.progress import Progress

from bot.access.context import Context
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner

POLL_SECONDS = 1.0
NOTIFY_SECONDS = 5.0
Count: TypeAlias = Callable[[], Awaitable[int]]
Check: TypeAlias = Callable[[], Awaitable[bool]]


async def wait_for_ends(context: Context, count_live: Count, *, seconds: float, notified: Check) -> None:
    """Wait until ``count_live`` is 0, at most ``seconds``. The running bot ends the grants; without one, the jobs run in this process.

    Messages get a little more time then, until ``notified`` holds. Where Slack does not answer, the bot's next run sends them.
    """
    deadline = time.monotonic() + seconds
    runs_jobs = context.ledger.acquire_run_lock() if context.ledger.is_sqlite else True
    if runs_jobs and context.ledger.is_sqlite:
        await context.ledger.tasks.free_leases()
    try:
        async with _runner_running(context) if runs_jobs else nullcontext():
            await _watch(context, count_live, deadline)
            if runs_jobs:
                await _wait_until(context, notified, min(deadline, time.monotonic() + NOTIFY_SECONDS))
    finally:
        if runs_jobs:
            context.ledger.release_run_lock()


@asynccontextmanager
async def _runner_running(context: Context) -> AsyncIterator[None]:
    """Run the job runner. On exit, jobs that have begun are finished."""
    stop = asyncio.Event()
    running = asyncio.create_task(Runner(context, JOBS).run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def _watch(context: Context, count_live: Count, deadline: float) -> None:
    total = await count_live()
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    bar = progress.add_task("Ending", total=total)
    with progress:
        while time.monotonic() < deadline and (alive := await count_live()):
            progress.update(bar, completed=total - alive)
            await context.ledger.wait_for_commit(POLL_SECONDS, reader="cli")


async def _wait_until(context: Context, condition: Check, deadline: float) -> None:
    while time.monotonic() < deadline and not await condition():
        await context.ledger.wait_for_commit(POLL_SECONDS, reader="cli")
