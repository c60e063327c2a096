"""The clock that is set ahead: it is where it was said to be, for every program of the run, and nothing else moved."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import clock_ahead
from tests.conftest import had
from tests.servers.mysql import MySQLServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import VALKEY
from tests.servers.redis import start as start_redis

SLOW = timedelta(minutes=2)
"""What a busy machine may take between two looks at the clock."""

REPOSITORY = Path(clock_ahead.__file__).parents[2]
ahead_only = pytest.mark.skipif(clock_ahead.said() is None, reason="the clock is that of today: make test-ahead")


def said() -> timedelta:
    found = clock_ahead.said()
    assert found is not None
    return found


def todays(folder: Path) -> datetime:
    """The kernel's own time: it is written at a file, and no library comes between."""
    (folder / "touched").touch()
    return datetime.fromtimestamp((folder / "touched").stat().st_mtime, UTC)


# The run itself.


@ahead_only
def test_this_run_is_where_it_was_said_to_be(tmp_path: Path) -> None:
    assert said() != timedelta(0)
    assert abs(datetime.now(UTC) - todays(tmp_path) - said()) < SLOW


@ahead_only
def test_so_is_a_program_that_it_starts(tmp_path: Path) -> None:
    out = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    assert abs(datetime.fromtimestamp(float(out.stdout), UTC) - todays(tmp_path) - said()) < SLOW


@ahead_only
def test_so_is_sqlite(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as store:
        (text,) = store.execute("SELECT datetime('now')").fetchone()
    assert abs(datetime.fromisoformat(f"{text}+00:00") - todays(tmp_path) - said()) < SLOW


@ahead_only
def test_so_is_postgresql(postgresql: PostgresServer, tmp_path: Path) -> None:
    with postgresql.admin() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    assert abs(row[0] - todays(tmp_path) - said()) < SLOW


@ahead_only
def test_so_are_mysql_and_mariadb(mysql_family: MySQLServer, tmp_path: Path) -> None:
    with closing(mysql_family.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT UNIX_TIMESTAMP()")
        (seconds,) = cursor.fetchone()
    assert abs(datetime.fromtimestamp(int(seconds), UTC) - todays(tmp_path) - said()) < SLOW


@ahead_only
def test_so_is_valkey(tmp_path: Path) -> None:
    for server in had(lambda: start_redis(VALKEY)):
        seconds, _ = server.run("TIME")
        assert abs(datetime.fromtimestamp(int(seconds), UTC) - todays(tmp_path) - said()) < SLOW


# How it is set ahead. Each of these runs a program of its own, on any day.


def told(code: str, days: int = 366) -> str:
    """What a program says whose clock is so many days ahead."""
    command = [sys.executable, "-m", "tests.clock_ahead", str(days), sys.executable, "-c", code]
    variables = clock_ahead.today(os.environ)
    done = subprocess.run(
        command, env=variables, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    lacking = pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip
    if sys.platform != "linux" or shutil.which("gcc") is None:
        lacking("the clock is set ahead on Linux, with gcc")


@pytest.mark.parametrize("days", [-400, 0, 366, 3653])
def test_the_clock_is_moved_by_the_days_that_were_said(days: int, tmp_path: Path) -> None:
    """Their children too: the program is asked by a child of the one that was started."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(time.time())'])"
    found = datetime.fromtimestamp(float(told(code, days)), UTC)
    assert abs(found - todays(tmp_path) - timedelta(days=days)) < SLOW


def test_every_way_of_reading_the_clock_agrees() -> None:
    code = """
import ctypes, time
libc = ctypes.CDLL(None)
two = (ctypes.c_long * 2)()
libc.time.restype = ctypes.c_long
found = [time.time(), time.clock_gettime(time.CLOCK_REALTIME), libc.time(None)]
assert libc.gettimeofday(two, None) == 0
found.append(two[0])
assert libc.clock_gettime(5, two) == 0  # CLOCK_REALTIME_COARSE
found.append(two[0])
assert libc.timespec_get(two, 1) == 1  # TIME_UTC
found.append(two[0])
print(max(found) - min(found))
"""
    assert float(told(code)) < SLOW.total_seconds()


def test_the_monotonic_clock_stays() -> None:
    """It is one for the whole machine, so this process and that one read the same."""
    before = time.monotonic()
    found = float(told("import time; print(time.monotonic())"))
    assert before <= found <= time.monotonic()


WAITS = {
    "a condition": "libc.pthread_cond_timedwait(room, held(), until)",
    "a semaphore": "libc.sem_timedwait(room, until)",
    "a mutex": "libc.pthread_mutex_timedlock(held(), until)",
    "a sleep": "libc.clock_nanosleep(0, 1, until, None)",  # CLOCK_REALTIME, TIMER_ABSTIME
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_until_a_moment_ends_at_that_moment(wait: str) -> None:
    """Were the moment handed on as it is, the wait would take a year."""
    code = f"""
import ctypes, time
libc = ctypes.CDLL(None)
room, mutex = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
def held():
    assert libc.pthread_mutex_lock(mutex) == 0
    return mutex
at = time.time() + 1.5
until = (ctypes.c_long * 2)(int(at), int(at % 1 * 1e9))
begun = time.monotonic()
{WAITS[wait]}
print(time.monotonic() - begun)
"""
    assert 1 < float(told(code)) < SLOW.total_seconds()


def test_threads_sleep_and_wait_as_long_as_they_say() -> None:
    code = """
import queue, threading, time
begun = time.monotonic()
time.sleep(0.3)
try:
    queue.Queue().get(timeout=0.3)
except queue.Empty:
    pass
assert not threading.Event().wait(0.3)
print(time.monotonic() - begun)
"""
    assert 0.9 <= float(told(code)) < SLOW.total_seconds()
