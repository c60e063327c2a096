"""Revocation: end sessions, roll back, revoke memberships, block the login, end sessions again, transfer objects, drop, read back.

Sessions come first, because an open session or a prepared transaction may hold the lock that blocking the login needs. Each step
is a statement of its own and may be repeated, so the next run finishes after a crash at any point. No step runs code of a temporary
user. The server's version is not checked: a user on an unsupported server is ended too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC

import psycopg

from adapters.base import AdapterError, Blocked, Level, Rejected, Removal, ServerDown
from adapters.postgresql import standbys
from adapters.postgresql.connection import (
    REVOKE_LIMIT_SECONDS,
    PostgreSQLConnection,
    PostgreSQLServer,
    exists,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.left_behind import LeftBehind, leave_behind
from adapters.postgresql.levels import roles_of
from adapters.postgresql.locks import any_holder, no_holder, run_unblocked
from adapters.postgresql.managed_roles import drop_unused_managed_role
from adapters.postgresql.prepared import note_left_transactions, roll_back
from adapters.postgresql.roles import QUARANTINE_ROLE, become_member, memberships, revoke_memberships
from adapters.postgresql.sessions import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SESSIONS_WITHIN,
    SessionKey,
    end_waiting_logins,
    orphans_note,
    terminate,
    unresponsive,
)
from adapters.postgresql.triggers import disarm_triggers
from adapters.postgresql.users import find


@dataclass
class RevocationReport:
    """The progress of a revocation. ``on_standbys`` has the ended sessions of each standby, by its reference."""

    sessions: set[SessionKey] = field(default_factory=set)
    on_standbys: dict[str, set[SessionKey]] = field(default_factory=dict)
    left_behind: LeftBehind = field(default_factory=LeftBehind)
    notes: list[str] = field(default_factory=list)

    def add(self, standby: standbys.StandbyReport) -> None:
        self.on_standbys.setdefault(standby.reference, set()).update(standby.sessions)
        self.notes += standby.notes

    @property
    def sessions_ended(self) -> int:
        return len(self.sessions) + sum(map(len, self.on_standbys.values()))

    def standby_notes(self) -> list[str]:
        return [
            f"On the standby behind {reference}: {len(sessions)} sessions ended, none left."
            for reference, sessions in self.on_standbys.items()
        ]


def drop(server: PostgreSQLServer, username: str, level: Level) -> Removal:
    """End the user and read back that it is gone.

    Raises ForeignUser, ServerDown (try again), Blocked (names the holder of the lock) and Rejected (names a remedy).
    """
    report = RevocationReport()
    with server.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        _refuse_standby(connection, username)
        if server.target.replicas:
            standbys.commit_synchronously(connection)
        found = find(connection, server.target, username, for_removal=True)
        if found is None:
            report.notes += orphans_note(connection)
            with _standbys_too(server, connection, username, None, report):
                pass
        else:
            _end_user(server, connection, username, oid=found.oid, level=level, report=report)
        _drop_managed_role(server, connection, level, report)
        _note_standbys(server, connection, report)
        if found is not None:
            end_sessions(connection, found.oid, report)
        return _removal(connection, username, report, was_absent=found is None)


def _refuse_standby(connection: PostgreSQLConnection, username: str) -> None:
    """Raises ServerDown on a standby: users are ended on the primary. The user's sessions on this standby are ended before."""
    if not value(connection, "SELECT pg_is_in_recovery()"):
        return
    oid = value(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", (username,))
    if oid is not None:
        terminate(connection, oid)
    raise ServerDown("this server is a standby now; users are ended on the primary")


def _end_user(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    username: str,
    *,
    oid: int,
    level: Level,
    report: RevocationReport,
) -> None:
    """End the user. The blocked role stays until every standby has answered: the next run finds the sessions there by its oid."""
    roles = sorted({*roles_of(server.target, level), *memberships(connection, username)})
    _release_locks(server, connection, username, oid, report, roles=roles)
    _block(server, connection, username, oid, report)
    become_member(connection, username)
    with _standbys_too(server, connection, username, oid, report):
        end_sessions(connection, oid, report)
        if waiting := end_waiting_logins(connection):
            report.notes.append(
                f"{waiting} logins that waited for a lock were ended. The server does not say whose they were."
            )
            end_sessions(connection, oid, report)
        report.notes += roll_back(server, connection, username, oid, roles)
    report.notes += note_left_transactions(connection, roles)
    report.notes += disarm_triggers(server, connection, oid)
    leave_behind(server, connection, username, report.left_behind, lent_roles=roles)
    run_unblocked(server, connection, lambda: run(connection, "DROP ROLE IF EXISTS {}", username), may_end=no_holder)
    end_sessions(connection, oid, report)


def _release_locks(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    username: str,
    oid: int,
    report: RevocationReport,
    *,
    roles: Sequence[str],
) -> None:
    """Before the login is blocked: end what may hold a lock on the user's role, and revoke the user's rights.

    Each step is tried on its own. A step that fails here runs again after the login is blocked, and there its error counts.
    """
    steps: tuple[Callable[[], object], ...] = (
        lambda: report.sessions.update(terminate(connection, oid)),
        lambda: become_member(connection, username),
        lambda: report.sessions.update(terminate(connection, oid)),
        lambda: report.notes.extend(roll_back(server, connection, username, oid, roles)),
        lambda: revoke_memberships(connection, username),
    )
    for step in steps:
        try:
            step()
        except (psycopg.Error, AdapterError):
            if connection.broken:
                raise


def _block(
    server: PostgreSQLServer, connection: PostgreSQLConnection, username: str, oid: int, report: RevocationReport
) -> None:
    """Block the login, and end the holders of a lock on the role. Where that fails, the sessions on the standbys are ended anyway."""
    try:
        report.notes += run_unblocked(
            server, connection, lambda: block_login(connection, username, oid, report), may_end=any_holder
        )
    except Blocked:
        with suppress(AdapterError), _standbys_too(server, connection, username, oid, report):
            terminate(connection, oid)
        raise


@contextmanager
def _standbys_too(
    server: PostgreSQLServer, connection: PostgreSQLConnection, username: str, oid: int | None, report: RevocationReport
) -> Iterator[None]:
    """End the sessions on the standbys while the caller's block runs on the primary. Raises AdapterError where a standby fails."""
    if not server.target.replicas:
        yield
        return
    user = standbys.SessionsToEnd(username=username, oid=oid, blocked_at=standbys.log_end(connection))
    with standbys.on_each_standby(server, connection, lambda standby: standbys.end_sessions(standby, user)) as reports:
        yield
    for standby_report in reports:
        report.add(standby_report)


def _removal(connection: PostgreSQLConnection, username: str, report: RevocationReport, *, was_absent: bool) -> Removal:
    if exists(connection, username):
        raise ServerDown(f"the user {username} still exists after it was dropped")
    return Removal(
        was_absent=was_absent,
        sessions_ended=report.sessions_ended,
        left_behind=tuple(report.left_behind.names),
        left_with=QUARANTINE_ROLE if report.left_behind.count else None,
        read_back_at=value(connection, "SELECT clock_timestamp()").astimezone(UTC),
        notes=(*report.standby_notes(), *report.notes, *report.left_behind.notes()),
    )


def block_login(connection: PostgreSQLConnection, username: str, oid: int, report: RevocationReport) -> None:
    """Block the login. It commits before the sessions are counted, so that no new one appears. Present sessions may hold the lock."""
    report.sessions |= terminate(connection, oid)
    try:
        run(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'", username)
    except psycopg.errors.UndefinedObject:
        raise ServerDown(f"somebody else is ending {username} at this moment", is_ambiguous=True) from None
    except psycopg.errors.InsufficientPrivilege as error:
        message = error.diag.message_primary
        remedy = f"GRANT {quoted(username)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"the bot may not end {username} ({message})", remedy=remedy) from None


def end_sessions(connection: PostgreSQLConnection, oid: int, report: RevocationReport) -> None:
    """End the sessions of the role on the primary until none is left. Raises Blocked where some do not end in time."""
    deadline, pause = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE
    while rows := terminate(connection, oid):
        report.sessions |= rows
        if time.monotonic() > deadline:
            raise unresponsive({pid for pid, _ in rows})
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


# The managed role, and notes for the receipt.


def _drop_managed_role(
    server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level, report: RevocationReport
) -> None:
    """Drop the level's managed role where no user has it any more. A failure is a note: a role without members gives no access."""
    try:
        drop_unused_managed_role(server, connection, level, report.left_behind)
    except (psycopg.Error, AdapterError) as error:
        reason = str(error) if isinstance(error, AdapterError) else error.diag.message_primary
        report.notes.append(
            f"The managed role of the level {level.name} has no user any more and could not be dropped: {reason}"
        )


def _note_standbys(server: PostgreSQLServer, connection: PostgreSQLConnection, report: RevocationReport) -> None:
    """Add a note where a standby is not named: the primary does not see the sessions there, and they survive the drop."""
    if unnamed := standbys.unnamed_standbys(server, connection):
        report.notes.append(f"{unnamed} in databases.yml: sessions on the others were not examined.")
