"""Commands that show and end operations and sessions."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command, part
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.documents import Document
from tests.servers.mongodb.operations import Cursor, Operation, SessionId
from tests.servers.mongodb.rights import CLUSTER
from tests.servers.mongodb.text import type_name
from tests.servers.mongodb.users import UserName

SHARD = "shard0"
"""The only shard behind all routers."""

CURRENT_OP_OPTIONS = ("allUsers", "idleConnections", "idleCursors")


@command("killAllSessions")
async def kill_all_sessions(call: Call) -> Reply:
    """Ends the sessions of these users on this member; an empty list means all users."""
    users = [part("KillAllSessionsCmd", one, ("user", "db")) for one in call.value_of_type("array")]
    call.need(CLUSTER, "killAnySession")
    owners = {UserName(user["user"], user["db"]).uid for user in users}
    call.member.operations.kill_sessions(lambda session: not users or session.uid in owners, but=call.operation)
    return {}


@command("endSessions")
async def end_sessions(call: Call) -> Reply:
    """The driver sends it when a client closes."""
    given = [part("EndSessionsCmd", one, ("id",)) for one in call.value_of_type("array")]
    ended = {SessionId(one["id"], call.connection.uid) for one in given}
    call.member.operations.kill_sessions(lambda session: session in ended)
    return {}


@command("killOp", "op", is_admin_only=True)
async def kill_op(call: Call) -> Reply:
    """Succeeds whether there is such an operation or not."""
    call.need(CLUSTER, "killop")
    if "op" not in call.body:
        raise errors.NO_OP.failure()
    given = call.body["op"]
    if call.deployment.is_routed:
        shard, number = _on_shard(given)
        _kill(call, number)
        return {"shard": shard, "shardid": number}
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise errors.OP_TYPE.failure(found=type_name(given))
    _kill(call, int(given))
    return {"info": "attempting to kill op"}


def _on_shard(given: Any) -> tuple[str, int]:
    """Routers name an operation ``shard:number``."""
    shard, _, number = str(given).partition(":")
    if not shard or not number.isdigit():
        raise errors.OP_FORM.failure(op=given)
    if shard != SHARD:
        raise errors.NO_SHARD.failure(shard=shard)
    return shard, int(number)


def _kill(call: Call, number: int) -> None:
    operation = call.member.operations.running.get(number)
    if operation is not None:
        call.member.operations.kill(operation)


@command("invalidateUserCache", is_admin_only=True)
async def invalidate_user_cache(call: Call) -> Reply:
    call.need(CLUSTER, "invalidateUserCache")
    call.member.forget_users()
    return {}


def current_op(call: Call, options: Document) -> list[Document]:
    """Rows of ``$currentOp``. Only ``allUsers: true`` is modelled, which needs inprog."""
    if options.get("allUsers") is not True:
        raise errors.NOT_MODELLED.failure(what="$currentOp without allUsers")
    call.need(CLUSTER, "inprog")
    for name in options:
        if name not in CURRENT_OP_OPTIONS:
            raise errors.UNKNOWN_CURRENT_OP.failure(field=name)
    if call.db != "admin" or call.value != 1:
        raise errors.CURRENT_OP_PLACE.failure()
    rows = _rows(call, options)
    return [_of_shard(row) for row in rows] if call.deployment.is_routed else rows


def _of_shard(row: Document) -> Document:
    """The row as a router passes it on."""
    renamed = {"client_s" if name == "client" else name: value for name, value in row.items()}
    number = {"opid": f"{SHARD}:{row['opid']}"} if "opid" in row else {}
    return {"shard": SHARD, **renamed, **number}


def _rows(call: Call, options: Document) -> list[Document]:
    operations = call.member.operations
    busy = {operation.connection_id for operation in operations.running.values()}
    rows = [_running(call, one) for one in operations.running.values()]
    if options.get("idleConnections"):
        idle = [one for one in call.member.connections.values() if one.id not in busy]
        rows += [_connection(call, one, is_active=False) for one in idle]
    if options.get("idleCursors"):
        rows += [_cursor(call, cursor) for cursor in operations.cursors.values()]
    return rows


def _connection(call: Call, connection: Connection, *, is_active: bool) -> Document:
    return {
        "type": "op",
        "host": call.member.address,
        "desc": connection.context,
        "connectionId": connection.id,
        "client": connection.remote,
        "clientMetadata": connection.client,
        "active": is_active,
        "currentOpTime": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        **({"effectiveUsers": [connection.user.document()]} if connection.user else {}),
    }


def _running(call: Call, operation: Operation) -> Document:
    took = time.monotonic() - operation.began
    connections = {number: one for member in call.deployment.members for number, one in member.connections.items()}
    connection = connections.get(operation.connection_id)
    row = {} if connection is None else _connection(call, connection, is_active=True)
    row.pop("effectiveUsers", None)
    return {
        **row,
        **({"effectiveUsers": [operation.user.document()]} if operation.user else {}),
        "opid": operation.id,
        **({"killPending": True} if operation.killed.is_set() else {}),
        **({"lsid": operation.session.document()} if operation.session else {}),
        "secs_running": Int64(took),
        "op": "query" if operation.kind == "find" else "command",
        "ns": operation.ns,
        "command": operation.command,
    }


def _cursor(call: Call, cursor: Cursor) -> Document:
    """The row names no user: the owner is only in the session id."""
    return {
        "type": "idleCursor",
        "host": call.member.address,
        "ns": cursor.ns,
        **({"lsid": cursor.session.document()} if cursor.session else {}),
        "cursor": {"cursorId": cursor.id},
    }
