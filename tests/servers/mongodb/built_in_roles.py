"""Actions, and the built-in roles as sets of them."""

from __future__ import annotations

from tests.servers.mongodb.resources import ANYTHING, CLUSTER, EVERYWHERE, Privilege, Resource, RoleName

READ = frozenset(
    [
        "changeStream",
        "collStats",
        "dbHash",
        "dbStats",
        "find",
        "killCursors",
        "listCollections",
        "listIndexes",
        "planCacheRead",
    ]
)
READ_WRITE = READ | frozenset(
    [
        "convertToCapped",
        "createCollection",
        "createIndex",
        "dropCollection",
        "dropIndex",
        "insert",
        "remove",
        "renameCollectionSameDB",
        "update",
        "compactStructuredEncryptionData",
        "cleanupStructuredEncryptionData",
    ]
)
DB_ADMIN = frozenset(
    [
        "analyze",
        "bypassDocumentValidation",
        "collMod",
        "collStats",
        "compact",
        "convertToCapped",
        "createCollection",
        "createIndex",
        "dbStats",
        "dropCollection",
        "dropDatabase",
        "dropIndex",
        "enableProfiler",
        "listCollections",
        "listIndexes",
        "planCacheIndexFilter",
        "planCacheRead",
        "planCacheWrite",
        "reIndex",
        "renameCollectionSameDB",
        "storageDetails",
        "validate",
    ]
)
USER_ADMIN = frozenset(
    [
        "createUser",
        "dropUser",
        "viewUser",
        "changePassword",
        "changeCustomData",
        "setAuthenticationRestriction",
        "grantRole",
        "revokeRole",
        "createRole",
        "dropRole",
        "viewRole",
    ]
)
CLUSTER_MONITOR = frozenset(
    [
        "connPoolStats",
        "getCmdLineOpts",
        "getDefaultRWConcern",
        "getLog",
        "getParameter",
        "getShardMap",
        "hostInfo",
        "inprog",
        "listDatabases",
        "listSessions",
        "listShards",
        "netstat",
        "replSetGetConfig",
        "replSetGetStatus",
        "serverStatus",
        "shardingState",
        "top",
    ]
)
HOST_MANAGER = frozenset(
    [
        "applicationMessage",
        "closeAllDatabases",
        "connPoolSync",
        "flushRouterConfig",
        "fsync",
        "invalidateUserCache",
        "killAnyCursor",
        "killAnySession",
        "killop",
        "dropConnections",
        "logRotate",
        "oidReset",
        "resync",
        "rotateCertificates",
        "setParameter",
        "shutdown",
        "touch",
        "unlock",
    ]
)
CLUSTER_MANAGER = frozenset(
    [
        "addShard",
        "appendOplogNote",
        "applicationMessage",
        "cleanupOrphaned",
        "flushRouterConfig",
        "getDefaultRWConcern",
        "listSessions",
        "listShards",
        "removeShard",
        "replSetConfigure",
        "replSetGetConfig",
        "replSetGetStatus",
        "replSetStateChange",
        "resync",
        "setDefaultRWConcern",
    ]
)
OTHER_ACTIONS = frozenset(
    [
        "addShard",
        "advanceClusterTime",
        "allCollectionStats",
        "analyzeShardKey",
        "anyAction",
        "applyOps",
        "auditConfigure",
        "authSchemaUpgrade",
        "bypassWriteBlockingMode",
        "changeOwnCustomData",
        "changeOwnPassword",
        "checkFreeMonitoringStatus",
        "checkMetadataConsistency",
        "clearJumboFlag",
        "configureQueryAnalyzer",
        "cpuProfiler",
        "createSearchIndexes",
        "dbCheck",
        "dropSearchIndex",
        "emptycapped",
        "enableSharding",
        "exportCollection",
        "forceUUID",
        "fsyncUnlock",
        "getChangeStreamState",
        "getClusterParameter",
        "getDatabaseVersion",
        "getShardVersion",
        "impersonate",
        "importCollection",
        "indexStats",
        "internal",
        "issueDirectShardOperations",
        "listCachedAndActiveUsers",
        "listCursors",
        "listSampledQueries",
        "listSearchIndexes",
        "moveChunk",
        "moveCollection",
        "operationMetrics",
        "querySettings",
        "queryStatsRead",
        "queryStatsReadTransformed",
        "refineCollectionShardKey",
        "removeShard",
        "repairDatabase",
        "replSetHeartbeat",
        "replSetResizeOplog",
        "reshardCollection",
        "runTenantMigration",
        "setChangeStreamState",
        "setClusterParameter",
        "setFeatureCompatibilityVersion",
        "setFreeMonitoring",
        "setUserWriteBlockMode",
        "splitChunk",
        "splitVector",
        "trafficRecord",
        "updateSearchIndex",
        "useUUID",
        "validate",
    ]
)
ACTIONS = READ | READ_WRITE | DB_ADMIN | USER_ADMIN | CLUSTER_MONITOR | HOST_MANAGER | CLUSTER_MANAGER | OTHER_ACTIONS

