"""What a server says of itself."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.operations import SHARD
from tests.servers.mongodb.rights import CLUSTER, Resource

VERSION = "7.0.8"
PARAMETERS: dict[str, Any] = {
    "authenticationMechanisms": ["SCRAM-SHA-1", "SCRAM-SHA-256"],
    "enableLocalhostAuthBypass": True,
    "featureCompatibilityVersion": {"version": "7.0"},
    "scramIterationCount": 10000,
    "scramSHA256IterationCount": 15000,
    "transactionLifetimeLimitSeconds": 60,
}


@command("buildInfo", aliases=("buildinfo",), needs_login=False)
async def build_info(call: Call) -> Reply:
    return {
        "version": VERSION,
        "gitVersion": "stand-in",
        "modules": [],
        "versionArray": [*map(int, VERSION.split(".")), 0],
        "bits": 64,
        "debug": False,
        "maxBsonObjectSize": 16777216,
        "storageEngines": ["wiredTiger"],
    }


@command("serverStatus", is_lax=True)
async def server_status(call: Call) -> Reply:
    call.need(CLUSTER, "serverStatus")
    return {
        "host": call.member.address,
        "version": VERSION,
        "process": "mongos" if call.deployment.is_routed else "mongod",
        "pid": Int64(os.getpid()),
        "localTime": datetime.now(UTC),
        "connections": {"current": len(call.member.connections)},
    }


@command("getParameter", is_admin_only=True, is_lax=True)
async def get_parameter(call: Call) -> Reply:
    call.need(CLUSTER, "getParameter")
    asked = [name for name in call.body if name in PARAMETERS]
    if call.value == "*":
        return dict(PARAMETERS)
    if not asked:
        raise errors.NO_PARAMETER.failure()
    return {name: PARAMETERS[name] for name in asked}


@command("getCmdLineOpts", is_admin_only=True)
async def get_cmd_line_opts(call: Call) -> Reply:
    call.need(CLUSTER, "getCmdLineOpts")
    security = {"authorization": "enabled"} if call.deployment.is_auth_on else {}
    return {"argv": ["mongod"], "parsed": {"net": {"port": call.member.port}, "security": security}}


@command("hostInfo", is_admin_only=True)
async def host_info(call: Call) -> Reply:
    call.need(CLUSTER, "hostInfo")
    return {"system": {"currentTime": datetime.now(UTC), "hostname": call.member.address}}


@command("replSetGetStatus", is_admin_only=True)
async def repl_set_get_status(call: Call) -> Reply:
    call.need(CLUSTER, "replSetGetStatus")
    _need_set(call)
    states = {True: (1, "PRIMARY"), False: (2, "SECONDARY")}
    members = [
        {
            "_id": index,
            "name": one.address,
            "health": 1.0,
            "state": states[one.is_primary][0],
            "stateStr": states[one.is_primary][1],
            **({"self": True} if one is call.member else {}),
        }
        for index, one in enumerate(call.deployment.members)
    ]
    return {
        "set": call.deployment.set_name,
        "date": datetime.now(UTC),
        "myState": states[call.member.is_primary][0],
        "members": members,
    }


@command("replSetGetConfig", is_admin_only=True)
async def repl_set_get_config(call: Call) -> Reply:
    call.need(CLUSTER, "replSetGetConfig")
    _need_set(call)
    members = [{"_id": index, "host": one.address} for index, one in enumerate(call.deployment.members)]
    settings = {"replicaSetId": call.deployment.set_id}
    return {"config": {"_id": call.deployment.set_name, "version": 1, "members": members, "settings": settings}}


def _need_set(call: Call) -> None:
    if not call.deployment.is_set:
        raise errors.NOT_A_SET.failure()


@command("dbStats", "scale:number", aliases=("dbstats",), is_read=True)
async def db_stats(call: Call) -> Reply:
    call.need(Resource(call.db), "dbStats")
    collections = call.deployment.documents.databases.get(call.db, {})
    return {
        "db": call.db,
        "collections": Int64(len(collections)),
        "objects": Int64(sum(map(len, collections.values()))),
    }


@command("isdbgrid", needs_login=False)
async def is_router(call: Call) -> Reply:
    if not call.deployment.is_routed:
        raise errors.NO_SUCH_COMMAND.failure(name="isdbgrid")
    return {"isdbgrid": 1, "hostname": call.member.address}


@command("listShards", is_admin_only=True)
async def list_shards(call: Call) -> Reply:
    if not call.deployment.is_routed:
        raise errors.NO_SUCH_COMMAND.failure(name="listShards")
    call.need(CLUSTER, "listShards")
    return {"shards": [{"_id": SHARD, "host": f"{SHARD}/127.0.0.1:1", "state": 1}]}
