"""Servers that speak MongoDB's protocol and do not do its roles: refused, since a level would limit nothing there."""

from __future__ import annotations

from typing import Any

from adapters.base import Rejected
from adapters.mongodb.connection import Connection

KINDS = (
    ("ferretdb", "FerretDB"),
    ("ferretdbVersion", "FerretDB"),
    ("documentdb", "DocumentDB"),
    ("documentdb_api", "DocumentDB"),
)


def look_alike(build_info: dict[str, Any]) -> str | None:
    """Its name, or None for MongoDB itself."""
    return next((name for key, name in KINDS if key in build_info), None)


def refuse_look_alikes(connection: Connection) -> None:
    """Raises Rejected."""
    if (name := look_alike(connection.run("admin", {"buildInfo": 1}))) is not None:
        raise Rejected(
            f"this is {name}: it takes roles and does not limit by them", mend="use a server that enforces roles"
        )
