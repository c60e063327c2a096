"""What pydantic found wrong, as lines of a file: where, what is wrong, what would be right, and never the value."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bot.policy.source import Place, Source, shown

M = TypeVar("M", bound=BaseModel)
SEE_README = "see README for the keys"
TYPES = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "dict": "keys with values",
    "model": "keys with values",
}


def validated(
    source: Source, model: type[M], data: Any, place: Place, *, may_lack: Collection[str] | None = ()
) -> M | None:
    """``data``, which stands at ``place``, as a model; None and its mistakes in ``source`` where it has some.

    Keys in ``may_lack`` may be missing (None: all of them) without a word; the model is None all the same.
    """
    try:
        return model.model_validate(data)
    except ValidationError as mistakes:
        for mistake in mistakes.errors(include_url=False, include_input=False):
            loc = mistake["loc"]
            if mistake["type"] == "missing" and len(loc) == 1 and (may_lack is None or loc[0] in may_lack):
                continue
            where = _place(source, place, loc)
            problem = source.at(where, words(source, where, _words(mistake, model)))
            if problem not in source.problems:
                source.problems.append(problem)
        return None


def words(source: Source, place: Place, what: str) -> str:
    """``rule "x": key: what``: whose mistake it is, as people would say it."""
    kind, rest = place[0] if place else "", list(place[2:])
    if kind == "rules" and len(place) > 1:
        owner = [_rule_name(source, place[1])]
    elif kind == "databases" and len(place) > 1:
        owner = [f"database {shown(place[1])}"]
    else:
        owner, rest = [], list(place)
    keys = ".".join(shown(part) for part in rest if isinstance(part, str))
    return ": ".join([*owner, *([keys] if keys else []), what])


def _rule_name(source: Source, number: Any) -> str:
    """A rule's name is free text: it is repeated where it cannot be a URL or an address."""
    try:
        name = source.data["rules"][number]["name"]
    except (KeyError, IndexError, TypeError):
        name = None
    if not isinstance(name, str) or not name.isprintable() or any(sign in name for sign in ("://", "@")):
        return f"rule {number + 1}"
    return f'rule "{name[:100]}"'


def _place(source: Source, base: Place, loc: tuple[str | int, ...]) -> Place:
    """Pydantic's location without what it adds for unions and keys."""
    place = base
    for part in loc:
        if (*place, part) in source.lines:
            place = (*place, part)
    return place


def _words(mistake: Any, model: type[BaseModel]) -> str:
    kind, loc, context = mistake["type"], mistake["loc"], mistake.get("ctx", {})
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
    }.get(kind, _type_words(kind))


def _type_words(kind: str) -> str:
    return f"has the wrong form; it must be {TYPES.get(kind.split('_', maxsplit=1)[0], 'as README shows')}"


def _keys_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at ``loc`` of a model."""
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
