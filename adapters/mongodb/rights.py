"""What the bot's account may do, action by action, each with the statement that gives it; what each level needs; what must not be served."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from adapters.base import AdapterError, Enforced, Finding, Health, Level, Rejected
from adapters.mongodb import kill
from adapters.mongodb.connection import UNMARKED, Connection, Server, answers_strangers, identity
from adapters.mongodb.levels import kept_role, level_database, named_roles, privileges_of, refuse_dangerous
from adapters.mongodb.lookalikes import look_alike
from adapters.mongodb.users import MEND_AUTHORIZATION, NO_AUTHORIZATION

ON_USERS = {
    "createUser": "make users",
    "dropUser": "drop them",
    "viewUser": "see which there are",
    "changePassword": "set a new password",
    "changeCustomData": "write down their end",
    "viewRole": "know the server again",
    "createRole": "mark the server",
}
ON_CLUSTER = {"killAnySession": "end sessions", "killop": "end operations", "inprog": "see what runs"}
ON_ROUTERS = {"invalidateUserCache": "make routers forget a user"}
FOR_KEPT_ROLES = ("createRole", "dropRole", "viewRole", "revokeRole")


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """No grant can be given, or ended, as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """More is open than should be."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)


class Rights:
    """What the server says the bot may do, as ``connectionStatus`` lists it."""

    def __init__(self, connection: Connection) -> None:
        info = connection.run("admin", {"connectionStatus": 1, "showPrivileges": True})["authInfo"]
        self.privileges: list[dict[str, Any]] = info["authenticatedUserPrivileges"]
        roles = [role["role"] for role in info["authenticatedUserRoles"] if role["db"] == "admin"]
        self.role = roles[0] if roles else "dbaccess_bot"

    def on(self, database: str, action: str) -> bool:
        """On all collections of a database."""
        for privilege in self.privileges:
            resource = privilege["resource"]
            is_it = resource.get("anyResource") or (
                resource.get("db") in (database, "") and resource.get("collection") == ""
            )
            if is_it and action in privilege["actions"]:
                return True
        return False

    def on_cluster(self, action: str) -> bool:
        """On the whole deployment."""
        wanted = (p for p in self.privileges if p["resource"].get("cluster") or p["resource"].get("anyResource"))
        return any(action in privilege["actions"] for privilege in wanted)

    def remedy(self, resource: dict[str, Any], action: str) -> str:
        """As the shell takes it."""
        document = json.dumps({"resource": resource, "actions": [action]})
        return f'db.getSiblingDB("admin").grantPrivilegesToRole("{self.role}", [{document}])'


def check(server: Server, levels: Sequence[Level]) -> Health:
    """Everything is looked at, also where something before it is not well."""
    with server.session() as connection:
        build_info, rights = connection.run("admin", {"buildInfo": 1}), Rights(connection)
        findings = [*_kind(server, build_info), *_rights(server, connection, rights)]
        if rights.on(server.users, "viewRole"):
            found = identity(connection, server.users)
            findings += (
                [ok("the server is not marked yet; the bot marks it when it is first needed")]
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


def _kind(server: Server, build_info: dict[str, Any]) -> Iterator[Finding]:
    if (name := look_alike(build_info)) is not None:
        yield fatal(f"this is {name}: it takes roles and does not limit by them", "use a server that enforces roles")
    if answers_strangers(server):
        yield fatal(NO_AUTHORIZATION, MEND_AUTHORIZATION)
    else:
        yield ok("the server answers nobody who has not logged in")


def _rights(server: Server, connection: Connection, rights: Rights) -> Iterator[Finding]:
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
            "give them a database of their own (ops_schema), where the server allows it",
        )


def _right(is_held: bool, right: str, purpose: str, remedy: str) -> Finding:
    if is_held:
        return ok(f"{right}: may {purpose}")
    return fatal(f"{right} is missing: the bot cannot {purpose}", remedy)


def _level(server: Server, connection: Connection, rights: Rights, level: Level) -> Iterator[Finding]:
    try:
        lacking = [*_of_named(server, connection, rights, level), *_of_kept(server, rights, level)]
    except Rejected as no:
        yield fatal(f"level {level.name}: {no.what}", no.remedy)
        return
    yield from lacking
    if not lacking:
        names = [f"{role['role']}@{role['db']}" for role in named_roles(server, level)]
        kept = kept_role(server, level)
        yield ok(f"level {level.name}: the bot may give {', '.join([*names, *([kept] if kept else [])])}")


def _of_named(server: Server, connection: Connection, rights: Rights, level: Level) -> Iterator[Finding]:
    for role in named_roles(server, level):
        refuse_dangerous(connection, role)
        if not rights.on(role["db"], "grantRole"):
            remedy = rights.remedy({"db": role["db"], "collection": ""}, "grantRole")
            yield fatal(
                f"level {level.name}: grantRole on {role['db']} is missing: the bot cannot give {role['role']}", remedy
            )


def _of_kept(server: Server, rights: Rights, level: Level) -> Iterator[Finding]:
    if kept_role(server, level) is None:
        return
    database = level_database(server, level)
    privileges_of(level, database)
    for action in ("grantRole", *FOR_KEPT_ROLES):
        if not rights.on(database, action):
            remedy = rights.remedy({"db": database, "collection": ""}, action)
            yield fatal(f"level {level.name}: {action} on {database} is missing: the bot cannot keep its role", remedy)


def _members(server: Server, connection: Connection, rights: Rights) -> Iterator[Finding]:
    """Every member must answer when a grant ends."""
    if not rights.on_cluster("inprog"):
        return
    try:
        kill.seen_now(server, connection, [])
    except AdapterError as error:
        yield fatal(f"not every member answers: {error}", "bring it back, or take it out of the replica set")
