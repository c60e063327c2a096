"""Code of an ended user that runs when somebody else uses a table: its triggers are dropped, and other uses are named.

Such code runs with the rights of whoever writes to or reads from the table. The functions themselves stay with the ended user's role.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from adapters.base import AdapterError
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.statements import bounded, column, quoted, run

LOCK_SECONDS = 0.5
"""Everybody who uses the table waits while the bot waits for its lock."""
ALL_SECONDS = 5.0
NAMED_AT_MOST = 5

DATABASES: LiteralString = """
SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid AND s.classid = 'pg_proc'::regclass AND s.deptype = 'o' ORDER BY 1
"""
TRIGGERS: LiteralString = """
SELECT n.nspname, c.relname, t.tgname, pg_has_role(c.relowner, 'USAGE') FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
  JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE p.proowner = %(oid)s::oid AND c.relowner <> p.proowner AND NOT t.tgisinternal AND t.tgparentid = 0 ORDER BY 1, 2, 3 LIMIT 1000
"""
"""A trigger on a partition belongs to that of its parent, and is dropped with it."""
OTHER_CALLS: LiteralString = """
SELECT DISTINCT i.type || ' ' || i.identity FROM pg_proc p JOIN pg_depend d ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
  LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
  LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
  LEFT JOIN pg_policy y ON d.classid = 'pg_policy'::regclass AND y.oid = d.objid
  LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
  LEFT JOIN pg_index x ON d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid
  LEFT JOIN pg_statistic_ext z ON d.classid = 'pg_statistic_ext'::regclass AND z.oid = d.objid
  JOIN pg_class c ON c.oid = coalesce(z.stxrelid, f.adrelid, nullif(k.conrelid, 0), y.polrelid, w.ev_class, x.indrelid) AND c.relowner <> p.proowner,
  pg_identify_object(d.classid, d.objid, d.objsubid) i
 WHERE p.proowner = %s::oid ORDER BY 1 LIMIT 1000
"""


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A trigger on the table of another role. ``may_drop``: the bot is a member of the table's owner."""

    schema: str
    table: str
    name: str
    may_drop: bool

    @property
    def statement(self) -> str:
        return f"DROP TRIGGER {quoted(self.name)} ON {quoted(self.schema)}.{quoted(self.table)};"


def triggers_of(connection: PostgreSQLConnection, oid: int) -> list[Trigger]:
    """The triggers in this database that call a function of the role, on tables of others."""
    rows = connection.execute(TRIGGERS, {"oid": oid}).fetchall()
    return [Trigger(schema=schema, table=table, name=name, may_drop=may) for schema, table, name, may in rows]


def disarm_triggers(server: PostgreSQLServer, connection: PostgreSQLConnection, oid: int) -> list[str]:
    """Drop the triggers of the ended role where the bot may, and return sentences for the receipt. The functions stay.

    Raises nothing: what stays is named with the statement that drops it. It takes a few seconds at most.
    """
    deadline, notes = time.monotonic() + ALL_SECONDS, list[str]()
    try:
        databases = column(connection, DATABASES, (oid,))
    except psycopg.Error as error:
        return [f"The triggers of the ended user were not examined: {error.diag.message_primary or error}"]
    for database in databases:
        if time.monotonic() > deadline:
            notes.append(f"The triggers of the ended user in {database} were not examined: the others took too long.")
            continue
        try:
            with server.session(database, limit=ALL_SECONDS) as in_database:
                notes += _disarm(in_database, oid, deadline)
        except (psycopg.Error, AdapterError) as error:
            notes.append(f"The triggers of the ended user in {database} were not examined: {error}")
    if len(notes) > NAMED_AT_MOST:
        notes[NAMED_AT_MOST:] = [
            f"There are {len(notes) - NAMED_AT_MOST} more such notes on triggers of the ended user."
        ]
    return notes


def _disarm(connection: PostgreSQLConnection, oid: int, deadline: float) -> Iterator[str]:
    where = f"in {connection.info.dbname}"
    found = triggers_of(connection, oid)
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{int(LOCK_SECONDS * 1000)}ms",))
    left = [trigger for trigger in found if time.monotonic() > deadline or not _drop(connection, trigger)]
    if dropped := [f"{t.name} on {t.schema}.{t.table}" for t in found if t not in left]:
        yield f"Triggers of the ended user that were dropped {where}: {bounded(dropped)}."
    if left:
        yield (
            f"Triggers {where} still run code of the ended user, with the rights of whoever writes."
            f" As the owner of the table: {bounded([trigger.statement for trigger in left], separator=' ')}"
        )
    if calls := column(connection, OTHER_CALLS, (oid,)):
        yield f"Functions of the ended user {where} are still called by: {bounded(calls)}."


def _drop(connection: PostgreSQLConnection, trigger: Trigger) -> bool:
    """Drop the trigger. False where the bot may not, or where somebody uses the table."""
    if not trigger.may_drop:
        return False
    try:
        run(connection, "DROP TRIGGER IF EXISTS {} ON {}.{}", trigger.name, trigger.schema, trigger.table)
    except psycopg.Error:
        if connection.broken:
            raise
        return False
    return True
