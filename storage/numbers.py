"""The numbers of requests: the highest one that the ledger knows of, and how a restored ledger continues above all others."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select, text, update

from storage.schema import meta, requests

ACCEPTED = "accepted_number"
"""The row of ``meta`` with the highest number at the last return from recovery mode."""
SEEN = "seen_number"
"""The row of ``meta`` with the highest number of a user or card that showed that the ledger is not the newest."""

SQLITE_SEQUENCE = text("SELECT seq FROM sqlite_sequence WHERE name = 'requests'")
POSTGRESQL_SEQUENCE = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {}"


def last_number(tx: Connection) -> int:
    """The highest number that was ever given to a request; 0 before the first. Its row may have been removed since.

    PostgreSQL reserves 32 numbers at a time on the disk. After a crash or a failover the result may be higher by so many.
    """
    if tx.dialect.name == "sqlite":
        return int(tx.execute(SQLITE_SEQUENCE).scalar_one_or_none() or 0)
    return int(tx.exec_driver_sql(POSTGRESQL_SEQUENCE.format(_sequence(tx))).scalar_one())


def known_number(tx: Connection, *, is_accepted_only: bool = False) -> int:
    """The highest number that this ledger can explain. A user or a card with a higher one comes from a newer state of it.

    On PostgreSQL this is the newest request, because the sequence may be ahead of it. ``is_accepted_only``: the number at the last return
    from recovery mode.
    """
    accepted = _stored(tx, ACCEPTED)
    if is_accepted_only:
        return accepted
    if tx.dialect.name == "sqlite":
        return max(accepted, last_number(tx))
    newest = tx.execute(select(func.max(requests.c.id))).scalar_one_or_none()
    return max(accepted, last_number(tx) if newest is None else newest)


def accept_numbers(tx: Connection) -> None:
    """From now on all numbers up to the last one are explained."""
    _store(tx, ACCEPTED, last_number(tx))


def note_number(tx: Connection, number: int) -> None:
    """Remember the number of a user or a card that the ledger does not know. The user may be ended before the return to normal."""
    if number > seen_number(tx):
        _store(tx, SEEN, number)


def seen_number(tx: Connection) -> int:
    """The highest number that ``note_number`` was given; 0 without one."""
    return _stored(tx, SEEN)


def raise_numbers(tx: Connection, number: int) -> None:
    """The next request gets a number above ``number``. Never lowers the numbers."""
    if number <= last_number(tx):
        return
    if tx.dialect.name != "sqlite":
        tx.exec_driver_sql("SELECT setval(%s, %s)", (_sequence(tx), number))
    elif tx.exec_driver_sql("UPDATE sqlite_sequence SET seq = ? WHERE name = 'requests'", (number,)).rowcount == 0:
        tx.exec_driver_sql("INSERT INTO sqlite_sequence (name, seq) VALUES ('requests', ?)", (number,))


def _stored(tx: Connection, name: str) -> int:
    return int(tx.execute(select(meta.c.value).where(meta.c.name == name)).scalar_one_or_none() or 0)


def _store(tx: Connection, name: str, number: int) -> None:
    if tx.execute(update(meta).where(meta.c.name == name).values(value=str(number))).rowcount == 0:
        tx.execute(insert(meta).values(name=name, value=str(number)))


def _sequence(tx: Connection) -> str:
    return str(tx.exec_driver_sql("SELECT pg_get_serial_sequence('requests', 'id')").scalar_one())
