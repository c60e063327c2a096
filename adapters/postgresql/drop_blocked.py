"""The drop of blocked users that have nothing: many of them over one connection, as ends that fall together need it.

Only a user with an own mark, without login, session, member, object and privilege is dropped here. Whoever has more, or whoever a lock holds
up, is left as it is, and ``revoke.drop`` ends it. So nothing here waits for anybody, and a user of a server with standbys is always left.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import Level, Removal, ServerDown, UserToDrop
from adapters.postgresql import standbys
from adapters.postgresql.connection import MARK, REVOKE_LIMIT_SECONDS, PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.left_behind import drop_bare
from adapters.postgresql.left_privileges import LOCK_SECONDS
from adapters.postgresql.level.level_state import changes_of_levels
from adapters.postgresql.level.managed_roles import drop_unused_of_level
from adapters.postgresql.revoke import RevocationReport, end_sessions
from adapters.postgresql.sessions import FIRST_PAUSE, WAITING_LOGINS
from adapters.postgresql.statements import column, run_in_one_trip
from adapters.usernames import username_pattern

LOGINS_SECONDS = 0.5
"""Seconds in which the logins that wait for a lock must have succeeded or failed."""

BARE: LiteralString = """
SELECT r.rolname, r.oid, shobj_description(r.oid, 'pg_authid') FROM pg_roles r
 WHERE r.rolname = ANY(%s) AND NOT r.rolcanlogin AND NOT pg_is_in_recovery()
   AND NOT (r.rolsuper OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls OR r.rolcreatedb)
   AND NOT EXISTS (SELECT FROM pg_prepared_xact())
   AND NOT r.oid = ANY(ARRAY(SELECT usesysid FROM pg_stat_get_activity(NULL) WHERE usesysid IS NOT NULL))
   AND NOT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid)
   AND NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
                    WHERE m.roleid = r.oid AND u.rolname NOT IN (current_user, session_user))
"""
"""The server removes the memberships of a role that it drops."""
LEFT: LiteralString = """
SELECT u.name, u.name IN (SELECT rolname FROM pg_roles),
       u.oid = ANY(ARRAY(SELECT usesysid FROM pg_stat_get_activity(NULL) WHERE usesysid IS NOT NULL)), clock_timestamp()
  FROM unnest(%s::text[], %s::oid[]) u(name, oid)
"""


def drop_blocked(server: PostgreSQLServer, users: Sequence[UserToDrop]) -> dict[str, Removal]:
    """Username → removal, of the users that were dropped and read back. Raises ServerDown, Rejected, WrongServer."""
    if server.target.replicas:
        return {}
    pattern = username_pattern(server.target.prefix)
    wanted = {user.username: user for user in users if pattern.fullmatch(user.username)}
    with server.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        if not _is_free_of_waiting_logins(connection):
            return {}  # one of them may be a user's; ``revoke.drop`` ends them
        oids = _bare(connection, server.target.ledger, list(wanted))
        _drop_roles(connection, list(oids))
        read_back = _read_back(connection, oids)
        dropped = [wanted[name] for name in read_back]
        notes = _notes(server, connection, dropped)
    changes = changes_of_levels(server, [(user.level, user.before) for user in dropped])
    return {
        user.username: Removal(
            was_absent=False,
            sessions_ended=read_back[user.username].sessions,
            left_behind=(),
            left_with=None,
            left_count=0,
            read_back_at=read_back[user.username].at,
            notes=(*notes.get(user.level.name, ()), *found),
        )
        for user, found in zip(dropped, changes, strict=True)
    }


def _is_free_of_waiting_logins(connection: PostgreSQLConnection) -> bool:
    """Whether no login waits for a lock. Logins of the bot itself do so for a moment while roles are dropped, so it looks again."""
    deadline = time.monotonic() + LOGINS_SECONDS
    while column(connection, WAITING_LOGINS):
        if time.monotonic() > deadline:
            return False
        time.sleep(FIRST_PAUSE)
    return True


def _bare(connection: PostgreSQLConnection, ledger: str, names: list[str]) -> dict[str, int]:
    """Username → oid, of the users that carry the mark of this ledger and have nothing."""
    found = dict[str, int]()
    for name, oid, comment in connection.execute(BARE, (names,)).fetchall():
        mark = MARK.fullmatch(comment or "")
        if mark is not None and mark[1] == ledger:
            found[name] = oid
    return found


def _drop_roles(connection: PostgreSQLConnection, names: list[str]) -> None:
    """Drop all in one statement. Where the server refuses that, each by itself."""
    if not names:
        return
    listed = sql.SQL(", ").join(map(sql.Identifier, names))
    with suppress(psycopg.Error):
        run_in_one_trip(connection, sql.SQL("DROP ROLE IF EXISTS {}").format(listed), wait=LOCK_SECONDS)
        return
    if connection.broken:
        raise ServerDown("the connection was lost during the drop", is_ambiguous=True)
    for name in names:
        drop_bare(connection, name)


class _Gone:
    """What the last look shows of a dropped user."""

    def __init__(self, sessions: int, at: datetime) -> None:
        self.sessions, self.at = sessions, at.astimezone(UTC)


def _read_back(connection: PostgreSQLConnection, oids: Mapping[str, int]) -> dict[str, _Gone]:
    """The users that are gone, and have no session. A session that appeared meanwhile is ended first."""
    if not oids:
        return {}
    gone = dict[str, _Gone]()
    for name, exists, has_sessions, at in connection.execute(LEFT, (list(oids), list(oids.values()))).fetchall():
        if exists:
            continue
        report = RevocationReport()
        if has_sessions:
            end_sessions(connection, oids[name], report)
        gone[name] = _Gone(report.sessions_ended, at)
    return gone


def _notes(
    server: PostgreSQLServer, connection: PostgreSQLConnection, dropped: Sequence[UserToDrop]
) -> dict[str, list[str]]:
    """Level → notes for the receipts of its users: unnamed standbys, and a managed role that could not be dropped."""
    if not dropped:
        return {}
    unnamed = standbys.unnamed_standbys(server, int(column(connection, f"SELECT ({standbys.ATTACHED})")[0]))
    common = [f"{unnamed} in databases.yml: sessions on the others were not examined."] if unnamed else []
    levels: dict[str, Level] = {user.level.name: user.level for user in dropped}
    return {name: [*common, *drop_unused_of_level(server, connection, level)] for name, level in levels.items()}
