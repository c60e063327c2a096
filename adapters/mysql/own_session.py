"""Makes a connection of the bot independent of what the server, its ``init_connect`` or a proxy set, and reads every setting back.

A difference stops grants and no end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pymysql

from adapters.base import Rejected
from adapters.mysql.connection import SQL_MODE, MySQLConnection
from adapters.mysql.dialect import Dialect
from adapters.mysql.errors import CONNECTION_LOST, code

LARGEST = "18446744073709551615"
IDLE_SECONDS = 600
"""``wait_timeout``: the connection to the primary is idle while replicas catch up."""

SETTINGS: Mapping[str, str] = {
    "sql_mode": f"'{SQL_MODE}'",
    "time_zone": "'+00:00'",
    "autocommit": "1",
    "completion_type": "'NO_CHAIN'",
    "max_join_size": LARGEST,  # it changes sql_big_selects, so it comes before
    "sql_big_selects": "1",
    "sql_select_limit": LARGEST,
    "sql_safe_updates": "0",
    "sql_auto_is_null": "0",
    "sql_quote_show_create": "1",
    "lc_messages": "'en_US'",
    "wait_timeout": str(IDLE_SECONDS),
}
"""What both servers have. ``Dialect.settings`` has the rest, and ``MySQLConnection.set_lock_limit`` limits the waits for locks."""

CHARACTER_SETS = "character_set_client", "character_set_results", "character_set_connection"
NAMES, COLLATION = "utf8mb4", "utf8mb4_bin"
STRAIGHT = "let the admin URL lead to the server itself, not to a proxy such as ProxySQL or MaxScale"
THREAD_IDS = 2**32
"""The handshake has only the lower half of the number."""


def pin(connection: MySQLConnection, dialect: Dialect) -> None:
    """Set all settings and read them back. ``connection.differences`` then says what is not as it should be. Raises only for a lost connection."""
    wanted = {**SETTINGS, **dialect.settings}
    try:
        connection.run(f"SET NAMES {NAMES} COLLATE {COLLATION}")
        connection.run("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in wanted.items()))
        connection.differences = _differences(connection, wanted)
    except pymysql.MySQLError as error:
        if code(error) in CONNECTION_LOST:
            raise
        connection.differences = (f"the settings of the connection cannot be set ({error.args[-1]})",)


def require_own(connection: MySQLConnection) -> None:
    """Raises Rejected where the connection is not what the bot's statements rely on. Only grants call this."""
    if connection.differences:
        raise Rejected(f"the bot's connection is not its own: {connection.differences[0]}", remedy=STRAIGHT)


def _differences(connection: MySQLConnection, wanted: Mapping[str, str]) -> tuple[str, ...]:
    """One query reads everything: a proxy answers ``SELECT CONNECTION_ID()`` itself, and may send each query to another server."""
    expected = {name: value.strip("'") for name, value in wanted.items()} | {"sql_log_bin": "1"}
    expected |= dict.fromkeys(CHARACTER_SETS, NAMES) | {"collation_connection": COLLATION}
    columns = ", ".join(f"@@SESSION.{name}" for name in expected)
    query = f"SELECT CONNECTION_ID(), USER(), CURRENT_USER(), {columns} FROM (SELECT 1 AS one) AS own"
    number, user, account, *values = connection.run(query)[0]
    found = [
        f"{name} is {value} and not {right}"
        for (name, right), value in zip(expected.items(), values, strict=True)
        if not _is_equal(value, right)
    ]
    if number % THREAD_IDS != connection.thread_id % THREAD_IDS:
        found.insert(0, "a proxy is between the bot and the server (the connection has another number there)")
    if user.rpartition("@")[0] != account.rpartition("@")[0]:
        found.insert(0, f"the server took the login {user} for the account {account}")
    return tuple(found)


def _is_equal(value: Any, right: str) -> bool:
    """``sql_mode`` is a set, which the servers list in an order of their own. A number may be a float."""
    if isinstance(value, (int, float)):
        return float(value) == float(right)
    return set(str(value).split(",")) == set(right.split(","))
