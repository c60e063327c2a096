"""Restore the ledger from a copy: its content replaces that of the ledger in one transaction, and the ledger is in recovery mode afterwards.

What was replaced is copied to a file first, so that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, inspect, select, update

from storage.alerts import AlertDraft, AlertRepository
from storage.backup import Backup, BackupError, Content, content_of, copy_rows, private_copy, reading, write_backup
from storage.claims import FREE
from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.numbers import raise_numbers
from storage.recovery import RecoveryReason, RecoveryRepository
from storage.schema import bots, metadata, tasks

NUMBERS_AHEAD = 1000
"""A restored ledger continues this much higher: it does not know how many numbers were given after the copy."""
SEEN_WITHIN = timedelta(minutes=2)
"""A bot that was seen within this time may still run."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What recovery mode says about the restore."""

    evidence: tuple[str, ...]
    alert: AlertDraft


@dataclass(frozen=True, kw_only=True)
class Restored:
    """The result. ``kept`` is the file with what was replaced; None where there was nothing. The next number is above ``number``."""

    kept: Path | None
    number: int


async def content_to_replace(database: Database) -> Content | None:
    """What a restore would replace. None for a database without a ledger. Raises SchemaMismatch for a newer ledger."""
    if database.is_sqlite and not database.path.exists():
        return None
    try:
        if not await database.read(lambda tx: inspect(tx).has_table("alembic_version")):
            return None
    except LedgerUnavailable as error:
        if not database.is_sqlite:
            raise
        raise BackupError(f"the ledger {database.path} cannot be read ({error}); move it away, then restore") from None
    await database.migrate(lambda _tx: None)  # an older ledger is upgraded, so that it can be compared and copied
    return await database.read(content_of)


def check_may_replace(content: Content | None, backup: Backup) -> None:
    """Raises BackupError where the restore would replace another ledger, or newer content."""
    if content is None or content.is_empty:
        return
    if content.ledger != backup.ledger:
        raise BackupError(
            f"the ledger is {content.ledger} and has {_count(content.requests, 'request')}; the copy is of ledger {backup.ledger}. With --replace it is replaced"
        )
    if content.last_event > backup.last_event:
        newer = content.last_event - backup.last_event
        raise BackupError(
            f"the ledger is newer than the copy, by {_count(newer, 'audit event')}. With --replace it is replaced"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


async def is_served(database: Database) -> bool:
    """Whether a bot was seen on this ledger within ``SEEN_WITHIN``. For PostgreSQL; on SQLite the run lock says it."""

    def read(tx: Connection) -> bool:
        since = database.now_in(tx) - SEEN_WITHIN
        return tx.execute(select(bots.c.worker).where(bots.c.seen_at > since).limit(1)).first() is not None

    return await database.read(read)


async def restore(
    database: Database, backup: Backup, content: Content | None, *, found: int, notice: Notice, keep_as: Path
) -> Restored:
    """Replace the content of the ledger by that of the copy.

    ``found`` is the highest number of a user of this ledger on the servers. ``keep_as`` is the file for what is replaced. Raises BackupError,
    LedgerUnavailable.
    """
    kept = None
    if content is not None and not content.is_empty:
        kept = (await write_backup(database, keep_as)).path
    is_same = content is not None and content.ledger == backup.ledger
    given = max(backup.last_number, content.last_number if content and is_same else 0)
    number = max(given + NUMBERS_AHEAD, found)
    with private_copy(backup) as path:
        await _upgrade(path)
        await database.migrate(lambda tx: _replace(database, tx, path, number, notice))
    return Restored(kept=kept, number=number)


async def _upgrade(path: Path) -> None:
    copy = Database(f"sqlite+aiosqlite:///{path}")
    try:
        await copy.migrate(lambda _tx: None)
    finally:
        await copy.close()


def _replace(database: Database, tx: Connection, path: Path, number: int, notice: Notice) -> None:
    for table in reversed(metadata.sorted_tables):
        tx.execute(delete(table))
    with reading(path) as copy:
        copy_rows(copy, tx)
    _continue_ids(tx)
    tx.execute(delete(bots))
    tx.execute(update(tasks).values(**FREE))
    raise_numbers(tx, number)
    recovery = RecoveryRepository(database, AlertRepository(database))
    recovery.enter_in(tx, RecoveryReason.RESTORED, notice.evidence, notice.alert)


def _continue_ids(tx: Connection) -> None:
    """PostgreSQL: the other ids go on above those of the rows. SQLite does that by itself."""
    if tx.dialect.name == "sqlite":
        return
    for table in metadata.sorted_tables:
        if table.autoincrement_column is not None:
            name = table.name
            tx.exec_driver_sql(
                f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), greatest((SELECT max(id) FROM {name}), (SELECT last_value FROM {name}_id_seq)))"
            )
