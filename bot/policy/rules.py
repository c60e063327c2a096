"""The policy's rules, each with its defaults filled in and its names looked up, so that judging is set membership."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from bot.databases import DatabaseEntry
from bot.policy.model import ANYONE, PolicyFile, RuleEntry
from storage.records import Stage

DEFAULTS: Mapping[str, Any] = {
    "duration": timedelta(hours=1),
    "max_duration": timedelta(hours=8),
    "min_reason": 5,
    "request_ttl": timedelta(hours=24),
    "provision_within": timedelta(hours=1),
    "delivery": "dm",
}
"""The defaults of the defaults."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``requesters`` and ``levels`` are None where anyone or every level is meant; ``databases`` are names of today's file."""

    name: str
    requesters: frozenset[str] | None
    databases: frozenset[str]
    levels: frozenset[str] | None
    stages: tuple[Stage, ...]
    channel: str
    duration: timedelta
    max_duration: timedelta
    min_reason: int
    request_ttl: timedelta
    provision_within: timedelta
    delivery: str

    def names_person(self, person_id: str) -> bool:
        return self.requesters is None or person_id in self.requesters

    def names_level(self, level: str) -> bool:
        return self.levels is None or level in self.levels

    def cap(self, entry: DatabaseEntry, level: str) -> timedelta:
        """The tightest of defaults, rule (``max_duration`` holds both) and level."""
        of_level = entry.levels[level].max_duration
        return min(self.max_duration, of_level) if of_level else self.max_duration


def compiled(policy: PolicyFile, databases: Mapping[str, DatabaseEntry]) -> tuple[Rule, ...]:
    """In the order of the file. Rules about the same databases share one set, which makes them quick to compare."""
    sets: dict[frozenset[str], frozenset[str]] = {}
    meant = Meant(databases)
    rules = [_rule(policy, entry, meant) for entry in policy.rules]
    return tuple(replace(rule, databases=sets.setdefault(rule.databases, rule.databases)) for rule in rules)


def _rule(policy: PolicyFile, entry: RuleEntry, meant: Meant) -> Rule:
    shared = {
        name: _first(getattr(entry, name), getattr(policy.defaults, name), value) for name, value in DEFAULTS.items()
    }
    limits = [d for d in (entry.max_duration, policy.defaults.max_duration) if d is not None]
    return Rule(
        name=entry.name,
        requesters=None if ANYONE in entry.requesters else frozenset(entry.requesters),
        databases=meant.by(entry),
        levels=None if "*" in entry.levels else frozenset(entry.levels),
        stages=tuple(Stage(approvers=tuple(dict.fromkeys(s.approvers)), count=s.count) for s in entry.approvals or ()),
        channel=entry.channel or policy.defaults.channel or "",
        **{**shared, "max_duration": min(limits) if limits else DEFAULTS["max_duration"]},
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def by_database(rules: tuple[Rule, ...]) -> Mapping[str, tuple[Rule, ...]]:
    """The rules that name a database, by that database, in their order."""
    about: dict[str, list[Rule]] = {}
    for rule in rules:
        for name in rule.databases:
            about.setdefault(name, []).append(rule)
    return {name: tuple(found) for name, found in about.items()}


def is_glob(wanted: str) -> bool:
    """A pattern, where a plain name would have to exist."""
    return any(sign in wanted for sign in "*?[")


class Meant:
    """Which databases of today's file a rule means; each way of saying it is looked up once."""

    def __init__(self, databases: Mapping[str, DatabaseEntry]) -> None:
        self._databases = databases
        self._known: dict[Hashable, frozenset[str]] = {}

    def by(self, entry: RuleEntry) -> frozenset[str]:
        """By name, pattern, or labels that must all hold; what a rule lists are alternatives."""
        found = [self._one(wanted) for wanted in entry.databases]
        return found[0] if len(found) == 1 else frozenset().union(*found)

    def _one(self, wanted: str | dict[str, str]) -> frozenset[str]:
        key = wanted if isinstance(wanted, str) else tuple(sorted(wanted.items()))
        if key not in self._known:
            names = (name for name, entry in self._databases.items() if _is_meant(wanted, name, entry))
            self._known[key] = frozenset(names)
        return self._known[key]


def _is_meant(wanted: str | Mapping[str, str], name: str, entry: DatabaseEntry) -> bool:
    if isinstance(wanted, str):
        return fnmatchcase(name, wanted) if is_glob(wanted) else name == wanted
    return all(entry.labels.get(label) == value for label, value in wanted.items())
