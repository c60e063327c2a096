"""Pydantic's validation errors as problems with a line, a key and a fix. A problem never contains the invalid value."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bot.policy.source import KeyPath, Source, safe_name

M = TypeVar("M", bound=BaseModel)
SEE_README = "see README for the keys"
TYPE_NAMES = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "dict": "keys with values",
    "model": "keys with values",
}


def validate_model(
    source: Source, model: type[M], data: Any, place: KeyPath, *, may_lack: Collection[str] | None = ()
) -> M | None:
    """Validate ``data``, which is at ``place`` in the file. Where it is invalid, add problems to ``source`` and return None.

    A missing key in ``may_lack`` (None: any key) adds no problem, but the result is None all the same.
    """
    try:
        return model.model_validate(data)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False, include_input=False):
            loc = error["loc"]
            if error["type"] == "missing" and len(loc) == 1 and (may_lack is None or loc[0] in may_lack):
                continue
            where = _key_path_of(source, place, loc)
            problem = source.at(where, problem_text(source, where, _error_text(error, model)))
            if problem not in source.problems:
                source.problems.append(problem)
        return None


def problem_text(source: Source, place: KeyPath, what: str) -> str:
    """``rule "x": key: what``: names the rule or database, then the key."""
    kind, rest = place[0] if place else "", list(place[2:])
    if kind == "rules" and len(place) > 1:
        owner = [_rule_name(source, place[1])]
    elif kind == "databases" and len(place) > 1:
        owner = [f"database {safe_name(place[1])}"]
    else:
        owner, rest = [], list(place)
    keys = ".".join(safe_name(part) for part in rest if isinstance(part, str))
    return ": ".join([*owner, *([keys] if keys else []), what])


def _rule_name(source: Source, number: Any) -> str:
    """A rule's name is free text. It is shown only where it cannot be a URL or an address, which may hold a secret."""
    try:
        name = source.data["rules"][number]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    if not isinstance(name, str) or not name.isprintable() or any(sign in name for sign in ("://", "@")):
        return f"rule {number + 1}"
    return f'rule "{name[:100]}"'


def _key_path_of(source: Source, base: KeyPath, loc: tuple[str | int, ...]) -> KeyPath:
    """Pydantic's location as a key path of the file, without the parts that pydantic adds for unions and keys."""
    place = base
    for part in loc:
        if (*place, part) in source.lines:
            place = (*place, part)
    return place


def _error_text(error: Any, model: type[BaseModel]) -> str:
    kind, loc, context = error["type"], error["loc"], error.get("ctx", {})
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _keys_at(model, loc[:-1]), n=1)
        return f"unknown key; {f'did you mean {near[0]}?' if near else SEE_README}"
    if kind == "missing":
        return f"{loc[-1]} is missing; it is required here"
    if kind == "value_error":
        return str(context["error"])
    return {
        "too_short": "may not be empty; name at least one",
        "string_too_short": "may not be empty; write a name",
        "string_too_long": f"is too long; at most {context.get('max_length')} characters",
        "literal_error": f"is none of {context.get('expected')}; write one of them",
        "greater_than_equal": f"is too small; at least {context.get('ge')}",
        "less_than_equal": f"is too large; at most {context.get('le')}",
    }.get(kind, _type_error_text(kind))


def _type_error_text(kind: str) -> str:
    return f"has the wrong form; it must be {TYPE_NAMES.get(kind.split('_', maxsplit=1)[0], 'as README shows')}"


def _keys_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the model has at ``loc``."""
    models = [model]
    for part in loc:
        annotations = [info.annotation for known in models for key, info in _fields(known).items() if key == part]
        if annotations:
            models = [inner for annotation in annotations for inner in _models_in(annotation)]
    return sorted(key for known in models for key in _fields(known))


def _fields(model: type[BaseModel]) -> Mapping[str, Any]:
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
