"""The database under the ledger: opening, crashes, waiting for commits, errors. Other processes are real ones."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, make_url

import storage
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError, LedgerReplaced, LedgerUnavailable, SchemaMismatch
from storage.ledger import Ledger
from storage.records import Cause, State, TaskKind
from storage.transitions import Transition
from tests.unit.ledgers import TurnableClock, approve, bring, command_for, draft, execute, open_ledger, open_transaction

ROOT = Path(storage.__file__).parent.parent
PATIENCE = 120
QUIET_SECONDS = 0.6
"""Longer than the time between two looks at SQLite's files."""


@asynccontextmanager
async def program(code: str, url: str, *arguments: str) -> AsyncIterator[Process]:
    """Another process on the same database. It is killed at the end if it still runs."""
    head = "import asyncio, os, signal, sys\nfrom storage import interpreter, ledger as module\nfrom storage.commands import *\nfrom tests.unit.ledgers import *\n"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", head + code, url, *arguments, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().strip()


async def quiet(ledger: Ledger, reader: str = "runner") -> None:
    """Wait until this reader has seen all commits so far."""
    deadline = time.monotonic() + PATIENCE
    while await ledger.wait_for_commit(QUIET_SECONDS, reader=reader):
        assert time.monotonic() < deadline, "there is always another commit"


# Opening.


