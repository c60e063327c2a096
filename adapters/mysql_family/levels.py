"""Levels as one role: an existing one, or one that is kept for the level's grants and further roles.

One, because MariaDB knows one default role. It is made, made equal to the level, read back, and dropped when nobody has
it. Direct grants to temporary users are never made.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.base import Grant, Level, Rejected, ServerDown, Target
from adapters.mysql_family.connection import Connection, Server, quoted, shown
from adapters.mysql_family.sessions import kill_each

PRIVILEGES = frozenset(
    {
        "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "REFERENCES",
        "CREATE VIEW", "SHOW VIEW", "CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE",
    }
)  # fmt: skip
"""What a level may give. Left out on purpose: EVENT, TRIGGER and CREATE ROUTINE run after the user is gone, the rest rules servers."""

NOT_ON_TABLES = frozenset({"CREATE TEMPORARY TABLES", "LOCK TABLES", "EXECUTE"})
ON_WHOLE_SERVER = frozenset(
    {"SELECT", "SHOW VIEW", "SHOW DATABASES", "EXECUTE", "CREATE TEMPORARY TABLES", "REFERENCES", "SHOW_ROUTINE", "SHOW CREATE ROUTINE"}
)  # fmt: skip
"""What a role may have on ``*.*``. Whoever has more could outlive the grant, end somebody else's work, write where the server keeps its accounts, or lock that up:
LOCK TABLES on ``mysql.user`` and BACKUP_ADMIN hold up the end of every user. On single databases these are fine."""

READS = frozenset({"SELECT", "SHOW VIEW"})
"""What a role may have on the server's own schema and on ``ops_schema``, where the ends are kept."""

SYSTEM = "mysql"
LINGERING = frozenset({"EVENT", "TRIGGER", "CREATE ROUTINE", "ALTER ROUTINE"})
"""On one database: what is made with these goes on without its maker. Looked for at the end, and said by doctor."""

LIMITS = {
    "max_user_connections": 10,
    "max_queries_per_hour": 0,
    "max_updates_per_hour": 0,
    "max_connections_per_hour": 0,
}
"""Per-user limits of the server, with what stands where ``settings`` does not name them; 0 is none."""

NOT_HERE = re.compile(r"GRANT (USAGE ON|PROXY ON|[`'])|REVOKE |SET DEFAULT ROLE ")
"""PROXY that a role has does not count for its members: see ``proxies``."""

KIND = re.compile(r"^[A-Z ]+ (?=`)")
WORDS = re.compile(r", (?![^(]*\))")
WILDCARD, ESCAPED = re.compile(r"([_%\\])"), r"\\\1"
LOCK = "dbaccess kept roles"
LOCK_TRIES, LOCK_TRY_SECONDS = 3, 2


def level_database(server: Server, level: Level) -> str | None:
    """Where the level's objects are."""
    return level.database or server.target.connect.database or server.address.database


def limits_of(server: Server, level: Level) -> str:
    """``MAX_USER_CONNECTIONS 10 …``. Raises Rejected for a setting that neither server has per user."""
    found = dict(LIMITS)
    known = (*LIMITS, *server.dialect.further_limits)
    for name, value in level.settings.items():
        if name.lower() not in known or not value.isdigit():
            right = f"whole numbers for {', '.join(known)}"
            raise Rejected(f"{server.dialect.label} has no setting {name} = {value} for one user", remedy=right)
        found[name.lower()] = int(value)
    return " ".join(f"{name.upper()} {number}" for name, number in found.items())


def kept_role(target: Target, level: Level) -> str | None:
    """The name of the role kept for a level, or None where one existing role is all it needs."""
    if not level.grants and len(level.roles) == 1:
        return None
    grants = [[sorted(g.on), sorted(p.upper() for p in g.privileges)] for g in level.grants]
    parts = [target.prefix, target.name, level.database, level.name, sorted(level.roles), sorted(grants)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]
    return f"dbaccess_{level.name[:12]}_{digest}"


@contextmanager
def kept_roles_locked(connection: Connection) -> Iterator[None]:
    """One at a time on this server, until the user has the role: nobody drops it as unused before.

    Any account may take such a lock, and only bots have a use for it. Who holds it longer than a grant takes, and is not this bot's
    own login, is killed. Where that is another bot, its grant is tried again. Ends wait for this lock only after they are proven.
    """
    _take_lock(connection)
    try:
        yield
    finally:
        connection.release(LOCK)


