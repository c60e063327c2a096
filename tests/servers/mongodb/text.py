"""Prints documents as the real server does in error texts and its log, with secrets as ``xxx``."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from bson.int64 import Int64
from bson.objectid import ObjectId

SECRET = "xxx"
SECRET_FIELDS = {
    "createUser": ("pwd",),
    "updateUser": ("pwd",),
    "saslStart": ("payload",),
    "saslContinue": ("payload",),
}
PRINTED: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
    uuid.UUID: lambda value: f'UUID("{value}")',
    ObjectId: lambda value: f"ObjectId('{value}')",
    datetime: lambda value: f"new Date({int(value.timestamp() * 1000)})",
    str: lambda value: '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"',
}
BSON_NAMES: dict[type, str] = {
    type(None): "null",
    float: "double",
    str: "string",
    list: "array",
    dict: "object",
    datetime: "date",
    bytes: "binData",
    uuid.UUID: "binData",
    ObjectId: "objectId",
    bool: "bool",
    Int64: "long",
}


def redacted(command: dict[str, Any], *, without: Iterable[str] = ()) -> dict[str, Any]:
    """``without`` names fields that came as document sequences."""
    hidden = SECRET_FIELDS.get(next(iter(command), ""), ())
    return {key: SECRET if key in hidden else value for key, value in command.items() if key not in without}


def shell(value: Any) -> str:
    """A value in the notation of the shell."""
    if isinstance(value, dict):
        inside = ", ".join(f"{key}: {shell(one)}" for key, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        inside = ", ".join(map(shell, value))
        return f"[ {inside} ]" if inside else "[]"
    printed = PRINTED.get(type(value))
    return str(value) if printed is None else printed(value)


def type_name(value: Any) -> str:
    """The BSON name of the value's type."""
    if type(value) is int:
        return "long" if value.bit_length() >= 32 else "int"
    return BSON_NAMES.get(type(value), type(value).__name__)
