"""Makes managed roles equal to their levels again, where users have them. No end needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pymysql

from adapters.base import AdapterError, Level
from adapters.mysql import locks
from adapters.mysql.connection import MySQLConnection
from adapters.mysql.errors import CONNECTION_LOST, code
from adapters.mysql.levels import TIDY_TRIES, clauses, grants_of, managed_role, managed_roles_locked
from adapters.mysql.server import Server

LONGEST = 300


def refresh(server: Server, levels: Sequence[Level]) -> list[str]:
    """A sentence for each change, and for each role that could not be made equal."""
    roles = {role: level for level in levels if (role := managed_role(server.target, level)) is not None}
    if not roles:
        return []
    with server.session() as connection:
        return [
            sentence[:LONGEST]
            for role, level in roles.items()
            for sentence in _refresh(server, connection, level, role)
        ]


def _refresh(server: Server, connection: MySQLConnection, level: Level, role: str) -> Iterator[str]:
    try:
        dialect = server.dialect
        if not dialect.is_role(connection, role) or not dialect.role_members(connection, role):
            return
        with managed_roles_locked(connection, TIDY_TRIES):
            yield from _revoke_roles(server, connection, level, role)
            yield from _change_grants(server, connection, level, role)
    except (AdapterError, pymysql.MySQLError) as error:
        if isinstance(error, pymysql.MySQLError) and code(error) in CONNECTION_LOST:
            raise
        reason = error.args[-1] if error.args else type(error).__name__
        yield f"{role} could not be made equal to its level {level.name}: {reason}"


def _revoke_roles(server: Server, connection: MySQLConnection, level: Level, role: str) -> Iterator[str]:
    dialect = server.dialect
    held = set(dialect.roles_below(connection, role))
    for name in sorted(held - set(level.roles)):
        locks.run(server, connection, f"REVOKE {dialect.quoted_role(name)} FROM {dialect.quoted_role(role)}")
        yield f"the role {name} was revoked from {role}: its level {level.name} does not give it"
    for name in [name for name in level.roles if name not in held]:
        locks.run(server, connection, f"GRANT {dialect.quoted_role(name)} TO {dialect.quoted_role(role)}")
        yield f"the role {name} was granted to {role} again, as its level {level.name} has it"


def _change_grants(server: Server, connection: MySQLConnection, level: Level, role: str) -> Iterator[str]:
    quoted, wanted, held = server.dialect.quoted_role(role), dict[str, set[str]](), dict[str, set[str]]()
    for privileges, on in clauses(server, connection, level):
        wanted.setdefault(on, set()).update(privileges.split(", "))
    for grant in grants_of(server, connection, role):
        option = {"GRANT OPTION"} if grant.is_grantable else set()
        held.setdefault(grant.on, set()).update({*grant.privileges, *option})
    for on, found in held.items():
        if extra := ", ".join(sorted(found - wanted.get(on, set()))):
            locks.run(server, connection, f"REVOKE {extra} ON {on} FROM {quoted}")
            yield f"{extra} ON {on} was revoked from {role}: its level {level.name} does not give it"
    for on, names in wanted.items():
        if missing := ", ".join(sorted(names - held.get(on, set()))):
            locks.run(server, connection, f"GRANT {missing} ON {on} TO {quoted}")
            yield f"{missing} ON {on} was granted to {role} again, as its level {level.name} has it"
