"""Turns access levels into roles: built-in roles, a team's own roles, and one managed role for the level's grants.

A role that would let its user outlive the grant is refused. Managed roles live in the application's database.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from pymongo.errors import OperationFailure

from adapters.base import Level, Rejected
from adapters.mongodb.connection import MongoDBConnection, Server
from adapters.mongodb.errors import NOT_ALLOWED, ROLE_EXISTS, ROLE_NOT_FOUND, code, suppress_code

ALLOWED_ROLES = frozenset({"read", "readWrite", "dbAdmin", "readAnyDatabase", "readWriteAnyDatabase", "clusterMonitor"})
"""Built-in roles a level may name. The others create users, read password hashes or administer servers."""

BUILT_IN = ALLOWED_ROLES | {
    "dbOwner", "userAdmin", "userAdminAnyDatabase", "dbAdminAnyDatabase", "root", "restore", "backup", "clusterAdmin",
    "clusterManager", "hostManager", "enableSharding", "directShardOperations", "searchCoordinator", "__system", "__queryableBackup",
}  # fmt: skip
GRANTABLE_ACTIONS = frozenset(
    {
        "find", "insert", "update", "remove", "changeStream", "collStats", "dbStats", "dbHash", "indexStats", "planCacheRead",
        "listCollections", "listIndexes", "createCollection", "createIndex", "dropCollection", "dropIndex", "collMod", "convertToCapped",
        "renameCollectionSameDB", "validate", "storageDetails", "compact", "reIndex", "bypassDocumentValidation", "killCursors",
        "listSearchIndexes", "createSearchIndexes", "updateSearchIndex", "dropSearchIndex",
    }
)  # fmt: skip
"""Actions a level may grant on a collection."""

DANGEROUS_ACTIONS = frozenset(
    {
        "createUser", "dropUser", "changePassword", "changeCustomData", "changeOwnPassword", "changeOwnCustomData", "grantRole", "revokeRole",
        "createRole", "dropRole", "setAuthenticationRestriction", "impersonate", "internal", "anyAction", "applyOps", "killAnySession",
        "killAnyCursor", "killop", "shutdown", "setParameter", "replSetConfigure", "replSetReconfig", "setUserWriteBlockMode",
    }
)  # fmt: skip
"""With one of these actions a user could outlive the grant, or end the work of others."""

SYSTEM = "system."
"""Prefix of the server's own collections; ``admin.system.users`` holds the credentials of all users."""

MANAGED = re.compile(r"dbaccess_.{1,12}_[0-9a-f]{8}")
"""Names of managed roles."""

_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


def lock_of(server: Server) -> threading.Lock:
    """Held in this process from a change of a managed role until the new user has it, so that no thread drops the role as unused."""
    return _locks[server.target.admin_url]


def level_database(server: Server, level: Level) -> str:
    """The database of the level's collections. Raises Rejected where the configuration names none."""
    found = level.database or server.target.connect.database or urlsplit(server.url).path.lstrip("/")
    if not found:
        remedy = "give the level a database, or connect a database, in databases.yml"
        raise Rejected(f"level {level.name} has no database", remedy=remedy)
    return found


def managed_role(server: Server, level: Level) -> str | None:
    """The name of the managed role for the level's grants, or None for a level without grants."""
    if not level.grants:
        return None
    grants = [[sorted(g.on), sorted(g.privileges)] for g in level.grants]
    text = json.dumps([server.target.prefix, server.target.name, level.database, level.name, sorted(grants)])
    return f"dbaccess_{level.name[:12]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def named_roles(server: Server, level: Level) -> list[dict[str, str]]:
    """``read`` is a role of the level's database, ``read@other`` a role of another database."""
    found = []
    for role in level.roles:
        name, at, database = role.partition("@")
        found.append({"role": name, "db": database if at else level_database(server, level)})
    return found


