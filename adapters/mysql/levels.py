"""Turns a level into the one role that its users get: an existing role, or a managed role with the level's grants and roles.

It is one role because MariaDB has one default role. A managed role is created, made equal to the level, read back, and dropped when
no user has it. Temporary users never get direct grants.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.base import Level, PrivilegeGrant, Rejected, ServerDown, Target
from adapters.mysql import locks
from adapters.mysql.connection import MySQLConnection, matches, quoted, quoted_if_needed
from adapters.mysql.server import Server
from adapters.mysql.sessions import kill

PRIVILEGES = frozenset(
    {
        "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES",
        "CREATE VIEW", "SHOW VIEW", "CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE",
    }
)  # fmt: skip
"""Privileges that a level may grant. EVENT, TRIGGER and CREATE ROUTINE are left out because what they create runs on after the user is gone; the rest administers servers."""

NOT_ON_TABLES = frozenset({"CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE"})
ON_WHOLE_SERVER = frozenset(
    {"SELECT", "SHOW VIEW", "SHOW DATABASES", "EXECUTE", "CREATE TEMPORARY TABLES", "REFERENCES", "SHOW_ROUTINE", "SHOW CREATE ROUTINE"}
)  # fmt: skip
"""Privileges that a role may have on ``*.*``. With more, a user could outlive the grant, end the sessions of others, write the tables of accounts, or lock them:
LOCK TABLES on ``mysql.user`` and BACKUP_ADMIN hold up the end of every user. On single databases these privileges are safe."""

READS = frozenset({"SELECT", "SHOW VIEW"})
"""Privileges that a role may have on the server's own schema and on ``ops_schema``, which contains the users' events."""

SYSTEM = "mysql"
LASTING_PRIVILEGES = frozenset({"EVENT", "TRIGGER", "CREATE ROUTINE", "ALTER ROUTINE"})
"""On one database: objects created with these act on after their creator is gone. ``check`` warns of them."""

LIMITS = {
    "max_user_connections": 10,
    "max_queries_per_hour": 0,
    "max_updates_per_hour": 0,
    "max_connections_per_hour": 0,
}
"""Per-user limits of the server with their defaults; ``settings`` overrides them. 0 is no limit."""

IGNORED_LINE = re.compile(r"GRANT (USAGE ON|PROXY ON|[`'])|REVOKE |SET DEFAULT ROLE ")
"""Lines of SHOW GRANTS that grant no privilege. PROXY that a role has does not count for its members: see ``proxies``."""

MANAGED_ROLE = re.compile(r"dbaccess_.{0,12}_[0-9a-f]{8}")
KIND = re.compile(r"^[A-Z ]+ (?=`)")
PRIVILEGE_SEPARATOR = re.compile(r", (?![^(]*\))")
WILDCARD, ESCAPED = re.compile(r"([_%\\])"), r"\\\1"
MANAGED_ROLES_LOCK = "dbaccess kept roles"
"""Bots of all versions take the lock of this name, so the name does not change."""

LOCK_TRIES, LOCK_TRY_SECONDS = 8, 2
"""A grant waits so often and so long for the grants of other bots."""

TIDY_TRIES = 2
"""The same for what only tidies up."""


def limits_of(server: Server, level: Level) -> str:
    """``MAX_USER_CONNECTIONS 10 …``. Raises Rejected for a setting that the server does not have for one user."""
    found = dict(LIMITS)
    known = (*LIMITS, *server.dialect.further_limits)
    for name, value in level.settings.items():
        if name.lower() not in known or not value.isdigit():
            remedy = f"use whole numbers for {', '.join(known)}"
            raise Rejected(f"{server.dialect.label} has no setting {name} = {value} for one user", remedy=remedy)
        found[name.lower()] = int(value)
    return " ".join(f"{name.upper()} {number}" for name, number in found.items())


def managed_role(target: Target, level: Level) -> str | None:
    """The name of the level's managed role, or None where the level is one existing role."""
    if not level.grants and len(level.roles) == 1:
        return None
    grants = [[sorted(g.on), sorted(p.upper() for p in g.privileges)] for g in level.grants]
    parts = [target.prefix, target.name, level.database, level.name, sorted(level.roles), sorted(grants)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    return f"dbaccess_{level.name[:12]}_{digest}"


@contextmanager
def managed_roles_locked(connection: MySQLConnection, tries: int = LOCK_TRIES) -> Iterator[None]:
    """Hold a lock of the server while a managed role changes, so that nobody drops it as unused before the user has it.

    Any account may take such a lock, and only bots use it. A connection that holds it longer than a grant takes is killed unless it is
    this bot's own login. If it belongs to another bot, that bot repeats its grant. A revocation waits for this lock only after its proof.
    """
    _take_lock(connection, tries)
    try:
        yield
    finally:
        connection.release(MANAGED_ROLES_LOCK)


def _take_lock(connection: MySQLConnection, tries: int) -> None:
    """Raises ServerDown, which names the connection that holds the lock."""
    lock, holder = connection.literal(MANAGED_ROLES_LOCK), None
    for _ in range(tries):
        before = connection.value(f"SELECT IS_USED_LOCK({lock})")
        if connection.value(f"SELECT GET_LOCK({lock}, {LOCK_TRY_SECONDS})") == 1:
            return
        holder = connection.value(f"SELECT IS_USED_LOCK({lock})")
        if holder is not None and holder == before:
            _kill_squatter(connection, holder)
    raise ServerDown(f"another grant changes the same roles, by connection {holder}")


def _kill_squatter(connection: MySQLConnection, holder: int) -> None:
    """Kill the holder and those sessions of the same user that wait for the lock. The bot's own sessions are spared."""
    query = (
        "SELECT p.id FROM information_schema.processlist p JOIN information_schema.processlist h ON h.user = p.user"
        f" WHERE h.id = {int(holder)} AND h.user <> SUBSTRING_INDEX(USER(), '@', 1) AND (p.id = h.id OR p.state = 'User lock')"
    )
    kill(connection, connection.column(query))


def role_to_grant(server: Server, connection: MySQLConnection, level: Level) -> str:
    """The one role that a user of this level gets. Raises Rejected for a role that is missing or dangerous."""
    for role in level.roles:
        require_safe_role(server, connection, role)
    managed = managed_role(server.target, level)
    if managed is None:
        return level.roles[0]
    _make_equal(server, connection, level, managed)
    return managed


def require_safe_role(server: Server, connection: MySQLConnection, role: str) -> None:
    """Raises Rejected for a role that does not exist or that ``danger`` refuses."""
    if not server.dialect.is_role(connection, role):
        remedy = f"CREATE ROLE {quoted_if_needed(role)}; and grant it what the level promises"
        raise Rejected(f"the role {role} does not exist", remedy=remedy)
    if reason := danger(server, connection, role):
        raise Rejected(reason, remedy="name a role without these in databases.yml")


@dataclass(frozen=True, kw_only=True)
class RoleGrant:
    """One line of a role's grants. ``on`` is spelled as GRANT and REVOKE need it: ``*.*``, `` `shop`.* ``, `` `shop`.`orders` ``."""

    privileges: tuple[str, ...]
    on: str
    is_grantable: bool


def grants_of(server: Server, connection: MySQLConnection, role: str) -> list[RoleGrant]:
    """The role's own grants, from SHOW GRANTS. On MariaDB information_schema lacks some of them and adds those of roles below.

    Raises Rejected for a line that is not understood.
    """
    below = with_roles_below(server, connection, role)[1:]
    lines = connection.column(f"SHOW GRANTS FOR {server.dialect.quoted_role(role)}")
    return [grant for line in lines if (grant := _parsed(line, role, below)) is not None]


def _parsed(line: str, role: str, below: Sequence[str]) -> RoleGrant | None:
    """None for a line that grants the role no privilege: USAGE, roles (see ``roles_below``), REVOKE, PROXY, and on MariaDB grants of a role below."""
    if IGNORED_LINE.match(line):
        return None
    if found := _line_pattern(role).fullmatch(line):
        kind = "" if found[2] == "TABLE " else found[2]
        return RoleGrant(
            privileges=tuple(PRIVILEGE_SEPARATOR.split(found[1])), on=kind + found[3], is_grantable=bool(found[4])
        )
    if any(_line_pattern(name).fullmatch(line) for name in below):
        return None
    remedy = "name another role in databases.yml"
    raise Rejected(f"the role {role} has a right that is not understood: {line}", remedy=remedy)


def _line_pattern(role: str) -> re.Pattern[str]:
    """A line of SHOW GRANTS in four groups: privileges, kind of object, object, grant option."""
    kinds = "TABLE |PROCEDURE |FUNCTION |PACKAGE |PACKAGE BODY "
    name = re.escape(role.replace("`", "``"))
    return re.compile(rf"GRANT (.+?) ON ((?:{kinds})?)(.+) TO [`']{name}[`'](?:@\S+)?( WITH GRANT OPTION)?")


def danger(server: Server, connection: MySQLConnection, role: str) -> str | None:
    """The reason why a temporary user must not get this role, or None. The roles below it count too."""
    for name in with_roles_below(server, connection, role):
        via = "" if name == role else f" (through {name})"
        for grant in grants_of(server, connection, name):
            if found := _dangerous_privilege(grant, server.target.ops_schema):
                return f"the role {role} has {found}{via}: a user with it could outlive the grant"
            if grant.is_grantable:
                return f"the role {role} may give its rights to others{via}: a user with it could outlive the grant"
    return None


def _dangerous_privilege(grant: RoleGrant, ops_schema: str) -> str | None:
    """A privilege on the whole server beyond ON_WHOLE_SERVER, or one beyond READS on ``mysql`` or ``ops_schema``, also by a pattern that matches their names."""
    privileges = set(grant.privileges)
    if grant.on == "*.*":
        found = sorted(privileges - ON_WHOLE_SERVER)
        return f"{found[0]} on the whole server" if found else None
    schema = KIND.sub("", grant.on).partition("`.")[0].strip("`")
    if any(matches(schema, own) for own in (SYSTEM, ops_schema)) and (found := sorted(privileges - READS)):
        return f"{found[0]} on {grant.on}, where the server keeps its accounts or their events,"
    return None


def lasting_privileges(server: Server, connection: MySQLConnection, role: str) -> list[str]:
    """``EVENT ON shop.*`` and the like: with these a user can leave objects that act on without it."""
    return [
        f"{privilege} ON {grant.on}"
        for name in with_roles_below(server, connection, role)
        for grant in grants_of(server, connection, name)
        for privilege in grant.privileges
        if privilege in LASTING_PRIVILEGES or privilege == "ALL PRIVILEGES"
    ]


def with_roles_below(server: Server, connection: MySQLConnection, role: str) -> list[str]:
    """The role itself first, then the roles that it includes."""
    found, queue = [role], [role]
    while queue:
        below = [name for name in server.dialect.roles_below(connection, queue.pop()) if name not in found]
        found += below
        queue += below
    return found


def _make_equal(server: Server, connection: MySQLConnection, level: Level, role: str) -> None:
    """Create the managed role and make it equal to the level. Its name is a digest of the level, so somebody else made every difference."""
    wanted = clauses(server, connection, level)
    dialect = server.dialect
    locks.run(server, connection, f"CREATE ROLE IF NOT EXISTS {dialect.quoted_role(role)}")
    if reason := danger(server, connection, role):
        raise Rejected(reason, remedy=f"DROP ROLE {quoted_if_needed(role)}; and dbaccess creates it again")
    for below in level.roles:
        locks.run(server, connection, f"GRANT {dialect.quoted_role(below)} TO {dialect.quoted_role(role)}")
    for privileges, on in wanted:
        locks.run(server, connection, f"GRANT {privileges} ON {on} TO {dialect.quoted_role(role)}")
    extra = sorted(set(dialect.roles_below(connection, role)) - set(level.roles))
    if extra:
        remedy = f"REVOKE {quoted_if_needed(extra[0])} FROM {quoted_if_needed(role)};"
        raise Rejected(f"somebody granted {role} the role {extra[0]}, which its level does not include", remedy=remedy)
    _revoke_extra(server, connection, role, wanted)


def _revoke_extra(server: Server, connection: MySQLConnection, role: str, wanted: list[tuple[str, str]]) -> None:
    """Read the role's grants back and revoke what the level does not include."""
    for grant in grants_of(server, connection, role):
        expected = {one for privileges, on in wanted if on == grant.on for one in privileges.split(", ")}
        if extra := ", ".join(privilege for privilege in grant.privileges if privilege not in expected):
            locks.run(server, connection, f"REVOKE {extra} ON {grant.on} FROM {server.dialect.quoted_role(role)}")


def clauses(server: Server, connection: MySQLConnection, level: Level) -> list[tuple[str, str]]:
    """(privileges, object) of each of the level's grants, as GRANT takes them. Raises Rejected for what a level cannot grant."""
    escaped = ESCAPED if level.grants and server.dialect.has_wildcards(connection) else r"\1"
    return [(_privileges(grant, on), _object(server, level, on, escaped)) for grant in level.grants for on in grant.on]


def _privileges(grant: PrivilegeGrant, on: str) -> str:
    """``on`` with a ``*`` is a whole database, on which more privileges exist than on a table."""
    privileges = sorted({privilege.upper() for privilege in grant.privileges})
    allowed = PRIVILEGES if on.endswith("*") else PRIVILEGES - NOT_ON_TABLES
    if wrong := [privilege for privilege in privileges if privilege not in allowed]:
        raise Rejected(f"a level cannot give {wrong[0]} on {on}", remedy=f"use {', '.join(sorted(allowed))}")
    return ", ".join(privileges)


def _object(server: Server, level: Level, on: str, escaped: str) -> str:
    """A table or a whole database, quoted. A name without a dot is in the level's database. Where GRANT takes ``_`` and ``%`` in a whole database's name as wildcards, they are escaped."""
    schema, dot, table = on.rpartition(".")
    schema = schema if dot else server.database_of(level) or ""
    if schema in (SYSTEM, server.target.ops_schema):
        raise Rejected(f"a level cannot give anything on {schema}", remedy="name a database of an application")
    if not schema:
        raise Rejected(f"{on} is in no database", remedy=f"write shop.{on}, or give the level a database")
    if table == "*":
        return f"{quoted(WILDCARD.sub(escaped, schema))}.*"
    return f"{quoted(schema)}.{quoted(table)}"


def drop_managed_role_if_unused(server: Server, connection: MySQLConnection, level: Level) -> None:
    """Drop the level's managed role when no user has it any more."""
    role = managed_role(server.target, level)
    if role is None or not server.dialect.is_role(connection, role):
        return
    with managed_roles_locked(connection, TIDY_TRIES):
        if not server.dialect.role_members(connection, role):
            locks.run(server, connection, f"DROP ROLE IF EXISTS {server.dialect.quoted_role(role)}")
