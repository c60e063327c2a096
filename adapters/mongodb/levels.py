"""Levels as roles: built-in or own ones, looked at for danger, or one kept for a level's grants in the application's database."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

from pymongo.errors import OperationFailure

from adapters.base import Level, Rejected
from adapters.mongodb.connection import Connection, Server, suppress_code
from adapters.mongodb.errors import NOT_ALLOWED, ROLE_EXISTS, ROLE_NOT_FOUND, code

OFFERED = frozenset({"read", "readWrite", "dbAdmin", "readAnyDatabase", "readWriteAnyDatabase", "clusterMonitor"})
"""Built-in roles a level may name. The others make users, read their hashes or rule servers."""

BUILT_IN = OFFERED | {
    "dbOwner", "userAdmin", "userAdminAnyDatabase", "dbAdminAnyDatabase", "root", "restore", "backup", "clusterAdmin",
    "clusterManager", "hostManager", "enableSharding", "directShardOperations", "searchCoordinator", "__system", "__queryableBackup",
}  # fmt: skip
ACTIONS = frozenset(
    {
        "find", "insert", "update", "remove", "changeStream", "collStats", "dbStats", "dbHash", "indexStats", "planCacheRead",
        "listCollections", "listIndexes", "createCollection", "createIndex", "dropCollection", "dropIndex", "collMod", "convertToCapped",
        "renameCollectionSameDB", "validate", "storageDetails", "compact", "reIndex", "bypassDocumentValidation", "killCursors",
        "listSearchIndexes", "createSearchIndexes", "updateSearchIndex", "dropSearchIndex",
    }
)  # fmt: skip
"""What a level may give on a collection."""

MIGHTY = frozenset(
    {
        "createUser", "dropUser", "changePassword", "changeCustomData", "changeOwnPassword", "changeOwnCustomData", "grantRole", "revokeRole",
        "createRole", "dropRole", "setAuthenticationRestriction", "impersonate", "internal", "anyAction", "applyOps", "killAnySession",
        "killAnyCursor", "killop", "shutdown", "setParameter", "replSetConfigure", "replSetReconfig", "setUserWriteBlockMode",
    }
)  # fmt: skip
"""With one of these somebody could outlive the grant, or end others' work."""

SYSTEM = "system."
"""Begins the names of the server's own collections; ``admin.system.users`` has everybody's credentials."""

_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)


def lock_of(server: Server) -> threading.Lock:
    """Kept roles of one server change one at a time in this process, until the user has the role: nobody drops it as unused before."""
    return _locks[server.target.admin_url]


def level_database(server: Server, level: Level) -> str:
    """Where the level's collections are. Raises Rejected where nothing says it."""
    found = level.database or server.target.connect.database or urlsplit(server.url).path.lstrip("/")
    if not found:
        remedy = "give the level a database, or connect a database, in databases.yml"
        raise Rejected(f"level {level.name} is about no database", remedy=remedy)
    return found


def kept_role(server: Server, level: Level) -> str | None:
    """The name of the role kept for a level's grants, or None where it has none."""
    if not level.grants:
        return None
    grants = [[sorted(g.on), sorted(g.privileges)] for g in level.grants]
    text = json.dumps([server.target.prefix, server.target.name, level.database, level.name, sorted(grants)])
    return f"dbaccess_{level.name[:12]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def named_roles(server: Server, level: Level) -> list[dict[str, str]]:
    """``read`` is a role of the level's database, ``read@other`` of another."""
    found = []
    for role in level.roles:
        name, at, database = role.partition("@")
        found.append({"role": name, "db": database if at else level_database(server, level)})
    return found


def roles_of(server: Server, connection: Connection, level: Level) -> list[dict[str, str]]:
    """All roles a user of this level gets, the kept one made equal to its grants. Raises Rejected for what must not be given."""
    if level.settings:
        raise Rejected(
            f"MongoDB has no settings for one user ({', '.join(level.settings)})", remedy="leave settings out"
        )
    roles = named_roles(server, level)
    for role in roles:
        refuse_dangerous(connection, role)
    if (kept := kept_role(server, level)) is not None:
        database = level_database(server, level)
        keep(connection, database, kept, privileges_of(level, database))
        roles.append({"role": kept, "db": database})
    return roles


