"""``dbaccess run`` with an engine in memory whose drops hang. Run as a process: ``python -m tests.slack.hanging_bot``.

``HANGS``: the verb that hangs (``drop``, ``list``), ``close`` for the ledger's, or nothing. ``LIMIT``: the seconds of the deadline.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from bot import app as application
from bot import cli
from bot.app import App
from bot.cli import common
from bot.engines import Engines
from tests.access.fake_engine import FakeServer, engine

HANGS, LIMIT = os.environ.get("HANGS", ""), float(os.environ.get("LIMIT", "6"))


def step(name: str) -> None:
    if HANGS and name == f"before {HANGS}":
        print(f"HANGS {name}", flush=True)  # noqa: T201 - the test waits for this line
        time.sleep(600)
    if name == "before drop" and "SLOW" in os.environ:
        print(f"SLOW {name}", flush=True)  # noqa: T201 - the test waits for this line
        time.sleep(3)


def main() -> None:
    application.STOP_SECONDS, application.CLOSE_SECONDS, application.STEP_SECONDS = LIMIT, LIMIT / 2, LIMIT / 6
    settings = common.settings()
    bot = App(settings)
    server = FakeServer(clock=lambda: datetime.now(UTC), step=step)
    bot.context = bot.runner.context = replace(bot.context, engines=Engines({"postgresql": engine(server)}))
    bot.runner = application.Runner(bot.context, application.JOBS)
    if HANGS == "ledger":
        bot.context.ledger.close = hangs  # type: ignore[method-assign]
    asyncio.run(cli._serve(bot))


async def hangs(*_: Any) -> None:
    await asyncio.to_thread(time.sleep, 600)


if __name__ == "__main__":
    main()
