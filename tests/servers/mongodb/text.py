"""Documents as the real server prints them in its error texts and its log, with what is secret as ``xxx``."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from bson import Regex, Timestamp
from bson.code import Code
from bson.objectid import ObjectId

SECRET = "xxx"
SECRET_FIELDS = {
    "createUser": ("pwd",),
    "updateUser": ("pwd",),
    "saslStart": ("payload",),
    "saslContinue": ("payload",),
}


def redacted(command: dict[str, Any], *, without: Iterable[str] = ()) -> dict[str, Any]:
    """``without``: fields that came as document sequences."""
    hidden = SECRET_FIELDS.get(next(iter(command), ""), ())
    return {key: SECRET if key in hidden else value for key, value in command.items() if key not in without}


def shell(value: Any) -> str:
    match value:
        case dict():
            inside = ", ".join(f"{key}: {shell(one)}" for key, one in value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list():
            inside = ", ".join(map(shell, value))
            return f"[ {inside} ]" if inside else "[]"
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case uuid.UUID():
            return f'UUID("{value}")'
        case ObjectId():
            return f"ObjectId('{value}')"
        case bytes():
            return f"BinData(0, {base64.b16encode(value).decode()})"
        case datetime():
            return f"new Date({int(value.timestamp() * 1000)})"
        case Timestamp():
            return f"Timestamp({value.time}, {value.inc})"
        case Code() | str():
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Regex():
            return f"/{value.pattern}/"
        case _:
            return str(value)


def type_name(value: Any) -> str:
    """As BSON names it."""
    match value:
        case bool():
            return "bool"
        case int():
            return "long" if value.bit_length() > 31 else "int"
        case None:
            return "null"
        case float():
            return "double"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case datetime():
            return "date"
        case bytes() | uuid.UUID():
            return "binData"
        case _:
            return "objectId"