def _take_lock(connection: Connection) -> None:
    """Raises Unreachable, which names the holder."""
    lock, holder = connection.literal(LOCK), None
    for _ in range(LOCK_TRIES):
        before = connection.value(f"SELECT IS_USED_LOCK({lock})")
        if connection.value(f"SELECT GET_LOCK({lock}, {LOCK_TRY_SECONDS})") == 1:
            return
        holder = connection.value(f"SELECT IS_USED_LOCK({lock})")
        if holder is not None and holder == before:
            _kill_squatter(connection, holder)
    raise ServerDown(f"another grant changes the same roles, by connection {holder}")


def _kill_squatter(connection: Connection, holder: int) -> None:
    """With all of its user's sessions that wait for the lock behind it."""
    query = (
        "SELECT p.id FROM information_schema.processlist p JOIN information_schema.processlist h ON h.user = p.user"
        f" WHERE h.id = {int(holder)} AND h.user <> SUBSTRING_INDEX(USER(), '@', 1) AND (p.id = h.id OR p.state = 'User lock')"
    )
    kill_each(connection, connection.column(query))


def given_role(server: Server, connection: Connection, level: Level) -> str:
    """The one role a user of this level gets. Raises Rejected for a role that is missing or must not be given."""
    for role in level.roles:
        refuse_dangerous(server, connection, role)
    kept = kept_role(server.target, level)
    if kept is None:
        return level.roles[0]
    _keep(server, connection, level, kept)
    return kept


def refuse_dangerous(server: Server, connection: Connection, role: str) -> None:
    if not server.dialect.is_role(connection, role):
        right = f"CREATE ROLE {shown(role)}; and grant it what the level promises"
        raise Rejected(f"the role {role} does not exist", remedy=right)
    if why := danger(server, connection, role):
        raise Rejected(why, remedy="name a role without these in databases.yml")


@dataclass(frozen=True, kw_only=True)
class Given:
    """One line of what a role was given, spelled as GRANT and REVOKE need it: ``*.*``, `` `shop`.* ``, `` `shop`.`orders` ``."""

    words: tuple[str, ...]
    on: str
    is_grantable: bool


def given_to(server: Server, connection: Connection, role: str) -> list[Given]:
    """By SHOW GRANTS, each line of this role itself. information_schema lacks some of them on MariaDB, and adds those of roles below.

    Raises Rejected for a line that is not understood.
    """
    below = _reached(server, connection, role)[1:]
    lines = connection.column(f"SHOW GRANTS FOR {server.dialect.role(role)}")
    return [given for line in lines if (given := _given(line, role, below)) is not None]


def _given(line: str, role: str, below: Sequence[str]) -> Given | None:
    """None for a line that gives nothing here: USAGE, roles (see ``roles_below``), what is taken away, PROXY, and on MariaDB what a role below has."""
    if NOT_HERE.match(line):
        return None
    if found := _to(role).fullmatch(line):
        kind = "" if found[2] == "TABLE " else found[2]
        return Given(words=tuple(WORDS.split(found[1])), on=kind + found[3], is_grantable=bool(found[4]))
    if any(_to(name).fullmatch(line) for name in below):
        return None
    remedy = "name another role in databases.yml"
    raise Rejected(f"the role {role} has a right that is not understood: {line}", remedy=remedy)


def _to(role: str) -> re.Pattern[str]:
    """A line of SHOW GRANTS: what, of what kind, on what, and whether it may be passed on."""
    kinds = "TABLE |PROCEDURE |FUNCTION |PACKAGE |PACKAGE BODY "
    name = re.escape(role.replace("`", "``"))
    return re.compile(rf"GRANT (.+?) ON ((?:{kinds})?)(.+) TO [`']{name}[`'](?:@\S+)?( WITH GRANT OPTION)?")


def danger(server: Server, connection: Connection, role: str) -> str | None:
    """Why a role may never be given to a temporary user, or None. Looks at all the roles it was given, too."""
    for name in _reached(server, connection, role):
        via = "" if name == role else f" (through {name})"
        for given in given_to(server, connection, name):
            if found := _mighty(given, server.target.ops_schema):
                return f"the role {role} has {found}{via}: whoever gets it could outlive the grant"
            if given.is_grantable:
                return f"the role {role} may give its rights to others{via}: whoever gets it could outlive the grant"
    return None


def _mighty(given: Given, ops_schema: str) -> str | None:
    """What is more than the whole server may be given; or what writes where the server keeps its accounts (``mysql``) and their ends, by name or by a pattern that takes it in."""
    words = set(given.words)
    if given.on == "*.*":
        found = sorted(words - ON_WHOLE_SERVER)
        return f"{found[0]} on the whole server" if found else None
    schema = KIND.sub("", given.on).partition("`.")[0].strip("`")
    if any(_takes_in(schema, own) for own in (SYSTEM, ops_schema)) and (found := sorted(words - READS)):
        return f"{found[0]} on {given.on}, where the server keeps its accounts or their ends,"
    return None


