"""The identity of a server, and the recognition of a promoted replica as the heir of the server on which a grant was made.

Each server has an identity of its own, so a promoted replica has another one than its former primary. Therefore ``ops_schema`` has a
disabled event whose body lists the identities of the servers on which grants were made. It reaches every replica, and only the bot can
write it. A copy that was restored from a dump is no heir: there the event was created by the copy itself.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

import pymysql

from adapters.base import Rejected, Target
from adapters.mysql.connection import MySQLConnection, quoted
from adapters.mysql.dialect import Dialect
from adapters.mysql.errors import SCHEDULER_DISABLED, UNKNOWN_VARIABLE, code

RECORD = "dbaccess_identity"
REMEMBERED_AT_MOST = 8
LOCK_SECONDS = 2
LISTED = re.compile(r"SELECT '([A-Za-z0-9+/=_ -]*)'")


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The servers that the record lists, oldest first. ``is_received``: another server created the record, and this one received it by replication."""

    servers: tuple[str, ...] = ()
    is_received: bool = False


def of(connection: MySQLConnection, dialect: Dialect) -> str:
    """The server's UUID or UID. Raises Rejected on a server that is too old to have one."""
    try:
        return str(connection.value(f"SELECT {dialect.identity}"))
    except pymysql.MySQLError as error:
        if code(error) != UNKNOWN_VARIABLE:
            raise
    what = f"the server has no variable {dialect.identity}, by which dbaccess identifies it"
    raise Rejected(what, remedy=f"upgrade the server to {dialect.label} {dialect.identity_since} or later")


def is_heir(connection: MySQLConnection, dialect: Dialect, target: Target, expected: str, found: str) -> bool:
    """Whether the server ``found`` was promoted and continues the server ``expected``. A server that still follows another one is no heir."""
    lineage = _lineage(connection, target)
    is_descendant = expected in lineage.servers and (lineage.is_received or found in lineage.servers)
    return is_descendant and not dialect.is_replica(connection)


def remember(connection: MySQLConnection, dialect: Dialect, target: Target, found: str) -> None:
    """Add the server to the record. Where that fails, nothing is lost but the recognition of a later promotion."""
    with suppress(pymysql.MySQLError):
        lineage = _lineage(connection, target)
        if found in lineage.servers:
            return
        servers = [*(lineage.servers if lineage.is_received else ()), found][-REMEMBERED_AT_MOST:]
        name = f"{quoted(target.ops_schema)}.{quoted(RECORD)}"
        body = f"SELECT {connection.literal(' '.join(servers))}"
        verb = "ALTER EVENT" if lineage.servers else "CREATE EVENT IF NOT EXISTS"
        statement = f"{verb} {name} ON SCHEDULE EVERY 1 YEAR ON COMPLETION PRESERVE DISABLE DO {body}"
        dialect.run_with_lock_limit(connection, statement, LOCK_SECONDS)


def _lineage(connection: MySQLConnection, target: Target) -> Lineage:
    where = f"= {connection.literal(target.ops_schema)}"
    columns, own = "event_definition, originator", "@@server_id"
    query = (
        f"SELECT {columns}, {own} FROM information_schema.events WHERE event_schema {where} AND event_name = '{RECORD}'"
    )
    try:
        rows = connection.run(query)
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
        rows = connection.run(
            f"SELECT body_utf8, originator, {own} FROM mysql.event WHERE db {where} AND name = '{RECORD}'"
        )
    for definition, originator, server_id in rows:
        if listed := LISTED.search(str(definition)):
            return Lineage(servers=tuple(listed[1].split()), is_received=originator != server_id)
    return Lineage()
