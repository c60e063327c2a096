"""The comparison of live users with what ``users.create`` made: attributes, memberships, settings and privileges of their own.

Passwords and expiries are not compared. What is inside the level's roles is ``level_state`` and ``managed_roles``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from adapters.base import Level
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.level.grants import managed_role, roles_of
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.statements import bounded, major_version
from adapters.postgresql.users import CONNECTION_LIMIT, LIST_SETTINGS

ATTRIBUTES: LiteralString = """
SELECT rolname, rolconnlimit, array_remove(ARRAY[CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
   CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
   CASE WHEN rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN NOT rolinherit THEN 'NOINHERIT' END, CASE WHEN NOT rolcanlogin THEN 'NOLOGIN' END], NULL)
  FROM pg_roles WHERE rolname = ANY(%(names)s)
"""
MEMBERSHIPS: LiteralString = """
SELECT u.rolname, r.rolname, m.admin_option, {inherits}, {sets} FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
  JOIN pg_roles r ON r.oid = m.roleid WHERE u.rolname = ANY(%(names)s)
"""
MEMBERS: LiteralString = """
SELECT r.rolname, u.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
 WHERE r.rolname = ANY(%(names)s) AND u.rolname NOT IN (current_user, session_user)
"""
SETTINGS: LiteralString = """
SELECT r.rolname, split_part(s.setting, '=', 1), substr(s.setting, strpos(s.setting, '=') + 1), d.datname
  FROM pg_roles r JOIN pg_db_role_setting c ON c.setrole = r.oid LEFT JOIN pg_database d ON d.oid = c.setdatabase, unnest(c.setconfig) s(setting)
 WHERE r.rolname = ANY(%(names)s)
"""
PRIVILEGES: LiteralString = """
SELECT r.rolname, coalesce(d.datname, 'the whole server'), count(DISTINCT (s.classid, s.objid)) FROM pg_roles r
  JOIN pg_shdepend s ON s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.deptype = 'a' LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE r.rolname = ANY(%(names)s) AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_auth_members'::regclass) GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True, kw_only=True)
class Membership:
    """A membership with its options. Before version 16 a membership cannot have INHERIT and SET: every one has both."""

    role: str
    admin: bool = False
    inherit: bool = True
    set: bool = True

    def __str__(self) -> str:
        options = {"ADMIN": self.admin, "INHERIT": self.inherit, "SET": self.set}
        return f"{self.role} with {', '.join(f'{name} {str(is_on).upper()}' for name, is_on in options.items())}"


@dataclass(frozen=True, kw_only=True)
class UserFacts:
    """What the server has on record for one user. ``settings`` are those for every database, ``elsewhere`` those for one."""

    connection_limit: int
    attributes: Sequence[str]
    memberships: frozenset[Membership]
    members: Sequence[str]
    settings: Mapping[str, str]
    elsewhere: Sequence[str]
    privileges: Sequence[tuple[str, int]]


def differences(server: PostgreSQLServer, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
    """Username → sentences on what differs from its level. Users without a difference and absent users are left out."""
    with server.session() as connection:
        knows_options = major_version(connection) >= SETS_MEMBERSHIP_OPTIONS
        facts = _facts(connection, list(levels), knows_options=knows_options)
        found = {
            name: tuple(_sentences(facts[name], level, _expected(server, level, knows_options=knows_options)))
            for name, level in levels.items()
            if name in facts
        }
    return {name: sentences for name, sentences in found.items() if sentences}


def _facts(connection: PostgreSQLConnection, names: list[str], *, knows_options: bool) -> dict[str, UserFacts]:
    options = ("m.inherit_option", "m.set_option") if knows_options else ("true", "true")
    memberships = MEMBERSHIPS.replace("{inherits}", options[0]).replace("{sets}", options[1])
    has, members, settings, privileges = (
        _grouped(connection, query, names) for query in (memberships, MEMBERS, SETTINGS, PRIVILEGES)
    )
    rows = connection.execute(ATTRIBUTES, {"names": names}).fetchall()
    return {
        name: UserFacts(
            connection_limit=limit,
            attributes=attributes,
            memberships=frozenset(Membership(role=r, admin=a, inherit=i, set=s) for r, a, i, s in has.get(name, ())),
            members=[member for (member,) in members.get(name, ())],
            settings={n.lower(): v for n, v, database in settings.get(name, ()) if database is None},
            elsewhere=[f"{n} in {database}" for n, _, database in settings.get(name, ()) if database is not None],
            privileges=[(where, number) for where, number in privileges.get(name, ())],
        )
        for name, limit, attributes in rows
    }


def _grouped(
    connection: PostgreSQLConnection, query: LiteralString, names: list[str]
) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each user, without its name."""
    found = dict[str, list[tuple[Any, ...]]]()
    for name, *row in connection.execute(query, {"names": names}).fetchall():
        found.setdefault(name, []).append(tuple(row))
    return found


def _expected(server: PostgreSQLServer, level: Level, *, knows_options: bool) -> frozenset[Membership]:
    managed = managed_role(server.target, level)
    return frozenset(
        Membership(role=role, set=not knows_options or (level.set_role and role != managed))
        for role in roles_of(server.target, level)
    )


def _sentences(user: UserFacts, level: Level, expected: frozenset[Membership]) -> Iterator[str]:
    if user.attributes:
        yield f"It has attributes that dbaccess does not give: {', '.join(user.attributes)}."
    if user.connection_limit != CONNECTION_LIMIT:
        yield f"Its connection limit is {user.connection_limit} instead of {CONNECTION_LIMIT}."
    if extra := sorted(map(str, user.memberships - expected)):
        yield f"It has memberships that its level does not give: {bounded(extra)}."
    if missing := sorted({m.role for m in expected} - {m.role for m in user.memberships}):
        yield f"It is not a member of roles that its level gives: {bounded(missing)}."
    if user.members:
        yield f"These roles can act as this user: {bounded(sorted(user.members))}."
    if changed := sorted(_changed_settings(user.settings, level.settings)):
        yield f"Its settings are not those of its level: {bounded(changed)}."
    if user.elsewhere:
        yield f"It has settings for one database: {bounded(sorted(user.elsewhere))}."
    if user.privileges:
        privileges = [f"{number} objects in {where}" for where, number in user.privileges]
        yield f"Privileges were granted to the user itself: on {bounded(privileges)}."


def _changed_settings(found: Mapping[str, str], wanted: Mapping[str, str]) -> set[str]:
    """The names of the settings that differ."""
    given = {name.lower(): setting for name, setting in wanted.items()}
    return {
        name
        for name in {*found, *given}
        if name not in found or name not in given or _plain(name, found[name]) != _plain(name, given[name])
    }


def _plain(name: str, setting: str) -> object:
    """A list as the server and the level may write it differently, and any other value as it is."""
    return [part.strip().strip('"') for part in setting.split(",")] if name in LIST_SETTINGS else setting
