"""Commands on documents: find, aggregate, getMore, insert, listDatabases."""

from __future__ import annotations

from typing import Any

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.commands.operations import current_op
from tests.servers.mongodb.documents import Document, matches, pause
from tests.servers.mongodb.rights import CLUSTER, Resource

FIRST_BATCH = 101


def _collection(call: Call) -> str:
    name = str(call.value_of_type("string"))
    if not name or name.startswith(".") or "$" in name:
        raise errors.INVALID_NAMESPACE.failure(ns=f"{call.db}.{name}")
    return name


def _first_batch(call: Call, ns: str, documents: list[Document], size: Any) -> Reply:
    """The first batch, and a cursor where documents are left."""
    count = FIRST_BATCH if size is None else int(size)
    batch, rest = documents[:count], documents[count:]
    number: int = Int64(0)
    if rest:
        number = call.member.operations.open_cursor(ns=ns, documents=rest, session=call.session).id
    return {"cursor": {"firstBatch": batch, "id": number, "ns": ns}}


@command("find", "filter:object limit:number batchSize:number singleBatch:bool", is_read=True)
async def find(call: Call) -> Reply:
    """A ``$where`` sleeps at each document: there the operation can be killed."""
    collection = _collection(call)
    call.need(Resource(call.db, collection), "find")
    query, found = call.get("filter", {}), []
    seconds = pause(query)
    for document in list(call.deployment.documents.of(call.db, collection)):
        if seconds:
            await call.operation.sleep(seconds)
        if matches(document, query):
            found.append(document)
    call.operation.check()
    found = found[: int(call.get("limit", 0)) or None]
    return _first_batch(call, f"{call.db}.{collection}", found, call.get("batchSize"))


@command("getMore", "collection!:string batchSize:number")
async def get_more(call: Call) -> Reply:
    cursors = call.member.operations.cursors
    cursor = cursors.get(call.value_of_type("number"))
    if cursor is None:
        raise errors.NO_CURSOR.failure(id=call.value)
    batch = cursor.take(int(call.get("batchSize") or len(cursor.documents)))
    if not cursor.documents:
        cursors.pop(cursor.id, None)
    return {"cursor": {"nextBatch": batch, "id": Int64(cursor.id if cursor.documents else 0), "ns": cursor.ns}}


@command("killCursors", "cursors!:array")
async def kill_cursors(call: Call) -> Reply:
    """The driver sends it when a cursor is closed early."""
    for number in call.body["cursors"]:
        call.member.operations.cursors.pop(number, None)
    return {"cursorsKilled": call.body["cursors"], "cursorsNotFound": [], "cursorsAlive": [], "cursorsUnknown": []}


@command("aggregate", "pipeline!:array cursor:object", is_read=True)
async def aggregate(call: Call) -> Reply:
    """Only a pipeline of one ``$currentOp`` is modelled."""
    if "cursor" not in call.body:
        raise errors.NO_CURSOR_OPTION.failure()
    (stage,) = call.body["pipeline"]
    name, options = next(iter(stage.items()))
    if name != "$currentOp":
        raise errors.UNKNOWN_STAGE.failure(stage=name)
    rows = current_op(call, options)
    return _first_batch(call, f"{call.db}.$cmd.aggregate", rows, call.body["cursor"].get("batchSize"))


@command("insert", "documents!:array ordered:bool", takes_write_concern=True, is_write=True)
async def insert(call: Call) -> Reply:
    collection = _collection(call)
    call.need(Resource(call.db, collection), "insert")
    call.deployment.documents.insert(call.db, collection, call.body["documents"])
    return {"n": len(call.body["documents"])}


@command("listDatabases", "nameOnly:bool", is_admin_only=True, is_read=True)
async def list_databases(call: Call) -> Reply:
    """A client without the right on the cluster sees the databases in which it may read."""
    names = {*call.deployment.documents.databases, "admin", "config", "local"}
    if not call.may(CLUSTER, "listDatabases"):
        names = {name for name in names if call.may(Resource(name), "find")}
    return {"databases": [{"name": name} for name in sorted(names)]}
