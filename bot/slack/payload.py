"""Read parts of what Slack sent. A part that is missing, or of another type than Slack documents, is None. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


def part(payload: Any, *keys: str | int) -> Any:
    """The value at these keys, one inside the other."""
    for key in keys:
        if isinstance(payload, Mapping):
            payload = payload.get(key)
        elif isinstance(payload, list) and isinstance(key, int) and key < len(payload):
            payload = payload[key]
        else:
            return None
    return payload


def text_part(payload: Any, *keys: str | int) -> str | None:
    """The text at these keys, with U+FFFD for what no ledger can store: NUL, and half a surrogate pair, which JSON can hold."""
    found = part(payload, *keys)
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", found) if isinstance(found, str) else None


def typed_part(payload: Any, *keys: str | int) -> str | None:
    """As ``text_part``, for what a person typed: what no ledger can store is left out. In an id that would make another id."""
    found = part(payload, *keys)
    return UNSTORABLE.sub("", found) if isinstance(found, str) else None


def object_part(payload: Any, *keys: str | int) -> dict[str, Any]:
    """The object at these keys; an empty one where there is none."""
    found = part(payload, *keys)
    return found if isinstance(found, dict) else {}


def objects_part(payload: Any, *keys: str | int) -> list[dict[str, Any]]:
    """The objects in the list at these keys."""
    found = part(payload, *keys)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