async def test_only_an_upgrade_creates_a_ledger(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    with pytest.raises(SchemaMismatch, match="dbaccess store upgrade"):
        await ledger.open(create=False)
    if ledger.is_sqlite:
        assert not ledger.database.path.exists()
    await ledger.upgrade()
    await ledger.open(create=False)
    assert len(ledger.id) == 12
    assert ledger.id.isalnum()
    await ledger.close()


async def test_a_ledger_has_the_same_id_each_time(ledger_url: str) -> None:
    ids = set()
    for create in (True, True, False):
        ledger = Ledger(ledger_url)
        await ledger.open(create=create)
        ids.add(ledger.id)
        await ledger.close()
    assert len(ids) == 1


async def test_two_ledgers_have_different_ids(tmp_path: Path) -> None:
    ledgers = [await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/{n}/ledger.db") for n in range(2)]
    assert len({ledger.id for ledger in ledgers}) == 2
    for ledger in ledgers:
        await ledger.close()


async def test_a_new_ledger_can_be_opened_by_many_at_once(ledger_url: str) -> None:
    ledgers = [Ledger(ledger_url) for _ in range(4)]
    await asyncio.gather(*[ledger.open(create=True) for ledger in ledgers])
    assert len({ledger.id for ledger in ledgers}) == 1
    await asyncio.gather(*[ledger.close() for ledger in ledgers])


async def test_setting_wal_mode_concurrently_does_not_fail(tmp_path: Path) -> None:
    """When two connections set WAL at once, SQLite refuses one of them as locked, in about one of ten such rounds."""
    for n in range(10):
        ledgers = [Ledger(f"sqlite+aiosqlite:///{tmp_path}/{n}/ledger.db") for _ in range(6)]
        await asyncio.gather(*[ledger.open(create=True) for ledger in ledgers])
        assert len({ledger.id for ledger in ledgers}) == 1
        await asyncio.gather(*[ledger.close() for ledger in ledgers])


async def test_an_empty_file_is_a_schema_mismatch(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(SchemaMismatch, match="store upgrade"):
        await ledger.open(create=False)
    await ledger.close()


@pytest.mark.parametrize("create", [False, True])
async def test_a_newer_ledger_is_refused(ledger_url: str, create: bool) -> None:
    await _at_revision(ledger_url, "9999")
    ledger = Ledger(ledger_url)
    with pytest.raises(SchemaMismatch, match="newer dbaccess"):
        await ledger.open(create=create)
    await ledger.close()


async def _at_revision(url: str, revision: str) -> None:
    ledger = await open_ledger(url)
    await execute(ledger, f"UPDATE alembic_version SET version_num = '{revision}'")
    await execute(ledger, f"UPDATE meta SET value = '{revision}' WHERE name = 'readable_from'")
    await ledger.close()


@pytest.mark.parametrize("database", ["", "/:memory:", "/file:ledger?mode=memory&uri=true"])
def test_a_ledger_in_memory_is_refused(database: str) -> None:
    with pytest.raises(ValueError, match="needs a file"):
        Ledger(f"sqlite+aiosqlite://{database}")


async def test_sqlite_writes_are_durable(tmp_path: Path) -> None:
    """``synchronous`` is FULL: an approval that was reported survives a power cut."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")

    def settings(tx: Connection) -> dict[str, object]:
        names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        return {name: tx.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names}

    found = [await ledger.database.read(settings), await ledger.database.write(settings)]
    await ledger.close()
    assert found == [{"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}] * 2


async def test_a_reader_sees_no_uncommitted_change_and_does_not_wait(ledger: Ledger, replica: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft())
    async with open_transaction(ledger, "UPDATE requests SET state = 'approved'", rolls_back=True):
        for on in (ledger, replica):
            assert (await asyncio.wait_for(on.requests.get(request.id), PATIENCE)).state is State.PENDING
    assert await ledger.requests.get(request.id) == request


# The run lock.

HOLDS_RUN_LOCK = "ledger = module.Ledger(sys.argv[1])\nprint(ledger.acquire_run_lock(), flush=True)\nsys.stdin.read()"


async def test_one_process_has_the_run_lock_of_a_sqlite_file(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    ledger = await open_ledger(url)
    async with program(HOLDS_RUN_LOCK, url) as other:
        assert await line(other) == "True"
        assert not ledger.acquire_run_lock()
        other.kill()
        await other.wait()
    assert ledger.acquire_run_lock()
    async with program(HOLDS_RUN_LOCK, url) as other:
        assert await line(other) == "False"
        ledger.release_run_lock()
    await ledger.close()


async def test_the_run_lock_is_the_same_through_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tmp_path)
    one = await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    assert one.acquire_run_lock()
    async with program(HOLDS_RUN_LOCK, f"sqlite+aiosqlite:///{tmp_path}/other/ledger.db") as other:
        assert await line(other) == "False"
    one.release_run_lock()
    await one.close()


async def test_the_run_lock_leaves_the_locks_of_sqlite_alone(tmp_path: Path) -> None:
    """Another process reads and writes the ledger while the bot runs."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    assert ledger.acquire_run_lock()
    for _ in range(2):
        with closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0)) as other:
            other.execute("INSERT INTO meta (name, value) VALUES (hex(randomblob(8)), '')")
            other.commit()
    await ledger.requests.submit(draft())
    ledger.release_run_lock()
    await ledger.close()


@pytest.mark.parametrize("how", ["moved away", "removed", "replaced"])
async def test_a_bot_notices_that_its_ledger_file_was_replaced(tmp_path: Path, how: str) -> None:
    path = tmp_path / "ledger.db"
    ledger = await open_ledger(f"sqlite+aiosqlite:///{path}")
    assert ledger.acquire_run_lock()
    request, _ = await ledger.requests.submit(draft())
    await ledger.check_writable()
    assert not ledger.is_replaced
    path.rename(tmp_path / "kept.db")
    if how == "removed":
        (tmp_path / "kept.db").unlink()
    if how == "replaced":
        path.write_bytes(b"")
    assert ledger.is_replaced
    with pytest.raises(LedgerReplaced, match="removed or replaced"):
        await ledger.check_writable()
    assert path.exists() == (how == "replaced"), "no new file was made"
    end = command_for(Transition.CANCEL, request)
    assert (await ledger.requests.advance(request.id, end)).state is State.CANCELLED, "open connections go on"
    if how == "moved away":
        (tmp_path / "kept.db").rename(path)
        await ledger.check_writable()
    await ledger.close()


async def test_postgresql_has_no_run_lock(ledger: Ledger, replica: Ledger) -> None:
    if not ledger.is_sqlite:
        assert ledger.acquire_run_lock()
        assert replica.acquire_run_lock()
        ledger.release_run_lock()


# Waiting for commits.

COMMITS = """
async def main():
    ledger = await open_ledger(sys.argv[1])
    request, _ = await ledger.requests.submit(draft())
    print("ready", flush=True)
    for command in sys.stdin:
        if command == "claim\\n":
            await ledger.tasks.claim("other", LEASE * 0)
        else:
            await ledger.requests.advance(request.id, Repair(actor="bot"))
        print("committed", flush=True)
    await ledger.close()
asyncio.run(main())
"""


async def test_a_commit_of_another_process_is_known_within_a_second(ledger: Ledger, ledger_url: str) -> None:
    async with program(COMMITS, ledger_url) as other:
        assert await line(other) == "ready"
        took = [await _seconds_to_know(ledger, other) for _ in range(3)]
        while min(took) >= 1:  # a busy machine slows one try down; a real fault slows all of them
            assert len(took) < 10, took
            took.append(await _seconds_to_know(ledger, other))


async def _seconds_to_know(ledger: Ledger, other: Process) -> float:
    """The time in seconds from a commit of the other process until the waiting reader knows of it."""
    assert other.stdin is not None
    await quiet(ledger)
    waiting = asyncio.create_task(ledger.wait_for_commit(PATIENCE))
    other.stdin.write(b"advance\n")
    assert await line(other) == "committed"
    committed = time.monotonic()
    assert await waiting
    return time.monotonic() - committed


async def test_a_commit_before_the_wait_is_not_missed(ledger: Ledger, ledger_url: str) -> None:
    async with program(COMMITS, ledger_url) as other:
        assert await line(other) == "ready"
        await quiet(ledger)
        assert other.stdin is not None
        other.stdin.write(b"advance\n")
        assert await line(other) == "committed"
        assert await ledger.wait_for_commit(PATIENCE)


async def test_a_commit_of_the_same_process_wakes_its_reader_once(ledger: Ledger) -> None:
    await quiet(ledger)
    waiting = asyncio.create_task(ledger.wait_for_commit(PATIENCE))
    await asyncio.sleep(0)
    await ledger.audit.record(AuditKind.ALERT, actor="bot")
    assert await asyncio.wait_for(waiting, PATIENCE)
    await quiet(ledger)


async def test_every_reader_is_woken(ledger: Ledger) -> None:
    for reader in ("one", "two"):
        await quiet(ledger, reader)
    await ledger.audit.record(AuditKind.ALERT, actor="bot")
    assert await ledger.wait_for_commit(PATIENCE, reader="one")
    assert await ledger.wait_for_commit(PATIENCE, reader="two")


async def test_a_claim_that_finds_nothing_wakes_nobody(ledger: Ledger, replica: Ledger) -> None:
    """A runner with nothing to do would otherwise wake itself and all replicas for ever."""
    for one in (ledger, replica):
        await quiet(one)
    for _ in range(3):
        assert await ledger.tasks.claim("worker", timedelta(seconds=90)) is None
    assert not await ledger.wait_for_commit(QUIET_SECONDS)
    assert not await replica.wait_for_commit(QUIET_SECONDS)


async def test_a_listener_whose_connection_was_ended_listens_again(ledger: Ledger, replica: Ledger) -> None:
    if ledger.is_sqlite:
        return
    await quiet(ledger)
    cut = await replica.database.read(
        lambda tx: tx.exec_driver_sql(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
        ).scalar_one()
    )
    assert cut == 1
    await replica.audit.record(AuditKind.ALERT, actor="bot")
    assert await ledger.wait_for_commit(PATIENCE)


# Crashes.

DIES = """
async def main():
    ledger = await open_ledger(sys.argv[1], TurnableClock())
    original = getattr(interpreter, sys.argv[2])
    def last(*arguments, **named):
        original(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(interpreter, sys.argv[2], last)
    request = await ledger.requests.get(int(sys.argv[3]))
    await approve(ledger, request)
asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["apply", "append_event", "follow_up"])
async def test_a_kill_after_a_step_of_a_transition_rolls_it_back(ledger: Ledger, ledger_url: str, step: str) -> None:
    request, _ = await ledger.requests.submit(draft())
    tasks = await ledger.tasks.all()
    async with program(DIES, ledger_url, step, str(request.id)) as other:
        assert await asyncio.wait_for(other.wait(), PATIENCE) == -signal.SIGKILL
    assert await ledger.requests.get(request.id) == request
    assert await ledger.requests.decisions(request.id) == ()
    assert len(await ledger.audit.history(request.id)) == 1
    assert await ledger.tasks.all() == tasks
    after = await asyncio.wait_for(approve(ledger, request), PATIENCE)
    assert after.state is State.APPROVED


APPROVES = """
async def main():
    ledger = await open_ledger(sys.argv[1])
    print("ready", flush=True)
    for number in range(10_000):
        request, _ = await ledger.requests.submit(draft(person=f"U{sys.argv[2]}-{number}"))
        await approve(ledger, request)
        print(request.id, flush=True)
asyncio.run(main())
"""


async def test_kills_at_random_times_leave_only_complete_transitions(ledger: Ledger, ledger_url: str) -> None:
    """Every approval that was reported is stored, with its decision, its event and its revocation task."""
    reported: set[int] = set()
    dice = random.Random(7)
    for round_ in range(6):
        async with program(APPROVES, ledger_url, str(round_)) as other:
            assert await line(other) == "ready"
            for _ in range(dice.randrange(4)):
                reported.add(int(await line(other)))
            await asyncio.sleep(dice.uniform(0, 0.05))
            os.kill(other.pid, signal.SIGKILL)
            out, _ = await other.communicate()
            reported |= {int(word) for word in out.split()}
    found = await ledger.requests.find()
    assert reported
    assert reported <= {r.id for r in found if r.state is State.APPROVED}
    for request in found:
        kinds = {t.kind for t in await ledger.tasks.all(request_id=request.id)}
        is_approved = request.state is State.APPROVED
        assert (TaskKind.REVOKE in kinds) is is_approved
        assert (TaskKind.TIME_OUT in kinds) is not is_approved
        assert len(await ledger.requests.decisions(request.id)) == int(is_approved)
        assert len(await ledger.audit.history(request.id)) == 1 + int(is_approved)


# Errors.


async def test_the_error_of_an_unreachable_database_shows_no_secret() -> None:
    url = "postgresql+psycopg://keeper:Secret0Words@127.0.0.1:1/ledger"
    ledger = Ledger(url)
    with pytest.raises(LedgerUnavailable) as raised:
        await ledger.open(create=False)
    await ledger.close()
    shown = f"{raised.value} {raised.value!r} {raised.value.__cause__}"
    assert raised.value.__suppress_context__
    assert not [word for word in ("Secret0Words", "keeper", "127.0.0.1") if word in shown]


async def test_the_error_of_a_wrong_password_does_not_show_it(ledger: Ledger, ledger_url: str) -> None:
    if ledger.is_sqlite:
        return
    wrong = make_url(ledger_url).set(password="Mistyped0Secret").render_as_string(hide_password=False)
    other = Ledger(wrong)
    with pytest.raises(LedgerError) as refused:
        await other.open(create=True)
    await other.close()
    assert "Mistyped0Secret" not in f"{refused.value!r}"


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to be looked at" * 50)
    for create in (False, True):
        ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
        with pytest.raises(LedgerUnavailable):
            await ledger.open(create=create)
        await ledger.close()


async def test_a_folder_that_cannot_be_created_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path / 'file' / 'ledger.db'}")
    with pytest.raises(LedgerUnavailable):
        await ledger.open(create=True)
    await ledger.close()


async def test_a_locked_file_is_unavailable_and_the_transition_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: TurnableClock
) -> None:
    monkeypatch.setattr("storage.database.BUSY_SECONDS", 0.2)
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}", clock)
    request = await bring(ledger, clock, State.PENDING)
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable):
        await approve(ledger, request)
    holder.execute("ROLLBACK")
    holder.close()
    assert (await approve(ledger, request)).state is State.APPROVED
    await ledger.close()


async def test_the_ledger_works_again_after_its_connections_were_ended(ledger: Ledger, replica: Ledger) -> None:
    """The pool checks a connection before it is used."""
    if ledger.is_sqlite:
        return
    request, _ = await ledger.requests.submit(draft())
    await replica.database.read(
        lambda tx: tx.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
    after = await ledger.requests.advance(request.id, command_for(Transition.CANCEL, request))
    assert after.ended_because is Cause.CANCELLED


def test_the_migrations_are_part_of_the_package() -> None:
    """They are found next to the code, from any working directory."""
    code = "from storage.revisions import scripts; print(scripts().get_current_head())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "0005"
