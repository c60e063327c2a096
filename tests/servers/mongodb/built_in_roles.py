"""The built-in roles that tests use, the known actions, and the parser of privileges."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.rights import ANYTHING, CLUSTER, EVERYWHERE, Privilege, Resource, RoleName

READ = frozenset(
    {
        "changeStream", "collStats", "dbHash", "dbStats", "find", "killCursors", "listCollections", "listIndexes",
        "planCacheRead",
    }
)  # fmt: skip
READ_WRITE = READ | {
    "convertToCapped", "createCollection", "createIndex", "dropCollection", "dropIndex", "insert", "remove",
    "renameCollectionSameDB", "update", "compactStructuredEncryptionData", "cleanupStructuredEncryptionData",
}  # fmt: skip
DB_ADMIN = frozenset(
    {
        "analyze", "bypassDocumentValidation", "collMod", "collStats", "compact", "convertToCapped", "createCollection",
        "createIndex", "dbStats", "dropCollection", "dropDatabase", "dropIndex", "enableProfiler", "listCollections",
        "listIndexes", "planCacheIndexFilter", "planCacheRead", "planCacheWrite", "reIndex", "renameCollectionSameDB",
        "storageDetails", "validate",
    }
)  # fmt: skip
USER_ADMIN = frozenset(
    {
        "createUser", "dropUser", "viewUser", "changePassword", "changeCustomData", "setAuthenticationRestriction",
        "grantRole", "revokeRole", "createRole", "dropRole", "viewRole",
    }
)  # fmt: skip
ON_CLUSTER = frozenset({"inprog", "killop", "killAnySession", "invalidateUserCache", "listDatabases", "viewUser"})
"""Those of root on the cluster that a modelled command asks for."""

ACTIONS = READ | READ_WRITE | DB_ADMIN | USER_ADMIN | ON_CLUSTER | {"anyAction", "impersonate", "killAnyCursor"}
OF_A_DATABASE = {
    "read": READ,
    "readWrite": READ_WRITE,
    "dbAdmin": DB_ADMIN,
    "userAdmin": USER_ADMIN,
    "dbOwner": READ_WRITE | DB_ADMIN | USER_ADMIN,
}


def is_built_in(role: RoleName) -> bool:
    return role.name in OF_A_DATABASE or role == RoleName("root", "admin")


def built_in(role: RoleName) -> list[Privilege]:
    """The privileges of a built-in role."""
    if role.name == "root":
        return [Privilege(EVERYWHERE, OF_A_DATABASE["dbOwner"]), Privilege(CLUSTER, ON_CLUSTER)]
    return [Privilege(Resource(role.db), OF_A_DATABASE[role.name])]


def read_privilege(document: Any) -> Privilege:
    """Parses one privilege of createRole. Refuses unknown actions and incomplete resources."""
    if not isinstance(document, dict) or set(document) != {"resource", "actions"} or not document["actions"]:
        raise errors.BAD_PRIVILEGE.failure(what="a resource and actions are needed")
    for action in document["actions"]:
        if action not in ACTIONS:
            raise errors.UNKNOWN_ACTION.failure(action=action)
    resource = document["resource"]
    if resource == {"cluster": True}:
        found = CLUSTER
    elif resource == {"anyResource": True}:
        found = ANYTHING
    elif set(resource) == {"db", "collection"}:
        found = Resource(resource["db"], resource["collection"])
    else:
        raise errors.BAD_PRIVILEGE.failure(what="a resource has both db and collection, or is the cluster")
    return Privilege(found, frozenset(document["actions"]))
