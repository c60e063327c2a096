"""The files of a SQLite ledger are private to their owner, and any file name that a URL can express works."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg import sql

import storage
from storage.audit_kinds import AuditKind
from storage.errors import LedgerUnavailable
from storage.files import make_private
from storage.ledger import Ledger
from tests.servers.postgresql import PostgresServer
from tests.unit.ledgers import open_ledger

PRIVATE = 0o600


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def use(ledger: Ledger) -> None:
    """Open the ledger as the bot does, with a write and the run lock, so that all its files exist."""
    await ledger.open(create=True)
    assert ledger.acquire_run_lock()
    await ledger.audit.record(AuditKind.ALERT, actor="bot")


async def close(ledger: Ledger) -> None:
    ledger.release_run_lock()
    await ledger.close()


async def test_files_are_private_under_any_umask(tmp_path: Path, umask: int) -> None:
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await use(ledger)
    found = modes(tmp_path)
    await close(ledger)
    assert found == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"), PRIVATE)


async def test_existing_files_that_others_can_read_become_private(tmp_path: Path) -> None:
    """An earlier version created them, and a killed bot left the write-ahead log."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    name = ledger.id
    await ledger.close()
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("UPDATE meta SET value = value")
    other.commit()
    (tmp_path / "ledger.db.lock").touch()
    for path in tmp_path.iterdir():
        path.chmod(0o664)
    assert len(modes(tmp_path)) == 4
    await use(ledger := Ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db"))
    found = modes(tmp_path)
    await close(ledger)
    other.close()
    assert set(found.values()) == {PRIVATE}
    assert ledger.id == name


async def test_rights_that_the_owner_removed_are_not_restored(tmp_path: Path) -> None:
    await (await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")).close()
    (tmp_path / "ledger.db").chmod(0o444)
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    try:
        await ledger.open(create=True)  # the superuser can write it anyway
    except LedgerUnavailable:
        assert os.geteuid() != 0
    await ledger.close()
    assert modes(tmp_path)["ledger.db"] == 0o400


async def test_a_symbolic_link_stays_and_its_target_becomes_private(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "ledger.db").symlink_to(tmp_path / "there" / "real.db")
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    found = modes(tmp_path / "there")
    await ledger.close()
    assert (tmp_path / "ledger.db").is_symlink()
    assert set(found.values()) == {PRIVATE}


def test_a_pipe_keeps_its_mode(tmp_path: Path) -> None:
    """As root on /dev/null, a changed mode would break the device for every program."""
    pipe = tmp_path / "ledger.db"
    os.mkfifo(pipe)
    pipe.chmod(0o666)
    make_private(pipe)
    assert stat.S_IMODE(pipe.stat().st_mode) == 0o666


async def test_open_without_create_creates_no_file(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    with pytest.raises(storage.errors.SchemaMismatch):
        await ledger.open(create=False)
    await ledger.close()
    assert modes(tmp_path) == {}


# File names.


@pytest.mark.parametrize(
    "name",
    ["50%.db", "%2F.db", "%(here)s.db", "%s %d.db", "a b.db", "a#b.db", "a?b.db", "a&b=c;d.db", "it's.db", 'say "x".db', "ü.db", "+.db"],
)  # fmt: skip
async def test_any_file_name_works_if_it_is_percent_encoded(tmp_path: Path, name: str) -> None:
    """In a URL, a character with a meaning is written as ``%`` and two digits."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/{quote(name)}")
    assert ledger.acquire_run_lock()
    found = set(modes(tmp_path))
    await close(ledger)
    assert {name, f"{name}.lock"} <= found


@pytest.mark.parametrize("name", ["50%.db", "a b.db", "a#b.db", "%(here)s.db"])
async def test_file_names_without_percent_encoding_work(tmp_path: Path, name: str) -> None:
    await (await open_ledger(f"sqlite+aiosqlite:///{tmp_path}/{name}")).close()
    assert set(modes(tmp_path)) == {name}


@pytest.mark.parametrize("folder", ["a%2Fb", "100%", "%(here)s", "a b;c"])
def test_the_program_can_be_installed_in_any_folder(tmp_path: Path, folder: str) -> None:
    """The path of the migrations goes through Alembic's configuration, where ``%`` has a meaning."""
    shutil.copytree(Path(storage.__file__).parent, tmp_path / folder / "storage")
    code = "import asyncio, sys; from storage.ledger import Ledger; asyncio.run(Ledger(sys.argv[1]).open(create=True))"
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite+aiosqlite:///{tmp_path}/ledger.db"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / folder)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ledger.db").exists()


async def test_a_password_with_special_characters_works(postgresql15: PostgresServer) -> None:
    database, login, password = postgresql15.new_database("ledger"), "keeper@%", "p@ss/w%40:r?d#=&; '\"%s"
    with postgresql15.admin() as c:
        c.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(login), sql.Literal(password)))
        c.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(database), sql.Identifier(login)))
    place = postgresql15.superuser_url(database).partition("@")[2]
    url = f"postgresql+psycopg://{quote(login, safe='')}:{quote(password, safe='')}@{place}"
    ledger, other = await open_ledger(url), await open_ledger(url)
    while await ledger.wait_for_commit(1):
        pass
    await other.audit.record(AuditKind.ALERT, actor="bot")
    assert await ledger.wait_for_commit(20), "LISTEN uses the same password"
    await ledger.close()
    await other.close()
