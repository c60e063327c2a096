"""The only part that writes to a ledger: copies of a real grant, as live grants or as history. The bot must not run meanwhile.

A copy has every row that the bot wrote for the real grant: request, decisions, messages, tasks, audit events. So this module
knows of the schema only what differs between two grants.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, String, Table, cast, func, insert, literal, select, update

from storage.schema import audit_events, audit_texts, cursors, decisions, messages, requests, tasks

Row = dict[str, Any]
CLAIMED = ("claim", "worker", "lease_until", "held_key", "blocked_at", "set_aside")
"""The columns of a task that are empty while nobody works on it."""
BASE = 1_000
"""History is first copied to this many different requests, then those are multiplied inside the database."""
HISTORY = timedelta(days=400)
OLD = timedelta(days=2)
"""The newest request of the history is older than every limit that counts recent requests."""


@dataclass(frozen=True, kw_only=True)
class GrantCopy:
    """What is different in the copy. ``places`` has channel and timestamp of each message, by its purpose."""

    number: int
    key: str
    username: str
    requester_id: str
    expires_at: datetime
    places: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class RealGrant:
    """All rows of one request, read from the ledger."""

    request: Row
    rows: Mapping[str, Sequence[Row]]
    texts: Mapping[int, Row]

    @classmethod
    def read(cls, engine: Engine, number: int) -> RealGrant:
        with engine.connect() as connection:
            request = _all(connection, requests, requests.c.id == number)[0]
            tables = (decisions, messages, tasks, audit_events)
            rows = {table.name: _all(connection, table, table.c.request_id == number) for table in tables}
            ids = [row["id"] for row in rows[audit_events.name]]
            texts = {row["event_id"]: row for row in _all(connection, audit_texts, audit_texts.c.event_id.in_(ids))}
        return cls(request, rows, texts)


def _all(connection: Connection, table: Table, where: ColumnElement[bool]) -> list[Row]:
    return [dict(row) for row in connection.execute(select(table).where(where).order_by(*table.primary_key)).mappings()]


def next_number(engine: Engine) -> int:
    """The number that the next request gets."""
    with engine.connect() as connection:
        return _newest(connection, requests) + 1


def new_key() -> str:
    return secrets.token_hex(8)


def add_live_grants(engine: Engine, grant: RealGrant, copies: Sequence[GrantCopy]) -> None:
    """Store the copies. Their tasks are due as long before or after their end as those of the real grant."""
    with engine.begin() as connection:
        event_id = _newest(connection, audit_events) + 1
        collected: dict[str, list[Row]] = {}
        for copy in copies:
            shift = copy.expires_at - grant.request["expires_at"]
            for name, row in _rows_of_copy(grant, copy, shift, event_id):
                collected.setdefault(name, []).append(row)
            event_id += len(grant.rows[audit_events.name])
        _insert(connection, collected)
        _skip_feed(connection)
    _finish(engine)


def _rows_of_copy(grant: RealGrant, copy: GrantCopy, shift: timedelta, event_id: int) -> Iterator[tuple[str, Row]]:
    person = {"requester_id": copy.requester_id, "requester_name": copy.requester_id.lower()}
    changed = {"id": copy.number, "key": copy.key, "username": copy.username, "expires_at": copy.expires_at}
    yield requests.name, {**grant.request, **changed, **person}
    for row in grant.rows[decisions.name]:
        yield decisions.name, {**_without_id(row), "request_id": copy.number}
    for row in grant.rows[messages.name]:
        channel, ts = copy.places.get(row["purpose"], (row["channel"], row["ts"]))
        yield messages.name, {**_without_id(row), "request_id": copy.number, "channel": channel, "ts": ts}
    for row in grant.rows[tasks.name]:
        lock_key = re.sub(rf"\b{grant.request['id']}\b", str(copy.number), row["lock_key"])
        free = {**dict.fromkeys(CLAIMED), "attempts": 0}
        yield tasks.name, {
            **_without_id(row), **free, "request_id": copy.number, "lock_key": lock_key, "due_at": row["due_at"] + shift
        }  # fmt: skip
    for n, row in enumerate(grant.rows[audit_events.name]):
        yield audit_events.name, {**row, "id": event_id + n, "request_id": copy.number, "sequence": None, "hash": None}
        if text := grant.texts.get(row["id"]):
            yield audit_texts.name, {**text, "event_id": event_id + n}


def _without_id(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "id"}


def add_history(engine: Engine, grant: RealGrant, number: int) -> None:
    """Store ``number`` ended grants of the last 400 days, by many people. ``number`` is a multiple of ``BASE``."""
    first = next_number(engine)
    with engine.connect() as connection:
        first_event = _newest(connection, audit_events) + 1
    copies = [_past_copy(grant, first + n, n) for n in range(BASE)]
    add_live_grants(engine, _in_the_past(grant), copies)
    events, times = BASE * len(grant.rows[audit_events.name]), number // BASE - 1
    with engine.begin() as connection:
        _multiply(connection, requests, first, times, {"id": BASE})
        for table in (decisions, messages):
            start = int(
                connection.execute(select(func.min(table.c.id)).where(table.c.request_id >= first)).scalar_one()
            )
            size = BASE * len(grant.rows[table.name])
            _multiply(connection, table, start, times, {"id": size, "request_id": BASE})
        _multiply(connection, audit_events, first_event, times, {"id": events, "request_id": BASE})
        _multiply(connection, audit_texts, first_event, times, {"event_id": events})
        _skip_feed(connection)
    _finish(engine)


def _past_copy(grant: RealGrant, number: int, n: int) -> GrantCopy:
    end = datetime.now(UTC) - OLD - HISTORY * (n / BASE)
    key = new_key()
    username = f"{str(grant.request['username']).split('_')[0]}_{number}_past_{key[:4]}"
    return GrantCopy(
        number=number, key=key, username=username, requester_id=f"U0R{n % 100:03}", expires_at=end, places={}
    )


def _in_the_past(grant: RealGrant) -> RealGrant:
    """The grant with its times moved so that all are before the oldest limit that counts recent requests."""
    moved = {name: value - OLD for name, value in grant.request.items() if isinstance(value, datetime)}
    return RealGrant({**grant.request, **moved}, {**grant.rows, tasks.name: ()}, grant.texts)


def _multiply(connection: Connection, table: Table, first: int, times: int, shifts: Mapping[str, int]) -> None:
    """Insert ``times`` copies of the rows from ``first`` on. In copy n, each column of ``shifts`` is larger by n times its shift."""
    if times < 1:
        return
    series = select(literal(1).label("n")).cte("series", recursive=True)
    series = series.union_all(select(series.c.n + 1).where(series.c.n < times))
    columns = [_multiplied(column, series.c.n, shifts) for column in table.c]
    key = next(iter(table.primary_key))
    query = select(*columns).select_from(table.join(series, literal(1) == 1))
    query = query.where(key >= first, key < first + shifts[key.name])
    connection.execute(insert(table).from_select([column.name for column in table.c], query))


def _multiplied(column: ColumnElement[Any], n: ColumnElement[int], shifts: Mapping[str, int]) -> ColumnElement[Any]:
    name = str(getattr(column, "name", ""))
    if name in shifts:
        return column + n * shifts[name]
    if name == "key":
        return column + literal("-") + cast(n, String)
    return column


# The database.


def _insert(connection: Connection, rows: Mapping[str, Sequence[Row]]) -> None:
    for table in (requests, decisions, messages, tasks, audit_events, audit_texts):
        if found := rows.get(table.name):
            connection.execute(insert(table), list(found))


def _newest(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())


def _skip_feed(connection: Connection) -> None:
    """The audit channel does not show the copied events."""
    newest = _newest(connection, audit_events)
    connection.execute(update(cursors).where(cursors.c.name == "feed").values(value=newest))


def _finish(engine: Engine) -> None:
    """SQLite: give the log back to the file. PostgreSQL: numbers go on after the copies, and the planner knows the new sizes."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        for table in (requests, decisions, messages, audit_events):
            sequence = func.pg_get_serial_sequence(table.name, "id")
            connection.execute(select(func.setval(sequence, _newest(connection, table))))
        connection.exec_driver_sql("ANALYZE")
