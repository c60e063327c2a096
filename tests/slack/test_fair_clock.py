"""FairClock counts all time except the time in which other programs had the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_slack.fair_clock import FairClock

BUSY_PROGRAM = [sys.executable, "-c", "while True: pass"]


@pytest.fixture
def busy_processors() -> Iterator[None]:
    """Run three busy programs for each processor."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system keeps no count of the time that a thread waits for a processor")
    busy = [subprocess.Popen(BUSY_PROGRAM) for _ in range(3 * (os.cpu_count() or 1))]
    yield
    for process in busy:
        process.kill()
        process.wait()


def test_sleeping_counts() -> None:
    clock = FairClock()
    time.sleep(0.5)
    assert clock() > 0.4


def test_computing_counts() -> None:
    clock, begun = FairClock(), time.thread_time()
    while time.thread_time() - begun < 0.3:
        pass
    assert clock() > 0.2


def test_clock_never_goes_back() -> None:
    clock = FairClock()
    seen = [clock() for _ in range(200)]
    assert seen == sorted(seen)


@pytest.mark.usefixtures("busy_processors")
def test_waiting_for_a_processor_does_not_count() -> None:
    clock, begun = FairClock(), time.monotonic()
    while (passed := time.monotonic() - begun) < 1 or clock() > 0.8 * passed:
        assert passed < 60, "others had the processor most of the time"
