"""The moved clock: every program of the run has the same offset, and no other clock is moved."""

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
"""The longest time that a busy machine takes between two readings of the clock."""

REPOSITORY = Path(clock_ahead.__file__).parents[2]
ahead_only = pytest.mark.skipif(
    clock_ahead.clock_offset() is None, reason="the clock is not set ahead: make test-ahead"
)


def offset() -> timedelta:
    found = clock_ahead.clock_offset()
    assert found is not None
    return found


def kernel_time(folder: Path) -> datetime:
    """The kernel's time, from a new file. The library cannot move it."""
    (folder / "touched").touch()
    return datetime.fromtimestamp((folder / "touched").stat().st_mtime, UTC)


# The run itself.


@ahead_only
def test_the_clock_of_this_run_is_set_ahead(tmp_path: Path) -> None:
    assert offset() != timedelta(0)
    assert abs(datetime.now(UTC) - kernel_time(tmp_path) - offset()) < SLOW


@ahead_only
def test_the_clock_of_a_child_process_is_set_ahead(tmp_path: Path) -> None:
    out = subprocess.run([sys.executable, "-c", "import time; print(time.time())"], capture_output=True, check=True)
    assert abs(datetime.fromtimestamp(float(out.stdout), UTC) - kernel_time(tmp_path) - offset()) < SLOW


@ahead_only
def test_the_clock_of_sqlite_is_set_ahead(tmp_path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        (text,) = database.execute("SELECT datetime('now')").fetchone()
    assert abs(datetime.fromisoformat(f"{text}+00:00") - kernel_time(tmp_path) - offset()) < SLOW


@ahead_only
def test_the_clock_of_postgresql_is_set_ahead(postgresql: PostgresServer, tmp_path: Path) -> None:
    with postgresql.admin() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    assert abs(row[0] - kernel_time(tmp_path) - offset()) < SLOW


@ahead_only
def test_the_clock_of_mysql_and_mariadb_is_set_ahead(mysql_family: MySQLServer, tmp_path: Path) -> None:
    with closing(mysql_family.admin()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT UNIX_TIMESTAMP()")
        (seconds,) = cursor.fetchone()
    assert abs(datetime.fromtimestamp(int(seconds), UTC) - kernel_time(tmp_path) - offset()) < SLOW


@ahead_only
def test_the_clock_of_valkey_is_set_ahead(tmp_path: Path) -> None:
    for server in had(lambda: start_redis(VALKEY)):
        seconds, _ = server.run("TIME")
        assert abs(datetime.fromtimestamp(int(seconds), UTC) - kernel_time(tmp_path) - offset()) < SLOW


# The mechanism. Each of these tests runs a program of its own, with or without make test-ahead.


def output_of(code: str, days: int = 366) -> str:
    """The output of a Python program whose clock is ``days`` ahead."""
    command = [sys.executable, "-m", "tests.clock_ahead", str(days), sys.executable, "-c", code]
    variables = clock_ahead.without_offset(os.environ)
    done = subprocess.run(
        command, env=variables, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True, scope="module")
def compiler() -> None:
    report = pytest.fail if os.environ.get("REQUIRE_SERVERS") else pytest.skip
    if sys.platform != "linux" or shutil.which("gcc") is None:
        report("the clock is set ahead on Linux, with gcc")


@pytest.mark.parametrize("days", [-400, 0, 366, 3653])
def test_the_clock_is_moved_by_the_given_days(days: int, tmp_path: Path) -> None:
    """Also in children: a child of the started program prints the time."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; print(time.time())'])"
    found = datetime.fromtimestamp(float(output_of(code, days)), UTC)
    assert abs(found - kernel_time(tmp_path) - timedelta(days=days)) < SLOW


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
    assert float(output_of(code)) < SLOW.total_seconds()


def test_the_monotonic_clock_is_not_moved() -> None:
    """All processes of a machine read the same monotonic clock."""
    before = time.monotonic()
    found = float(output_of("import time; print(time.monotonic())"))
    assert before <= found <= time.monotonic()


WAITS = {
    "a condition": "libc.pthread_cond_timedwait(memory, locked(), until)",
    "a semaphore": "libc.sem_timedwait(memory, until)",
    "a mutex": "libc.pthread_mutex_timedlock(locked(), until)",
    "a sleep": "libc.clock_nanosleep(0, 1, until, None)",  # CLOCK_REALTIME, TIMER_ABSTIME
}


@pytest.mark.parametrize("wait", WAITS)
def test_a_wait_until_a_time_ends_at_that_time(wait: str) -> None:
    """If the library did not move the time back, the wait would take a year."""
    code = f"""
import ctypes, time
libc = ctypes.CDLL(None)
memory, mutex = ctypes.create_string_buffer(256), ctypes.create_string_buffer(256)
def locked():
    assert libc.pthread_mutex_lock(mutex) == 0
    return mutex
at = time.time() + 1.5
until = (ctypes.c_long * 2)(int(at), int(at % 1 * 1e9))
begun = time.monotonic()
{WAITS[wait]}
print(time.monotonic() - begun)
"""
    assert 1 < float(output_of(code)) < SLOW.total_seconds()


def test_threads_sleep_and_wait_for_the_given_time() -> None:
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
    assert 0.9 <= float(output_of(code)) < SLOW.total_seconds()
