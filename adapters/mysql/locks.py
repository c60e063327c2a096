"""Runs statements that may wait for a lock: with a short limit, with temporary users that hold it killed, and with any other holder named.

ALTER USER and DROP USER wait for LOCK TABLES on the tables of accounts, for FLUSH TABLES WITH READ LOCK, for LOCK INSTANCE FOR BACKUP and for
BACKUP STAGE (measured on MySQL 9.7 and MariaDB 10.11). The first statement on a connection that meets such a lock waits a second for it.
From then on the connection is contested: temporary users that hold a lock are killed before each further statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pymysql

from adapters.base import Blocked
from adapters.mysql import sessions, suspects
from adapters.mysql.connection import END_LOCK_SECONDS, LOCK_SECONDS, MySQLConnection
from adapters.mysql.dialect import LockHolder
from adapters.mysql.errors import LOCK_TIMEOUTS, code
from adapters.mysql.server import Server
from adapters.usernames import username_pattern

LIMITS_OF_AN_END = (END_LOCK_SECONDS, 2, 4)
"""Seconds, one for each try. They grow, so that a busy server gets more time."""

LIMITS_OF_A_CHANGE = (1, LOCK_SECONDS)

T = TypeVar("T")

NAMED_AT_MOST = 5


@dataclass(frozen=True, kw_only=True)
class _Retry:
    """Tries of one step that concerns one user.

    ``ended`` is None for anything but an end. At an end it collects the ids of the user's sessions, which are all killed.
    """

    server: Server
    connection: MySQLConnection
    username: str
    ended: set[Any] | None

    def attempt(self, step: str, act: Callable[[int], T]) -> T:
        """Returns the result of ``act``. ``act`` gets the lock limit in seconds. Raises Blocked where somebody else holds the lock."""
        if self.connection.is_contested:
            self._kill_temporary_holders()
        holders: list[LockHolder] | None = None
        for seconds in LIMITS_OF_A_CHANGE if self.ended is None else LIMITS_OF_AN_END:
            try:
                return act(seconds)
            except pymysql.MySQLError as error:
                if code(error) not in LOCK_TIMEOUTS:
                    raise
            self.connection.is_contested = True
            holders = self._kill_temporary_holders()
        raise _blocked(self.server, self.connection, step, holders)

    def _kill_temporary_holders(self) -> list[LockHolder] | None:
        """All holders. Those that are temporary users are killed; at an end, all sessions of the user too."""
        holders = self.server.dialect.lock_holders(self.connection)
        if self.ended is not None:  # first, so that its sessions are counted
            sessions.kill_all(self.connection, self.username, self.ended)
        kill_temporary(self.server, self.connection, holders)
        return holders


def kill_temporary(server: Server, connection: MySQLConnection, holders: Sequence[LockHolder] | None) -> None:
    """Kill the holders that are temporary users. Where the server does not show holders, kill the temporary users that may be some."""
    if holders is None:
        sessions.kill(connection, suspects.sessions_of_suspects(server, connection))
    temporary = username_pattern(server.target.prefix)
    ids = [h.session for h in holders or () if h.session and temporary.fullmatch(h.user)]
    sessions.kill(connection, ids)


def run(
    server: Server, connection: MySQLConnection, statement: str, username: str = "", *, ended: set[Any] | None = None
) -> None:
    """Run a statement about ``username``. Raises Blocked where somebody who is no temporary user holds the lock that it waits for.

    At an end (``ended``) every session of the user is killed.
    """
    retry = _Retry(server=server, connection=connection, username=username, ended=ended)
    step = " ".join(statement.split()[:2])
    retry.attempt(step, lambda seconds: server.dialect.run_with_lock_limit(connection, statement, seconds))


def call(
    server: Server,
    connection: MySQLConnection,
    act: Callable[[], T],
    username: str = "",
    *,
    step: str = "looking for the user",
    ended: set[Any] | None = None,
) -> T:
    """The result of ``act``, which reads the tables of accounts or changes them by itself. Otherwise as ``run``."""

    def within(seconds: int) -> T:
        connection.set_lock_limit(seconds)
        return act()

    retry = _Retry(server=server, connection=connection, username=username, ended=ended)
    return retry.attempt(step, within)


def _blocked(server: Server, connection: MySQLConnection, step: str, holders: Sequence[LockHolder] | None) -> Blocked:
    if holders:
        held = "; ".join(_held_by(holder) for holder in holders[:NAMED_AT_MOST])
        remedies = dict.fromkeys(_freed_by(holder) for holder in holders[:NAMED_AT_MOST])
        return Blocked(f"{step} waits for a lock: {held}", remedy=" ".join(remedies))
    suspects = ", ".join(f"{session} of {user}" for session, user in _suspects(connection))
    guess = f"; perhaps one of the connections {suspects}" if suspects else ""
    what = f"{step} waits for a lock, and the server does not say who holds it{guess}"
    remedy = f"run {server.dialect.shows_lock_holders}, so that dbaccess can name the connection; KILL frees the lock"
    return Blocked(what, remedy=remedy)


def _held_by(holder: LockHolder) -> str:
    if holder.session is None:
        return f"a prepared XA transaction holds {holder.what}"
    return f"connection {holder.session} of {holder.user} holds {holder.what}"


def _freed_by(holder: LockHolder) -> str:
    return "XA RECOVER; XA ROLLBACK …;" if holder.session is None else f"KILL {holder.session};"


def _suspects(connection: MySQLConnection) -> list[tuple[int, str]]:
    """Connections that read the server's own tables at this moment, then those that are idle. A holder that does nothing is one of these."""
    query = (
        "SELECT id, user FROM information_schema.processlist WHERE id <> CONNECTION_ID()"
        " AND (command = 'Sleep' OR (command IN ('Query', 'Execute') AND info LIKE '%mysql%'))"
        " AND user <> SUBSTRING_INDEX(USER(), '@', 1)"
        f" ORDER BY command = 'Sleep', time DESC LIMIT {NAMED_AT_MOST}"
    )
    return [(int(session), str(user)) for session, user in connection.run(query)]
