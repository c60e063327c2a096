"""Both files together: read, checked as a whole, and made into what ``judge`` works on."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bot.databases import DatabaseEntry, DatabasesFile
from bot.policy import checks
from bot.policy.model import PolicyFile
from bot.policy.rules import Rule, compiled
from bot.policy.source import Place, Problem, Source, read

M = TypeVar("M", bound=BaseModel)
DIGEST_LENGTH = 12


class ConfigError(Exception):
    """All mistakes of both files, one a line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is in force. ``rules`` are the policy's, each with its defaults filled in and its names looked up."""

    policy: PolicyFile
    databases: Mapping[str, DatabaseEntry]
    rules: tuple[Rule, ...]
    digest: str
    warnings: tuple[Problem, ...]


def load(folder: Path) -> Config:
    """Read ``databases.yml`` and ``policy.yml``. Raises ConfigError with every mistake of both."""
    data_file, policy_file = read(folder / "databases.yml"), read(folder / "policy.yml")
    _engines_known(data_file)
    data = _model(_with_defaults(data_file), DatabasesFile)
    policy = _model(policy_file, PolicyFile)
    _raise(data_file, policy_file)
    assert data is not None, "a file without problems has a model"
    assert policy is not None, "a file without problems has a model"
    policy_file.problems += checks.errors(policy_file, policy, data.databases)
    data_file.problems += checks.database_errors(data_file, data.databases)
    _raise(data_file, policy_file)
    rules = compiled(policy, data.databases)
    return Config(
        policy=policy,
        databases=data.databases,
        rules=rules,
        digest=_digest(data, policy),
        warnings=tuple(checks.warnings(data_file, policy_file, rules, data.databases)),
    )


def _raise(*sources: Source) -> None:
    problems = [problem for source in sources for problem in sorted(source.problems, key=lambda p: p.line)]
    if problems:
        raise ConfigError(problems)


def _digest(*models: BaseModel) -> str:
    text = json.dumps([m.model_dump(mode="json", by_alias=True) for m in models], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _engines_known(source: Source) -> None:
    names = sorted(point.name for point in entry_points(group="dbaccess.engines"))
    for name, entry in _items(source.data, "databases"):
        engine = entry.get("engine") if isinstance(entry, dict) else None
        if isinstance(engine, str) and engine not in names:
            line = source.line_of(("databases", name, "engine"))
            source.error(line, f"no engine {engine!r} is installed; there are {', '.join(names)}")


def _with_defaults(source: Source) -> Source:
    """Each database with the keys of its engine's defaults that it does not have itself; own keys win whole."""
    for name, entry in _items(source.data, "databases"):
        shared = (
            dict(_items(source.data, "defaults")).get(str(entry.get("engine"))) if isinstance(entry, dict) else None
        )
        for key, value in (shared or {}).items() if isinstance(shared, dict) else ():
            if key not in entry:
                entry[key] = value
                _copy_lines(source, ("defaults", entry["engine"], key), ("databases", name, key))
    return source


def _copy_lines(source: Source, origin: Place, place: Place) -> None:
    for known, line in list(source.lines.items()):
        if known[: len(origin)] == origin:
            source.lines[*place, *known[len(origin) :]] = line


def _items(data: Any, key: str) -> Iterable[tuple[str, Any]]:
    found = data.get(key) if isinstance(data, dict) else None
    return found.items() if isinstance(found, dict) else ()


def _model(source: Source, model: type[M]) -> M | None:
    if source.data is None:
        return None
    try:
        return model.model_validate(source.data)
    except ValidationError as mistakes:
        for mistake in mistakes.errors(include_url=False, include_input=False):
            place, words = _place(source, mistake["loc"]), _words(mistake, model)
            problem = source.at(place, f"{_shown(place)}{words}")
            if problem not in source.problems:
                source.problems.append(problem)
        return None


def _place(source: Source, loc: tuple[str | int, ...]) -> Place:
    """Pydantic's location without what it adds for unions and keys."""
    place: Place = ()
    for part in loc:
        if (*place, part) in source.lines:
            place = (*place, part)
    return place


def _shown(place: Place) -> str:
    names = [str(part) for part in place if isinstance(part, str)]
    return f"{'.'.join(names)}: " if names else ""


def _words(mistake: Any, model: type[BaseModel]) -> str:
    kind, loc, context = mistake["type"], mistake["loc"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _known_keys(model), n=1)
        return f"unknown key {loc[-1]!r}; {f'did you mean {near[0]}?' if near else 'see README for the keys'}"
    if kind == "missing":
        return f"{loc[-1]} is missing; it is required here"
    if kind == "value_error":
        return str(context["error"])
    return {
        "too_short": "may not be empty; name at least one",
        "literal_error": f"is none of {context.get('expected')}",
        "greater_than_equal": f"is too small; at least {context.get('ge')}",
        "less_than_equal": f"is too large; at most {context.get('le')}",
    }.get(kind, _type_words(kind))


def _type_words(kind: str) -> str:
    wanted = {
        "string": "text",
        "int": "a whole number",
        "bool": "true or false",
        "list": "a list",
        "dict": "keys with values",
        "model": "keys with values",
    }
    return f"has the wrong form; it must be {wanted.get(kind.split('_', maxsplit=1)[0], 'as README shows')}"


def _known_keys(model: type[BaseModel]) -> list[str]:
    """All keys of a model and of the models inside it."""
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        keys.add(info.alias or name)
        for inner in _models_in(info.annotation):
            keys.update(_known_keys(inner))
    return sorted(keys)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
