"""Copies of the ledger and restores from them, on SQLite and PostgreSQL, and from one to the other."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from storage.alerts import AlertDraft
from storage.backup import HEADER, Backup, BackupError, read_backup, write_backup
from storage.errors import InRecovery
from storage.ledger import Ledger
from storage.records import State
from storage.recovery import CAUSE, RecoveryReason
from storage.restore import NUMBERS_AHEAD, Notice, Restored, check_may_replace, content_to_replace, is_served, restore
from storage.schema import bots, metadata, tasks
from tests.unit.ledgers import LEASE, START, TurnableClock, approve, bring, draft, open_ledger

NOTICE = Notice(evidence=("it was restored",), alert=AlertDraft(cause=CAUSE, what="It was restored."))


async def backed_up(ledger: Ledger, folder: Path, name: str = "copy") -> Backup:
    return await write_backup(ledger.database, folder / name)


async def restored(ledger: Ledger, backup: Backup, folder: Path, *, found: int = 0) -> Restored:
    content = await content_to_replace(ledger.database)
    return await restore(ledger.database, backup, content, found=found, notice=NOTICE, keep_as=folder / "kept")


async def rows(ledger: Ledger) -> dict[str, list[tuple[object, ...]]]:
    names = [table for table in metadata.sorted_tables if table.name != "meta"]
    return await ledger.database.read(
        lambda tx: {
            table.name: [tuple(row) for row in tx.execute(select(table).order_by(*table.primary_key.columns))]
            for table in names
        }
    )


@pytest.fixture
async def full(ledger: Ledger, clock: TurnableClock) -> Ledger:
    """A ledger with rows in every state and an extension, whose parent has a lower number."""
    for state in (State.PENDING, State.ACTIVE, State.REVOKED, State.APPLIED):
        await bring(ledger, clock, state)
    return ledger


@pytest.fixture(params=["sqlite", "postgresql"])
async def other(request: pytest.FixtureRequest, tmp_path: Path, clock: TurnableClock) -> AsyncIterator[Ledger]:
    """Another ledger, of either kind, with an id of its own and without requests."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'other.db'}"
    else:
        server, database = request.getfixturevalue("ledger_server")
        schema = f"other_{tmp_path.name}".lower().replace("-", "_")[:60]
        with server.admin(database) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            connection.execute(f"CREATE SCHEMA {schema}")
        url = server.superuser_url(database).replace("postgresql://", "postgresql+psycopg://")
        url = f"{url}?options=-csearch_path%3D{schema}"
    opened = await open_ledger(url, clock)
    yield opened
    await opened.close()


async def test_copy_has_a_header_and_belongs_to_its_owner_alone(full: Ledger, tmp_path: Path) -> None:
    backup = await backed_up(full, tmp_path)
    assert stat.S_IMODE(backup.path.stat().st_mode) == 0o600
    assert (backup.ledger, backup.made_at, backup.requests) == (full.id, START, 5)
    assert backup.last_number == 5
    assert backup.last_event > 10
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], "nothing is left beside it"


async def test_copy_never_replaces_a_file(full: Ledger, tmp_path: Path) -> None:
    (tmp_path / "copy").write_text("precious")
    with pytest.raises(BackupError, match="copy exists, and a copy never replaces a file"):
        await backed_up(full, tmp_path)
    assert (tmp_path / "copy").read_text() == "precious"
    with pytest.raises(BackupError, match="cannot be written: No such file"):
        await backed_up(full, tmp_path / "missing")


