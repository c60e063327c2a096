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
from psycopg import sql

from adapters.base import AdapterError, Blocked, Level, Rejected, Removal, ServerDown, Target
from adapters.postgresql import standbys, survey
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.held import session_for_end
from adapters.postgresql.left_behind import LeftBehind, drop_bare, drop_or_rename, left_by
from adapters.postgresql.level.grants import managed_role, roles_of
from adapters.postgresql.level.managed_roles import drop_unused_of_level
from adapters.postgresql.locks import any_holder, run_unblocked
from adapters.postgresql.prepared import note_left_transactions, roll_back
from adapters.postgresql.roles import BLOCK_LOGIN, become_member, note_remaining_memberships, revoke_memberships
from adapters.postgresql.sessions import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    SESSIONS_WITHIN,
    SessionKey,
    end_members,
    end_waiting_logins,
    orphans_note,
    terminate,
    unresponsive,
)
from adapters.postgresql.statements import quoted, quoted_acting_role, run, run_in_one_trip
from adapters.postgresql.triggers import disarm_triggers
from adapters.postgresql.users import FoundRole

NAMED_AT_MOST = 5
AT_ONCE_SECONDS = 0.1
"""Seconds that the first try to block the login waits for a lock. Only the further ones look for the holder."""


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
    """The user. ``roles`` are those that it had, and those of its level. ``request_id`` is from its mark, or from its name where that is lost."""

    username: str
    oid: int
    roles: Sequence[str]
    request_id: int


def drop(server: PostgreSQLServer, username: str, level: Level) -> Removal:
    """End the user and read back that it is gone.

    Raises ForeignUser, ServerDown (try again), Blocked (names the holder of the lock) and Rejected (names a remedy).
    """
    report = RevocationReport()
    with session_for_end(server, [username]) as connection:
        before = survey.before(connection, server.target, username)
        _refuse_standby(connection, before)
        if server.target.replicas:
            standbys.commit_synchronously(connection)
        if before.found is None:
            _end_remains(server, connection, username, report)
        else:
            user = _user_to_end(server.target, username, level, before)
            try:
                _end_user(server, connection, user, before, report)
            except psycopg.errors.UndefinedObject:
                raise ServerDown(f"somebody else is ending {username} at this moment", is_ambiguous=True) from None
            if managed_role(server.target, level) is not None:
                end_sessions(connection, user.oid, report)  # a later step may fail, and the next run has no oid
        report.notes += drop_unused_of_level(server, connection, level)
        return _removal(server, connection, username, before.found, report)


def _refuse_standby(connection: PostgreSQLConnection, before: survey.UserBefore) -> None:
    """Raises ServerDown on a standby: users are ended on the primary. The user's sessions on this standby are ended before."""
    if not before.is_standby:
        return
    if before.found is not None:
        terminate(connection, before.found.oid)
    raise ServerDown("this server is a standby now; users are ended on the primary")


def _user_to_end(target: Target, username: str, level: Level, before: survey.UserBefore) -> UserToEnd:
    assert before.found is not None
    had = {role for role, member, _ in before.edges if member == username}
    return UserToEnd(
        username=username,
        oid=before.found.oid,
        roles=sorted({*roles_of(target, level), *had}),
        request_id=before.request_id or int(username.removeprefix(target.prefix).split("_")[0]),
    )


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
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    user: UserToEnd,
    before: survey.UserBefore,
    report: RevocationReport,
) -> None:
    """End the user. The blocked role keeps its name until every standby has answered: the next run finds the sessions there by it."""
    _release_locks(server, connection, user, before, report)
    _block(server, connection, user, report)
    if not before.is_member:
        become_member(connection, user.username)
    with _standbys_too(server, connection, user.username, user.oid, report):
        _end_all_sessions(connection, user.oid, report)
        is_bare = survey.is_bare(connection, user.oid)
        if not is_bare:
            report.notes += roll_back(server, connection, user.username, user.oid, user.roles)
    if not (is_bare and drop_bare(connection, user.username)):
        _end_with_remains(server, connection, user, report)


