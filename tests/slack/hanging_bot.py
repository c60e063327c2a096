"""``dbaccess run`` with an engine in memory whose drops hang. Run as a process: ``python -m tests.slack.hanging_bot``.

``HANGS``: the verb that hangs (``drop``, ``list``), or ``ledger`` for its close. ``LIMIT``: the seconds of the deadline. ``SLOW``: a drop takes some
seconds. ``DOWN_SECONDS``: how long the database is down. ``OUTAGE_SECONDS``: an outage of the ledger that is longer is an alert.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bot import app as application
from bot import cli
from bot.app import App
from bot.cli import common
from bot.engines import Engines
from bot.jobs import outage
from tests.access.fake_engine import FakeServer, engine

HANGS, LIMIT = os.environ.get("HANGS", ""), float(os.environ.get("LIMIT", "6"))


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(name: str) -> None:
    if HANGS and name == f"before {HANGS}":
        say(f"HANGS {name}")
        time.sleep(600)
    if name == "before drop" and "SLOW" in os.environ:
        say(f"SLOW {name}")
        time.sleep(3)


def main() -> None:
    application.STOP_SECONDS, application.CLOSE_SECONDS, application.STEP_SECONDS = LIMIT, LIMIT / 2, LIMIT / 6
    settings = common.settings()
    bot = App(settings)
    server = FakeServer(clock=lambda: datetime.now(UTC), step=step)
    bot.context = bot.runner.context = replace(bot.context, engines=Engines({"postgresql": engine(server)}))
    bot.runner = application.Runner(bot.context, application.JOBS)
    outage.ALERT_SECONDS = float(os.environ.get("OUTAGE_SECONDS", outage.ALERT_SECONDS))
    if seconds := float(os.environ.get("DOWN_SECONDS", "0")):
        server.is_up = False
        threading.Timer(seconds, setattr, (server, "is_up", True)).start()
    if HANGS == "ledger":
        bot.context.ledger.close = hangs  # type: ignore[method-assign]
    asyncio.run(cli._serve(bot))


async def hangs(*_: Any) -> None:
    await asyncio.to_thread(time.sleep, 600)


if __name__ == "__main__":
    main()