def _takes_in(pattern: str, schema: str) -> bool:
    """``_`` and ``%`` stand for anything unless escaped."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wanted = "".join({"_": ".", "%": ".*"}.get(part, re.escape(part[-1])) for part in parts)
    return re.fullmatch(wanted, schema, re.IGNORECASE) is not None


def lingering(server: Server, connection: Connection, role: str) -> list[str]:
    """``EVENT ON shop.*`` and the like, with which a user can leave things that go on."""
    return [
        f"{word} ON {given.on}"
        for name in _reached(server, connection, role)
        for given in given_to(server, connection, name)
        for word in given.words
        if word in LINGERING or word == "ALL PRIVILEGES"
    ]


def _reached(server: Server, connection: Connection, role: str) -> list[str]:
    found, queue = [role], [role]
    while queue:
        below = [name for name in server.dialect.roles_below(connection, queue.pop()) if name not in found]
        found += below
        queue += below
    return found


def _keep(server: Server, connection: Connection, level: Level, role: str) -> None:
    """Its name is a digest of what it gives, so that what it has more or less was changed by somebody else."""
    wanted = clauses(server, level)
    dialect = server.dialect
    connection.run(f"CREATE ROLE IF NOT EXISTS {dialect.role(role)}")
    if why := danger(server, connection, role):
        raise Rejected(why, remedy=f"DROP ROLE {shown(role)}; and dbaccess makes it anew")
    for below in level.roles:
        connection.run(f"GRANT {dialect.role(below)} TO {dialect.role(role)}")
    for privileges, on in wanted:
        connection.run(f"GRANT {privileges} ON {on} TO {dialect.role(role)}")
    extra = sorted(set(dialect.roles_below(connection, role)) - set(level.roles))
    if extra:
        remedy = f"REVOKE {shown(extra[0])} FROM {shown(role)};"
        raise Rejected(f"somebody gave {role} the role {extra[0]}, which its level does not give", remedy=remedy)
    _read_back(server, connection, role, wanted)


def _read_back(server: Server, connection: Connection, role: str, wanted: list[tuple[str, str]]) -> None:
    """What stands there beyond the level goes."""
    for given in given_to(server, connection, role):
        meant = {word for words, place in wanted if place == given.on for word in words.split(", ")}
        if further := ", ".join(word for word in given.words if word not in meant):
            connection.run(f"REVOKE {further} ON {given.on} FROM {server.dialect.role(role)}")


def clauses(server: Server, level: Level) -> list[tuple[str, str]]:
    """(privileges, place) of each of the level's grants. Raises Rejected for what cannot be given."""
    return [(_words(grant, on), _place(server, level, on)) for grant in level.grants for on in grant.on]


def _words(grant: Grant, on: str) -> str:
    """``*`` is a database, whose rights may be more than a table's."""
    words = sorted({word.upper() for word in grant.privileges})
    allowed = PRIVILEGES if on.endswith("*") else PRIVILEGES - NOT_ON_TABLES
    if wrong := [word for word in words if word not in allowed]:
        raise Rejected(f"a level cannot give {wrong[0]} on {on}", remedy=f"there are {', '.join(sorted(allowed))}")
    return ", ".join(words)


def _place(server: Server, level: Level, on: str) -> str:
    """``shop.orders``, ``shop.*``; without a dot in the level's database. In a whole database's name ``_`` and ``%`` stand for anything unless escaped."""
    schema, dot, table = on.rpartition(".")
    schema = schema if dot else level_database(server, level) or ""
    if schema in (SYSTEM, server.target.ops_schema):
        raise Rejected(f"a level cannot give anything on {schema}", remedy="name a database of an application")
    if not schema:
        raise Rejected(f"{on} is in no database", remedy=f"write shop.{on}, or give the level a database")
    if table == "*":
        return f"{quoted(WILDCARD.sub(ESCAPED, schema))}.*"
    return f"{quoted(schema)}.{quoted(table)}"


def drop_unused(server: Server, connection: Connection, level: Level) -> None:
    """Drop the level's role when no user has it any more."""
    role = kept_role(server.target, level)
    if role is None or not server.dialect.is_role(connection, role):
        return
    with kept_roles_locked(connection):
        if not server.dialect.role_members(connection, role):
            connection.run(f"DROP ROLE IF EXISTS {server.dialect.role(role)}")
