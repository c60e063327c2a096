"""Sessions of temporary users that may hold a lock on the accounts, where the server does not say who holds it."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pymysql

from adapters.mysql.connection import MySQLConnection, account, matches
from adapters.mysql.server import Server
from adapters.usernames import username_pattern

SYSTEM = "mysql"
LOCKING_GRANT = re.compile(
    r"GRANT .*\b(?:RELOAD|LOCK TABLES|BACKUP_ADMIN|FLUSH_TABLES|ALL PRIVILEGES)\b.* ON (\*|`.+`)\.\* TO .*"
)
ROLE_GRANT = re.compile(r"GRANT (`.+`) TO .*")


def sessions_of_suspects(server: Server, connection: MySQLConnection) -> list[int]:
    """Sessions that read the server's own tables at this moment, and all sessions of users that may lock these tables.

    A role with the right to lock them is refused for grants, so few users have it: an administrator gave it to their role later.
    """
    prefix = server.target.prefix
    query = (
        "SELECT id, user, command IN ('Query', 'Execute') AND (db = 'mysql' OR info LIKE '%mysql%')"
        f" FROM information_schema.processlist WHERE LEFT(user, {len(prefix)}) = {connection.literal(prefix)}"
    )
    pattern = username_pattern(prefix)
    found = [(session, user, reads) for session, user, reads in connection.run(query) if pattern.fullmatch(user)]
    able = {user for user in {user for _, user, _ in found} if _may_lock(connection, account(user), set())}
    return [int(session) for session, user, reads in found if reads or user in able]


def _may_lock(connection: MySQLConnection, grantee: str, seen: set[str]) -> bool:
    """By SHOW GRANTS, which both servers answer from memory: the tables themselves may be locked. ``grantee`` is quoted."""
    if grantee in seen:
        return False
    seen.add(grantee)
    try:
        lines = connection.column(f"SHOW GRANTS FOR {grantee}")
    except pymysql.MySQLError:
        return False
    return any(_is_on_accounts(line) for line in lines) or any(
        _may_lock(connection, role, seen) for role in _roles(lines)
    )


def _is_on_accounts(line: str) -> bool:
    found = LOCKING_GRANT.fullmatch(line)
    return found is not None and (found[1] == "*" or matches(found[1].strip("`"), SYSTEM))


def _roles(lines: Iterable[str]) -> list[str]:
    """Quoted, with the host on MySQL."""
    return [role for line in lines if (found := ROLE_GRANT.fullmatch(line)) for role in found[1].split(",")]
