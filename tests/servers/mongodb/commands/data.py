"""insert, update, delete and what makes and drops collections."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command, need_object, part
from tests.servers.mongodb.commands.reading import collection_of, found
from tests.servers.mongodb.documents import Document, changed
from tests.servers.mongodb.rights import Resource

UPDATE = ("q", "u", "multi", "upsert", "collation", "arrayFilters", "hint", "c")
DELETE = ("q", "limit", "collation", "hint")
INDEX = (
    "key",
    "name",
    "unique",
    "sparse",
    "expireAfterSeconds",
    "background",
    "partialFilterExpression",
    "v",
    "hidden",
)
WRITE = "ordered:bool bypassDocumentValidation:bool stmtIds:array let:object"


@command("insert", f"documents!:array {WRITE}", takes_write_concern=True, is_write=True)
async def insert(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "insert")
    for one in call.body["documents"]:
        need_object("insert", "documents", one)
    documents, count, failed = call.deployment.documents, 0, []
    for index, document in enumerate(call.body["documents"]):
        try:
            documents.insert(call.db, collection, document)
            count += 1
        except errors.Failure as failure:
            failed.append({"index": index, "code": failure.code, "errmsg": failure.text})
            if call.get("ordered", True):
                break
    documents.save()
    return {"n": count, **({"writeErrors": failed} if failed else {})}


@command("update", f"updates!:array {WRITE}", takes_write_concern=True, is_write=True)
async def update(call: Call) -> Reply:
    collection = collection_of(call)
    updates = [part("update.updates", one, UPDATE, ("q", "u")) for one in call.body["updates"]]
    for one in updates:
        need_object("update.updates", "q", one["q"])
    has_upsert = any(one.get("upsert") for one in updates)
    call.need(Resource(call.db, collection), "update", *(["insert"] if has_upsert else []))
    matched, modified, upserted = 0, 0, []
    for index, one in enumerate(updates):
        hits = await found(call, collection, one["q"])
        hits = hits if one.get("multi") else hits[:1]
        for document in hits:
            modified += _modify(document, changed(document, one["u"]))
        matched += len(hits)
        if not hits and one.get("upsert"):
            made = _upserted(one)
            call.deployment.documents.insert(call.db, collection, made)
            upserted.append({"index": index, "_id": made["_id"]})
    call.deployment.documents.save()
    both = {"n": matched + len(upserted), "nModified": modified}
    return {**both, **({"upserted": upserted} if upserted else {})}


def _modify(document: Document, new: Document) -> int:
    if new == document:
        return 0
    document.clear()
    document.update(new)
    return 1


def _upserted(one: Document) -> Document:
    base = {key: value for key, value in one["q"].items() if not key.startswith("$") and not isinstance(value, dict)}
    on_insert = one["u"].get("$setOnInsert", {})
    return {"_id": ObjectId(), **changed(base, one["u"]), **on_insert}


@command("delete", f"deletes!:array {WRITE}", takes_write_concern=True, is_write=True)
async def delete(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "remove")
    count = 0
    deletes = [part("delete.deletes", one, DELETE, ("q", "limit")) for one in call.body["deletes"]]
    for one in deletes:
        need_object("delete.deletes", "q", one["q"])
    for one in deletes:
        hits = await found(call, collection, one["q"])
        for document in hits[: one["limit"] or None]:
            call.deployment.documents.of(call.db, collection).remove(document)
            count += 1
    call.deployment.documents.save()
    return {"n": count}


@command(
    "findAndModify",
    "query:object update remove:bool new:bool upsert:bool fields:object sort:object",
    aliases=("findandmodify",),
    takes_write_concern=True,
    is_write=True,
)
async def find_and_modify(call: Call) -> Reply:
    collection = collection_of(call)
    action = "remove" if call.get("remove") else "update"
    call.need(Resource(call.db, collection), "find", action)
    if action == "update" and not isinstance(call.get("update"), dict):
        raise errors.NO_UPDATE.failure()
    if call.get("upsert"):
        raise errors.NOT_KNOWN_HERE.failure(what="findAndModify with upsert")
    hits = await found(call, collection, call.get("query", {}))
    if not hits:
        return {"lastErrorObject": {"n": 0, "updatedExisting": False}, "value": None}
    before = dict(hits[0])
    if action == "remove":
        call.deployment.documents.of(call.db, collection).remove(hits[0])
    else:
        _modify(hits[0], changed(hits[0], call.body["update"]))
    call.deployment.documents.save()
    value: Any = dict(hits[0]) if call.get("new") else before
    return {"lastErrorObject": {"n": 1, "updatedExisting": action == "update"}, "value": value}


@command("create", "capped:bool size:number max:number", takes_write_concern=True, is_write=True)
async def create(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "createCollection")
    documents = call.deployment.documents
    if collection in documents.databases.get(call.db, {}):
        raise errors.COLLECTION_EXISTS.failure(ns=f"{call.db}.{collection}")
    documents.made(call.db, collection)
    documents.save()
    return {}


@command("createIndexes", "indexes!:array commitQuorum", takes_write_concern=True, is_write=True)
async def create_indexes(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "createIndex")
    documents = call.deployment.documents
    is_new = collection not in documents.databases.get(call.db, {})
    documents.made(call.db, collection)
    kept = documents.indexes.setdefault(f"{call.db}.{collection}", [])
    before = len(kept) + 1
    named = [part("createIndexes.indexes", one, INDEX, ("key", "name")) for one in call.body["indexes"]]
    kept += [one for one in named if one["name"] not in {each["name"] for each in kept}]
    documents.save()
    return {"numIndexesBefore": before, "numIndexesAfter": len(kept) + 1, "createdCollectionAutomatically": is_new}


@command("dropIndexes", "index!", takes_write_concern=True, is_write=True)
async def drop_indexes(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "dropIndex")
    kept = call.deployment.documents.indexes.get(f"{call.db}.{collection}", [])
    named = call.body["index"]
    before = len(kept) + 1
    kept[:] = [one for one in kept if named not in ("*", one["name"])]
    call.deployment.documents.save()
    return {"nIndexesWas": before}


@command("drop", takes_write_concern=True, is_write=True)
async def drop(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "dropCollection")
    documents = call.deployment.documents
    if not documents.drop(call.db, collection):
        return {}
    documents.save()
    return {"nIndexesWas": 1, "ns": f"{call.db}.{collection}"}


@command("dropDatabase", takes_write_concern=True, is_write=True)
async def drop_database(call: Call) -> Reply:
    """Its users stay: they live in admin."""
    call.need(Resource(call.db), "dropDatabase")
    documents = call.deployment.documents
    was_there = call.db in documents.databases
    for collection in list(documents.databases.get(call.db, {})):
        documents.drop(call.db, collection)
    documents.save()
    return {"dropped": call.db} if was_there else {}


@command("collMod", "validator:object index:object", takes_write_concern=True, is_write=True)
async def coll_mod(call: Call) -> Reply:
    collection = collection_of(call)
    call.need(Resource(call.db, collection), "collMod")
    if collection not in call.deployment.documents.databases.get(call.db, {}):
        raise errors.NO_NAMESPACE.failure()
    return {}
