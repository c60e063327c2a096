"""Errors and warnings that need both files: unknown names, stages that nobody can complete, rules that never answer.

Decided from the files alone, without Slack: the members of a group count as unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from bot.databases import DatabaseEntry
from bot.policy.facts import can_complete
from bot.policy.model import ANYONE, GROUP, PERSON, PolicyFile, RuleEntry, StageEntry
from bot.policy.rules import DatabaseMatcher, Rule, group_by_database, is_glob
from bot.policy.schema_errors import problem_text
from bot.policy.source import KeyPath, Problem, Source, safe_name
from bot.policy.testing import parse_request_line
from storage.records import RequestKind, Stage


@dataclass(frozen=True, kw_only=True)
class KnownDatabases:
    """The valid entries of databases.yml, and the names of all. ``is_whole``: every entry is valid."""

    databases: Mapping[str, DatabaseEntry]
    names: Collection[str]
    is_whole: bool

    @cached_property
    def matcher(self) -> DatabaseMatcher:
        return DatabaseMatcher(self.databases)


def errors(
    source: Source, policy: PolicyFile, rules: Mapping[int, RuleEntry], known: KnownDatabases
) -> Iterator[Problem]:
    """Errors of policy.yml. With one of them the files never come into force. ``rules`` are the valid rules, by number."""
    yield from _duplicate_names(source)
    yield from _test_errors(source, policy, rules, known)
    for number, rule in rules.items():
        yield from _rule_errors(source, policy, rule, known, ("rules", number))


def _problem(source: Source, place: KeyPath, what: str) -> Problem:
    return source.at(place, problem_text(source, place[:2], what))


def _key_problem(source: Source, place: KeyPath, what: str) -> Problem:
    """The same, with the key in front of the message."""
    return source.at(place, problem_text(source, place, what))


def _duplicate_names(source: Source) -> Iterator[Problem]:
    raw = source.data.get("rules") if isinstance(source.data, dict) else None
    seen: dict[str, int] = {}
    for number, rule in enumerate(raw if isinstance(raw, list) else ()):
        name = rule.get("name") if isinstance(rule, dict) else None
        if isinstance(name, str) and name in seen:
            line = source.line_of(("rules", seen[name], "name"))
            yield _problem(source, ("rules", number, "name"), f"line {line} has this name too; names are unique")
        elif isinstance(name, str):
            seen[name] = number


def _rule_errors(
    source: Source, policy: PolicyFile, rule: RuleEntry, known: KnownDatabases, place: KeyPath
) -> Iterator[Problem]:
    yield from _unknown_names(source, rule, known, place)
    if rule.channel is None and policy.defaults.channel is None:
        yield _problem(source, place, "channel is missing; name one here or in defaults")
    if rule.approvals is None and not {(*place, "refuse"), (*place, "break_glass")} & source.lines.keys():
        yield _problem(source, place, "approvals is missing; name who decides, or write [] to approve at once")
    yield from _key_errors(source, rule, place)
    alone = [
        problem
        for number, stage in enumerate(rule.approvals or ())
        for problem in _stage_errors(source, rule, stage, (*place, "approvals", number))
    ]
    yield from alone or _combined_stage_errors(source, rule, place)


def _unknown_names(source: Source, rule: RuleEntry, known: KnownDatabases, place: KeyPath) -> Iterator[Problem]:
    for number, name in enumerate(rule.databases):
        if isinstance(name, str) and not is_glob(name) and name not in known.names:
            what = f"no database is named {safe_name(name)}{_suggestion(name, known.names)}"
            yield _problem(source, (*place, "databases", number), what)
    if not known.is_whole:
        return
    levels = {level for name in known.matcher.databases_of(rule) for level in known.databases[name].levels}
    for number, level in enumerate(rule.levels):
        if level != "*" and levels and level not in levels:
            what = f"none of its databases has a level {safe_name(level)}{_suggestion(level, levels)}"
            yield _problem(source, (*place, "levels", number), what)


def _suggestion(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return (
        f"; did you mean {near[0]}?"
        if near
        else f"; there are {', '.join(sorted(map(safe_name, known))[:10]) or 'none'}"
    )


def _stage_errors(source: Source, rule: RuleEntry, stage: StageEntry, place: KeyPath) -> Iterator[Problem]:
    """One stage by itself. Groups and e-mail addresses count as enough people."""
    people = {*stage.approvers, *(rule.escalate.to if rule.escalate else ())}
    if not _are_ids(people):
        return
    if len(people) < stage.count:
        what = f"{stage.count} people are needed and {len(people)} named; nobody could ever complete this stage"
        yield _problem(source, (*place, "count"), what)
    elif ANYONE not in rule.requesters and all(
        len(people - {requester}) < stage.count for requester in rule.requesters
    ):
        what = "this stage could only be completed with the requester, who never may; name others"
        yield _problem(source, place, what)


def _are_ids(names: Iterable[str]) -> bool:
    return all(PERSON.fullmatch(who) for who in names)


def _combined_stage_errors(source: Source, rule: RuleEntry, place: KeyPath) -> Iterator[Problem]:
    """All stages together need enough different people, because nobody decides twice."""
    stages = rule.approvals or []
    also = rule.escalate.to if rule.escalate else []
    named = [frozenset((*stage.approvers, *also)) for stage in stages]
    if len(stages) < 2 or not _are_ids(who for people in named for who in people):  # noqa: PLR2004 - a single stage was checked by itself
        return
    counts = [stage.count for stage in stages]
    requesters = [requester for requester in rule.requesters if requester != ANYONE] or [""]
    if not any(can_complete([people - {requester} for people in named], counts) for requester in requesters):
        what = "nobody decides twice, and these stages together name too few different people; name others"
        yield _key_problem(source, (*place, "approvals"), what)


# Keys that need each other, and keys that exclude each other.


def _key_errors(source: Source, rule: RuleEntry, place: KeyPath) -> Iterator[Problem]:
    for key, what in _key_conflicts(rule):
        yield _key_problem(source, (*place, key), what)
    for key, hours in (("hours", rule.hours), ("deciding_hours", rule.deciding_hours)):
        if hours is not None and hours.start == hours.to:
            yield _key_problem(
                source, (*place, key), 'from and to are the same; the whole day is from "00:00" to "24:00"'
            )


def _key_conflicts(rule: RuleEntry) -> Iterator[tuple[str, str]]:
    """Each key that conflicts with another one, and why."""
    has_stages, is_break_glass = bool(rule.approvals), bool(rule.break_glass)
    if rule.refuse is not None:
        for key in UNUSED_WITH_REFUSE:
            if getattr(rule, key) is not None:
                yield key, f"a rule that refuses gives nothing, so {key} has no effect; leave it out"
        return
    if is_break_glass and has_stages:
        yield "approvals", "break-glass is access first, review after; write approvals: [] and name who reviews"
    if is_break_glass and rule.review is None:
        yield "break_glass", "break-glass needs a review: {from: [S01DBA], within: 24h}"
    if rule.review is not None and not is_break_glass:
        yield "review", "only a break-glass rule has a review; leave it out, or write break_glass: true"
    if rule.automatic is not None and (has_stages or is_break_glass):
        yield "automatic", "a cap belongs to a rule that approves at once, with approvals: []"
    if rule.escalate is not None and not has_stages:
        yield "escalate", "nobody is asked, so nothing can be escalated; leave it out"
    if rule.review is not None and _only_requester_can(rule.review.approvers, rule.requesters):
        yield "review", "it could only be signed off by the requester, who never may; name others"


def _only_requester_can(people: Collection[str], requesters: Collection[str]) -> bool:
    if ANYONE in requesters or not _are_ids(people):
        return False
    return all(not set(people) - {requester} for requester in requesters)


UNUSED_WITH_REFUSE = ("approvals", "automatic", "review", "escalate", "notify")


# The file's own tests.


def _test_errors(
    source: Source, policy: PolicyFile, rules: Mapping[int, RuleEntry], known: KnownDatabases
) -> Iterator[Problem]:
    names = {rule.name for rule in rules.values()}
    levels = {name: entry.levels for name, entry in known.databases.items()}
    for number, entry in enumerate(policy.tests):
        place = ("tests", number)
        try:
            line = parse_request_line(entry.ask, levels)
        except ValueError as wrong:
            yield _problem(source, (*place, "ask"), str(wrong))
            continue
        if line.database not in known.names:
            what = f"no database is named {safe_name(line.database)}{_suggestion(line.database, known.names)}"
            yield _problem(source, (*place, "ask"), what)
        elif line.level is not None and known.is_whole and line.level not in levels[line.database]:
            what = f"{safe_name(line.database)} has no level {safe_name(line.level)}{_suggestion(line.level, levels[line.database])}"
            yield _problem(source, (*place, "ask"), what)
        if entry.rule is not None and entry.rule not in names:
            yield _problem(
                source, (*place, "rule"), f"no rule is named {safe_name(entry.rule)}{_suggestion(entry.rule, names)}"
            )
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
    """The warnings. They do not stop the files from coming into force."""
    yield from _handle_warnings(policy_file, policy)
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
    yield from _unreachable_levels(data_file, rules, databases)


def _warning(source: Source, place: KeyPath, what: str) -> Problem:
    return source.at(place, problem_text(source, place[:2], what), is_error=False)


def _handle_warnings(source: Source, policy: PolicyFile) -> Iterator[Problem]:
    """Handles. Anyone who may edit groups can give a handle to another group; an id never changes."""
    for place, name in _named_people(policy):
        if name.startswith("@"):
            what = f"the handle {name} can be given to another group; name the group by its id (S…)"
            yield _warning(source, place, what)


def _named_people(policy: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Every name of a person or a group, with its place."""
    for key in ("admins", "auditors"):
        yield from _numbered((key,), getattr(policy, key))
    for number, rule in enumerate(policy.rules):
        place: KeyPath = ("rules", number)
        yield from _numbered((*place, "requesters"), rule.requesters)
        for stage_number, stage in enumerate(rule.approvals or ()):
            yield from _numbered((*place, "approvals", stage_number, "from"), stage.approvers)
        yield from _numbered((*place, "escalate", "to"), rule.escalate.to if rule.escalate else ())
        yield from _numbered((*place, "review", "from"), rule.review.approvers if rule.review else ())
        yield from _numbered((*place, "notify"), rule.notify or ())