def roles_of(server: Server, connection: MongoDBConnection, level: Level) -> list[dict[str, str]]:
    """All roles of a user of this level. The managed role is created, or made equal to the grants. Raises Rejected for a role that must not be given."""
    if level.settings:
        raise Rejected(
            f"MongoDB has no settings for one user ({', '.join(level.settings)})", remedy="leave settings out"
        )
    roles = named_roles(server, level)
    for role in roles:
        refuse_dangerous(connection, role)
    if (managed := managed_role(server, level)) is not None:
        database = level_database(server, level)
        ensure_role(connection, database, managed, privileges_of(level, database))
        roles.append({"role": managed, "db": database})
    return roles


def refuse_dangerous(connection: MongoDBConnection, role: dict[str, str]) -> None:
    """Raises Rejected for a role that is missing or must not be given to a temporary user."""
    name = f"{role['role']}@{role['db']}"
    if role["role"] in BUILT_IN:
        if role["role"] not in ALLOWED_ROLES:
            remedy = f"name one of {', '.join(sorted(ALLOWED_ROLES))}, or a role of your own"
            raise Rejected(f"the role {name} is never given: its user could outlive the grant", remedy=remedy)
        return
    found = find_role(connection, role["db"], role["role"])
    if found is None:
        raise Rejected(
            f"the role {name} does not exist",
            remedy=f'db.getSiblingDB("{role["db"]}").createRole({{role: "{role["role"]}", …}})',
        )
    if danger := danger_of(found):
        raise Rejected(f"the role {name} {danger}: its user could outlive the grant", remedy="name a role without it")


def danger_of(role: dict[str, Any]) -> str | None:
    """The reason why the role is too dangerous for a temporary user, with all it inherits; None for a harmless role."""
    for below in role.get("inheritedRoles", ()):
        if below["role"] in BUILT_IN - ALLOWED_ROLES:
            return f"holds {below['role']}@{below['db']}"
    for privilege in (*role.get("privileges", ()), *role.get("inheritedPrivileges", ())):
        resource = privilege["resource"]
        if resource.get("anyResource"):
            return "covers every resource"
        if resource.get("db") == "admin" and str(resource.get("collection")).startswith(SYSTEM):
            return f"reaches {resource['collection']} in admin"
        if found := sorted(DANGEROUS_ACTIONS & set(privilege["actions"])):
            return f"may {found[0]}"
    return None


def find_role(connection: MongoDBConnection, database: str, role: str) -> dict[str, Any] | None:
    """The role with its privileges, or None. Raises Rejected where the bot may not see roles."""
    try:
        found = connection.run(database, {"rolesInfo": {"role": role, "db": database}, "showPrivileges": True})["roles"]
    except OperationFailure as error:
        if code(error) != NOT_ALLOWED:
            raise
        raise Rejected(
            f"the bot may not see the roles of {database} (viewRole)",
            remedy="run dbaccess doctor: it prints what is missing",
        ) from None
    return found[0] if found else None


# The managed role.


def privileges_of(level: Level, database: str) -> dict[str, set[str]]:
    """Actions by collection; the empty name means all collections. Raises Rejected for a grant that a level cannot give."""
    found: dict[str, set[str]] = defaultdict(set)
    for grant in level.grants:
        if wrong := sorted(set(grant.privileges) - GRANTABLE_ACTIONS):
            raise Rejected(
                f"a level cannot give {wrong[0]} on {database}",
                remedy=f"name one of {', '.join(sorted(GRANTABLE_ACTIONS))}",
            )
        for on in grant.on:
            if on.startswith(SYSTEM) or database == "admin":
                what = f"a level cannot give anything on {on} of {database}"
                raise Rejected(what, remedy="name collections of an application")
            found["" if on == "*" else on] |= set(grant.privileges)
    return dict(found)


