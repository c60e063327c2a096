"""Copies of the ledger: one SQLite file with all tables, from SQLite and PostgreSQL alike, and with a header.

A copy shows one consistent state, is made while bots run, and is readable by its owner alone. It never replaces a file.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, NullPool, create_engine, func, insert, select, text

from storage.database import Database
from storage.errors import LedgerError
from storage.numbers import last_number, raise_numbers
from storage.revisions import current_revision, known_revisions
from storage.schema import audit_events, meta, metadata, requests

HEADER = "backup_header"
CHUNK = 500
"""Rows that are copied at a time."""
MAGIC = b"SQLite format 3\0"


class BackupError(LedgerError):
    """A copy cannot be made, read or restored. Nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a copy holds. ``last_event`` and ``last_number`` are the newest audit event and the highest number that was given."""

    path: Path
    ledger: str
    revision: str
    made_at: datetime
    last_event: int
    last_number: int
    requests: int


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a ledger holds, to compare it with a copy."""

    ledger: str
    last_event: int
    last_number: int
    requests: int

    @property
    def is_empty(self) -> bool:
        return self.requests == 0 and self.last_number == 0


def content_of(tx: Connection) -> Content:
    """What the ledger holds now."""
    return Content(
        ledger=str(tx.execute(select(meta.c.value).where(meta.c.name == "ledger")).scalar_one_or_none() or ""),
        last_event=int(tx.execute(select(func.coalesce(func.max(audit_events.c.id), 0))).scalar_one()),
        last_number=last_number(tx),
        requests=int(tx.execute(select(func.count()).select_from(requests)).scalar_one()),
    )


# Make a copy.


async def write_backup(database: Database, path: Path) -> Backup:
    """Copy the ledger to a new file. Raises BackupError where the file exists or cannot be written, LedgerUnavailable."""
    temporary = _temporary_file(path)
    try:
        await database.read(lambda tx: _copy(database, tx, temporary), is_snapshot=True)
        _finish(temporary, path)
        return read_backup(path)
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{path} cannot be written: {error}") from None
    finally:
        for suffix in ("", "-journal", "-wal", "-shm"):
            temporary.with_name(f"{temporary.name}{suffix}").unlink(missing_ok=True)


def _temporary_file(path: Path) -> Path:
    """An empty file beside ``path``, with mode 0600. Raises BackupError where ``path`` exists or its folder cannot be written."""
    if path.exists():
        raise _exists(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
    except OSError as error:
        raise BackupError(f"{path} cannot be written: {error.strerror}") from None
    return Path(name)


def _exists(path: Path) -> BackupError:
    return BackupError(f"{path} exists, and a copy never replaces a file; name another one")


def _copy(database: Database, tx: Connection, temporary: Path) -> None:
    header = {"made_at": database.now_in(tx).isoformat(), "revision": current_revision(tx) or ""}
    if database.is_sqlite:
        with closing(_open(database.path, "ro")) as source, closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
    with _writer(temporary) as copy:
        if not database.is_sqlite:
            metadata.create_all(copy)
            copy.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
            copy.execute(text("INSERT INTO alembic_version VALUES (:revision)"), header)
            copy_rows(tx, copy)
            raise_numbers(copy, last_number(tx))
        copy.execute(text(f"CREATE TABLE {HEADER} (name VARCHAR(32) NOT NULL PRIMARY KEY, value TEXT NOT NULL)"))
        copy.execute(
            text(f"INSERT INTO {HEADER} VALUES (:name, :value)"),
            [{"name": name, "value": value} for name, value in header.items()],
        )


def copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows of all tables. Those of ``target`` must be empty."""
    for table in metadata.sorted_tables:
        rows = source.execution_options(yield_per=CHUNK).execute(select(table).order_by(*table.primary_key.columns))
        for chunk in rows.mappings().partitions():
            target.execute(insert(table), [dict(row) for row in chunk])


@contextmanager
def _writer(path: Path) -> Iterator[Connection]:
    engine = create_engine(f"sqlite+pysqlite:///{_escaped(path)}", poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _finish(temporary: Path, path: Path) -> None:
    """Make the copy durable, and give it its name. A file that came there meanwhile is not replaced."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise _exists(path) from None
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


# Read a copy.


def read_backup(path: Path) -> Backup:
    """Check the whole copy and read what it holds. Raises BackupError where it is none, damaged, or of a newer version."""
    _check_is_whole(path)
    try:
        with closing(_open(path, "ro")) as raw:
            header = dict(raw.execute(f"SELECT name, value FROM {HEADER}"))
        revision = header["revision"]
        if revision not in known_revisions():
            raise BackupError(f"{path} was made by a newer dbaccess; install that version")
        with reading(path) as copy:
            found = content_of(copy)
        made_at = datetime.fromisoformat(header["made_at"])
    except (sqlite3.Error, KeyError, ValueError):
        raise BackupError(f"{path} is no copy of a ledger; dbaccess store backup makes one") from None
    return Backup(path=path, revision=revision, made_at=made_at, **vars(found))


def _check_is_whole(path: Path) -> None:
    """Raises BackupError where the file cannot be read, is no database, or is cut off or damaged."""
    try:
        with path.open("rb") as file:
            is_database = file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from None
    if not is_database:
        raise BackupError(f"{path} is no copy of a ledger; dbaccess store backup makes one")
    try:
        with closing(_open(path, "ro")) as raw:
            (answer,) = raw.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        answer = str(error)
    if answer != "ok":
        raise BackupError(f"{path} is damaged or was cut off ({answer}); take another copy")


@contextmanager
def reading(path: Path) -> Iterator[Connection]:
    """A connection that reads a copy."""
    engine = create_engine("sqlite+pysqlite://", creator=lambda: _open(path, "ro"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def private_copy(backup: Backup) -> Iterator[Path]:
    """A copy of the copy, which may be upgraded. It is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-restore-") as folder:
        path = Path(folder) / "ledger.db"
        shutil.copyfile(backup.path, path)
        path.chmod(0o600)
        yield path


def _open(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, check_same_thread=False)


def _escaped(path: Path) -> str:
    return str(path.resolve()).replace("%", "%25").replace("?", "%3F")
