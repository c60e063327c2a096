"""The servers of ``Target.replicas``: streaming standbys, each with sessions of its own.

Replication brings users and their changes to a standby, but it ends no session. So the bot connects to every standby, to all at the
same time. A standby may lag, even by hours. A user has ended on a standby only after it replayed everything that the primary had
written when the login was blocked. Before that, a user that is absent on the standby may still appear.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import LiteralString, TypeVar

from adapters.base import AdapterError, Finding, ForeignUser, Rejected, Secrets, ServerDown, Target, WrongServer
from adapters.postgresql.connection import (
    REVOKE_LIMIT_SECONDS,
    STATEMENT_SECONDS,
    PostgreSQLConnection,
    PostgreSQLServer,
    identity,
)
from adapters.postgresql.errors import fatal, fatal_error, ok, warning
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.sessions import (
    FIRST_PAUSE,
    LATE_LOGIN_SECONDS,
    LONGEST_PAUSE,
    SESSIONS_WITHIN,
    SessionKey,
    orphans_note,
    terminate,
    unresponsive,
)
from adapters.postgresql.statements import major_version, quoted, quoted_acting_role, value
from adapters.postgresql.users import find

T = TypeVar("T")

ATTACHED: LiteralString = (
    "SELECT count(*) FROM pg_stat_get_wal_senders() s WHERE NOT EXISTS"
    " (SELECT 1 FROM pg_get_replication_slots() l WHERE l.active_pid = s.pid AND l.slot_type = 'logical')"
)
"""The number of attached standbys. A logical subscriber is no standby: it has none of this server's users."""


class Standby(PostgreSQLServer):
    """One standby. Its errors name it by its reference and never by its address."""

    def __init__(self, target: Target, reference: str, url: str, *, expected: str) -> None:
        self.reference = reference
        super().__init__(replace(target, admin_url=reference, identity=expected), Secrets(admin_url=url))

    @contextmanager
    def session(
        self, database: str | None = None, *, limit: float = STATEMENT_SECONDS
    ) -> Iterator[PostgreSQLConnection]:
        """Open a connection as on the primary. Errors name the standby."""
        with _named(self.reference), super().session(database, limit=limit) as connection:
            yield connection


@contextmanager
def _named(reference: str) -> Iterator[None]:
    where = f"the standby behind {reference}"
    try:
        yield
    except ServerDown as error:
        raise ServerDown(f"{where}: {error.what}", is_ambiguous=error.is_ambiguous) from None
    except WrongServer as error:
        remedy = f"point {reference} at a standby of this server, or take it out of replicas"
        raise Rejected(f"{where} is another server: {error.what}", remedy=remedy) from None
    except Rejected as error:
        raise Rejected(f"{where}: {error.what}", remedy=error.remedy) from None


def unnamed_standbys(server: PostgreSQLServer, attached: int) -> str | None:
    """A sentence where more standbys are attached to the primary than ``replicas`` names, or None. ``attached`` is from ``ATTACHED``.

    A standby of another standby is not counted. A receiver of the log without sessions (``pg_receivewal``) looks like a standby.
    """
    named = len(server.target.replicas)
    if attached <= named:
        return None
    return f"{attached} standby servers are attached and {f'{named} of them' if named else 'none'} is named"


@contextmanager
def on_each_standby(
    server: PostgreSQLServer, connection: PostgreSQLConnection, question: Callable[[Standby], T]
) -> Iterator[list[T]]:
    """Run ``question`` on every standby while the caller's block runs. The list has the answers after the block.

    Raises AdapterError where a standby gave no answer.
    """
    answers: list[T] = []
    replicas = list(zip(server.target.replicas, server.secrets.replicas, strict=True))
    if not replicas:
        yield answers
        return
    expected = identity(connection)

    def answer(reference: str, url: str) -> T:
        return question(Standby(server.target, reference, url, expected=expected))

    with ThreadPoolExecutor(len(replicas)) as pool:
        futures = [pool.submit(answer, *replica) for replica in replicas]
        yield answers
    answers += _answers(futures)


def _answers(futures: list[Future[T]]) -> list[T]:
    """All answers, or one error for the standbys that gave none. An error that no later try avoids comes first."""
    errors = [error for future in futures if isinstance(error := future.exception(), AdapterError)]
    down = [error for error in errors if isinstance(error, ServerDown)]
    if refused := [error for error in errors if not isinstance(error, ServerDown)]:
        raise refused[0]
    if down:
        raise ServerDown("; ".join(error.what for error in down))
    return [future.result() for future in futures]


# The end of sessions.


@dataclass(frozen=True, kw_only=True)
class SessionsToEnd:
    """The user whose sessions are to end.

    ``oid`` is None where the primary has no such user. ``blocked_at`` is the end of the primary's write-ahead log after the login was blocked.
    """

    username: str
    oid: int | None
    blocked_at: str


@dataclass(kw_only=True)
class StandbyReport:
    """The result on one standby: the ended sessions, and notes for the receipt."""

    reference: str
    sessions: set[SessionKey] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