def refuse_dangerous(connection: Connection, role: dict[str, str]) -> None:
    """Raises Rejected for a role that is missing or must not be given to a temporary user."""
    name = f"{role['role']}@{role['db']}"
    if role["role"] in BUILT_IN:
        if role["role"] not in OFFERED:
            remedy = f"name one of {', '.join(sorted(OFFERED))}, or a role of your own"
            raise Rejected(f"the role {name} is never given: whoever gets it could outlive the grant", remedy=remedy)
        return
    found = look(connection, role["db"], role["role"])
    if found is None:
        raise Rejected(
            f"the role {name} does not exist",
            remedy=f'db.getSiblingDB("{role["db"]}").createRole({{role: "{role["role"]}", …}})',
        )
    if why := danger(found):
        raise Rejected(
            f"the role {name} {why}: whoever gets it could outlive the grant", remedy="name a role without it"
        )


def danger(role: dict[str, Any]) -> str | None:
    """What a role may do, with all it inherits, that a temporary user never may."""
    for below in role.get("inheritedRoles", ()):
        if below["role"] in BUILT_IN - OFFERED:
            return f"holds {below['role']}@{below['db']}"
    for privilege in (*role.get("privileges", ()), *role.get("inheritedPrivileges", ())):
        resource = privilege["resource"]
        if resource.get("anyResource"):
            return "covers every resource"
        if resource.get("db") == "admin" and str(resource.get("collection")).startswith(SYSTEM):
            return f"reaches {resource['collection']} in admin"
        if mighty := sorted(MIGHTY & set(privilege["actions"])):
            return f"may {mighty[0]}"
    return None


def look(connection: Connection, database: str, role: str) -> dict[str, Any] | None:
    """A role with its privileges, or None. Raises Rejected where the bot may not see it."""
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


# The kept role.


def privileges_of(level: Level, database: str) -> dict[str, set[str]]:
    """Collection (all of them: empty) → actions. Raises Rejected for what cannot be given."""
    found: dict[str, set[str]] = defaultdict(set)
    for grant in level.grants:
        if wrong := sorted(set(grant.privileges) - ACTIONS):
            raise Rejected(
                f"a level cannot give {wrong[0]} on {database}", remedy=f"there are {', '.join(sorted(ACTIONS))}"
            )
        for on in grant.on:
            if on.startswith(SYSTEM) or database == "admin":
                what = f"a level cannot give anything on {on} of {database}"
                raise Rejected(what, remedy="name collections of an application")
            found["" if on == "*" else on] |= set(grant.privileges)
    return dict(found)


def keep(connection: Connection, database: str, role: str, wanted: dict[str, set[str]]) -> None:
    """Make the role, and make it equal to what it should give. Never by updateRole, which needs a right on every database."""
    with suppress_code(ROLE_EXISTS):
        connection.change(database, {"createRole": role, "privileges": _documents(database, wanted), "roles": []})
        return
    found = look(connection, database, role)
    if found is None:
        raise Rejected(f"the role {role}@{database} comes and goes")
    if found["roles"]:
        below = found["roles"][0]
        remedy = f'db.getSiblingDB("{database}").revokeRolesFromRole("{role}", [{{role: "{below["role"]}", db: "{below["db"]}"}}])'
        raise Rejected(
            f"somebody gave {role}@{database} the role {below['role']}, which its level does not give", remedy=remedy
        )
    _make_equal(connection, database, role, found["privileges"], wanted)


def _make_equal(
    connection: Connection, database: str, role: str, held: list[dict[str, Any]], wanted: dict[str, set[str]]
) -> None:
    extra, have = [], dict[str, set[str]]()
    for privilege in held:
        resource, actions = privilege["resource"], set(privilege["actions"])
        is_ours = set(resource) == {"db", "collection"} and resource["db"] == database
        meant = wanted.get(resource["collection"], set()) if is_ours else set()
        if is_ours:
            have[resource["collection"]] = actions & meant
        if actions - meant:
            extra.append({"resource": resource, "actions": sorted(actions - meant)})
    if extra:
        connection.change(database, {"revokePrivilegesFromRole": role, "privileges": extra})
    lacking = {name: actions - have.get(name, set()) for name, actions in wanted.items()}
    if missing := {name: actions for name, actions in lacking.items() if actions}:
        connection.change(database, {"grantPrivilegesToRole": role, "privileges": _documents(database, missing)})


def _documents(database: str, wanted: dict[str, set[str]]) -> list[dict[str, Any]]:
    return [
        {"resource": {"db": database, "collection": collection}, "actions": sorted(actions)}
        for collection, actions in sorted(wanted.items())
    ]


def drop_unused(server: Server, connection: Connection, level: Level) -> None:
    """Drop the level's role when no temporary user has it any more."""
    role = kept_role(server, level)
    if role is None:
        return
    with lock_of(server):
        held = connection.run(server.users, {"usersInfo": 1, "filter": {"roles.role": role}})["users"]
        if not held:
            with suppress_code(ROLE_NOT_FOUND):
                connection.change(level_database(server, level), {"dropRole": role})
