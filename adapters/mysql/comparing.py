"""Compares users with their levels: rights and roles given by hand, limits, TLS, the login plugin, and who got the rights of a user.

The server is asked for what it has, and the result is compared with what ``users.create`` gives. Not compared are passwords, the lock of an
account (ends lock it), and what a user may change itself without gain: its default role and its attribute.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pymysql

from adapters.base import Level, Rejected
from adapters.mysql import proxies, users
from adapters.mysql.connection import MySQLConnection, account, literal_list
from adapters.mysql.errors import NO_SUCH_GRANTS, code
from adapters.mysql.levels import limits_of, managed_role
from adapters.mysql.server import Server

SENTENCES_AT_MOST = 10
LONGEST = 300
LIMIT_COLUMNS = {
    "MAX_USER_CONNECTIONS": "max_user_connections",
    "MAX_QUERIES_PER_HOUR": "max_questions",
    "MAX_UPDATES_PER_HOUR": "max_updates",
    "MAX_CONNECTIONS_PER_HOUR": "max_connections",
    "MAX_STATEMENT_TIME": "max_statement_time",
}
"""A limit in CREATE USER, and its column in mysql.user."""

ROLE_LINE = re.compile(r"GRANT ([`'].+?) TO .+?( WITH ADMIN OPTION)?")
ROLE = re.compile(r"[`']((?:[^`']|``)*)[`'](?:@[`'][^`']*[`'])?")
NO_RIGHTS = re.compile(r"GRANT USAGE ON \*\.\* TO |SET DEFAULT ROLE ")
END_OF_RIGHTS = re.compile(r" TO [`'].*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class _Account:
    """A user's row of mysql.user. ``limits`` are by their names in CREATE USER."""

    limits: Mapping[str, int]
    requires_tls: bool
    plugin: str


def compare(server: Server, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
    """Username → sentences. Users without a difference and absent users are left out."""
    if not levels:
        return {}
    with server.session() as connection:
        found = users.find_accounts(server, connection, list(levels))
        hosts = {name: {f.host for f in found if f.username == name} for name in levels}
        there = [name for name in levels if "%" in hosts[name]]
        accounts, granted = _accounts(server, connection, there), _granted_proxies(connection, there)
        differences = {
            name: (
                *_beside(hosts[name]),
                *_of_user(server, connection, name, levels[name], accounts),
                *granted.get(name, ()),
            )
            for name in there
        }
        return {name: _bounded(sentences) for name, sentences in differences.items() if sentences}


def _beside(hosts: set[str]) -> Iterator[str]:
    for host in sorted(hosts - {"%"}):
        yield f"there is another account of this name, with the host {host}"


def _of_user(
    server: Server, connection: MySQLConnection, name: str, level: Level, accounts: Mapping[str, _Account]
) -> Iterator[str]:
    try:
        lines = connection.column(f"SHOW GRANTS FOR {account(name)}")
    except pymysql.MySQLError as error:
        if code(error) != NO_SUCH_GRANTS:
            raise
        return
    yield from _grants(lines, managed_role(server.target, level) or level.roles[0])
    if name in accounts:
        yield from _attributes(server, level, accounts[name])
    for member in server.dialect.role_members(connection, name):
        yield f"its rights were given to {member}"


def _grants(lines: Sequence[str], role: str) -> Iterator[str]:
    """``role`` is what the level gives, and nothing else."""
    held = set[str]()
    for line in lines:
        if found := ROLE_LINE.fullmatch(line):
            names = {name.replace("``", "`") for name in ROLE.findall(found[1])}
            held |= names
            if found[2]:
                yield f"it may give its roles to others: {', '.join(sorted(names))} WITH ADMIN OPTION"
        elif not NO_RIGHTS.match(line):
            yield f"its level does not give this: {_rights(line)}"
    for name in sorted(held - {role}):
        yield f"its level does not give the role {name}"
    if role not in held:
        yield f"it lacks the role {role} of its level"


def _rights(line: str) -> str:
    """A line without what follows the rights: MariaDB shows the hash of the password there."""
    grantable = " WITH GRANT OPTION" if line.endswith(" WITH GRANT OPTION") else ""
    return END_OF_RIGHTS.sub("", line).removeprefix("GRANT ") + grantable


def _attributes(server: Server, level: Level, found: _Account) -> Iterator[str]:
    try:
        words = limits_of(server, level).split()
    except Rejected as error:
        yield f"its level cannot be given any more: {error.what}"
        return
    for name, number in zip(words[::2], words[1::2], strict=True):
        if found.limits.get(name, 0) != int(number):
            yield f"{name} is {found.limits.get(name, 0)} and not {number}"
    if found.requires_tls != users.requires_tls(server):
        yield (
            "it may log in without TLS"
            if not found.requires_tls
            else "it has to log in with TLS, which its level does not ask for"
        )
    if found.plugin != server.dialect.login_plugin:
        yield f"it logs in by {found.plugin} and not by {server.dialect.login_plugin}"


def _accounts(server: Server, connection: MySQLConnection, names: Sequence[str]) -> dict[str, _Account]:
    limits = {
        limit: column
        for limit, column in LIMIT_COLUMNS.items()
        if limit != "MAX_STATEMENT_TIME" or server.dialect.further_limits
    }
    columns = ", ".join(["user", "ssl_type", "plugin", *limits.values()])
    which = f"user IN ({literal_list(connection, names)}) AND host = '%'"
    return {
        name: _Account(
            limits={k: int(v) for k, v in zip(limits, numbers, strict=True)}, requires_tls=bool(tls), plugin=plugin
        )
        for name, tls, plugin, *numbers in connection.run(f"SELECT {columns} FROM mysql.user WHERE {which}")
    }


def _granted_proxies(connection: MySQLConnection, names: Sequence[str]) -> dict[str, list[str]]:
    found = dict[str, list[str]]()
    for proxy in proxies.on_users(connection, names):
        found.setdefault(proxy.proxied_user, []).append(f"{proxy.user or 'everybody'} may act as this user (PROXY)")
    return found


def _bounded(sentences: Sequence[str]) -> tuple[str, ...]:
    cut = [s if len(s) <= LONGEST else f"{s[: LONGEST - 1]}…" for s in sentences[:SENTENCES_AT_MOST]]
    further = len(sentences) - SENTENCES_AT_MOST
    return (*cut, *([f"and {further} more"] if further > 0 else []))
