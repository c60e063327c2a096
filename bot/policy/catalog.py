"""The catalog: which levels of which databases a person may request. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.policy.config import Config
from bot.policy.facts import NO_FACTS, Facts
from bot.policy.rules import Rule
from storage.records import RequestKind


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """A level that a person may request. ``max_duration`` is the longest that one of the matching rules allows."""

    database: str
    description: str
    level: str
    level_description: str
    duration: timedelta
    max_duration: timedelta
    rule: str
    wants_ticket: bool = False


def catalog_entries(
    config: Config,
    person_id: str,
    facts: Facts = NO_FACTS,
    kind: RequestKind = RequestKind.ACCESS,
    *,
    database: str | None = None,
) -> tuple[CatalogEntry, ...]:
    """The levels that the person may request, in the order of databases.yml.

    The catalog leaves out what a rule refuses outright, and what depends on a group with unknown members.
    """
    rules = config.rules if database is None else config.rules_by_database.get(database, ())
    names = config.databases.keys() if database is None else config.databases.keys() & {database}
    found = _RuleChains(config, person_id, facts, names).of([rule for rule in rules if rule.answers(kind)])
    return tuple(
        _entry(config, name, level, found[name, level])
        for name in config.databases
        if name in names
        for level in config.databases[name].levels
        if found.get((name, level))
    )


class _RuleChains:
    """Database and level → the rules that answer this person, in order. Reads each rule once, however many databases there are."""

    def __init__(self, config: Config, person_id: str, facts: Facts, names: Collection[str]) -> None:
        self._names, self._facts = facts.names_of(person_id), facts
        self._open = {name: set(config.databases[name].levels) for name in names}
        self._chains: dict[tuple[str, str], list[Rule]] = {}

    def of(self, rules: Sequence[Rule]) -> dict[tuple[str, str], list[Rule]]:
        shapes: set[tuple[frozenset[str], frozenset[str] | None]] = set()
        for rule in rules:
            if not self._may_match(rule):
                continue
            shape = (rule.databases, rule.levels)
            if shape in shapes:
                continue
            if not rule.falls_through:
                shapes.add(shape)
            self._add(rule)
        return self._chains

    def _may_match(self, rule: Rule) -> bool:
        return self._matches(rule) or bool(self._facts.without_members(rule.directory_requesters))

    def _matches(self, rule: Rule) -> bool:
        return rule.requesters is None or not self._names.isdisjoint(rule.requesters)

    def _add(self, rule: Rule) -> None:
        offered = self._matches(rule) and rule.refuse is None
        for name in self._open.keys() & rule.databases:
            answered = {level for level in self._open[name] if rule.includes_level(level)}
            for level in answered if offered else ():
                self._chains.setdefault((name, level), []).append(rule)
            if not (offered and rule.falls_through):
                self._open[name] -= answered
            if not self._open[name]:
                del self._open[name]


def _entry(config: Config, database: str, level: str, chain: Sequence[Rule]) -> CatalogEntry:
    entry, first = config.databases[database], chain[0]
    return CatalogEntry(
        database=database,
        description=entry.description,
        level=level,
        level_description=entry.levels[level].description,
        duration=min(first.duration, first.cap(entry, level)),
        max_duration=max(rule.cap(entry, level) for rule in chain),
        rule=first.name,
        wants_ticket=all(rule.ticket is not None for rule in chain),
    )