def _numbered(place: KeyPath, names: Iterable[str]) -> Iterator[tuple[KeyPath, str]]:
    return (((*place, number), name) for number, name in enumerate(names))


def _has_sole_approver(rule: Rule, stage: Stage) -> bool:
    """Return whether only one person can ever approve: one is named, or two are and one of them is the only requester."""
    people = {*stage.approvers, *(rule.escalation.to if rule.escalation else ())}
    if not _are_ids(people):
        return False
    if rule.requesters is not None and len(rule.requesters) == 1:
        people -= rule.requesters
    return len(people) == 1


def _never_answers(rule: Rule, above: Mapping[str, list[Rule]], databases: Mapping[str, DatabaseEntry]) -> str | None:
    cells = [(name, level) for name in rule.databases for level in databases[name].levels if rule.includes_level(level)]
    if not cells:
        return "no database has what it names"
    if all(_is_covered(rule, level, above[name]) for name, level in cells):
        return "the rules above it answer first; move it up or take it out"
    return None


def _is_covered(rule: Rule, level: str, above: list[Rule]) -> bool:
    """Return whether the rules above answer everybody who may request this level by ``rule``."""
    left = rule.requesters
    for other in above:
        if other.includes_level(level) and other.break_glass == rule.break_glass and not other.falls_through:
            if other.requesters is None:
                return True
            left = None if left is None else left - other.requesters
    return left is not None and not left


def _unreachable_levels(
    source: Source, rules: tuple[Rule, ...], databases: Mapping[str, DatabaseEntry]
) -> Iterator[Problem]:
    about = group_by_database(tuple(rule for rule in rules if rule.answers(RequestKind.ACCESS)))
    for name, entry in databases.items():
        missing = [level for level in entry.levels if not any(r.includes_level(level) for r in about.get(name, ()))]
        if len(missing) == len(entry.levels):
            yield _warning(source, ("databases", name), "nobody may ask for it; name it in a rule or take it out")
            continue
        for level in missing:
            what = f"nobody may ask for the level {level}; name it in a rule or take it out"
            yield _warning(source, ("databases", name, "levels", level), what)
