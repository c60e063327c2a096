"""JSON Schema of the two files, for editors: keys and the form of values. ``policy check`` finds the errors that a schema cannot."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from bot.databases import DatabasesFile
from bot.policy.model import PolicyFile

Name = Literal["databases", "policy"]
FILES: dict[Name, type[BaseModel]] = {"databases": DatabasesFile, "policy": PolicyFile}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(name: Name) -> dict[str, Any]:
    """The schema of ``databases.yml`` or ``policy.yml``."""
    found = FILES[name].model_json_schema(by_alias=True)
    plain = _plain(found)
    assert isinstance(plain, dict), "a schema is an object"
    return {"$schema": DRAFT, **plain, "title": f"dbaccess: {name}.yml"}


def _plain(node: Any) -> Any:
    """The schema without the parts that only Python needs: titles from attribute names, docstrings, defaults."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: value
        for key, value in node.items()
        if not (key in ("title", "description", "default") and not isinstance(value, dict))
    }
    return {key: _plain(value) for key, value in kept.items()}
