"""What the two files say together: names that do not exist, stages nobody can complete, rules that never answer.

Decided from the files alone, without Slack.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bot.databases import DatabaseEntry
from bot.policy.model import ANYONE, LATER, PERSON, PolicyFile, RuleEntry, StageEntry
from bot.policy.rules import Rule, matched
from bot.policy.source import Place, Problem, Source

GLOB = frozenset("*?[")
LATER_WORDS = "comes with a later version; leave it out until then"


def errors(source: Source, policy: PolicyFile, databases: Mapping[str, DatabaseEntry]) -> Iterator[Problem]:
    """Mistakes of policy.yml with which nothing may be in force."""
    yield from _later(source, policy, LATER["policy"], ())
    yield from _later(source, policy.defaults, LATER["defaults"], ("defaults",))
    yield from _reveal(source, policy.defaults.delivery, ("defaults", "delivery"))
    yield from _not_people(source, policy.admins, ("admins",))
    seen: set[str] = set()
    for number, rule in enumerate(policy.rules):
        place = ("rules", number)
        if rule.name in seen:
            yield source.at((*place, "name"), f"the rule name {rule.name!r} stands here twice; names are unique")
        seen.add(rule.name)
        yield from _rule_errors(source, policy, rule, databases, place)


def _rule_errors(
    source: Source, policy: PolicyFile, rule: RuleEntry, databases: Mapping[str, DatabaseEntry], place: Place
) -> Iterator[Problem]:
    yield from _later(source, rule, LATER["rule"], place)
    yield from _reveal(source, rule.delivery, (*place, "delivery"))
    yield from _not_people(source, [who for who in rule.requesters if who != ANYONE], (*place, "requesters"))
    yield from _unknown_names(source, rule, databases, place)
    if rule.channel is None and policy.defaults.channel is None:
        yield source.at(place, f"rule {rule.name!r} has no channel; name one here or in defaults")
    if rule.approvals is None:
        yield source.at(place, f"rule {rule.name!r} has no approvals; name who decides")
    elif len(rule.approvals) != 1:
        yield source.at(
            (*place, "approvals"), f"{_stages(rule)} {LATER_WORDS.replace('leave it out', 'write exactly one stage')}"
        )
    for stage_number, stage in enumerate(rule.approvals or ()):
        stage_place = (*place, "approvals", stage_number)
        yield from _not_people(source, stage.approvers, (*stage_place, "from"))
        yield from _completable(source, rule, stage, stage_place)


def _stages(rule: RuleEntry) -> str:
    return "approval by several stages" if rule.approvals else "automatic approval (no stages)"


def _later(source: Source, model: Any, keys: tuple[str, ...], place: Place) -> Iterator[Problem]:
    for key in keys:
        if key in model.model_fields_set and getattr(model, key) is not None:
            yield source.at((*place, key), f"{key} {LATER_WORDS}")


def _reveal(source: Source, delivery: str | None, place: Place) -> Iterator[Problem]:
    if delivery == "reveal":
        yield source.at(place, f"delivery: reveal {LATER_WORDS.replace('leave it out', 'write dm')}")


def _not_people(source: Source, listed: Collection[str], place: Place) -> Iterator[Problem]:
    for number, who in enumerate(listed):
        if not PERSON.fullmatch(who):
            kind = "naming people by e-mail" if "@" in who[1:] else "naming groups"
            yield source.at(
                (*place, number), f"{who}: {kind} comes with a later version; name people by their Slack ids (U…)"
            )


def _unknown_names(
    source: Source, rule: RuleEntry, databases: Mapping[str, DatabaseEntry], place: Place
) -> Iterator[Problem]:
    for number, name in enumerate(rule.databases):
        if isinstance(name, str) and not GLOB.intersection(name) and name not in databases:
            yield source.at((*place, "databases", number), f"no database is named {name}{_near(name, databases)}")
    known = {level for name in matched(rule, databases) for level in databases[name].levels}
    for number, level in enumerate(rule.levels):
        if level != "*" and known and level not in known:
            yield source.at(
                (*place, "levels", number), f"none of its databases has a level {level}{_near(level, known)}"
            )


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(known)[:10]) or 'none'}"


def _completable(source: Source, rule: RuleEntry, stage: StageEntry, place: Place) -> Iterator[Problem]:
    people = set(stage.approvers)
    if len(people) < stage.count:
        yield source.at(
            (*place, "count"),
            f"{stage.count} people are needed and {len(people)} named; nobody could ever complete this stage",
        )
    elif ANYONE not in rule.requesters and all(len(people - {asker}) < stage.count for asker in rule.requesters):
        yield source.at(
            place,
            f"the stage of rule {rule.name!r} could only be completed by the requester, who never may; name others",
        )


def database_errors(source: Source, databases: Mapping[str, DatabaseEntry]) -> Iterator[Problem]:
    """Keys of databases.yml that promise what comes later."""
    for name, entry in databases.items():
        if entry.replicas:
            yield source.at(("databases", name, "replicas"), f"replicas {LATER_WORDS}")


def warnings(
    data_file: Source, policy_file: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]
) -> Iterator[Problem]:
    """What deserves a look and prevents nothing."""
    for number, rule in enumerate(rules):
        place = ("rules", number)
        if any(len(set(stage.approvers)) == 1 for stage in rule.stages):
            yield policy_file.at(
                (*place, "approvals"),
                f"rule {rule.name!r} has one sole approver; nobody decides when they are away",
                is_error=False,
            )
        if (why := _never_answers(rule, rules[:number], databases)) is not None:
            yield policy_file.at(place, f"rule {rule.name!r} never answers: {why}", is_error=False)
    yield from _unreachable(data_file, rules, databases)


def _never_answers(rule: Rule, above: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]) -> str | None:
    cells = {(name, level) for name in rule.databases for level in databases[name].levels if rule.names_level(level)}
    if not cells:
        return "no database and level is matched by it"
    covering = [other for other in above if _covers_people(other, rule)]
    if covering and all(any(name in o.databases and o.names_level(level) for o in covering) for name, level in cells):
        return f"the rules above it answer first ({covering[0].name!r})"
    return None


def _covers_people(other: Rule, rule: Rule) -> bool:
    return other.requesters is None or (rule.requesters is not None and rule.requesters <= other.requesters)


def _unreachable(source: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]) -> Iterator[Problem]:
    for name, entry in databases.items():
        about = [rule for rule in rules if name in rule.databases]
        missing = [level for level in entry.levels if not any(rule.names_level(level) for rule in about)]
        if len(missing) == len(entry.levels):
            yield source.at(("databases", name), f"no rule lets anybody ask for {name}", is_error=False)
            continue
        for level in missing:
            yield source.at(
                ("databases", name, "levels", level), f"no rule lets anybody ask for {level} on {name}", is_error=False
            )
