"""Taking a user away: login blocked, sessions to zero, prepared transactions, objects handed over, role dropped, read back.

Each step is its own statement and may be repeated: after a crash anywhere the next run finishes. Nothing here runs
what a temporary user made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC

import psycopg

from adapters.base import AdapterError, Level, Receipt, Rejected, Unreachable
from adapters.postgresql.connection import REVOKE_LIMIT_SECONDS, Connection, Server, exists, quoted, run, us, value
from adapters.postgresql.handover import Kept, become_member, hand_over
from adapters.postgresql.kept import drop_unused
from adapters.postgresql.levels import GRAVEYARD, roles_of
from adapters.postgresql.prepared import note_others, roll_back
from adapters.postgresql.users import find, memberships

SESSIONS_WITHIN = 8.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2


@dataclass
class Tally:
    """What was seen and done on the way, for the receipt. A session is its pid and when it began: pids come again."""

    sessions: set[tuple[int, object]] = field(default_factory=set)
    kept: Kept = field(default_factory=Kept)
    notes: list[str] = field(default_factory=list)


def drop(server: Server, username: str, level: Level) -> Receipt:
    """The whole way. Raises NotOurs, Unreachable (come back), Rejected (with what would help)."""
    tally = Tally()
    with server.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        found = find(connection, server.target, username)
        if found is None:
            _note_orphans(connection, tally)
        else:
            _take_away(server, connection, username, oid=found.oid, level=level, tally=tally)
        _kept_role(server, connection, level, tally)
        _note_standbys(server, connection, tally)
        if found is not None:
            end_sessions(connection, found.oid, tally)
        return _receipt(connection, username, tally, was_absent=found is None)


def _take_away(server: Server, connection: Connection, username: str, *, oid: int, level: Level, tally: Tally) -> None:
    block_login(connection, username)
    become_member(connection, username)
    end_sessions(connection, oid, tally)
    roll_back(server, connection, username, oid)
    roles = sorted({*roles_of(server.target, level), *memberships(connection, username)})
    tally.notes += note_others(connection, roles)
    hand_over(server, connection, username, tally.kept, lend=roles)
    run(connection, "DROP ROLE IF EXISTS {}", username)
    end_sessions(connection, oid, tally)


def _receipt(connection: Connection, username: str, tally: Tally, *, was_absent: bool) -> Receipt:
    if exists(connection, username):
        raise Unreachable(f"the user {username} is still there after it was dropped")
    return Receipt(
        was_absent=was_absent,
        sessions_ended=len(tally.sessions),
        kept=tuple(tally.kept.names),
        kept_by=GRAVEYARD if tally.kept.count else None,
        read_back_at=value(connection, "SELECT clock_timestamp()").astimezone(UTC),
        notes=(*tally.notes, *tally.kept.notes()),
    )


def block_login(connection: Connection, username: str) -> None:
    """Must be committed before sessions are counted, or a new one slips in between. Live sessions are not touched by it."""
    try:
        run(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'", username)
    except psycopg.errors.InsufficientPrivilege as error:
        words = error.diag.message_primary
        mend = f"GRANT {quoted(username)} TO {us(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"the bot may not end {username} ({words})", mend=mend) from None


def end_sessions(connection: Connection, oid: int, tally: Tally) -> None:
    """By the user's oid, since its name is gone after the drop; until none is left. Raises Unreachable when some do not end in time."""
    deadline, pause = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE
    while rows := _terminate(connection, oid):
        tally.sessions |= set(rows)
        if time.monotonic() > deadline:
            raise Unreachable(f"{len(rows)} sessions do not end")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def _terminate(connection: Connection, oid: int) -> list[tuple[int, object]]:
    """Every session there is now, told to end."""
    query = "SELECT pid, backend_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s::oid"
    try:
        rows = connection.execute(query, (oid,)).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        mend = f"GRANT pg_signal_backend TO {us(connection)};"
        raise Rejected("the bot may not end the user's sessions", mend=mend) from None
    return [(pid, began) for pid, began, _ in rows]


# Notes for the receipt.


def _note_orphans(connection: Connection, tally: Tally) -> None:
    """A session outlives its role, and one that did SET ROLE keeps what it had; whose it was, the server no longer knows."""
    rows = connection.execute(
        "SELECT pid FROM pg_stat_activity a WHERE usesysid IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid)"
    ).fetchall()
    if rows:
        steps = " ".join(f"SELECT pg_terminate_backend({pid});" for (pid,) in rows)
        tally.notes.append(f"{len(rows)} sessions of users that are no more are still open. To end them: {steps}")


def _kept_role(server: Server, connection: Connection, level: Level, tally: Tally) -> None:
    """That the role of a level cannot be dropped does not hold up the end of a user: without members it gives nobody anything."""
    try:
        drop_unused(server, connection, level, tally.kept)
    except (psycopg.Error, AdapterError) as trouble:
        words = str(trouble) if isinstance(trouble, AdapterError) else trouble.diag.message_primary
        tally.notes.append(
            f"The role kept for the level {level.name} has no user any more and could not be dropped: {words}"
        )


def _note_standbys(server: Server, connection: Connection, tally: Tally) -> None:
    """Sessions on a standby are invisible here and survive the drop."""
    standbys = value(connection, "SELECT count(*) FROM pg_stat_replication")
    if standbys and not server.target.replicas:
        tally.notes.append(
            f"{standbys} standby servers are attached and none is named in databases.yml: sessions there were not looked at."
        )
