"""Statements that wait for a lock: briefly, never for one that the user in question holds, and never without saying who does.

ALTER USER and DROP USER wait for LOCK TABLES on the tables of accounts, for FLUSH TABLES WITH READ LOCK, for LOCK INSTANCE FOR BACKUP and for
BACKUP STAGE (measured on MySQL 9.7 and MariaDB 10.11).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pymysql

from adapters.base import Blocked
from adapters.mysql_family import sessions
from adapters.mysql_family.connection import LOCK_SECONDS, Connection, Server
from adapters.mysql_family.errors import LOCK_TIMEOUTS, code

WAITS_OF_AN_END = (1, 2, 4)
"""Seconds, one try each. A busy server gets more time with every try."""

WAITS_OF_A_CHANGE = (LOCK_SECONDS, LOCK_SECONDS)

T = TypeVar("T")

NAMED_AT_MOST = 5


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A connection that holds a lock on ``what``. ``session`` is None for a prepared XA transaction whose connection is gone."""

    session: int | None
    user: str
    what: str


@dataclass(frozen=True, kw_only=True)
class _Patience:
    """For whose sake something is done, and whether it is their end: then ``ended`` gets the ids of their sessions, which are all killed."""

    server: Server
    connection: Connection
    username: str
    ended: set[Any] | None

    def tried(self, step: str, act: Callable[[int], T]) -> T:
        """What ``act`` returns, which gets the seconds it may wait. Raises Blocked where somebody else's lock holds it up."""
        found: list[Holder] | None = None
        for seconds in WAITS_OF_A_CHANGE if self.ended is None else WAITS_OF_AN_END:
            try:
                return act(seconds)
            except pymysql.MySQLError as error:
                if code(error) not in LOCK_TIMEOUTS:
                    raise
            found = self._make_way()
        raise _blocked(self.server, self.connection, step, found)

    def _make_way(self) -> list[Holder] | None:
        found = self.server.dialect.holders(self.connection)
        own = [holder.session for holder in found or () if holder.user == self.username and holder.session]
        sessions.kill_each(self.connection, own)
        if self.ended is not None:
            self.ended.update(own)
            sessions.kill(self.connection, self.username, self.ended)
        return found


def run(
    server: Server, connection: Connection, statement: str, username: str, *, ended: set[Any] | None = None
) -> None:
    """Run it. A session of the user itself that holds it up is killed; at an end (``ended``) every session of the user. Raises Blocked where somebody else's holds it up."""
    patience = _Patience(server=server, connection=connection, username=username, ended=ended)
    step = " ".join(statement.split()[:2])
    patience.tried(step, lambda seconds: server.dialect.run_briefly(connection, statement, seconds))


def look(
    server: Server, connection: Connection, query: Callable[[], T], username: str, *, ended: set[Any] | None = None
) -> T:
    """What it finds. Raises Blocked where the tables of accounts are locked for writing and cannot be read."""

    def within(seconds: int) -> T:
        connection.wait_for_locks(seconds)
        return query()

    patience = _Patience(server=server, connection=connection, username=username, ended=ended)
    return patience.tried("looking for the user", within)


def _blocked(server: Server, connection: Connection, step: str, found: Sequence[Holder] | None) -> Blocked:
    if found:
        who = "; ".join(_held_by(holder) for holder in found[:NAMED_AT_MOST])
        remedies = dict.fromkeys(_freed_by(holder) for holder in found[:NAMED_AT_MOST])
        return Blocked(f"{step} waits for a lock: {who}", remedy=" ".join(remedies))
    idle = ", ".join(f"{session} of {user}" for session, user in _idle(connection))
    guess = f"; connections that are open and idle: {idle}" if idle else ""
    what = f"{step} waits for a lock, and the server does not say whose it is{guess}"
    return Blocked(
        what, remedy=f"{server.dialect.shows_holders} and dbaccess names the connection; KILL frees the lock"
    )


def _held_by(holder: Holder) -> str:
    if holder.session is None:
        return f"a prepared XA transaction holds {holder.what}"
    return f"connection {holder.session} of {holder.user} holds {holder.what}"


def _freed_by(holder: Holder) -> str:
    return "XA RECOVER; XA ROLLBACK …;" if holder.session is None else f"KILL {holder.session};"


def _idle(connection: Connection) -> list[tuple[int, str]]:
    """Whoever holds a lock and does nothing is one of these."""
    query = (
        "SELECT id, user FROM information_schema.processlist WHERE command = 'Sleep' AND id <> CONNECTION_ID()"
        f" AND user <> SUBSTRING_INDEX(USER(), '@', 1) ORDER BY time DESC LIMIT {NAMED_AT_MOST}"
    )
    return [(int(session), str(user)) for session, user in connection.run(query)]
