"""The further servers of ``Target.replicas``: streaming standbys, each with sessions of its own.

Users and their changes come to a standby by replication; the end of a session does not. So every standby is asked itself,
all at the same time. A standby may lag, even by hours: what counts is that it has replayed what the primary had written
when the login was blocked. Before that a user that is absent there may still be to come.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

from adapters.base import AdapterError, ForeignUser, Rejected, Secrets, ServerDown, Target, WrongServer
from adapters.postgresql.connection import (
    REVOKE_LIMIT_SECONDS,
    STATEMENT_SECONDS,
    PostgreSQLConnection,
    Server,
    identity,
    quoted,
    value,
)
from adapters.postgresql.sessions import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SESSIONS_WITHIN,
    SessionKey,
    orphans_note,
    terminate,
    unresponsive,
)
from adapters.postgresql.users import find

T = TypeVar("T")

ATTACHED = (
    "SELECT count(*) FROM pg_stat_replication s WHERE NOT EXISTS"
    " (SELECT 1 FROM pg_replication_slots l WHERE l.active_pid = s.pid AND l.slot_type = 'logical')"
)
"""A logical subscriber has roles of its own and none of this server's users."""
LATE_LOGIN_SECONDS = 0.05
"""A login that was let in just before it was blocked is not listed at once: none is left when none was seen twice, this far apart."""


class Standby(Server):
    """One of them; its errors say which, by its reference and never by its address."""

    def __init__(self, target: Target, reference: str, url: str, *, expected: str) -> None:
        self.reference = reference
        super().__init__(replace(target, admin_url=reference, identity=expected), Secrets(admin_url=url))

    @contextmanager
    def session(
        self, database: str | None = None, *, limit: float = STATEMENT_SECONDS
    ) -> Iterator[PostgreSQLConnection]:
        """As the primary's, named."""
        with _named(self.reference), super().session(database, limit=limit) as connection:
            yield connection


@contextmanager
def _named(reference: str) -> Iterator[None]:
    where = f"the standby behind {reference}"
    try:
        yield
    except ServerDown as silent:
        raise ServerDown(f"{where}: {silent.what}", is_ambiguous=silent.is_ambiguous) from None
    except WrongServer as other:
        remedy = f"point {reference} at a standby of this server, or take it out of replicas"
        raise Rejected(f"{where} is another server: {other.what}", remedy=remedy) from None
    except Rejected as no:
        raise Rejected(f"{where}: {no.what}", remedy=no.remedy) from None


def unnamed_standbys(server: Server, connection: PostgreSQLConnection) -> str | None:
    """How many standbys hang on the primary that ``replicas`` does not name, in words; None where each may be named.

    One that hangs on another standby is not seen here. Receivers of the log without sessions (``pg_receivewal``) look the same.
    """
    attached, named = value(connection, ATTACHED), len(server.target.replicas)
    if attached <= named:
        return None
    return f"{attached} standby servers are attached and {f'{named} of them' if named else 'none'} is named"


@contextmanager
def on_each_standby(
    server: Server, connection: PostgreSQLConnection, verb: Callable[[Standby], T]
) -> Iterator[list[T]]:
    """Ask every standby while the caller's block runs; the answers are in the list after it. Raises when one gave none."""
    answers: list[T] = []
    replicas = list(zip(server.target.replicas, server.secrets.replicas, strict=True))
    if not replicas:
        yield answers
        return
    expected = identity(connection)

    def ask(reference: str, url: str) -> T:
        return verb(Standby(server.target, reference, url, expected=expected))

    with ThreadPoolExecutor(len(replicas)) as pool:
        futures = [pool.submit(ask, *replica) for replica in replicas]
        yield answers
    answers += _answers(futures)


def _answers(futures: list[Future[T]]) -> list[T]:
    """All of them, or one error for all that gave none: what will not help by itself is said first."""
    troubles = [trouble for future in futures if isinstance(trouble := future.exception(), AdapterError)]
    silent = [trouble for trouble in troubles if isinstance(trouble, ServerDown)]
    if refused := [trouble for trouble in troubles if not isinstance(trouble, ServerDown)]:
        raise refused[0]
    if silent:
        raise ServerDown("; ".join(trouble.what for trouble in silent))
    return [future.result() for future in futures]