def ensure_role(connection: MongoDBConnection, database: str, role: str, wanted: dict[str, set[str]]) -> list[str]:
    """Creates the role, or makes it equal to ``wanted``, and returns each change. updateRole is not used: it needs a right on every database."""
    with suppress_code(ROLE_EXISTS):
        connection.change(database, {"createRole": role, "privileges": _documents(database, wanted), "roles": []})
        return [f"{role}@{database} was created"]
    found = find_role(connection, database, role)
    if found is None:
        raise Rejected(f"the role {role}@{database} existed and is gone: another process changes it")
    if found["roles"]:
        below = found["roles"][0]
        remedy = f'db.getSiblingDB("{database}").revokeRolesFromRole("{role}", [{{role: "{below["role"]}", db: "{below["db"]}"}}])'
        raise Rejected(
            f"{role}@{database} holds the role {below['role']}, which its level does not give", remedy=remedy
        )
    return _make_equal(connection, database, role, found["privileges"], wanted)


def _make_equal(
    connection: MongoDBConnection, database: str, role: str, held: list[dict[str, Any]], wanted: dict[str, set[str]]
) -> list[str]:
    extra, changes, have = [], list[str](), dict[str, set[str]]()
    for privilege in held:
        resource, actions = privilege["resource"], set(privilege["actions"])
        is_of_database = set(resource) == {"db", "collection"} and resource["db"] == database
        intended = wanted.get(resource["collection"], set()) if is_of_database else set()
        if is_of_database:
            have[resource["collection"]] = actions & intended
        if actions - intended:
            extra.append({"resource": resource, "actions": sorted(actions - intended)})
    if extra:
        connection.change(database, {"revokePrivilegesFromRole": role, "privileges": extra})
        changes += [f"{_shown(privilege)} was revoked from {role}@{database}" for privilege in extra]
    lacking = {name: actions - have.get(name, set()) for name, actions in wanted.items()}
    if missing := {name: actions for name, actions in lacking.items() if actions}:
        documents = _documents(database, missing)
        connection.change(database, {"grantPrivilegesToRole": role, "privileges": documents})
        changes += [f"{_shown(privilege)} was granted to {role}@{database} again" for privilege in documents]
    return changes


def _shown(privilege: dict[str, Any]) -> str:
    resource = ".".join(str(part) or "*" for part in privilege["resource"].values())
    return f"{', '.join(privilege['actions'])} on {resource}"


def _documents(database: str, wanted: dict[str, set[str]]) -> list[dict[str, Any]]:
    return [
        {"resource": {"db": database, "collection": collection}, "actions": sorted(actions)}
        for collection, actions in sorted(wanted.items())
    ]


def drop_unused_role(server: Server, connection: MongoDBConnection, level: Level) -> None:
    """Drops the managed role of the level once no temporary user has it."""
    role = managed_role(server, level)
    if role is None:
        return
    with lock_of(server):
        held = connection.run(server.users, {"usersInfo": 1, "filter": {"roles.role": role}})["users"]
        if not held:
            with suppress_code(ROLE_NOT_FOUND):
                connection.change(level_database(server, level), {"dropRole": role})


def drop_unused_roles(server: Server, connection: MongoDBConnection) -> list[str]:
    """Drops the managed roles of the target's database that no user of the deployment has. Returns a sentence for each.

    Another bot with another users' database may use such a role. So nothing is dropped where the bot may not see the users of all databases.
    """
    database = server.target.connect.database or urlsplit(server.url).path.lstrip("/")
    with lock_of(server):
        try:
            users = connection.run("admin", {"usersInfo": {"forAllDBs": True}})["users"]
            roles = connection.run(database, {"rolesInfo": 1})["roles"] if database else []
        except OperationFailure as error:
            if code(error) == NOT_ALLOWED:
                return []
            raise
        held = {(role["role"], role["db"]) for user in users for role in user["roles"]}
        unused = [
            one["role"] for one in roles if MANAGED.fullmatch(one["role"]) and (one["role"], database) not in held
        ]
        return [_drop_role(connection, database, role) for role in unused]


def _drop_role(connection: MongoDBConnection, database: str, role: str) -> str:
    try:
        with suppress_code(ROLE_NOT_FOUND):
            connection.change(database, {"dropRole": role})
    except OperationFailure as error:
        return f"The unused role {role} of {database} was not dropped (error {code(error)})."
    return f"Dropped the unused role {role} of {database}."