async def test_content_goes_from_either_store_to_either(full: Ledger, other: Ledger, tmp_path: Path) -> None:
    before = await rows(full)
    result = await restored(other, await backed_up(full, tmp_path), tmp_path)
    after = await rows(other)
    await other.open(create=False)
    assert other.id == full.id
    assert result == Restored(kept=None, number=5 + NUMBERS_AHEAD)
    same = {"requests", "decisions", "messages", "observed_groups", "pinned_handles"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert len(after["audit_events"]) > len(before["audit_events"]) > 0
    await other.recovery.resume("cli:ops", found=0, resolution="It is over.")
    assert (await other.requests.submit(draft(level="new")))[0].id == 5 + NUMBERS_AHEAD + 1


async def test_restored_ledger_is_in_recovery_mode_and_frees_its_leases(full: Ledger, tmp_path: Path) -> None:
    claim = await full.tasks.claim("worker", LEASE)
    assert claim is not None
    backup = await backed_up(full, tmp_path)
    later = await approve(full, (await full.requests.submit(draft(level="later")))[0])
    result = await restored(full, backup, tmp_path, found=7000)
    current = await full.recovery.current()
    assert current is not None
    assert (current.reason, current.evidence) == (RecoveryReason.RESTORED, NOTICE.evidence)
    with pytest.raises(InRecovery):
        await full.requests.submit(draft(level="new"))
    assert (
        await full.database.read(lambda tx: tx.execute(select(tasks.c.id).where(tasks.c.claim.is_not(None))).all())
        == []
    )
    assert result.number == 7000, "above every user on the servers"
    assert result.kept is not None
    kept = read_backup(result.kept)
    assert kept.last_number == later.id, "what was replaced is kept"


async def test_numbers_go_on_above_those_of_the_replaced_ledger(full: Ledger, tmp_path: Path) -> None:
    backup = await backed_up(full, tmp_path)
    later = (await full.requests.submit(draft(level="later")))[0]
    assert (await restored(full, backup, tmp_path)).number == later.id + 1000


async def test_second_restore_of_one_copy_repeats_no_number(
    full: Ledger, other: Ledger, clock: TurnableClock, tmp_path: Path
) -> None:
    """The ledger of the first restore is lost, and nothing on the servers shows the numbers that it gave."""
    copy = await backed_up(full, tmp_path)
    await restored(full, copy, tmp_path)
    await full.recovery.resume("root", found=0, resolution="done")
    given = [(await full.requests.submit(draft(database=f"db-{number}")))[0].id for number in range(20)]
    clock.time += timedelta(minutes=10)
    again = await restored(other, copy, tmp_path)
    assert again.number > max(given)


async def test_newer_or_other_ledger_is_not_replaced_unasked(full: Ledger, other: Ledger, tmp_path: Path) -> None:
    backup = await backed_up(full, tmp_path)
    check_may_replace(None, backup)
    check_may_replace(await content_to_replace(other.database), backup)
    check_may_replace(await content_to_replace(full.database), backup)
    await full.requests.submit(draft(level="later"))
    with pytest.raises(BackupError, match=r"newer than the copy, by 1 audit event\."):
        check_may_replace(await content_to_replace(full.database), backup)
    await other.requests.submit(draft())
    with pytest.raises(
        BackupError, match=f"the ledger is {other.id} and has 1 request; the copy is of ledger {full.id}"
    ):
        check_may_replace(await content_to_replace(other.database), backup)


async def test_bot_that_was_seen_lately_serves_the_ledger(ledger: Ledger, clock: TurnableClock) -> None:
    row = {"worker": "w", "version": "1", "started_at": START, "seen_at": START}
    await ledger.database.write(lambda tx: tx.execute(insert(bots).values(**row)) and None)
    assert await is_served(ledger.database)
    clock.turn(timedelta(minutes=3))
    assert not await is_served(ledger.database)


def damaged(backup: Backup, way: str) -> Path:
    path = backup.path.with_name("damaged")
    shutil.copyfile(backup.path, path)
    match way:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("no database at all")
        case "cut off":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "no header":
            change(path, f"DROP TABLE {HEADER}")
        case "newer":
            change(path, f"UPDATE {HEADER} SET value = '9999' WHERE name = 'revision'")
    return path


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("missing", "cannot be read: No such file"),
        ("text", "is no copy of a ledger"),
        ("cut off", "is damaged or was cut off"),
        ("no header", "is no copy of a ledger"),
        ("newer", "was made by a newer dbaccess"),
    ],
)
async def test_copy_that_is_none_is_refused(full: Ledger, tmp_path: Path, way: str, says: str) -> None:
    path = damaged(await backed_up(full, tmp_path), way)
    with pytest.raises(BackupError, match=says):
        read_backup(path)


async def test_unreadable_ledger_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("this is not a database, but it may be all there is" * 50)
    ledger = Ledger(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(BackupError, match=r"cannot be read .*; move it away, then restore"):
        await content_to_replace(ledger.database)
    await ledger.close()
