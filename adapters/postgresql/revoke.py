"""Ends a user: sessions, prepared transactions, memberships, login, sessions again, objects handed over, role dropped, read back.

Sessions come first, because an open session or a prepared transaction may hold the very lock that blocking the login needs.
Each step is its own statement and may be repeated: after a crash anywhere the next run finishes. Nothing here runs what a
temporary user made.
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
    Server,
    exists,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.left_behind import LeftBehind, leave_behind
from adapters.postgresql.levels import QUARANTINE_ROLE, roles_of
from adapters.postgresql.locks import any_holder, no_holder, run_unblocked
from adapters.postgresql.managed_roles import drop_unused
from adapters.postgresql.members import become_member, memberships, revoke_memberships
from adapters.postgresql.prepared import note_left_transactions, roll_back
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
from adapters.postgresql.users import find


@dataclass
class RevocationReport:
    """What was seen and done on the way, for the receipt. ``there`` has the sessions on each standby."""

    sessions: set[SessionKey] = field(default_factory=set)
    there: dict[str, set[SessionKey]] = field(default_factory=dict)
    kept: LeftBehind = field(default_factory=LeftBehind)
    notes: list[str] = field(default_factory=list)

    def add(self, ended: standbys.StandbyReport) -> None:
        self.there.setdefault(ended.reference, set()).update(ended.sessions)
        self.notes += ended.notes

    @property
    def sessions_ended(self) -> int:
        return len(self.sessions) + sum(map(len, self.there.values()))

    def standby_notes(self) -> list[str]:
        return [
            f"On the standby behind {reference}: {len(sessions)} sessions ended, none left."
            for reference, sessions in self.there.items()
        ]


def drop(server: Server, username: str, level: Level) -> Removal:
    """The whole way. Raises NotOurs, Unreachable (come back), Blocked (by whom), Rejected (with what would help)."""
    tally = RevocationReport()
    with server.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        _refuse_standby(connection, username)
        if server.target.replicas:
            standbys.commit_synchronously(connection)
        found = find(connection, server.target, username, to_end=True)
        if found is None:
            tally.notes += orphans_note(connection)
            with _standbys_too(server, connection, username, None, tally):
                pass
        else:
            _end_user(server, connection, username, oid=found.oid, level=level, tally=tally)
        _drop_unused_managed_role(server, connection, level, tally)
        _note_standbys(server, connection, tally)
        if found is not None:
            end_sessions(connection, found.oid, tally)
        return _removal(connection, username, tally, was_absent=found is None)


def _refuse_standby(connection: PostgreSQLConnection, username: str) -> None:
    """Users are ended on the primary. The sessions that this server has of the user are ended before that is said."""
    if not value(connection, "SELECT pg_is_in_recovery()"):
        return
    oid = value(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", (username,))
    if oid is not None:
        terminate(connection, oid)
    raise ServerDown("this server is a standby now; users are ended on the primary")


def _end_user(
    server: Server, connection: PostgreSQLConnection, username: str, *, oid: int, level: Level, tally: RevocationReport
) -> None:
    """The role stays, blocked, until every standby has answered: by its oid the next run finds what is left there."""
    roles = sorted({*roles_of(server.target, level), *memberships(connection, username)})
    _release_locks(server, connection, username, oid, tally, roles=roles)
    _block(server, connection, username, oid, tally)
    become_member(connection, username)
    with _standbys_too(server, connection, username, oid, tally):
        end_sessions(connection, oid, tally)
        if waiting := end_waiting_logins(connection):
            tally.notes.append(f"{waiting} logins that waited for a lock were ended; whose they were cannot be seen.")
            end_sessions(connection, oid, tally)
        tally.notes += roll_back(server, connection, username, oid, roles)
    tally.notes += note_left_transactions(connection, roles)
    leave_behind(server, connection, username, tally.kept, lend=roles)
    run_unblocked(server, connection, lambda: run(connection, "DROP ROLE IF EXISTS {}", username), may_end=no_holder)
    end_sessions(connection, oid, tally)


def _release_locks(
    server: Server,
    connection: PostgreSQLConnection,
    username: str,
    oid: int,
    tally: RevocationReport,
    *,
    roles: Sequence[str],
) -> None:
    """Before the login is blocked: what holds a lock that this needs goes, and the rights go from whoever keeps it waiting.

    Each step is tried for itself. One that is refused here is tried again after the login is blocked, where it counts.
    """
    steps: tuple[Callable[[], object], ...] = (
        lambda: tally.sessions.update(terminate(connection, oid)),
        lambda: become_member(connection, username),
        lambda: tally.sessions.update(terminate(connection, oid)),
        lambda: tally.notes.extend(roll_back(server, connection, username, oid, roles)),
        lambda: revoke_memberships(connection, username),
    )
    for step in steps:
        try:
            step()
        except (psycopg.Error, AdapterError):
            if connection.broken:
                raise


def _block(server: Server, connection: PostgreSQLConnection, username: str, oid: int, tally: RevocationReport) -> None:
    """Whoever holds the user's role locked is ended. Where that fails, the sessions on the standbys end all the same."""
    try:
        tally.notes += run_unblocked(
            server, connection, lambda: block_login(connection, username, oid, tally), may_end=any_holder
        )
    except Blocked:
        with suppress(AdapterError), _standbys_too(server, connection, username, oid, tally):
            terminate(connection, oid)
        raise


