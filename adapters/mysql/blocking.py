"""Blocks users whose ends fall together: kill their sessions, lock their accounts, kill until no session is left, read back.

One connection serves all of them, and every step has a short limit. A user that holds a step up is left out, and its own end names what it
waits for. Replicas are not visited.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import pymysql

from adapters.mysql import events, locks, sessions, users
from adapters.mysql.connection import END_LOCK_SECONDS, MySQLConnection, account
from adapters.mysql.errors import CONNECTION_LOST, LOCK_TIMEOUTS, NO_RIGHT, code
from adapters.mysql.server import Server
from adapters.usernames import username_pattern

WAITS_AT_MOST = 4
"""So many statements of one call may wait for a lock in vain."""

GROUP_TRIES = 2
"""So often one statement tries to lock all accounts. Then each account has a statement of its own."""

END_SECONDS = 2.5

T = TypeVar("T")
FoundName: TypeAlias = tuple[str, str, tuple[str, int] | None]
"""As ``Dialect.accounts`` returns it."""


def block(server: Server, usernames: Sequence[str]) -> frozenset[str]:
    """Block these users. Returns those that are absent or locked, and have no session here."""
    pattern = username_pattern(server.target.prefix)
    names = sorted({name for name in usernames if pattern.fullmatch(name)})
    if not names:
        return frozenset()
    with server.session(for_end=True) as connection:
        return _Blocking(server=server, connection=connection, names=names).run()


@dataclass(kw_only=True)
class _Blocking:
    """One call. ``waits`` counts the statements that have waited for a lock in vain."""

    server: Server
    connection: MySQLConnection
    names: list[str]
    waits: int = 0

    def run(self) -> frozenset[str]:
        self.names = self._own()
        if not self.names:
            return frozenset()
        self._end(sessions.FIRST_KILL_SECONDS)
        users.refuse_read_only(self.server, self.connection)
        self._lock()
        living = self._end(END_SECONDS, sessions.half_open_logins(self.connection))
        unlocked = self._read(lambda: self.server.dialect.unlocked(self.connection, self.names), self.names)
        return frozenset(self.names) - living - set(unlocked)

    def _own(self) -> list[str]:
        """The names without a mark of another ledger, as ``users.find_for_removal`` finds them. A mark that cannot be read delays nothing."""
        target, dialect = self.server.target, self.server.dialect
        marks: dict[str, events.ExpiryEvent] = self._read(lambda: events.find(self.connection, target, self.names), {})
        accounts: list[FoundName] = self._read(lambda: dialect.accounts(self.connection, target, self.names), [])
        foreign = {name for name, event in marks.items() if event.ledger not in (None, target.ledger)}
        elsewhere = {name for name, host, _ in accounts if host != "%"} - {n for n, host, _ in accounts if host == "%"}
        return [name for name in self.names if name not in foreign | (elsewhere - marks.keys())]

    def _read(self, act: Callable[[], T], otherwise: T) -> T:
        """The result of ``act``, or ``otherwise`` where the tables that it reads stay locked."""
        for _ in range(2):
            try:
                self.connection.set_lock_limit(END_LOCK_SECONDS)
                return act()
            except pymysql.MySQLError as error:
                if code(error) not in LOCK_TIMEOUTS:
                    raise
            self._after_wait()
        return otherwise

    def _lock(self) -> None:
        """Lock the accounts by one statement, or each by its own where that fails."""
        if any(self._try_to_lock(self.names) for _ in range(GROUP_TRIES)):
            return
        for name in self.names:
            if self.waits < WAITS_AT_MOST:
                self._try_to_lock([name])

    def _try_to_lock(self, names: Sequence[str]) -> bool:
        statement = f"ALTER USER IF EXISTS {', '.join(map(account, names))} ACCOUNT LOCK"
        try:
            self.server.dialect.run_with_lock_limit(self.connection, statement, END_LOCK_SECONDS)
        except pymysql.MySQLError as error:
            if code(error) in CONNECTION_LOST:
                raise
            if code(error) in LOCK_TIMEOUTS:
                self._after_wait()
            return False
        return True

    def _after_wait(self) -> None:
        """Kill the sessions that may hold the lock: those of these users, and those of other temporary users as at every end."""
        self.waits += 1
        with suppress(pymysql.MySQLError):
            holders = self.server.dialect.lock_holders(self.connection)
            self._end(sessions.FIRST_KILL_SECONDS)
            locks.kill_temporary(self.server, self.connection, holders)

    def _end(self, seconds: float, half_open: Iterable[Any] = ()) -> set[str]:
        """Kill the sessions until there is none, as ``sessions.end_all`` does. Returns the users that have one after so many seconds."""
        began, pending = time.monotonic(), set(half_open)
        while (alive := sessions.sessions_of(self.connection, self.names)) or pending:
            waited = time.monotonic() - began
            if waited > seconds:
                return set(self.names) if pending else {user for _, user in alive}
            late = pending if waited > sessions.HANDSHAKE_SECONDS else ()
            sessions.kill(self.connection, [*(session for session, _ in alive), *late], ignored=NO_RIGHT)
            time.sleep(sessions.PAUSE_SECONDS)
            pending &= sessions.half_open_logins(self.connection) if pending else set()
        return set()
