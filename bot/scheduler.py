"""Periodic work on APScheduler: a net under the runner, and a look at the files. Never one job per grant."""

from __future__ import annotations

from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.jobs.runner import Runner
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from bot.monitors.servers import measure_servers

NET_SECONDS = 30
FILES_SECONDS = 5
SERVERS_SECONDS = 3600
PEOPLE_SECONDS = 300


def build_scheduler(runner: Runner) -> AsyncIOScheduler:
    """Not started yet. A tick that is late is done, never skipped: the default grace of APScheduler is one second."""
    scheduler = AsyncIOScheduler(
        timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    )
    scheduler.add_job(runner.wake, "interval", seconds=NET_SECONDS, id="net")
    scheduler.add_job(
        measure_servers,
        "interval",
        seconds=SERVERS_SECONDS,
        args=[runner.context],
        id="servers",
        next_run_time=datetime.now(UTC),
    )
    for look in (check_groups, check_members):
        scheduler.add_job(
            look,
            "interval",
            seconds=PEOPLE_SECONDS,
            args=[runner.context],
            id=look.__name__,
            next_run_time=datetime.now(UTC),
        )
    scheduler.add_job(announce_files, "interval", seconds=FILES_SECONDS, args=[runner.context], id="files")
    return scheduler
