"""The periodic checks."""

from __future__ import annotations

import asyncio
import logging

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot import scheduler


async def test_check_that_the_stop_ends_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    checks = AsyncIOScheduler()

    async def hangs() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with caplog.at_level(logging.ERROR):
        scheduler._add(checks, "hangs", hangs, 60)
        checks.start()
        await began.wait()
        checks.shutdown(wait=False)
        await ended.wait()
        for _ in range(5):
            await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == []
