"""Sessions of a user on one server: ended until there are none, counted by their ids."""

from __future__ import annotations

import time
from typing import Any

import pymysql

from adapters.base import Unreachable
from adapters.mysql_family.connection import Connection
from adapters.mysql_family.errors import NO_SUCH_PROCESS, code

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01


def of(connection: Connection, username: str) -> list[Any]:
    """Their ids. The user's name stays visible when the account is gone. The process list compares without case, accounts differ by it."""
    query = f"SELECT id, user FROM information_schema.processlist WHERE user = {connection.literal(username)}"
    return [session for session, user in connection.run(query) if user == username]


def end(connection: Connection, username: str, seen: set[Any]) -> None:
    """Kill until there is none; adds the ids to ``seen``. Raises Unreachable when some will not go."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while alive := of(connection, username):
        seen.update(alive)
        for session in alive:
            _kill(connection, session)
        if time.monotonic() > deadline:
            raise Unreachable(
                f"{len(alive)} sessions of {username} are killed and have not ended yet", is_ambiguous=True
            )
        time.sleep(PAUSE_SECONDS)


def _kill(connection: Connection, session: int) -> None:
    try:
        connection.run(f"KILL {int(session)}")
    except pymysql.MySQLError as error:
        if code(error) != NO_SUCH_PROCESS:
            raise
