"""Compiled rules: defaults filled in and databases looked up, so that matching a rule is set membership."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from bot.databases import DatabaseEntry
from bot.policy.model import ANYONE, GROUP, PERSON, HoursEntry, PolicyFile, RuleEntry
from storage.records import Escalation, RequestKind, Review, Stage

DEFAULTS: Mapping[str, Any] = {
    "duration": timedelta(hours=1),
    "max_duration": timedelta(hours=8),
    "min_reason": 5,
    "request_ttl": timedelta(hours=24),
    "provision_within": timedelta(hours=1),
    "delivery": "dm",
    "max_total": timedelta(hours=24),
    "remind_after": timedelta(minutes=30),
    "claim_within": timedelta(minutes=30),
}
"""The built-in defaults, for keys that neither the rule nor ``defaults`` sets."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One compiled rule. ``requesters`` is None for anyone, ``levels`` is None for every level; ``databases`` are names.

    People are listed as in the file: ids, e-mail addresses, groups. ``Facts`` says who they are.
    """

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
    max_total: timedelta
    remind_after: timedelta
    claim_within: timedelta
    ticket: str | None = None
    hours: HoursEntry | None = None
    deciding_hours: HoursEntry | None = None
    escalation: Escalation | None = None
    automatic: int | None = None
    notify: tuple[str, ...] = ()
    falls_through: bool = False
    refuse: str | None = None
    break_glass: bool = False
    review: Review | None = None
    directory_requesters: tuple[str, ...] = ()
    """The requesters that only the directory knows: groups and e-mail addresses."""

    def includes_level(self, level: str) -> bool:
        return self.levels is None or level in self.levels

    def answers(self, kind: RequestKind) -> bool:
        """Break-glass rules answer break-glass requests only, and other rules never answer those."""
        return self.break_glass == (kind is RequestKind.BREAK_GLASS)

    def cap(self, entry: DatabaseEntry, level: str) -> timedelta:
        """The shortest of the limits of rule and defaults (both in ``max_duration``), of the level, and ``max_total``."""
        of_level = entry.levels[level].max_duration
        return min(limit for limit in (self.max_duration, self.max_total, of_level) if limit)


def compile_rules(policy: PolicyFile, databases: Mapping[str, DatabaseEntry]) -> tuple[Rule, ...]:
    """Compile all rules, in the order of the file. Rules with the same databases share one set, so comparing them is fast."""
    sets: dict[frozenset[str], frozenset[str]] = {}
    matcher = DatabaseMatcher(databases)
    rules = [_rule(policy, entry, matcher) for entry in policy.rules]
    return tuple(replace(rule, databases=sets.setdefault(rule.databases, rule.databases)) for rule in rules)


def _rule(policy: PolicyFile, entry: RuleEntry, matcher: DatabaseMatcher) -> Rule:
    shared = {
        name: _first(getattr(entry, name), getattr(policy.defaults, name), value) for name, value in DEFAULTS.items()
    }
    return Rule(
        name=entry.name,
        requesters=None if ANYONE in entry.requesters else frozenset(entry.requesters),
        directory_requesters=tuple(who for who in entry.requesters if who != ANYONE and not PERSON.fullmatch(who)),
        databases=matcher.databases_of(entry),
        levels=None if "*" in entry.levels else frozenset(entry.levels),
        stages=tuple(Stage(approvers=tuple(dict.fromkeys(s.approvers)), count=s.count) for s in entry.approvals or ()),
        channel=entry.channel or policy.defaults.channel or "",
        ticket=entry.ticket,
        hours=entry.hours,
        deciding_hours=entry.deciding_hours,
        escalation=Escalation(after=entry.escalate.after, to=tuple(entry.escalate.to)) if entry.escalate else None,
        automatic=entry.automatic.per_person_per_day if entry.automatic else None,
        notify=tuple(entry.notify or ()),
        falls_through=entry.otherwise == "next",
        refuse=entry.refuse,
        break_glass=bool(entry.break_glass),
        review=Review(reviewers=tuple(entry.review.approvers), within=entry.review.within) if entry.review else None,
        **{**shared, **_tightest(policy, entry)},
    )


def _tightest(policy: PolicyFile, entry: RuleEntry) -> dict[str, timedelta]:
    """For limits on durations the shortest applies: a rule cannot exceed ``defaults``."""
    named = {n: [getattr(entry, n), getattr(policy.defaults, n)] for n in ("max_duration", "max_total")}
    return {name: min([d for d in both if d is not None] or [DEFAULTS[name]]) for name, both in named.items()}


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)


def group_by_database(rules: tuple[Rule, ...]) -> Mapping[str, tuple[Rule, ...]]:
    """Database → the rules that name it, in their order."""
    about: dict[str, list[Rule]] = {}
    for rule in rules:
        for name in rule.databases:
            about.setdefault(name, []).append(rule)
    return {name: tuple(found) for name, found in about.items()}


def is_glob(selector: str) -> bool:
    """Return whether this is a pattern. A plain name must exist; a pattern need not match anything."""
    return any(sign in selector for sign in "*?[")


class DatabaseMatcher:
    """Finds the databases that a rule selects. Each selector is looked up once."""

    def __init__(self, databases: Mapping[str, DatabaseEntry]) -> None:
        self._databases = databases
        self._found: dict[Hashable, frozenset[str]] = {}

    def databases_of(self, entry: RuleEntry) -> frozenset[str]:
        """A selector is a name, a pattern, or labels that must all match. The selectors of a rule are alternatives."""
        found = [self._selected(selector) for selector in entry.databases]
        return found[0] if len(found) == 1 else frozenset().union(*found)

    def _selected(self, selector: str | dict[str, str]) -> frozenset[str]:
        key = selector if isinstance(selector, str) else tuple(sorted(selector.items()))
        if key not in self._found:
            names = (name for name, entry in self._databases.items() if _is_selected(selector, name, entry))
            self._found[key] = frozenset(names)
        return self._found[key]


def _is_selected(selector: str | Mapping[str, str], name: str, entry: DatabaseEntry) -> bool:
    if isinstance(selector, str):
        return fnmatchcase(name, selector) if is_glob(selector) else name == selector
    return all(entry.labels.get(label) == value for label, value in selector.items())


def names_in(policy: PolicyFile) -> frozenset[str]:
    """Everyone whom the policy names anywhere: ids, e-mail addresses, groups."""
    found = {*policy.admins, *policy.auditors}
    for rule in policy.rules:
        found.update(rule.requesters)
        found.update(who for stage in rule.approvals or () for who in stage.approvers)
        found.update(rule.escalate.to if rule.escalate else ())
        found.update(rule.review.approvers if rule.review else ())
        found.update(rule.notify or ())
    return frozenset(found - {ANYONE})


def groups_in(names: Iterable[str]) -> frozenset[str]:
    """The groups among the names: ``S…`` ids and ``@handles``."""
    return frozenset(name for name in names if GROUP.fullmatch(name))
