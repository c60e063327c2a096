"""What the two files say together: names that do not exist, stages nobody can complete, rules that never answer.

Decided from the files alone, without Slack.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bot.databases import DatabaseEntry
from bot.policy.facts import can_complete
from bot.policy.mistakes import words
from bot.policy.model import ANYONE, GROUP, PERSON, PolicyFile, RuleEntry, StageEntry
from bot.policy.rules import Meant, Rule, by_database, is_glob
from bot.policy.source import Place, Problem, Source, shown
from bot.policy.typed import parse_ask
from storage.records import RequestKind, Stage


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
    yield from _names_twice(source)
    yield from _test_errors(source, policy, rules, known)
    for number, rule in rules.items():
        yield from _rule_errors(source, policy, rule, known, ("rules", number))


def _problem(source: Source, place: Place, what: str) -> Problem:
    return source.at(place, words(source, place[:2], what))


def _keyed(source: Source, place: Place, what: str) -> Problem:
    """The same, with the key it is about."""
    return source.at(place, words(source, place, what))


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
    yield from _unknown_names(source, rule, known, place)
    if rule.channel is None and policy.defaults.channel is None:
        yield _problem(source, place, "channel is missing; name one here or in defaults")
    if rule.approvals is None and not {(*place, "refuse"), (*place, "break_glass")} & source.lines.keys():
        yield _problem(source, place, "approvals is missing; name who decides, or write [] to approve at once")
    yield from _combinations(source, rule, place)
    alone = [
        problem
        for number, stage in enumerate(rule.approvals or ())
        for problem in _completable(source, rule, stage, (*place, "approvals", number))
    ]
    yield from alone or _stages_together(source, rule, place)


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
    """One stage alone. People whom only Slack knows are taken to be enough."""
    people = {*stage.approvers, *(rule.escalate.to if rule.escalate else ())}
    if not _are_ids(people):
        return
    if len(people) < stage.count:
        what = f"{stage.count} people are needed and {len(people)} named; nobody could ever complete this stage"
        yield _problem(source, (*place, "count"), what)
    elif ANYONE not in rule.requesters and all(len(people - {asker}) < stage.count for asker in rule.requesters):
        what = "this stage could only be completed with the requester, who never may; name others"
        yield _problem(source, place, what)


def _are_ids(names: Iterable[str]) -> bool:
    return all(PERSON.fullmatch(who) for who in names)


def _stages_together(source: Source, rule: RuleEntry, place: Place) -> Iterator[Problem]:
    """Nobody decides twice, so several stages need as many different people."""
    stages = rule.approvals or []
    also = rule.escalate.to if rule.escalate else []
    named = [frozenset((*stage.approvers, *also)) for stage in stages]
    if len(stages) < 2 or not _are_ids(who for people in named for who in people):  # noqa: PLR2004 - one was looked at alone
        return
    counts = [stage.count for stage in stages]
    askers = [asker for asker in rule.requesters if asker != ANYONE] or [""]
    if not any(can_complete([people - {asker} for people in named], counts) for asker in askers):
        what = "nobody decides twice, and these stages together name too few different people; name others"
        yield _keyed(source, (*place, "approvals"), what)


# Keys that go together, and keys that do not.


def _combinations(source: Source, rule: RuleEntry, place: Place) -> Iterator[Problem]:
    for key, what in _wrong_together(rule):
        yield _keyed(source, (*place, key), what)
    for key, hours in (("hours", rule.hours), ("deciding_hours", rule.deciding_hours)):
        if hours is not None and hours.start == hours.to:
            yield _keyed(source, (*place, key), 'from and to are the same; the whole day is from "00:00" to "24:00"')


def _wrong_together(rule: RuleEntry) -> Iterator[tuple[str, str]]:
    """Key and what is wrong with it beside the others."""
    asks, glass = bool(rule.approvals), bool(rule.break_glass)
    if rule.refuse is not None:
        for key in REFUSAL_NEEDS_NONE:
            if getattr(rule, key) is not None:
                yield key, f"a rule that refuses gives nothing, so {key} means nothing; leave it out"
        return
    if glass and asks:
        yield "approvals", "break-glass is access first, review after; write approvals: [] and name who reviews"
    if glass and rule.review is None:
        yield "break_glass", "break-glass needs a review: {from: [S01DBA], within: 24h}"
    if rule.review is not None and not glass:
        yield "review", "only a break-glass rule has a review; leave it out, or write break_glass: true"
    if rule.automatic is not None and (asks or glass):
        yield "automatic", "a cap belongs to a rule that approves at once, with approvals: []"
    if rule.escalate is not None and not asks:
        yield "escalate", "nobody is asked, so nothing can be escalated; leave it out"
    if rule.review is not None and _only_by_the_requester(rule.review.approvers, rule.requesters):
        yield "review", "it could only be signed off by the requester, who never may; name others"


def _only_by_the_requester(people: Collection[str], requesters: Collection[str]) -> bool:
    if ANYONE in requesters or not _are_ids(people):
        return False
    return all(not set(people) - {asker} for asker in requesters)


REFUSAL_NEEDS_NONE = ("approvals", "automatic", "review", "escalate", "notify")


# The file's own tests.


def _test_errors(source: Source, policy: PolicyFile, rules: Mapping[int, RuleEntry], known: Known) -> Iterator[Problem]:
    names = {rule.name for rule in rules.values()}
    levels = {name: entry.levels for name, entry in known.databases.items()}
    for number, entry in enumerate(policy.tests):
        place = ("tests", number)
        try:
            ask = parse_ask(entry.ask, levels)
        except ValueError as wrong:
            yield _problem(source, (*place, "ask"), str(wrong))
            continue
        if ask.database not in known.names:
            what = f"no database is named {shown(ask.database)}{_near(str(ask.database), known.names)}"
            yield _problem(source, (*place, "ask"), what)
        elif ask.level is not None and known.is_whole and ask.level not in levels[str(ask.database)]:
            what = f"{shown(ask.database)} has no level {shown(ask.level)}{_near(ask.level, levels[str(ask.database)])}"
            yield _problem(source, (*place, "ask"), what)
        if entry.rule is not None and entry.rule not in names:
            yield _problem(source, (*place, "rule"), f"no rule is named {shown(entry.rule)}{_near(entry.rule, names)}")
    for group in policy.groups_in_tests:
        if not GROUP.fullmatch(group):
            what = "a group is named by its id (S…) or its @handle"
            yield _problem(source, ("groups_in_tests", group), what)


def warnings(
    data_file: Source,
    policy_file: Source,
    policy: PolicyFile,
    rules: tuple[Rule, ...],
    databases: Mapping[str, DatabaseEntry],
) -> Iterator[Problem]:
    """What deserves a look and prevents nothing."""
    yield from _handles(policy_file, policy)
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


def _handles(source: Source, policy: PolicyFile) -> Iterator[Problem]:
    """Whoever may edit groups may give a handle to another group; an id stays."""
    for place, name in _everyone_named(policy):
        if name.startswith("@"):
            what = f"the handle {name} can be given to another group; name the group by its id (S…)"
            yield _warning(source, place, what)


def _everyone_named(policy: PolicyFile) -> Iterator[tuple[Place, str]]:
    """Each name of a person or a group, and where it stands."""
    for key in ("admins", "auditors"):
        yield from _numbered((key,), getattr(policy, key))
    for number, rule in enumerate(policy.rules):
        place: Place = ("rules", number)
        yield from _numbered((*place, "requesters"), rule.requesters)
        for stage_number, stage in enumerate(rule.approvals or ()):
            yield from _numbered((*place, "approvals", stage_number, "from"), stage.approvers)
        yield from _numbered((*place, "escalate", "to"), rule.escalate.to if rule.escalate else ())
        yield from _numbered((*place, "review", "from"), rule.review.approvers if rule.review else ())
        yield from _numbered((*place, "notify"), rule.notify or ())


def _numbered(place: Place, names: Iterable[str]) -> Iterator[tuple[Place, str]]:
    return (((*place, number), name) for number, name in enumerate(names))


def _has_sole_approver(rule: Rule, stage: Stage) -> bool:
    """Only one person can ever approve: because one is named, or because the only requester is the other one."""
    people = {*stage.approvers, *(rule.escalation.to if rule.escalation else ())}
    if not _are_ids(people):
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
        if other.names_level(level) and other.break_glass == rule.break_glass and not other.asks_next:
            if other.requesters is None:
                return True
            left = None if left is None else left - other.requesters
    return left is not None and not left


def _unreachable(source: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]) -> Iterator[Problem]:
    about = by_database(tuple(rule for rule in rules if rule.answers(RequestKind.ACCESS)))
    for name, entry in databases.items():
        missing = [level for level in entry.levels if not any(r.names_level(level) for r in about.get(name, ()))]
        if len(missing) == len(entry.levels):
            yield _warning(source, ("databases", name), "nobody may ask for it; name it in a rule or take it out")
            continue
        for level in missing:
            what = f"nobody may ask for the level {level}; name it in a rule or take it out"
            yield _warning(source, ("databases", name, "levels", level), what)
