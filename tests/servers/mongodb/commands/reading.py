"""find, aggregate, getMore: what reads and what leaves a cursor."""

from __future__ import annotations

from typing import Any

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.commands.current_op import current_op_rows
from tests.servers.mongodb.documents import MISSING, Document, field_of, matches, ordered, pause, projected
from tests.servers.mongodb.rights import CLUSTER, Resource
from tests.servers.mongodb.text import type_name

FIRST_BATCH = 101
WHOLE = 1 << 31
FIND = (
    "filter:object sort:object projection:object hint skip:number limit:number batchSize:number singleBatch:bool"
    " tailable:bool awaitData:bool noCursorTimeout:bool allowDiskUse:bool collation:object let:object returnKey:bool"
    " showRecordId:bool allowPartialResults:bool min:object max:object oplogReplay:bool"
)


def collection_of(call: Call) -> str:
    name = call.value_of_type("string")
    if not name or name.startswith(".") or "$" in name:
        raise errors.Failure(73, f"Invalid namespace specified '{call.db}.{name}'")
    return str(name)


async def found(call: Call, collection: str, query: Document) -> list[Document]:
    """The documents that match; a ``$where`` sleeps at each, so this is where an operation can be killed."""
    seconds, kept = pause(query), []
    for document in list(call.deployment.documents.of(call.db, collection)):
        if seconds:
            await call.operation.sleep(seconds)
        if matches(document, query):
            kept.append(document)
    call.operation.check()
    return kept


def answer(call: Call, ns: str, documents: list[Document], size: int | None, *, is_whole: bool = False) -> Reply:
    """The first batch, and a cursor where there is more."""
    first = FIRST_BATCH if size is None else int(size)
    batch, rest = documents[:first], documents[first:]
    number: int = Int64(0)
    if rest and not is_whole:
        owner = call.connection.user
        cursor = call.member.work.open_cursor(
            ns=ns, documents=rest, owner=owner, session=call.session, command=call.operation.command
        )
        number = Int64(cursor.id)
    return {"cursor": {"firstBatch": batch, "id": number, "ns": ns}}


@command("find", FIND, is_read=True)
async def find(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "find")
    documents = await found(call, collection, call.get("filter", {}))
    documents = ordered(documents, call.get("sort", {}))[int(call.get("skip", 0)) :]
    documents = documents[: abs(int(call.get("limit", 0))) or None]
    documents = [projected(one, call.get("projection", {})) for one in documents]
    is_whole = bool(call.get("singleBatch"))
    return answer(call, f"{call.db}.{collection}", documents, call.get("batchSize"), is_whole=is_whole)


@command("getMore", "collection!:string batchSize:number")
async def get_more(call: Call) -> Reply:
    work = call.member.work
    cursor = work.cursor(call.value_of_type("number"))
    if call.deployment.is_auth_on and cursor.owner != call.connection.user:
        raise errors.FOREIGN_CURSOR.failure(id=cursor.id)
    if cursor.session != call.session:
        raise errors.OTHER_SESSION.failure(cursor=_session(cursor.session), operation=_session(call.session))
    _need_still(call, cursor.command, cursor.ns, cursor.id)
    batch = cursor.take(int(call.get("batchSize") or WHOLE))
    if not cursor.documents:
        work.cursors.pop(cursor.id, None)
    left = Int64(cursor.id if cursor.documents else 0)
    return {"cursor": {"nextBatch": batch, "id": left, "ns": cursor.ns}}


def _session(session: Any) -> str:
    return "none" if session is None else f"{session.id} - {session.uid.hex()}"


def _need_still(call: Call, made_by: Document, ns: str, number: int) -> None:
    """The rights that the first command needed, asked for again."""
    db, _, collection = ns.partition(".")
    action = {"find": "find", "aggregate": "find"}.get(next(iter(made_by)))
    is_data = action is not None and not collection.startswith("$cmd")
    if is_data and not call.may(Resource(db, collection), "find"):
        raise errors.CURSOR_STRIPPED.failure(id=number)


@command("killCursors", "cursors!:array")
async def kill_cursors(call: Call) -> Reply:
    work = call.member.work
    outcome: dict[str, list[int]] = {
        "cursorsKilled": [],
        "cursorsNotFound": [],
        "cursorsAlive": [],
        "cursorsUnknown": [],
    }
    for number in call.body["cursors"]:
        if isinstance(number, bool) or not isinstance(number, int):
            raise errors.WRONG_TYPE.failure(
                command="killCursors", field="cursors.0", found=type_name(number), expected="long"
            )
        cursor = work.cursors.get(number)
        if cursor is None:
            outcome["cursorsNotFound"].append(number)
            continue
        if (
            call.deployment.is_auth_on
            and cursor.owner != call.connection.user
            and not call.may(CLUSTER, "killAnyCursor")
        ):
            raise call.refused()
        del work.cursors[number]
        outcome["cursorsKilled"].append(number)
    return dict(outcome)


@command("count", "query:object limit:number skip:number hint collation:object fields", is_read=True)
async def count(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "find")
    documents = (await found(call, collection, call.get("query", {})))[int(call.get("skip", 0)) :]
    return {"n": len(documents[: int(call.get("limit", 0)) or None])}


@command("distinct", "key!:string query:object collation:object hint", is_read=True)
async def distinct(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "find")
    values: list[Any] = []
    for document in await found(call, collection, call.get("query", {})):
        value = field_of(document, call.body["key"])
        if value is not MISSING and value not in values:
            values.append(value)
    return {"values": values}


