"""Periodic checks on APScheduler. No grant has a job here, and the runner wakes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.access.context import Context
from bot.jobs.probes import Probes
from bot.monitors.alerts import check_alerts
from bot.monitors.clock import CLOCK_SECONDS, ClockWatch
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from bot.monitors.replicas import HEARTBEAT_SECONDS, Heartbeat
from bot.monitors.retention import RETENTION_SECONDS, RetentionMonitor
from bot.monitors.servers import measure_servers
from bot.monitors.sweep import SWEEP_SECONDS, Sweep

FILES_SECONDS = 5
SERVERS_SECONDS = 3600
MEMBERSHIP_SECONDS = 300
ALERTS_SECONDS = 60


def _digest_in_force(context: Context) -> str | None:
    return context.files.config.digest if context.files.config else None


def build_scheduler(context: Context, probes: Probes) -> AsyncIOScheduler:
    """The scheduler with the checks that need no Slack, not started yet.

    A late run is done, never skipped: by default APScheduler skips it after one second.
    """
    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    sweep, clock, heartbeat = Sweep(context), ClockWatch(context), Heartbeat(context)
    is_start = True

    async def run_sweep() -> None:
        nonlocal is_start
        was_start, is_start = is_start, False
        await sweep.run(is_start=was_start)

    async def alerts() -> None:
        await check_open_alerts(context, probes)

    _add(scheduler, "sweep", run_sweep, SWEEP_SECONDS)
    _add(scheduler, "clock", clock.run, CLOCK_SECONDS)
    _add(scheduler, "alerts", alerts, ALERTS_SECONDS)
    _add(scheduler, "heartbeat", heartbeat.run, HEARTBEAT_SECONDS)
    scheduler.add_job(heartbeat.on_files_checked, "interval", seconds=FILES_SECONDS, id="newest")
    return scheduler


async def check_open_alerts(context: Context, probes: Probes) -> None:
    """Resolve what is over. A server with an open alert that nothing probes is probed: the bot was restarted."""
    if await context.ledger.alerts.open():
        await check_alerts(context)
        await probes.check_again()


def add_checks_for_grants(scheduler: AsyncIOScheduler, context: Context) -> None:
    """Add the checks that new grants need: configuration, groups, members, and what the servers enforce."""
    retention = RetentionMonitor(context)

    async def measure() -> None:
        await measure_servers(context)

    async def groups() -> None:
        await check_groups(context)

    async def members() -> None:
        await check_members(context)

    measured = _digest_in_force(context)

    async def files() -> None:
        """Check the files, and measure the servers at once where another configuration is in force: the cards need it."""
        nonlocal measured
        await announce_files(context)
        if measured != (measured := _digest_in_force(context)):
            scheduler.modify_job("servers", next_run_time=datetime.now(UTC))

    _add(scheduler, "servers", measure, SERVERS_SECONDS)
    _add(scheduler, "groups", groups, MEMBERSHIP_SECONDS)
    _add(scheduler, "members", members, MEMBERSHIP_SECONDS)
    _add(scheduler, "retention", retention.run, RETENTION_SECONDS)
    scheduler.add_job(files, "interval", seconds=FILES_SECONDS, id="files")


def _add(scheduler: AsyncIOScheduler, name: str, check: Callable[[], Awaitable[None]], seconds: int) -> None:
    """Run the check now, and again every ``seconds``. Stopping the scheduler ends a check that runs, which is no failure."""

    async def run() -> None:
        with suppress(asyncio.CancelledError):
            await check()

    scheduler.add_job(run, "interval", seconds=seconds, id=name, next_run_time=datetime.now(UTC))
