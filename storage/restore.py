"""Restore the ledger from a copy: its content replaces that of the ledger in one transaction, and the ledger is in recovery mode afterwards.

What was replaced is copied to a file first, so that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Connection, delete, func, inspect, select, update

from storage.alerts import AlertDraft, AlertRepository
from storage.backup import Backup, BackupError, Content, content_of, copy_rows, private_copy, reading, write_backup
from storage.claims import FREE
from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.numbers import raise_numbers
from storage.recovery import RecoveryReason, RecoveryRepository
from storage.schema import audit_events, bots, metadata, tasks

NUMBERS_AHEAD, NUMBERS_A_MINUTE = 1000, 5
"""A restored ledger continues this much higher: it does not know how many numbers were given after the copy.

And for each minute since the newest event of the copy: where the ledger of an earlier restore is lost too, the same copy continues higher again.
"""
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
    number = 0

    def replace(tx: Connection) -> None:
        nonlocal number
        _replace(tx, path)
        number = max(given + NUMBERS_AHEAD + NUMBERS_A_MINUTE * _minutes_since_newest_event(database, tx), found)
        raise_numbers(tx, number)
        recovery = RecoveryRepository(database, AlertRepository(database))
        recovery.enter_in(tx, RecoveryReason.RESTORED, notice.evidence, notice.alert)

    with private_copy(backup) as path:
        await _upgrade(path)
        await database.migrate(replace)
    return Restored(kept=kept, number=number)


async def _upgrade(path: Path) -> None:
    copy = Database(f"sqlite+aiosqlite:///{path}")
    try:
        await copy.migrate(lambda _tx: None)
    finally:
        await copy.close()


def _minutes_since_newest_event(database: Database, tx: Connection) -> int:
    newest = tx.execute(select(func.max(audit_events.c.at))).scalar_one_or_none()
    return 0 if newest is None else max(0, int((database.now_in(tx) - newest) / timedelta(minutes=1)))


def _replace(tx: Connection, path: Path) -> None:
    for table in reversed(metadata.sorted_tables):
        tx.execute(delete(table))
    with reading(path) as copy:
        copy_rows(copy, tx)
    _continue_ids(tx)
    tx.execute(delete(bots))
    tx.execute(update(tasks).values(**FREE))


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
