"""What a person may ask for, of one database or of all. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.policy.facts import NOTHING_KNOWN, Facts, names_of
from bot.policy.loader import Config
from bot.policy.rules import Rule
from storage.records import RequestKind


@dataclass(frozen=True, kw_only=True)
class CatalogEntry:
    """Something a person may ask for. ``max_duration`` is the longest of the rules that may answer."""

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
    facts: Facts = NOTHING_KNOWN,
    kind: RequestKind = RequestKind.ACCESS,
    *,
    database: str | None = None,
) -> tuple[CatalogEntry, ...]:
    """In the order of databases.yml. What a rule refuses outright, or may depend on a silent group, is not offered."""
    rules = config.rules if database is None else config.about.get(database, ())
    names = config.databases.keys() if database is None else config.databases.keys() & {database}
    found = _Chains(config, person_id, facts, names).of([rule for rule in rules if rule.answers(kind)])
    return tuple(
        _entry(config, name, level, found[name, level])
        for name in config.databases
        if name in names
        for level in config.databases[name].levels
        if found.get((name, level))
    )


class _Chains:
    """Database and level → the rules that answer this person, in order. One look at each rule, however many databases there are."""

    def __init__(self, config: Config, person_id: str, facts: Facts, names: Collection[str]) -> None:
        self._mine, self._facts = names_of(facts, person_id), facts
        self._still = {name: set(config.databases[name].levels) for name in names}
        self._chains: dict[tuple[str, str], list[Rule]] = {}

    def of(self, rules: Sequence[Rule]) -> dict[tuple[str, str], list[Rule]]:
        shapes: set[tuple[frozenset[str], frozenset[str] | None]] = set()
        for rule in rules:
            if not self._may_mean_me(rule):
                continue
            shape = (rule.databases, rule.levels)
            if shape in shapes:
                continue
            if not rule.asks_next:
                shapes.add(shape)
            self._take(rule)
        return self._chains

    def _may_mean_me(self, rule: Rule) -> bool:
        return self._means_me(rule) or bool(self._facts.silent(rule.looked_up))

    def _means_me(self, rule: Rule) -> bool:
        return rule.requesters is None or not self._mine.isdisjoint(rule.requesters)

    def _take(self, rule: Rule) -> None:
        offered = self._means_me(rule) and rule.refuse is None
        for name in self._still.keys() & rule.databases:
            answered = {level for level in self._still[name] if rule.names_level(level)}
            for level in answered if offered else ():
                self._chains.setdefault((name, level), []).append(rule)
            if not (offered and rule.asks_next):
                self._still[name] -= answered
            if not self._still[name]:
                del self._still[name]


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
