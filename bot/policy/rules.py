"""The policy's rules, each with its defaults filled in and its names looked up, so that judging is set membership."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any

from bot.databases import DatabaseEntry
from bot.policy.model import ANYONE, GROUP, PERSON, Hours, PolicyFile, RuleEntry
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
"""The defaults of the defaults."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``requesters`` and ``levels`` are None where anyone or every level is meant; ``databases`` are names of today's file.

    People are as the file names them: ids, e-mail addresses, groups; who that is, ``Facts`` says.
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
    hours: Hours | None = None
    deciding_hours: Hours | None = None
    escalation: Escalation | None = None
    automatic: int | None = None
    notify: tuple[str, ...] = ()
    asks_next: bool = False
    refuse: str | None = None
    break_glass: bool = False
    review: Review | None = None
    looked_up: tuple[str, ...] = ()
    """Those of the requesters whom only the directory knows: groups and addresses."""

    def names_level(self, level: str) -> bool:
        return self.levels is None or level in self.levels

    def answers(self, kind: RequestKind) -> bool:
        """Break-glass rules answer break-glass asks alone, and nothing else does."""
        return self.break_glass == (kind is RequestKind.BREAK_GLASS)

    def cap(self, entry: DatabaseEntry, level: str) -> timedelta:
        """The tightest of defaults, rule (``max_duration`` holds both), level, and the whole life of a grant."""
        of_level = entry.levels[level].max_duration
        return min(limit for limit in (self.max_duration, self.max_total, of_level) if limit)


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
    return Rule(
        name=entry.name,
        requesters=None if ANYONE in entry.requesters else frozenset(entry.requesters),
        looked_up=tuple(who for who in entry.requesters if who != ANYONE and not PERSON.fullmatch(who)),
        databases=meant.by(entry),
        levels=None if "*" in entry.levels else frozenset(entry.levels),
        stages=tuple(Stage(approvers=tuple(dict.fromkeys(s.approvers)), count=s.count) for s in entry.approvals or ()),
        channel=entry.channel or policy.defaults.channel or "",
        ticket=entry.ticket,
        hours=entry.hours,
        deciding_hours=entry.deciding_hours,
        escalation=Escalation(after=entry.escalate.after, to=tuple(entry.escalate.to)) if entry.escalate else None,
        automatic=entry.automatic.per_person_per_day if entry.automatic else None,
        notify=tuple(entry.notify or ()),
        asks_next=entry.otherwise == "next",
        refuse=entry.refuse,
        break_glass=bool(entry.break_glass),
        review=Review(reviewers=tuple(entry.review.approvers), within=entry.review.within) if entry.review else None,
        **{**shared, **_tightest(policy, entry)},
    )


def _tightest(policy: PolicyFile, entry: RuleEntry) -> dict[str, timedelta]:
    """Of the limits on durations the tightest holds, not the nearest."""
    named = {n: [getattr(entry, n), getattr(policy.defaults, n)] for n in ("max_duration", "max_total")}
    return {name: min([d for d in both if d is not None] or [DEFAULTS[name]]) for name, both in named.items()}


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


def named_in(policy: PolicyFile) -> frozenset[str]:
    """Everyone the policy names anywhere: ids, e-mail addresses, groups."""
    found = {*policy.admins, *policy.auditors}
    for rule in policy.rules:
        found.update(rule.requesters)
        found.update(who for stage in rule.approvals or () for who in stage.approvers)
        found.update(rule.escalate.to if rule.escalate else ())
        found.update(rule.review.approvers if rule.review else ())
        found.update(rule.notify or ())
    return frozenset(found - {ANYONE})


def groups_in(names: Iterable[str]) -> frozenset[str]:
    """Those of the names that mean groups: ``S…`` ids and ``@handles``."""
    return frozenset(name for name in names if GROUP.fullmatch(name))