def commit_synchronously(connection: PostgreSQLConnection) -> None:
    """Make every later COMMIT of this connection wait for the write-ahead log, also where the server's setting does not."""
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


def log_end(connection: PostgreSQLConnection) -> str:
    """The position up to which the primary's write-ahead log is flushed. A standby that replayed it has every commit before it.

    The part after this position is sent to no standby, and may stay unflushed for long on a quiet server.
    """
    return str(value(connection, "SELECT pg_current_wal_flush_lsn()"))


def end_sessions(standby: Standby, user: SessionsToEnd) -> StandbyReport:
    """End the user's sessions on the standby until the user cannot log in there and none is left.

    Raises ServerDown, Blocked or Rejected where that takes too long.
    """
    report = StandbyReport(reference=standby.reference)
    with standby.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        deadline, pause, is_quiet = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE, False
        while True:
            obstacle = _obstacle(connection, user.username, user.blocked_at)
            now = _terminate(connection, standby.target, user)
            report.sessions |= now
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
        if user.oid is None:
            report.notes += orphans_note(connection, f" on the standby behind {standby.reference}")
    return report


def _obstacle(connection: PostgreSQLConnection, username: str, blocked_at: str) -> AdapterError | None:
    """The reason why the user may still log in on this standby, or None where no login can succeed any more."""
    may_log_in = value(connection, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (username,))
    if not value(connection, "SELECT pg_is_in_recovery()"):
        remedy = f"point its address back to a standby; where it was made a server of its own, there: DROP ROLE {quoted(username)};"
        return (
            Rejected(f"it is no standby any more, and {username} can still log in", remedy=remedy)
            if may_log_in
            else None
        )
    if not value(connection, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (blocked_at,)):
        return ServerDown(f"it lags behind the primary, and {username} may still log in")
    return ServerDown(f"{username} can still log in") if may_log_in else None


def _terminate(connection: PostgreSQLConnection, target: Target, user: SessionsToEnd) -> set[SessionKey]:
    """End sessions by the oid from the primary and by the oid of this name here: a standby that lags may have an earlier user."""
    try:
        here = find(connection, target, user.username, for_removal=True)
    except ForeignUser:
        here = None  # the primary has a managed user of this name, so this role is older
    oids = {user.oid, here.oid if here else None} - {None}
    return {seen for oid in oids if oid is not None for seen in terminate(connection, oid)}


# Session counts.


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
    """The sessions of these users on one server, the primary or a standby."""
    rows = connection.execute(COUNTS, (usernames,)).fetchall()
    return [SessionCount(username=name, sessions=number, clients=tuple(clients)) for name, number, clients in rows]


def count_sessions_on(standby: Standby, usernames: list[str]) -> list[SessionCount]:
    with standby.session() as connection:
        return count_sessions(connection, usernames)


# Check.


def check_standbys(server: PostgreSQLServer, connection: PostgreSQLConnection) -> Iterator[Finding]:
    """Whether each standby answers, belongs to this primary, and lets the bot end sessions. ``connection`` leads to the primary."""
    expected, acting_role = identity(connection), connection.acting_role
    for reference, url in zip(server.target.replicas, server.secrets.replicas, strict=True):
        try:
            with Standby(server.target, reference, url, expected=expected).session() as on_standby:
                yield from _check_standby(on_standby, f"the standby behind {reference}", acting_role)
        except AdapterError as error:
            yield fatal_error(error)


def _check_standby(connection: PostgreSQLConnection, where: str, acting_role: str) -> Iterator[Finding]:
    if not value(connection, "SELECT pg_is_in_recovery()"):
        yield fatal(f"{where} is no standby: it accepts writes of its own", "name a standby there, or leave it out")
        return
    if _may_end_sessions(connection, acting_role):
        yield ok(f"{where} answers, and the bot may end sessions there")
    else:
        remedy = f"GRANT pg_signal_backend TO {quoted_acting_role(connection)}; on the primary"
        yield fatal(f"{where}: the bot may not end sessions there", remedy)
    if value(connection, "SELECT pg_is_wal_replay_paused()"):
        remedy = "SELECT pg_wal_replay_resume(); on the standby"
        yield warning(f"{where} has paused: access there ends only after it resumes", remedy)
    delay = value(connection, "SELECT current_setting('recovery_min_apply_delay')")
    if not str(delay).startswith("0"):
        yield warning(
            f"{where} is kept {delay} behind: users can log in there only after that, and are ended only after that",
            "take it out of replicas if nobody may log in there, and keep it closed in its pg_hba.conf",
        )


def _may_end_sessions(connection: PostgreSQLConnection, acting_role: str) -> bool:
    """The role that created a user is its member, on the standby too. Any other role needs ``pg_signal_backend``."""
    if value(
        connection,
        "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR pg_has_role('pg_signal_backend', 'USAGE')",
    ):
        return True
    inherits = major_version(connection) >= SETS_MEMBERSHIP_OPTIONS or value(
        connection, "SELECT rolinherit FROM pg_roles WHERE rolname = current_user"
    )
    return connection.acting_role == acting_role and bool(inherits)
