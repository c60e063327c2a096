"""Statements and their answers: quoted identifiers, single values, columns. Nothing here opens a connection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from adapters.postgresql.connection import PostgreSQLConnection

Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed
Parameters: TypeAlias = tuple[object, ...] | Mapping[str, object]


def value(connection: PostgreSQLConnection, query: Statement, parameters: Parameters = ()) -> Any:
    """The first column of the first row, or None."""
    row = connection.execute(_composed(query), parameters).fetchone()
    return row[0] if row else None


def column(connection: PostgreSQLConnection, query: Statement, parameters: Parameters = ()) -> list[Any]:
    """The first column of all rows."""
    return [row[0] for row in connection.execute(_composed(query), parameters).fetchall()]


def _composed(query: Statement) -> sql.SQL | sql.Composed:
    return query if isinstance(query, sql.SQL | sql.Composed) else sql.SQL(query)


def run(connection: PostgreSQLConnection, template: LiteralString, *names: str, **literals: object) -> None:
    """Run a statement that cannot have parameters: ``{}`` takes the quoted identifiers in order, ``{name}`` a quoted literal."""
    identifiers = [sql.Identifier(name) for name in names]
    connection.execute(sql.SQL(template).format(*identifiers, **{k: sql.Literal(v) for k, v in literals.items()}))


def run_raw(connection: PostgreSQLConnection, statement: str) -> None:
    """Run a statement whose names came from the server, quoted and qualified."""
    connection.execute(statement.encode(connection.info.encoding))


def run_in_one_trip(connection: PostgreSQLConnection, *statements: sql.Composed | str, wait: float) -> None:
    """Run the statements in a transaction of their own, in one round trip. They wait for a lock for ``wait`` seconds.

    Raises what the driver raises; the transaction is rolled back then.
    """
    limit = sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(int(wait * 1000))).as_bytes(connection)
    parts = [limit, *(_as_bytes(connection, statement) for statement in statements)]
    if connection.is_pooled or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        with connection.transaction():
            for part in parts:
                connection.execute(part)
        return
    try:
        connection.execute(b"; ".join([b"BEGIN", *parts, b"COMMIT"]))
    except psycopg.Error:
        if not connection.broken:
            connection.execute("ROLLBACK")
        raise


def _as_bytes(connection: PostgreSQLConnection, statement: sql.Composed | str) -> bytes:
    return statement.encode(connection.info.encoding) if isinstance(statement, str) else statement.as_bytes(connection)


def quoted(name: str) -> str:
    """An identifier as an administrator pastes it: in quotes only where it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def quoted_acting_role(connection: PostgreSQLConnection) -> str:
    """The role that the statements run as, quoted: the admin role, or the login where there is none."""
    return quoted(connection.acting_role)


def exists(connection: PostgreSQLConnection, role: str) -> bool:
    return value(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)) is not None


def major_version(connection: PostgreSQLConnection) -> int:
    """The major version: 15, 16, 18."""
    return connection.info.server_version // 10000


def bounded(names: Sequence[str], at_most: int = 5, separator: str = ", ") -> str:
    """The first names, and how many more there are."""
    further = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return separator.join(names[:at_most]) + further