# Ending sessions.


@dataclass(frozen=True, kw_only=True)
class SessionsToEnd:
    """Whose sessions are to end. ``oid`` is None where the primary has no such user; ``blocked_at`` is its write-ahead log's end since the login is blocked there."""

    username: str
    oid: int | None
    blocked_at: str


@dataclass(kw_only=True)
class StandbyReport:
    """What was done on one standby."""

    reference: str
    sessions: set[SessionKey] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def commit_synchronously(connection: PostgreSQLConnection) -> None:
    """From here on what this connection commits is in the write-ahead log when COMMIT answers, also where the server does not ask for it."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


def log_end(connection: PostgreSQLConnection) -> str:
    """Up to where the primary's write-ahead log is written; a standby that replayed that far has all that was committed before.

    What is inserted beyond it is sent to no standby, and may stay unwritten for long on a quiet server.
    """
    return str(value(connection, "SELECT pg_current_wal_flush_lsn()"))


def end_sessions(standby: Standby, ending: SessionsToEnd) -> StandbyReport:
    """Until the standby lets the user in no more and none of its sessions is left. Raises Unreachable when that takes too long."""
    ended = StandbyReport(reference=standby.reference)
    with standby.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        deadline, pause, is_quiet = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE, False
        while True:
            obstacle = _obstacle(connection, ending.username, ending.blocked_at)
            now = _terminate(connection, standby.target, ending)
            ended.sessions |= now
            if obstacle is None and not now:
                if is_quiet:
                    break
                is_quiet, pause = True, LATE_LOGIN_SECONDS
            elif time.monotonic() > deadline:
                raise obstacle or unresponsive({pid for pid, _ in now})
            else:
                is_quiet = False
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        if ending.oid is None:
            ended.notes += orphans_note(connection, f" on the standby behind {standby.reference}")
    return ended


def _obstacle(connection: PostgreSQLConnection, username: str, blocked_at: str) -> AdapterError | None:
    """Why the user may still get in here, or None: nobody can, from now on."""
    lets_in = value(connection, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (username,))
    if not value(connection, "SELECT pg_is_in_recovery()"):
        remedy = f"point its address back to a standby; where it was made a server of its own, there: DROP ROLE {quoted(username)};"
        return Rejected(f"it is no standby any more, and still lets {username} in", remedy=remedy) if lets_in else None
    if not value(connection, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (blocked_at,)):
        return ServerDown(f"it lags behind the primary, and may still let {username} in")
    return ServerDown(f"it still lets {username} in") if lets_in else None


def _terminate(connection: PostgreSQLConnection, target: Target, ending: SessionsToEnd) -> set[SessionKey]:
    """By the oid the primary knew, and by that of a user of this name here: a standby that lags may have an earlier one."""
    try:
        here = find(connection, target, ending.username, to_end=True)
    except ForeignUser:
        here = None  # on the primary it was ours, so what is here is older than that
    oids = {ending.oid, here.oid if here else None} - {None}
    return {seen for oid in oids if oid is not None for seen in terminate(connection, oid)}


# Counting them.


@dataclass(frozen=True, kw_only=True)
class SessionCount:
    username: str
    sessions: int
    clients: tuple[str, ...]


COUNTS = (
    "SELECT usename, count(*), array_agg(DISTINCT coalesce(host(client_addr), 'local')) FROM pg_stat_activity"
    " WHERE usename = ANY(%s) GROUP BY usename"
)


def count_sessions(connection: PostgreSQLConnection, usernames: list[str]) -> list[SessionCount]:
    """Sessions of these users on one server, the primary or another."""
    rows = connection.execute(COUNTS, (usernames,)).fetchall()
    return [SessionCount(username=name, sessions=number, clients=tuple(clients)) for name, number, clients in rows]


def count_sessions_on(standby: Standby, usernames: list[str]) -> list[SessionCount]:
    with standby.session() as connection:
        return count_sessions(connection, usernames)
