"""The policy's rules, each with its defaults filled in and its names looked up, so that judging is set membership."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
    """In the order of the file."""
    return tuple(_rule(policy, entry, databases) for entry in policy.rules)


def _rule(policy: PolicyFile, entry: RuleEntry, databases: Mapping[str, DatabaseEntry]) -> Rule:
    shared = {
        name: _first(getattr(entry, name), getattr(policy.defaults, name), value) for name, value in DEFAULTS.items()
    }
    limits = [d for d in (entry.max_duration, policy.defaults.max_duration) if d is not None]
    return Rule(
        name=entry.name,
        requesters=None if ANYONE in entry.requesters else frozenset(entry.requesters),
        databases=matched(entry, databases),
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


def matched(entry: RuleEntry, databases: Mapping[str, DatabaseEntry]) -> frozenset[str]:
    """Databases of today's file that a rule names: by name, pattern, or labels that must all hold."""
    found: set[str] = set()
    for wanted in entry.databases:
        if isinstance(wanted, str) and not is_glob(wanted):
            found.update({wanted} & databases.keys())
        else:
            found.update(name for name, candidate in databases.items() if _is_meant(wanted, name, candidate))
    return frozenset(found)


def _is_meant(wanted: str | Mapping[str, str], name: str, entry: DatabaseEntry) -> bool:
    if isinstance(wanted, str):
        return fnmatchcase(name, wanted)
    return all(entry.labels.get(label) == value for label, value in wanted.items())
