"""What the two files say together: names that do not exist, stages nobody can complete, rules that never answer.

Decided from the files alone, without Slack.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bot.databases import DatabaseEntry
from bot.policy.mistakes import words
from bot.policy.model import ANYONE, PERSON, PolicyFile, RuleEntry, StageEntry
from bot.policy.rules import Meant, Rule, by_database, is_glob
from bot.policy.source import Place, Problem, Source, shown
from storage.records import Stage

LATER_WORDS = "comes with a later version; leave it out"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What databases.yml has: the entries without mistakes, and every name. ``is_whole`` where none has a mistake."""

    databases: Mapping[str, DatabaseEntry]
    names: Collection[str]
    is_whole: bool

    @cached_property
    def meant(self) -> Meant:
        return Meant(self.databases)


def errors(source: Source, policy: PolicyFile, rules: Mapping[int, RuleEntry], known: Known) -> Iterator[Problem]:
    """Mistakes of policy.yml with which nothing may be in force. ``rules`` are those that could be read, by number."""
    yield from _reveal(source, policy.defaults.delivery, ("defaults", "delivery"))
    yield from _names_twice(source)
    for number, rule in rules.items():
        yield from _rule_errors(source, policy, rule, known, ("rules", number))


def _problem(source: Source, place: Place, what: str) -> Problem:
    return source.at(place, words(source, place[: 1 if place[0] == "defaults" else 2], what))


def _names_twice(source: Source) -> Iterator[Problem]:
    raw = source.data.get("rules") if isinstance(source.data, dict) else None
    seen: dict[str, int] = {}
    for number, rule in enumerate(raw if isinstance(raw, list) else ()):
        name = rule.get("name") if isinstance(rule, dict) else None
        if isinstance(name, str) and name in seen:
            line = source.line_of(("rules", seen[name], "name"))
            yield _problem(source, ("rules", number, "name"), f"line {line} has this name too; names are unique")
        elif isinstance(name, str):
            seen[name] = number


def _rule_errors(source: Source, policy: PolicyFile, rule: RuleEntry, known: Known, place: Place) -> Iterator[Problem]:
    yield from _reveal(source, rule.delivery, (*place, "delivery"))
    yield from _unknown_names(source, rule, known, place)
    if rule.channel is None and policy.defaults.channel is None:
        yield _problem(source, place, "channel is missing; name one here or in defaults")
    if rule.approvals is None and not {(*place, "refuse"), (*place, "break_glass")} & source.lines.keys():
        yield _problem(source, place, "approvals is missing; name who decides, or write [] to approve at once")
    for number, stage in enumerate(rule.approvals or ()):
        stage_place = (*place, "approvals", number)
        yield from _completable(source, rule, stage, stage_place)


def _reveal(source: Source, delivery: str | None, place: Place) -> Iterator[Problem]:
    if delivery == "reveal":
        yield _problem(source, place, "delivery: reveal comes with a later version; write dm")


def _unknown_names(source: Source, rule: RuleEntry, known: Known, place: Place) -> Iterator[Problem]:
    for number, name in enumerate(rule.databases):
        if isinstance(name, str) and not is_glob(name) and name not in known.names:
            what = f"no database is named {shown(name)}{_near(name, known.names)}"
            yield _problem(source, (*place, "databases", number), what)
    if not known.is_whole:
        return
    levels = {level for name in known.meant.by(rule) for level in known.databases[name].levels}
    for number, level in enumerate(rule.levels):
        if level != "*" and levels and level not in levels:
            what = f"none of its databases has a level {shown(level)}{_near(level, levels)}"
            yield _problem(source, (*place, "levels", number), what)


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return (
        f"; did you mean {near[0]}?" if near else f"; there are {', '.join(sorted(map(shown, known))[:10]) or 'none'}"
    )


def _completable(source: Source, rule: RuleEntry, stage: StageEntry, place: Place) -> Iterator[Problem]:
    people = set(stage.approvers)
    if not all(PERSON.fullmatch(who) for who in people):
        return  # of groups and addresses the files alone know no people
    if len(people) < stage.count:
        what = f"{stage.count} people are needed and {len(people)} named; nobody could ever complete this stage"
        yield _problem(source, (*place, "count"), what)
    elif ANYONE not in rule.requesters and all(len(people - {asker}) < stage.count for asker in rule.requesters):
        what = "this stage could only be completed with the requester, who never may; name others"
        yield _problem(source, place, what)


def warnings(
    data_file: Source, policy_file: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]
) -> Iterator[Problem]:
    """What deserves a look and prevents nothing."""
    above: dict[str, list[Rule]] = {name: [] for name in databases}
    for number, rule in enumerate(rules):
        place = ("rules", number)
        if any(_has_sole_approver(rule, stage) for stage in rule.stages):
            what = "has one sole approver; name a second one for when they are away"
            yield _warning(policy_file, (*place, "approvals"), what)
        if (why := _never_answers(rule, above, databases)) is not None:
            yield _warning(policy_file, place, f"never answers: {why}")
        for name in rule.databases:
            above[name].append(rule)
    yield from _unreachable(data_file, rules, databases)


def _warning(source: Source, place: Place, what: str) -> Problem:
    return source.at(place, words(source, place[:2], what), is_error=False)


def _has_sole_approver(rule: Rule, stage: Stage) -> bool:
    """Only one person can ever approve: because one is named, or because the only requester is the other one."""
    people = set(stage.approvers)
    if not all(PERSON.fullmatch(who) for who in people):
        return False
    if rule.requesters is not None and len(rule.requesters) == 1:
        people -= rule.requesters
    return len(people) == 1


def _never_answers(rule: Rule, above: Mapping[str, list[Rule]], databases: Mapping[str, DatabaseEntry]) -> str | None:
    cells = [(name, level) for name in rule.databases for level in databases[name].levels if rule.names_level(level)]
    if not cells:
        return "no database has what it names"
    if all(_is_answered(rule, level, above[name]) for name, level in cells):
        return "the rules above it answer first; move it up or take it out"
    return None


def _is_answered(rule: Rule, level: str, above: list[Rule]) -> bool:
    """Everybody who could ask by ``rule`` for this level is answered by one of those above it."""
    left = rule.requesters
    for other in above:
        if other.names_level(level):
            if other.requesters is None:
                return True
            left = None if left is None else left - other.requesters
    return left is not None and not left


def _unreachable(source: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]) -> Iterator[Problem]:
    about = by_database(rules)
    for name, entry in databases.items():
        missing = [level for level in entry.levels if not any(r.names_level(level) for r in about.get(name, ()))]
        if len(missing) == len(entry.levels):
            yield _warning(source, ("databases", name), "nobody may ask for it; name it in a rule or take it out")
            continue
        for level in missing:
            what = f"nobody may ask for the level {level}; name it in a rule or take it out"
            yield _warning(source, ("databases", name, "levels", level), what)
