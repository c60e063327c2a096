"""Load both files: read them, check them as a whole, compile them into a ``Config``. Every error is reported at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from bot.databases import DATABASE_NAME, DATABASE_NAME_HINT, DatabaseEntry, DatabasesFile
from bot.policy import validation
from bot.policy.config import Config
from bot.policy.model import PolicyFile, RuleEntry
from bot.policy.rules import compile_rules
from bot.policy.schema_errors import problem_text, validate_model
from bot.policy.source import KeyPath, Problem, Source, read_source, safe_name

DIGEST_LENGTH = 12


class ConfigError(Exception):
    """All errors of both files, one per line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def load(folder: Path, *, policy_path: Path | None = None) -> Config:
    """Read ``databases.yml``, and ``policy.yml`` or the file at ``policy_path``. Raises ConfigError with the errors of both.

    A part that cannot be read hides only itself: everything else is still checked.
    """
    data_file, policy_file = read_source(folder / "databases.yml"), read_source(policy_path or folder / "policy.yml")
    data = _databases(data_file)
    policy, rules = _policy(policy_file)
    names = [name for name, _ in _items(data_file.data, "databases")]
    known = validation.KnownDatabases(databases=data.databases, names=names, is_whole=not data_file.problems)
    policy_file.problems += validation.errors(policy_file, policy, rules, known)
    _raise(data_file, policy_file)
    return _config(data_file, policy_file, data, policy.model_copy(update={"rules": list(rules.values())}))


def _config(data_file: Source, policy_file: Source, data: DatabasesFile, policy: PolicyFile) -> Config:
    rules = compile_rules(policy, data.databases)
    return Config(
        policy=policy,
        databases=data.databases,
        rules=rules,
        digest=_digest(data, policy),
        warnings=tuple(validation.warnings(data_file, policy_file, policy, rules, data.databases)),
    )


def _raise(*sources: Source) -> None:
    problems = [problem for source in sources for problem in sorted(source.problems, key=lambda p: p.line)]
    if problems:
        raise ConfigError(problems)


def _digest(*models: BaseModel) -> str:
    text = json.dumps([m.model_dump(mode="json", by_alias=True) for m in models], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def _items(data: Any, key: str) -> Iterable[tuple[str, Any]]:
    found = data.get(key) if isinstance(data, dict) else None
    return found.items() if isinstance(found, dict) else ()


# databases.yml


def _databases(source: Source) -> DatabasesFile:
    """The valid entries. The errors of the others are in ``source.problems``."""
    if source.data is None:
        return DatabasesFile(databases={})
    head = dict(source.data) if isinstance(source.data, dict) else source.data
    for key in ("databases", "defaults"):
        if isinstance(head, dict) and isinstance(head.get(key), dict):
            head[key] = {}
    validate_model(source, DatabasesFile, head, ())
    engines = sorted(point.name for point in entry_points(group="dbaccess.engines"))
    defaults = dict(_defaults(source, engines))
    found = {name: _database(source, name, raw, engines, defaults) for name, raw in _items(source.data, "databases")}
    return DatabasesFile.model_construct(
        databases={name: entry for name, entry in found.items() if entry is not None}, defaults=defaults
    )


def _defaults(source: Source, engines: list[str]) -> Iterable[tuple[str, Any]]:
    """The defaults of each engine, validated as an entry in which any key may be missing."""
    for engine, raw in _items(source.data, "defaults"):
        place = ("defaults", engine)
        if engine not in engines:
            source.problems.append(source.at(place, _no_engine(engine, engines)))
        validate_model(source, DatabaseEntry, raw, place, may_lack=None)
        if isinstance(raw, dict):
            yield engine, raw


def _database(
    source: Source, name: str, raw: Any, engines: list[str], defaults: Mapping[str, Any]
) -> DatabaseEntry | None:
    place: KeyPath = ("databases", name)
    if not DATABASE_NAME.fullmatch(name):
        source.problems.append(source.at(place, problem_text(source, place, DATABASE_NAME_HINT)))
    engine = raw.get("engine") if isinstance(raw, dict) else None
    shared = defaults.get(engine, {}) if isinstance(engine, str) else {}
    if isinstance(engine, str) and engine not in engines:
        source.problems.append(source.at((*place, "engine"), problem_text(source, place, _no_engine(engine, engines))))
    for key in shared:
        source.lines.setdefault((*place, key), source.line_of(("defaults", str(engine), key)))
    own = validate_model(source, DatabaseEntry, raw, place, may_lack=shared)
    if own is not None and not shared:
        _check_set_role(source, place, own)
        return own
    reported = len(source.problems)
    # Errors in the defaults are reported once, where the defaults are.
    whole = validate_model(source, DatabaseEntry, {**shared, **raw}, place) if isinstance(raw, dict) else None
    del source.problems[reported:]
    if whole is not None:
        _check_set_role(source, place, whole)
    return whole


def _check_set_role(source: Source, place: KeyPath, entry: DatabaseEntry) -> None:
    """``set_role`` is for roles of PostgreSQL alone: on another engine it would promise what is not so."""
    for name, level in entry.levels.items():
        at = (*place, "levels", name, "set_role")
        if level.set_role and entry.engine != "postgresql":
            what = "is for PostgreSQL alone; remove it"
        elif level.set_role and not level.roles:
            what = (
                "lets people act as the roles of the level, and this level has none; name them in roles, or remove it"
            )
        else:
            continue
        source.problems.append(source.at(at, problem_text(source, at, what)))


def _no_engine(engine: str, engines: list[str]) -> str:
    return f"no engine {safe_name(engine)} is installed; there are {', '.join(engines)}"


# policy.yml


def _policy(source: Source) -> tuple[PolicyFile, Mapping[int, RuleEntry]]:
    """The policy without its rules, and the valid rules by their number."""
    if source.data is None:
        return PolicyFile(rules=[]), {}
    head = dict(source.data) if isinstance(source.data, dict) else source.data
    raw_rules: list[Any] = []
    if isinstance(head, dict) and isinstance(head.get("rules"), list):
        raw_rules, head["rules"] = head["rules"], []
    policy = validate_model(source, PolicyFile, head, ()) or _readable(head)
    rules = {number: _rule(source, number, raw) for number, raw in enumerate(raw_rules)}
    return policy, {number: rule for number, rule in rules.items() if rule is not None}


def _readable(head: Any) -> PolicyFile:
    """The valid keys of an invalid policy, so that its rules are still checked. It never comes into force."""
    found: dict[str, Any] = {"rules": []}
    for key, value in head.items() if isinstance(head, dict) else ():
        with suppress(ValidationError):
            PolicyFile.model_validate({"rules": [], key: value})
            found[key] = value
    if isinstance(head, dict) and "defaults" in head and "defaults" not in found:
        # Invalid defaults may have a channel. Without this each rule would be told to name one.
        found["defaults"] = {"channel": "C00UNREAD"}
    return PolicyFile.model_validate(found)


def _rule(source: Source, number: int, raw: Any) -> RuleEntry | None:
    place = ("rules", number)
    return validate_model(source, RuleEntry, raw, place)