@command(
    "aggregate",
    "pipeline!:array cursor:object explain:bool allowDiskUse:bool bypassDocumentValidation:bool collation:object hint let:object",
    takes_write_concern=True,
    is_read=True,
)
async def aggregate(call: Call) -> Reply:
    if "cursor" not in call.body:
        raise errors.NO_CURSOR_OPTION.failure()
    stages = _stages(call.body["pipeline"])
    size = call.body["cursor"].get("batchSize")
    if stages and stages[0][0] == "$currentOp":
        rows = current_op_rows(call, stages[0][1])
        return answer(call, f"{call.db}.$cmd.aggregate", _piped(rows, stages[1:]), size)
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "find")
    query = stages[0][1] if stages and stages[0][0] == "$match" else {}
    documents = _piped(await found(call, collection, query), stages)
    return answer(call, f"{call.db}.{collection}", documents, size)


def _stages(pipeline: list[Any]) -> list[tuple[str, Any]]:
    for stage in pipeline:
        if not isinstance(stage, dict):
            raise errors.STAGE_TYPE.failure()
        if len(stage) != 1:
            raise errors.STAGE_FIELDS.failure()
    return [next(iter(stage.items())) for stage in pipeline]


def _piped(documents: list[Document], stages: list[tuple[str, Any]]) -> list[Document]:
    for name, given in stages:
        match name:
            case "$match":
                documents = [one for one in documents if matches(one, given)]
            case "$skip":
                documents = documents[given:]
            case "$limit":
                documents = documents[:given]
            case "$sort":
                documents = ordered(documents, given)
            case "$project":
                documents = [projected(one, given) for one in documents]
            case "$count":
                documents = [{given: len(documents)}] if documents else []
            case "$group":
                documents = _counted(documents, given)
            case _:
                raise errors.UNKNOWN_STAGE.failure(stage=name)
    return documents


def _counted(documents: list[Document], given: Document) -> list[Document]:
    """``{_id: <constant>, n: {$sum: 1}}``: what the driver's count_documents sends."""
    key = given["_id"]
    sums = {name: one for name, one in given.items() if name != "_id"}
    if isinstance(key, (str, dict)) or any(one != {"$sum": 1} for one in sums.values()):
        raise errors.NOT_KNOWN_HERE.failure(what=f"this $group: {given}")
    return [{"_id": key, **dict.fromkeys(sums, len(documents))}] if documents else []


@command(
    "listCollections",
    "filter:object cursor:object nameOnly:bool authorizedCollections:bool",
    is_read=True,
    is_admin_only=False,
)
async def list_collections(call: Call) -> Reply:
    names = sorted(call.deployment.documents.databases.get(call.db, {}))
    if not call.may(Resource(call.db), "listCollections"):
        if not (call.get("nameOnly") and call.get("authorizedCollections")) or not _reaches(call, call.db):
            raise call.refused()
        names = [name for name in names if call.may(Resource(call.db, name), "find")]
    rows: list[Document] = [{"name": name, "type": "collection"} for name in names]
    if not call.get("nameOnly"):
        rows = [{**row, "options": {}, "info": {"readOnly": False}, "idIndex": ID_INDEX} for row in rows]
    rows = [row for row in rows if matches(row, call.get("filter", {}))]
    return answer(call, f"{call.db}.$cmd.listCollections", rows, call.get("cursor", {}).get("batchSize"))


ID_INDEX = {"v": 2, "key": {"_id": 1}, "name": "_id_"}


@command("listIndexes", "cursor:object", is_read=True)
async def list_indexes(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "listIndexes")
    documents = call.deployment.documents
    if collection not in documents.databases.get(call.db, {}):
        raise errors.NO_NAMESPACE.failure()
    rows = [ID_INDEX, *documents.indexes.get(f"{call.db}.{collection}", [])]
    return answer(call, f"{call.db}.{collection}", rows, call.get("cursor", {}).get("batchSize"))


@command("listDatabases", "filter:object nameOnly:bool authorizedDatabases:bool", is_admin_only=True, is_read=True)
async def list_databases(call: Call) -> Reply:
    """All to whoever may list them, else those of which he may read something."""
    documents = call.deployment.documents
    names = {*documents.databases, "admin", "config", "local"}
    may_see_all = call.may(CLUSTER, "listDatabases") and not call.get("authorizedDatabases")
    if call.get("authorizedDatabases") is False and not may_see_all:
        raise call.refused()
    if not may_see_all:
        names = {name for name in names if _reaches(call, name)}
    rows: list[Document] = [{"name": name, "sizeOnDisk": Int64(40960), "empty": False} for name in sorted(names)]
    rows = [row for row in rows if matches(row, call.get("filter", {}))]
    if call.get("nameOnly"):
        return {"databases": [{"name": row["name"]} for row in rows]}
    total = Int64(sum(row["sizeOnDisk"] for row in rows))
    return {"databases": rows, "totalSize": total, "totalSizeMb": Int64(total // 1048576)}


def _reaches(call: Call, db: str) -> bool:
    """Whether he may find in all or in a part of this database."""
    if call.may(Resource(db), "find"):
        return True
    own = (p.resource for p in call.connection.privileges if "find" in p.actions)
    return any(resource.db == db for resource in own)
