"""Checks the server and the bot's account: its rights one by one, the rights each level needs, and whether every member answers.

Each missing right comes with the statement that grants it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from adapters.base import AdapterError, Enforced, Finding, Health, Level, Rejected
from adapters.mongodb import sessions
from adapters.mongodb.connection import UNMARKED, MongoDBConnection, Server, identity
from adapters.mongodb.levels import level_database, managed_role, named_roles, privileges_of, refuse_dangerous
from adapters.mongodb.supported import (
    AUTHORIZATION_REMEDY,
    NO_AUTHORIZATION,
    answers_without_login,
    unsupported,
)

ON_USERS = {
    "createUser": "create users",
    "dropUser": "drop users",
    "viewUser": "list users",
    "changePassword": "set a new password",
    "changeCustomData": "write the end of a grant",
    "viewRole": "recognise the server",
    "createRole": "mark the server",
}
ON_CLUSTER = {"killAnySession": "end sessions", "killop": "end operations", "inprog": "see running operations"}
ON_ROUTERS = {"invalidateUserCache": "empty the user cache of routers"}
FOR_MANAGED_ROLES = ("createRole", "dropRole", "viewRole", "revokeRole")


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """Grants cannot be given, or not ended, as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """The server leaves more open than it should."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)


class Rights:
    """The bot's privileges, as ``connectionStatus`` lists them."""

    def __init__(self, connection: MongoDBConnection) -> None:
        info = connection.run("admin", {"connectionStatus": 1, "showPrivileges": True})["authInfo"]
        self.privileges: list[dict[str, Any]] = info["authenticatedUserPrivileges"]
        roles = [role["role"] for role in info["authenticatedUserRoles"] if role["db"] == "admin"]
        self.role = roles[0] if roles else "dbaccess_bot"

    def on(self, database: str, action: str) -> bool:
        """Whether the bot holds the action on all collections of the database."""
        for privilege in self.privileges:
            resource = privilege["resource"]
            is_covered = resource.get("anyResource") or (
                resource.get("db") in (database, "") and resource.get("collection") == ""
            )
            if is_covered and action in privilege["actions"]:
                return True
        return False

    def on_cluster(self, action: str) -> bool:
        """Whether the bot holds the action on the deployment."""
        wanted = (p for p in self.privileges if p["resource"].get("cluster") or p["resource"].get("anyResource"))
        return any(action in privilege["actions"] for privilege in wanted)

    def remedy(self, resource: dict[str, Any], action: str) -> str:
        """The statement for the shell that grants the action."""
        document = json.dumps({"resource": resource, "actions": [action]})
        return f'db.getSiblingDB("admin").grantPrivilegesToRole("{self.role}", [{document}])'


def check(server: Server, levels: Sequence[Level]) -> Health:
    """Runs all checks, also after one of them failed."""
    with server.session() as connection:
        build_info, rights = connection.build_info(), Rights(connection)
        findings = [*_server(server, build_info), *_rights(server, connection, rights)]
        if rights.on(server.users, "viewRole"):
            found = identity(connection, server.users)
            findings += (
                [ok("the server is not marked yet; the bot marks it before the first grant")]
                if found == UNMARKED
                else []
            )
        else:
            found = UNMARKED
        for level in levels:
            findings += _level(server, connection, rights, level)
        findings += _members(server, connection, rights)
        return Health(
            version=f"MongoDB {build_info['version']}",
            identity=found,
            enforced=Enforced.NOTHING,
            findings=tuple(findings),
        )


def _server(server: Server, build_info: dict[str, Any]) -> Iterator[Finding]:
    if (found := unsupported(build_info)) is not None:
        yield fatal(*found)
    if answers_without_login(server):
        yield fatal(NO_AUTHORIZATION, AUTHORIZATION_REMEDY)
    else:
        yield ok("the server requires a login")


def _rights(server: Server, connection: MongoDBConnection, rights: Rights) -> Iterator[Finding]:
    resource = {"db": server.users, "collection": ""}
    for action, purpose in ON_USERS.items():
        yield _right(
            rights.on(server.users, action), f"{action} on {server.users}", purpose, rights.remedy(resource, action)
        )
    wanted = {**ON_CLUSTER, **(ON_ROUTERS if connection.hello().is_router else {})}
    for action, purpose in wanted.items():
        yield _right(
            rights.on_cluster(action), f"{action} on the cluster", purpose, rights.remedy({"cluster": True}, action)
        )
    if server.users == "admin":
        yield warning(
            "temporary users live in admin: the bot could set the password of its administrators",
            "give them a database of their own (ops_schema) where the server allows it",
        )


def _right(is_held: bool, right: str, purpose: str, remedy: str) -> Finding:
    if is_held:
        return ok(f"{right}: may {purpose}")
    return fatal(f"{right} is missing: the bot cannot {purpose}", remedy)


def _level(server: Server, connection: MongoDBConnection, rights: Rights, level: Level) -> Iterator[Finding]:
    try:
        missing = [*_named_roles(server, connection, rights, level), *_managed_role(server, rights, level)]
    except Rejected as no:
        yield fatal(f"level {level.name}: {no.what}", no.remedy)
        return
    yield from missing
    if not missing:
        names = [f"{role['role']}@{role['db']}" for role in named_roles(server, level)]
        managed = managed_role(server, level)
        yield ok(f"level {level.name}: the bot may give {', '.join([*names, *([managed] if managed else [])])}")


def _named_roles(server: Server, connection: MongoDBConnection, rights: Rights, level: Level) -> Iterator[Finding]:
    for role in named_roles(server, level):
        refuse_dangerous(connection, role)
        if not rights.on(role["db"], "grantRole"):
            remedy = rights.remedy({"db": role["db"], "collection": ""}, "grantRole")
            yield fatal(
                f"level {level.name}: grantRole on {role['db']} is missing: the bot cannot give {role['role']}", remedy
            )


def _managed_role(server: Server, rights: Rights, level: Level) -> Iterator[Finding]:
    if managed_role(server, level) is None:
        return
    database = level_database(server, level)
    privileges_of(level, database)
    for action in ("grantRole", *FOR_MANAGED_ROLES):
        if not rights.on(database, action):
            remedy = rights.remedy({"db": database, "collection": ""}, action)
            yield fatal(
                f"level {level.name}: {action} on {database} is missing: the bot cannot manage its role", remedy
            )


def _members(server: Server, connection: MongoDBConnection, rights: Rights) -> Iterator[Finding]:
    """A grant ends only once every member answers."""
    if not rights.on_cluster("inprog"):
        return
    try:
        sessions.current(server, connection, [])
    except AdapterError as error:
        yield fatal(f"not every member answers: {error}", "start the member, or remove it from the replica set")
