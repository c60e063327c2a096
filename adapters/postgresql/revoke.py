"""Revocation: end sessions, roll back, revoke memberships, block the login, end sessions again, drop or rename the role, read back.

Sessions come first, because an open session or a prepared transaction may hold the lock that blocking the login needs. Each step
is a statement of its own and may be repeated, so the next run finishes after a crash at any point. No step runs code of a temporary
user, and no step waits for a lock on the user's objects. The server's version is not checked: a user on an unsupported server is ended too.
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
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.held import session_for_end
from adapters.postgresql.left_behind import LeftBehind, drop_or_rename, left_by
from adapters.postgresql.level.grants import roles_of
from adapters.postgresql.level.managed_roles import drop_unused_of_level
from adapters.postgresql.locks import any_holder, run_unblocked
from adapters.postgresql.prepared import note_left_transactions, roll_back
from adapters.postgresql.roles import BLOCK_LOGIN, become_member, members_of_members, memberships, revoke_memberships
from adapters.postgresql.sessions import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SESSIONS_WITHIN,
    SessionKey,
    end_waiting_logins,
    orphans_note,
    terminate,
    terminate_role,
    unresponsive,
)
from adapters.postgresql.statements import bounded, exists, quoted, quoted_acting_role, run, value
from adapters.postgresql.triggers import disarm_triggers
from adapters.postgresql.users import find, request_of

NAMED_AT_MOST = 5


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


@dataclass(frozen=True, kw_only=True)
class UserToEnd:
    """The user. ``roles`` are those that it had, and those of its level."""

    username: str
    oid: int
    roles: Sequence[str]


def drop(server: PostgreSQLServer, username: str, level: Level) -> Removal:
    """End the user and read back that it is gone.

    Raises ForeignUser, ServerDown (try again), Blocked (names the holder of the lock) and Rejected (names a remedy).
    """
    report = RevocationReport()
    with session_for_end(server, [username]) as connection:
        _refuse_standby(connection, username)
        if server.target.replicas:
            standbys.commit_synchronously(connection)
        found = find(connection, server.target, username, for_removal=True)
        if found is None:
            _end_remains(server, connection, username, report)
        else:
            roles = sorted({*roles_of(server.target, level), *memberships(connection, username)})
            try:
                _end_user(server, connection, UserToEnd(username=username, oid=found.oid, roles=roles), report)
            except psycopg.errors.UndefinedObject:
                raise ServerDown(f"somebody else is ending {username} at this moment", is_ambiguous=True) from None
        report.notes += drop_unused_of_level(server, connection, level)
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


def _end_remains(
    server: PostgreSQLServer, connection: PostgreSQLConnection, username: str, report: RevocationReport
) -> None:
    """The user is absent: an earlier run ended it, or somebody else did. Its sessions on the standbys are ended, and its left role is reported."""
    report.notes += orphans_note(connection)
    with _standbys_too(server, connection, username, None, report):
        pass
    left = left_by(connection, server.target.ledger, username, server.target.prefix)
    if left is not None:
        end_sessions(connection, left.oid, report)
        report.left_behind = LeftBehind(count=left.objects, owner=left.name)


def _end_user(
    server: PostgreSQLServer, connection: PostgreSQLConnection, user: UserToEnd, report: RevocationReport
) -> None:
    """End the user. The blocked role keeps its name until every standby has answered: the next run finds the sessions there by it."""
    _release_locks(server, connection, user, report)
    _block(server, connection, user, report)
    become_member(connection, user.username)
    with _standbys_too(server, connection, user.username, user.oid, report):
        end_sessions(connection, user.oid, report)
        if waiting := end_waiting_logins(connection):
            report.notes.append(
                f"{waiting} logins that waited for a lock were ended. The server does not say whose they were."
            )
            end_sessions(connection, user.oid, report)
        report.notes += roll_back(server, connection, user.username, user.oid, user.roles)
    report.notes += note_left_transactions(connection, user.roles)
    revoke_memberships(connection, user.username)
    report.notes += disarm_triggers(server, connection, user.oid)
    request_id = request_of(connection, server.target, user.username)
    report.left_behind = drop_or_rename(server, connection, user.username, user.oid, request_id=request_id)
    report.notes += _remaining_memberships(connection, report.left_behind.owner)
    end_sessions(connection, user.oid, report)


def _release_locks(
    server: PostgreSQLServer, connection: PostgreSQLConnection, user: UserToEnd, report: RevocationReport
) -> None:
    """Before the login is blocked: end what may hold a lock on the user's role, and revoke the user's rights.

    Each step is tried on its own. A step that fails here runs again after the login is blocked, and there its error counts.
    """
    steps: tuple[Callable[[], object], ...] = (
        lambda: report.sessions.update(terminate(connection, user.oid)),
        lambda: become_member(connection, user.username),
        lambda: report.sessions.update(terminate(connection, user.oid)),
        lambda: report.notes.extend(_end_members(connection, user)),
        lambda: report.notes.extend(roll_back(server, connection, user.username, user.oid, user.roles)),
        lambda: revoke_memberships(connection, user.username),
    )
    for step in steps:
        try:
            step()
        except (psycopg.Error, AdapterError):
            if connection.broken:
                raise


def _end_members(connection: PostgreSQLConnection, user: UserToEnd) -> list[str]:
    """Revoke the user's role from its members and end their sessions: after SET ROLE a session keeps the rights of that role.

    Returns a note for the receipt: nobody should be a member of a temporary user.
    """
    found = members_of_members(connection, user.oid)
    if not found:
        return []
    revoke_memberships(connection, user.username)
    ended, refused = 0, list[str]()
    for member in found:
        try:
            ended += len(terminate_role(connection, member))
        except Rejected:
            refused.append(member)
    notes = [f"{bounded(found)} could act as this user: {ended} of their sessions were ended."]
    for member in refused[:NAMED_AT_MOST]:
        name = member.replace("'", "''")
        statement = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{name}';"
        notes.append(f"Sessions of {member} may still act as this user. To end them, as a superuser: {statement}")
    return notes


def _remaining_memberships(connection: PostgreSQLConnection, left: str | None) -> list[str]:
    """A note on the memberships of the left role that the bot could not revoke. A dropped role has none."""
    refused = revoke_memberships(connection, left) if left is not None else []
    if not refused:
        return []
    return [
        f"Memberships of {left} that could not be revoked yet, for lack of a right or because of a lock: {bounded(refused)}"
    ]


def _block(
    server: PostgreSQLServer, connection: PostgreSQLConnection, user: UserToEnd, report: RevocationReport
) -> None:
    """Block the login, and end the holders of a lock on the role. Where that fails, the sessions on the standbys are ended anyway."""
    try:
        report.notes += run_unblocked(
            server, connection, lambda: block_login(connection, user.username, user.oid, report), may_end=any_holder
        )
    except Blocked:
        with suppress(AdapterError), _standbys_too(server, connection, user.username, user.oid, report):
            terminate(connection, user.oid)
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


def block_login(connection: PostgreSQLConnection, username: str, oid: int, report: RevocationReport) -> None:
    """Block the login. It commits before the sessions are counted, so that no new one appears. Present sessions may hold the lock."""
    report.sessions |= terminate(connection, oid)
    try:
        run(connection, BLOCK_LOGIN, username)
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


# The receipt.


def _removal(connection: PostgreSQLConnection, username: str, report: RevocationReport, *, was_absent: bool) -> Removal:
    if exists(connection, username):
        raise ServerDown(f"the user {username} still exists after it was dropped")
    left = report.left_behind
    return Removal(
        was_absent=was_absent,
        sessions_ended=report.sessions_ended,
        left_behind=tuple(left.names),
        left_with=left.owner if left.count else None,
        left_count=left.count,
        read_back_at=value(connection, "SELECT clock_timestamp()").astimezone(UTC),
        notes=(*report.standby_notes(), *dict.fromkeys(report.notes), *left.all_notes()),
    )


def _note_standbys(server: PostgreSQLServer, connection: PostgreSQLConnection, report: RevocationReport) -> None:
    """Add a note where a standby is not named: the primary does not see the sessions there, and they survive the drop."""
    if unnamed := standbys.unnamed_standbys(server, connection):
        report.notes.append(f"{unnamed} in databases.yml: sessions on the others were not examined.")
