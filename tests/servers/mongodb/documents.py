"""Databases, collections and documents: enough of the language of queries to see whether somebody may read and write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bson.objectid import ObjectId

from tests.servers.mongodb import errors, wire
from tests.servers.mongodb.users import replace

Document = dict[str, Any]
MISSING = object()


class Documents:
    """All of them, in memory and in one file."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.databases: dict[str, dict[str, list[Document]]] = {}
        self.indexes: dict[str, list[Document]] = {}
        if path is not None and path.exists():
            kept = wire.decode(path.read_bytes())
            self.databases, self.indexes = kept["databases"], kept["indexes"]

    def save(self) -> None:
        if self.path is not None:
            replace(self.path, wire.encode({"databases": self.databases, "indexes": self.indexes}))

    def of(self, db: str, collection: str) -> list[Document]:
        """To read; a collection that is not there is empty."""
        return self.databases.get(db, {}).get(collection, [])

    def made(self, db: str, collection: str) -> list[Document]:
        """To write; made by the first write."""
        return self.databases.setdefault(db, {}).setdefault(collection, [])

    def insert(self, db: str, collection: str, document: Document) -> None:
        kept = self.made(db, collection)
        if "_id" not in document:
            document = {"_id": ObjectId(), **document}
        if any(one["_id"] == document["_id"] for one in kept):
            raise errors.DUPLICATE_KEY.failure(ns=f"{db}.{collection}", id=document["_id"])
        kept.append(document)

    def drop(self, db: str, collection: str) -> bool:
        found = self.databases.get(db, {}).pop(collection, None)
        self.indexes.pop(f"{db}.{collection}", None)
        if db in self.databases and not self.databases[db]:
            del self.databases[db]
        return found is not None


def field_of(document: Any, path: str) -> Any:
    value = document
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, list):
            value = [one for one in (field_of(each, part) for each in value) if one is not MISSING]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return MISSING
    return value


def matches(document: Document, query: Document) -> bool:
    return all(_clause(document, key, wanted) for key, wanted in query.items())


def _clause(document: Document, key: str, wanted: Any) -> bool:
    match key:
        case "$and":
            return all(matches(document, one) for one in wanted)
        case "$or":
            return any(matches(document, one) for one in wanted)
        case "$nor":
            return not any(matches(document, one) for one in wanted)
        case "$where" | "$comment":
            return True  # slept before; see pause
        case _ if key.startswith("$"):
            raise errors.Failure(2, f"unknown top level operator: {key}")
    value = field_of(document, key)
    if isinstance(wanted, dict) and any(name.startswith("$") for name in wanted):
        return all(_operator(value, name, operand) for name, operand in wanted.items())
    return _equal(value, wanted)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, re.Pattern) or hasattr(wanted, "try_compile"):
        pattern = wanted if isinstance(wanted, re.Pattern) else wanted.try_compile()
        return isinstance(value, str) and pattern.search(value) is not None
    if value is MISSING:
        return wanted is None
    return bool(value == wanted) or (isinstance(value, list) and wanted in value)


def _compare(value: Any, operand: Any, how: Callable[[Any, Any], bool]) -> bool:
    try:
        return value is not MISSING and how(value, operand)
    except TypeError:
        return False


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": _equal,
    "$ne": lambda value, operand: not _equal(value, operand),
    "$in": lambda value, operand: any(_equal(value, one) for one in operand),
    "$nin": lambda value, operand: not any(_equal(value, one) for one in operand),
    "$exists": lambda value, operand: (value is not MISSING) == bool(operand),
    "$gt": lambda value, operand: _compare(value, operand, lambda a, b: a > b),
    "$gte": lambda value, operand: _compare(value, operand, lambda a, b: a >= b),
    "$lt": lambda value, operand: _compare(value, operand, lambda a, b: a < b),
    "$lte": lambda value, operand: _compare(value, operand, lambda a, b: a <= b),
    "$not": lambda value, operand: not all(_operator(value, k, v) for k, v in operand.items()),
    "$regex": lambda value, operand: _equal(value, re.compile(getattr(operand, "pattern", operand))),
    "$elemMatch": lambda value, operand: (
        isinstance(value, list) and any(isinstance(one, dict) and matches(one, operand) for one in value)
    ),
    "$size": lambda value, operand: isinstance(value, list) and len(value) == operand,
}


def _operator(value: Any, name: str, operand: Any) -> bool:
    if name not in OPERATORS:
        raise errors.UNKNOWN_OPERATOR.failure(operator=name)
    return OPERATORS[name](value, operand)


def pause(query: Document) -> float:
    """Seconds that ``$where: "sleep(ms) || true"`` sleeps at each document, on the real server as here."""
    where = query.get("$where")
    if where is None:
        return 0.0
    found = re.search(r"\bsleep\((\d+)\)", str(where))
    if found is None:
        raise errors.NOT_KNOWN_HERE.failure(what=f"a $where other than sleep(milliseconds): {where}")
    return int(found[1]) / 1000


def changed(document: Document, update: Document) -> Document:
    """The document after an update: a replacement, or ``$set``, ``$unset``, ``$inc``, ``$setOnInsert``."""
    if not isinstance(update, dict):
        raise errors.NOT_KNOWN_HERE.failure(what="an update by pipeline")
    if not any(name.startswith("$") for name in update):
        return {"_id": document["_id"], **update} if "_id" in document else dict(update)
    found = dict(document)
    for operator, parts in update.items():
        if operator not in ("$set", "$unset", "$inc", "$setOnInsert"):
            raise errors.UNKNOWN_MODIFIER.failure(operator=operator)
        for path, value in parts.items():
            _change(found, operator, path, value)
    return found


def _change(document: Document, operator: str, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place[part] = dict(place.get(part, {}))
        place = place[part]
    if operator == "$unset":
        place.pop(last, None)
    elif operator == "$inc":
        place[last] = place.get(last, 0) + value
    elif operator == "$set":
        place[last] = value


def ordered(documents: Iterable[Document], sort: Document) -> list[Document]:
    found = list(documents)
    if any(direction not in (1, -1) for direction in sort.values()):
        raise errors.SORT_ORDER.failure()
    for key, direction in reversed(sort.items()):
        found.sort(key=lambda one: _rank(field_of(one, key)), reverse=direction < 0)
    return found


def _rank(value: Any) -> tuple[int, Any]:
    if value is MISSING or value is None:
        return (0, 0)
    if isinstance(value, (int, float)):
        return (1, value)
    return (2, str(value))


def projected(document: Document, projection: Document) -> Document:
    """Fields in or out, at the top level."""
    if not projection:
        return document
    named = {key: bool(value) for key, value in projection.items() if key != "_id"}
    has_id = bool(projection.get("_id", True))
    if any(named.values()):
        return {k: v for k, v in document.items() if named.get(k) or (k == "_id" and has_id)}
    return {k: v for k, v in document.items() if k not in named and (k != "_id" or has_id)}
