"""Periodic checks on APScheduler: it wakes the runner and runs the monitors. No grant has a job here."""

from __future__ import annotations

from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.access.context import Context
from bot.jobs.runner import Runner
from bot.monitors.alerts import check_alerts
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from bot.monitors.servers import measure_servers

WAKE_SECONDS = 30
"""The runner wakes by itself; this covers a wake-up that got lost."""
FILES_SECONDS = 5
SERVERS_SECONDS = 3600
MEMBERSHIP_SECONDS = 300
ALERTS_SECONDS = 60


def _digest_in_force(context: Context) -> str | None:
    return context.files.config.digest if context.files.config else None


def build_scheduler(runner: Runner) -> AsyncIOScheduler:
    """The scheduler, not started yet. A late run is done, never skipped: by default APScheduler skips it after one second."""
    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    scheduler.add_job(runner.wake, "interval", seconds=WAKE_SECONDS, id="wake")
    scheduler.add_job(
        measure_servers,
        "interval",
        seconds=SERVERS_SECONDS,
        args=[runner.context],
        id="servers",
        next_run_time=datetime.now(UTC),
    )
    for check in (check_groups, check_members):
        scheduler.add_job(
            check,
            "interval",
            seconds=MEMBERSHIP_SECONDS,
            args=[runner.context],
            id=check.__name__,
            next_run_time=datetime.now(UTC),
        )

    async def check_open_alerts() -> None:
        """Resolve what is over. A server with an open alert that nothing probes is probed: the bot was restarted."""
        await check_alerts(runner.context)
        await runner.probes.check_again()

    now = datetime.now(UTC)
    scheduler.add_job(check_open_alerts, "interval", seconds=ALERTS_SECONDS, id="alerts", next_run_time=now)
    measured = _digest_in_force(runner.context)

    async def check_files() -> None:
        """Check the files, and measure the servers at once where another configuration is in force: the cards need it."""
        nonlocal measured
        await announce_files(runner.context)
        if measured != (measured := _digest_in_force(runner.context)):
            scheduler.modify_job("servers", next_run_time=datetime.now(UTC))

    scheduler.add_job(check_files, "interval", seconds=FILES_SECONDS, id="files")
    return scheduler