OF_ANY_DATABASE = ("read", "readWrite", "dbAdmin", "userAdmin", "dbOwner")
OF_ADMIN = (
    "readAnyDatabase",
    "readWriteAnyDatabase",
    "dbAdminAnyDatabase",
    "userAdminAnyDatabase",
    "clusterMonitor",
    "hostManager",
    "clusterManager",
    "clusterAdmin",
    "backup",
    "restore",
    "root",
    "__system",
)


def is_built_in(role: RoleName) -> bool:
    return role.name in OF_ANY_DATABASE or (role.db == "admin" and role.name in OF_ADMIN)


def built_in(role: RoleName) -> list[Privilege]:
    """What a built-in role allows."""
    if role.name in OF_ANY_DATABASE:
        return _of_database(role.name, role.db)
    if role.name.endswith("AnyDatabase"):
        return _of_any_database(role.name)
    monitor, hosts = Privilege(CLUSTER, CLUSTER_MONITOR), Privilege(CLUSTER, HOST_MANAGER)
    manager = Privilege(CLUSTER, CLUSTER_MANAGER)
    cluster_admin = [monitor, hosts, manager, Privilege(EVERYWHERE, frozenset({"dropDatabase"}))]
    restore = Privilege(ANYTHING, READ_WRITE | USER_ADMIN)
    backup = [
        Privilege(ANYTHING, READ | {"viewUser", "viewRole"}),
        Privilege(CLUSTER, frozenset({"listDatabases"})),
    ]
    any_database = [p for name in ("readWrite", "dbAdmin", "userAdmin") for p in _of_any_database(f"{name}AnyDatabase")]
    return {
        "clusterMonitor": [monitor],
        "hostManager": [hosts],
        "clusterManager": [manager],
        "clusterAdmin": cluster_admin,
        "backup": backup,
        "restore": [restore],
        "root": [*any_database, *cluster_admin, *backup, restore],
        "__system": [Privilege(ANYTHING, ACTIONS), Privilege(CLUSTER, ACTIONS)],
    }[role.name]


def _of_database(name: str, db: str) -> list[Privilege]:
    actions = {
        "read": READ,
        "readWrite": READ_WRITE,
        "dbAdmin": DB_ADMIN,
        "userAdmin": USER_ADMIN,
        "dbOwner": READ_WRITE | DB_ADMIN | USER_ADMIN,
    }[name]
    found = [Privilege(Resource(db), actions)]
    if name in ("read", "readWrite", "dbOwner"):
        found.append(Privilege(Resource(db, "system.js"), actions & READ_WRITE))
    return found


def _of_any_database(name: str) -> list[Privilege]:
    found = _of_database(name.removesuffix("AnyDatabase"), "")
    cluster = {"userAdmin": {"invalidateUserCache", "viewUser", "listDatabases"}}.get(
        name.removesuffix("AnyDatabase"), {"listDatabases"}
    )
    return [*found, Privilege(CLUSTER, frozenset(cluster))]