@contextmanager
def _standbys_too(
    server: Server, connection: PostgreSQLConnection, username: str, oid: int | None, tally: RevocationReport
) -> Iterator[None]:
    """While the caller's block ends sessions here, those on the standbys are ended. Raises when a standby did not answer."""
    if not server.target.replicas:
        yield
        return
    ending = standbys.SessionsToEnd(username=username, oid=oid, blocked_at=standbys.log_end(connection))
    with standbys.on_each_standby(server, connection, lambda standby: standbys.end_sessions(standby, ending)) as there:
        yield
    for ended in there:
        tally.add(ended)


def _removal(connection: PostgreSQLConnection, username: str, tally: RevocationReport, *, was_absent: bool) -> Removal:
    if exists(connection, username):
        raise ServerDown(f"the user {username} is still there after it was dropped")
    return Removal(
        was_absent=was_absent,
        sessions_ended=tally.sessions_ended,
        left_behind=tuple(tally.kept.names),
        left_with=QUARANTINE_ROLE if tally.kept.count else None,
        read_back_at=value(connection, "SELECT clock_timestamp()").astimezone(UTC),
        notes=(*tally.standby_notes(), *tally.notes, *tally.kept.notes()),
    )


def block_login(connection: PostgreSQLConnection, username: str, oid: int, tally: RevocationReport) -> None:
    """Must be committed before sessions are counted, or a new one slips in between. Sessions of now end first: they may hold the lock."""
    tally.sessions |= terminate(connection, oid)
    try:
        run(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'", username)
    except psycopg.errors.UndefinedObject:
        raise ServerDown(f"somebody else ends {username} at this moment", is_ambiguous=True) from None
    except psycopg.errors.InsufficientPrivilege as error:
        words = error.diag.message_primary
        remedy = f"GRANT {quoted(username)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"the bot may not end {username} ({words})", remedy=remedy) from None


def end_sessions(connection: PostgreSQLConnection, oid: int, tally: RevocationReport) -> None:
    """On the primary, until none is left. Raises Unreachable when some do not end in time."""
    deadline, pause = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE
    while rows := terminate(connection, oid):
        tally.sessions |= rows
        if time.monotonic() > deadline:
            raise unresponsive({pid for pid, _ in rows})
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


# Notes for the receipt.


def _drop_unused_managed_role(
    server: Server, connection: PostgreSQLConnection, level: Level, tally: RevocationReport
) -> None:
    """That the role of a level cannot be dropped does not hold up the end of a user: without members it gives nobody anything."""
    try:
        drop_unused(server, connection, level, tally.kept)
    except (psycopg.Error, AdapterError) as trouble:
        words = str(trouble) if isinstance(trouble, AdapterError) else trouble.diag.message_primary
        tally.notes.append(
            f"The role kept for the level {level.name} has no user any more and could not be dropped: {words}"
        )


def _note_standbys(server: Server, connection: PostgreSQLConnection, tally: RevocationReport) -> None:
    """Sessions on a standby are invisible here and survive the drop."""
    if unnamed := standbys.unnamed_standbys(server, connection):
        tally.notes.append(f"{unnamed} in databases.yml: sessions on the others were not looked at.")
