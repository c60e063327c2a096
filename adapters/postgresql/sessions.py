"""Sessions of temporary users on one server: the login that proves a server, and the end of all sessions of a user.

A session is found by the oid of its user, because the name is gone after the drop.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import suppress

import psycopg

from adapters.base import Blocked, Level, LoginRefused, Rejected, ServerDown
from adapters.postgresql.connection import CONNECT_SECONDS, PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import LOGIN_REFUSED
from adapters.postgresql.level.grants import level_database
from adapters.postgresql.roles import members_of_members, revoke_memberships
from adapters.postgresql.statements import bounded, column, quoted_acting_role, value
from adapters.usernames import scrub

SESSIONS_WITHIN = 8.0
"""Seconds in which sessions that were told to end must be gone."""
NAMED_AT_MOST = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2
"""Seconds between two attempts to end the sessions."""
LATE_LOGIN_SECONDS = 0.05
"""A login that succeeded just before it was blocked is listed with a delay. No session is left when two readings, this far apart in seconds, list none."""

ORPHANS = (
    "SELECT pid FROM pg_stat_activity a WHERE usesysid IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid) ORDER BY 1"
)

WAITING_LOGINS = """
SELECT DISTINCT l.pid FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE NOT l.granted AND l.pid IS NOT NULL AND a.usesysid IS NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
"""
"""Logins that wait for a lock. Before version 18 no list of sessions has them. From 18 on ``pg_stat_activity`` has them, and a bot
that is no superuser does not see what they are. Workers of the server are excluded: the bot may not end them."""

BOT_SETTINGS = ("user", "password", "passfile", "options")
"""Parts of the admin URL that hold for the bot alone."""

SessionKey = tuple[int, object]
"""The pid of a session and its start time: the server uses pids again."""


# Logins.


class PostgreSQLLogin:
    """Implements ``adapters.base.Login``."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection

    def is_alive(self) -> bool:
        """Whether the server answers on this session. A session whose user was dropped counts as alive while it does."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def log_in(server: PostgreSQLServer, username: str, password: str, level: Level) -> PostgreSQLLogin:
    """Log in as the temporary user, at the address of the admin URL. A team proves its own server with it.

    Raises LoginRefused, and ServerDown where the server gave no answer about the password.
    """
    known = {key: value for key, value in server.conninfo.items() if key not in BOT_SETTINGS}
    own = {"user": username, "password": password, "dbname": level_database(server, level)}
    try:
        connection = psycopg.connect(**{**known, **own, "connect_timeout": CONNECT_SECONDS}, autocommit=True)
    except psycopg.OperationalError as error:
        message = scrub(" ".join(str(error).split()), password)
        if LOGIN_REFUSED.search(message):
            raise LoginRefused(message) from None
        raise ServerDown(f"no login as {username}: {message}") from None
    return PostgreSQLLogin(connection)


# The end of sessions.


def terminate(connection: PostgreSQLConnection, oid: int) -> set[SessionKey]:
    """Tell every present session of the role to end, and return these sessions. Raises Rejected where the bot may not."""
    query = "SELECT pid, backend_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s::oid"
    try:
        rows = connection.execute(query, (oid,)).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT pg_signal_backend TO {quoted_acting_role(connection)};"
        raise Rejected("the bot may not end the user's sessions", remedy=remedy) from None
    return {(pid, began) for pid, began, _ in rows}


def terminate_role(connection: PostgreSQLConnection, role: str) -> set[SessionKey]:
    """As ``terminate``, by the name of the role."""
    oid = value(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", (role,))
    return terminate(connection, oid) if oid is not None else set()


def end_members(connection: PostgreSQLConnection, username: str, oid: int) -> list[str]:
    """Revoke the user's role from its members and end their sessions: after SET ROLE a session keeps the rights of that role.

    Returns a note for the receipt: nobody should be a member of a temporary user.
    """
    found = members_of_members(connection, oid)
    if not found:
        return []
    revoke_memberships(connection, username)
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


def end_waiting_logins(connection: PostgreSQLConnection) -> int:
    """End the logins that wait for a lock, and return their number. The server does not say yet whose logins they are.

    The server has already checked that such a login is allowed, so it could succeed after the drop. Every one that the bot may
    end is ended, because its user is unknown; its client may try again. Raises Blocked where one does not end.
    """
    terminated = [pid for pid in column(connection, WAITING_LOGINS) if _terminate_one(connection, pid)]
    deadline = time.monotonic() + SESSIONS_WITHIN
    while terminated and (left := set(terminated) & set(column(connection, WAITING_LOGINS))):
        if time.monotonic() > deadline:
            raise unresponsive(left)
        time.sleep(FIRST_PAUSE)
    return len(terminated)


def _terminate_one(connection: PostgreSQLConnection, pid: int) -> bool:
    try:
        return bool(value(connection, "SELECT pg_terminate_backend(%s)", (pid,)))
    except psycopg.errors.InsufficientPrivilege:
        return False  # a superuser's login: no temporary user


def unresponsive(pids: Collection[int], where: str = "") -> Blocked:
    """The error for sessions that do not end: some functions of the server ignore interrupts, so only the operating system ends them."""
    named = ", ".join(map(str, sorted(pids)[:NAMED_AT_MOST]))
    remedy = f"on the server's host, end the process of each as the server's own user: kill {named.replace(',', '')}"
    return Blocked(f"{len(pids)} sessions were told to end and do not{where}: processes {named}", remedy=remedy)


def orphans_note(connection: PostgreSQLConnection, where: str = "") -> list[str]:
    """A note on sessions whose role was dropped, or nothing. After SET ROLE such a session keeps its privileges.

    The server no longer knows whose sessions they were. ``where`` is added to the sentence.
    """
    pids = column(connection, ORPHANS)
    steps = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in pids[:NAMED_AT_MOST])
    further = f" and {len(pids) - NAMED_AT_MOST} more" if len(pids) > NAMED_AT_MOST else ""
    return (
        [f"{len(pids)} sessions of dropped users are still open{where}. To end them: {steps}{further}"] if pids else []
    )
