"""Databases, collections and documents, and the part of the query language that tests use."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests.servers.mongodb import errors, wire
from tests.servers.mongodb.users import replace

Document = dict[str, Any]


class Documents:
    """All documents, in memory and in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.databases: dict[str, dict[str, list[Document]]] = {}
        if path.exists():
            self.databases = wire.decode(path.read_bytes())

    def of(self, db: str, collection: str) -> list[Document]:
        """A collection that does not exist is empty."""
        return self.databases.get(db, {}).get(collection, [])

    def insert(self, db: str, collection: str, documents: list[Document]) -> None:
        """The driver gives each document its ``_id``."""
        self.databases.setdefault(db, {}).setdefault(collection, []).extend(documents)
        replace(self.path, wire.encode(self.databases))


def matches(document: Document, query: Document) -> bool:
    """Equality of fields, by dotted path. Every other operator is refused; ``$where`` only sleeps (see ``pause``)."""
    return all(_is_equal(document, path, wanted) for path, wanted in query.items() if path != "$where")


def _is_equal(document: Document, path: str, wanted: Any) -> bool:
    if path.startswith("$") or (isinstance(wanted, dict) and any(name.startswith("$") for name in wanted)):
        raise errors.NOT_MODELLED.failure(what=f"the query {path}: {wanted}")
    values: list[Any] = [document]
    for part in path.split("."):
        values = [value[part] for value in values if isinstance(value, dict) and part in value]
        values = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return wanted in values


def pause(query: Document) -> float:
    """Seconds that ``$where: "sleep(ms) || true"`` sleeps at each document."""
    where = query.get("$where")
    if where is None:
        return 0.0
    found = re.search(r"\bsleep\((\d+)\)", str(where))
    if found is None:
        raise errors.NOT_MODELLED.failure(what=f"a $where other than sleep(milliseconds): {where}")
    return int(found[1]) / 1000
