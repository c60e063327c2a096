"""Rows of ``$currentOp``: running operations, and on request what idles."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.documents import Document
from tests.servers.mongodb.operations import SHARD, Cursor, Operation, Transaction
from tests.servers.mongodb.rights import CLUSTER
from tests.servers.mongodb.text import type_name

OPTIONS = {
    "allUsers": False,
    "idleConnections": False,
    "idleSessions": True,
    "idleCursors": False,
    "localOps": False,
    "truncateOps": False,
}
OF_RIGHTS = ("allUsers", "localOps")
KINDS = {
    "find": "query",
    "count": "command",
    "insert": "insert",
    "update": "update",
    "delete": "remove",
    "getMore": "getmore",
}


def current_op_rows(call: Call, given: Any) -> list[Document]:
    """Everybody's with ``allUsers``, for which inprog is needed; else one's own."""
    if not isinstance(given, dict):
        raise errors.CURRENT_OP_TYPE.failure(found=type_name(given))
    for name, value in given.items():
        if not isinstance(value, bool):
            row = errors.CURRENT_OP_BOOLEAN_OF_RIGHTS if name in OF_RIGHTS else errors.CURRENT_OP_BOOLEAN
            raise row.failure(field=name, found=type_name(value))
    options = {**OPTIONS, **given}
    if options["allUsers"] or (call.deployment.is_routed and not options["localOps"]):
        call.need(CLUSTER, "inprog")
    for name in given:
        if name not in OPTIONS:
            raise errors.UNKNOWN_CURRENT_OP.failure(field=name)
    if call.db != "admin" or call.value != 1:
        raise errors.CURRENT_OP_PLACE.failure()
    rows = _rows(call, options)
    return [_of_shard(row) for row in rows] if call.deployment.is_routed else rows


def _of_shard(row: Document) -> Document:
    """As a router passes it on."""
    renamed = {"client_s" if name == "client" else name: value for name, value in row.items()}
    number = {"opid": f"{SHARD}:{row['opid']}"} if "opid" in row else {}
    return {"shard": SHARD, **renamed, **number}


def _rows(call: Call, options: dict[str, bool]) -> list[Document]:
    work, me = call.member.work, call.connection.user
    work.expire()
    shows_all = options["allUsers"] or not call.deployment.is_auth_on
    busy = {operation.connection_id for operation in work.operations.values()}
    rows = [_running(call, one) for one in work.operations.values() if shows_all or one.users == [me]]
    if options["idleConnections"]:
        idle = [one for one in call.member.connections.values() if one.id not in busy]
        rows += [_connection(call, one, is_active=False) for one in idle if shows_all or one.user == me]
    if options["idleCursors"]:
        rows += [_cursor(call, cursor) for cursor in work.cursors.values() if shows_all or cursor.owner == me]
    if options["idleSessions"]:
        open_ones = work.transactions.values()
        rows += [_transaction(call, one) for one in open_ones if shows_all or one.session.uid == call.connection.uid]
    return rows


def _connection(call: Call, connection: Connection, *, is_active: bool) -> Document:
    application = connection.client.get("application", {}).get("name")
    return {
        "type": "op",
        "host": call.member.address,
        "desc": connection.context,
        "connectionId": connection.id,
        "client": connection.remote,
        **({"appName": application} if application else {}),
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
        **({"effectiveUsers": [user.document() for user in operation.users]} if operation.users else {}),
        "threaded": True,
        "opid": operation.id,
        **({"killPending": True} if operation.killed.is_set() else {}),
        **({"lsid": operation.session.document()} if operation.session else {}),
        "secs_running": Int64(took),
        "microsecs_running": Int64(took * 1e6),
        "op": KINDS.get(operation.kind, "command"),
        "ns": operation.ns,
        "command": operation.command,
        "numYields": 0,
        "locks": {},
        "waitingForLock": False,
    }


def _cursor(call: Call, cursor: Cursor) -> Document:
    """Whose it is, only the owner in its session tells."""
    return {
        "type": "idleCursor",
        "host": call.member.address,
        "ns": cursor.ns,
        **({"lsid": cursor.session.document()} if cursor.session else {}),
        "cursor": {
            "cursorId": cursor.id,
            "lastAccessDate": datetime.now(UTC) - timedelta(seconds=time.monotonic() - cursor.used_at),
            "originatingCommand": cursor.command,
        },
    }


def _transaction(call: Call, transaction: Transaction) -> Document:
    return {
        "type": "idleSession",
        "host": call.member.address,
        "desc": "inactive transaction",
        "active": False,
        "lsid": transaction.session.document(),
        "transaction": {"parameters": {"txnNumber": Int64(transaction.number), "autocommit": False}},
    }