def _end_with_remains(
    server: PostgreSQLServer, connection: PostgreSQLConnection, user: UserToEnd, report: RevocationReport
) -> None:
    """Drop or rename a role that has something: an object, a privilege, a membership, or perhaps a prepared transaction."""
    report.notes += note_left_transactions(connection, user.roles)
    revoke_memberships(connection, user.username)
    report.notes += disarm_triggers(server, connection, user.oid)
    report.left_behind = drop_or_rename(server, connection, user.username, user.oid, request_id=user.request_id)
    report.notes += note_remaining_memberships(connection, report.left_behind.owner)


def _end_all_sessions(connection: PostgreSQLConnection, oid: int, report: RevocationReport) -> None:
    """End the sessions of the role, also those whose login still waits for a lock."""
    end_sessions(connection, oid, report)
    if waiting := end_waiting_logins(connection):
        report.notes.append(
            f"{waiting} logins that waited for a lock were ended. The server does not say whose they were."
        )
        end_sessions(connection, oid, report)


def _release_locks(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    user: UserToEnd,
    before: survey.UserBefore,
    report: RevocationReport,
) -> None:
    """Before the login is blocked: end what may hold a lock on the user's role, and revoke the user's rights.

    Each step is tried on its own, where ``before`` shows that there is something. A step that fails here, and what appears meanwhile, comes
    again after the login is blocked, and there an error counts.
    """
    has_members = any(role == user.username for role, _, _ in before.edges)
    steps: tuple[tuple[bool, Callable[[], object]], ...] = (
        (before.has_sessions, lambda: report.sessions.update(terminate(connection, user.oid))),
        (not before.is_member, lambda: become_member(connection, user.username)),
        (not before.is_member, lambda: report.sessions.update(terminate(connection, user.oid))),
        (has_members, lambda: report.notes.extend(end_members(connection, user.username, user.oid))),
        (
            before.has_prepared,
            lambda: report.notes.extend(roll_back(server, connection, user.username, user.oid, user.roles)),
        ),
        (bool(before.edges), lambda: revoke_memberships(connection, user.username, before.edges)),
    )
    for step in [step for is_needed, step in steps if is_needed]:
        try:
            step()
        except (psycopg.Error, AdapterError):
            if connection.broken:
                raise


def _block(
    server: PostgreSQLServer, connection: PostgreSQLConnection, user: UserToEnd, report: RevocationReport
) -> None:
    """Block the login, and end the holders of a lock on the role. Where that fails, the sessions on the standbys are ended anyway."""
    with suppress(psycopg.Error):
        run_in_one_trip(connection, sql.SQL(BLOCK_LOGIN).format(sql.Identifier(user.username)), wait=AT_ONCE_SECONDS)
        return
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


def _removal(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    username: str,
    found: FoundRole | None,
    report: RevocationReport,
) -> Removal:
    """The receipt, from a last look at the server. A session that appeared meanwhile is ended, and one more look follows."""
    oid = found.oid if found is not None else None
    last = survey.at_the_end(connection, username, oid)
    if oid is not None and last.has_sessions:
        end_sessions(connection, oid, report)
        last = survey.at_the_end(connection, username, oid)
    if last.exists:
        raise ServerDown(f"the user {username} still exists after it was dropped")
    if unnamed := standbys.unnamed_standbys(server, last.attached_standbys):
        report.notes.append(f"{unnamed} in databases.yml: sessions on the others were not examined.")
    left = report.left_behind
    return Removal(
        was_absent=found is None,
        sessions_ended=report.sessions_ended,
        left_behind=tuple(left.names),
        left_with=left.owner if left.count else None,
        left_count=left.count,
        read_back_at=last.at.astimezone(UTC),
        notes=(*report.standby_notes(), *dict.fromkeys(report.notes), *left.all_notes()),
    )
