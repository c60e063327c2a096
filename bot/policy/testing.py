"""Run the ``tests:`` of a policy file, without Slack, ledger or token; parse their request lines. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from xml.etree import ElementTree as ET

from bot.durations import parse_duration
from bot.policy.authorization import MayDecide, authorize_vote
from bot.policy.config import Config
from bot.policy.evaluation import evaluate
from bot.policy.facts import Facts
from bot.policy.model import EMAIL, PolicyFile, TestEntry
from bot.policy.questions import Allowed, Evaluation, MissingPart, NotAllowed, PolicyQuestion
from storage.records import Decision, Request, RequestKind, State, Terms, Verdict
from storage.transitions import open_stage

DURATION_WORD = re.compile(r"\d+\w*", re.ASCII)
Outcome = Literal["refused", "waiting", "granted"]
NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of a test without ``at``. Hours are not checked then."""


@dataclass(frozen=True, kw_only=True)
class PolicyTestResult:
    """One test and its outcome. ``why`` is the path through the rules."""

    entry: TestEntry
    outcome: Outcome
    rule: str | None
    why: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.outcome == self.entry.expect and self.entry.rule in (None, self.rule)

    @property
    def difference(self) -> str:
        """The expected and the actual result, in one line; empty where the test passed."""
        if self.passed:
            return ""
        wanted = f"{self.entry.expect}{f' by “{self.entry.rule}”' if self.entry.rule else ''}"
        return f"expected {wanted}, got {self.outcome}{f' by “{self.rule}”' if self.rule else ''}"


def run_tests(config: Config) -> tuple[PolicyTestResult, ...]:
    """Run all tests of the file, in its order. Raises ValueError where a request line is invalid (validation finds that first)."""
    facts = offline_facts(config.policy, config.directory_names)
    return tuple(_run_test(config, entry, facts) for entry in config.policy.tests)


def offline_facts(policy: PolicyFile, named: Iterable[str]) -> Facts:
    """Groups as in ``groups_in_tests``. An e-mail address stands for the person who is named by it."""
    members = {name: frozenset({name}) for name in named if EMAIL.fullmatch(name)}
    members |= {name: frozenset(people) for name, people in policy.groups_in_tests.items()}
    return Facts(members=members, is_offline=True)


def question_of(entry: TestEntry, config: Config) -> PolicyQuestion:
    """The question of a test. Raises ValueError where its request line is invalid."""
    line = parse_request_line(entry.ask, {name: found.levels for name, found in config.databases.items()})
    kind = RequestKind.BREAK_GLASS if entry.break_glass else RequestKind.ACCESS
    return PolicyQuestion(**vars(line), at=entry.at, kind=kind, needs_reason=line.reason is not None)


def _run_test(config: Config, entry: TestEntry, facts: Facts) -> PolicyTestResult:
    question = question_of(entry, config)
    answer = evaluate(config, question, facts)
    if not isinstance(answer, Allowed):
        rule = answer.rule if isinstance(answer, NotAllowed) else None
        return PolicyTestResult(entry=entry, outcome="refused", rule=rule, why=_reasons(answer))
    made = counted_votes(config, sample_request(question, answer.terms), entry.approve, facts, at=entry.at)
    is_complete = open_stage(sample_request(question, answer.terms), made) is None
    outcome: Outcome = "granted" if is_complete else "waiting"
    return PolicyTestResult(
        entry=entry, outcome=outcome, rule=answer.terms.rule, why=(*answer.path, *_stage_lines(answer, made))
    )


def _reasons(answer: Evaluation) -> tuple[str, ...]:
    if isinstance(answer, MissingPart):
        return (f"The {answer.part} is missing; one of {', '.join(answer.choices)}.",)
    return (*answer.path, answer.reason) if isinstance(answer, NotAllowed) else answer.path


def _stage_lines(answer: Allowed, made: Sequence[Decision]) -> tuple[str, ...]:
    stages = answer.terms.stages
    return tuple(
        f"Stage {number + 1}: {sum(d.stage == number for d in made)} of {stage.count} approved."
        for number, stage in enumerate(stages)
    )


def counted_votes(
    config: Config, request: Request, people: Iterable[str], facts: Facts, *, at: datetime | None
) -> tuple[Decision, ...]:
    """The approvals that count, in their order. A person who may not decide is skipped."""
    made: tuple[Decision, ...] = ()
    for person_id in people:
        answer = authorize_vote(config, request, request.terms, made, person_id, facts=facts, at=at)
        if isinstance(answer, MayDecide):
            made += (_approval(request, person_id, answer.stage),)
    return made


def _approval(request: Request, person_id: str, stage: int) -> Decision:
    return Decision(
        request_id=request.id,
        person_id=person_id,
        person_name=person_id,
        verdict=Verdict.APPROVE,
        stage=stage,
        at=request.requested_at,
    )


def sample_request(question: PolicyQuestion, terms: Terms) -> Request:
    """The request that the question would become. It belongs to no ledger."""
    at = question.at or NO_TIME
    return Request(
        id=0,
        key="",
        kind=question.kind,
        state=State.PENDING,
        version=1,
        team_id="",
        requester_id=question.person_id,
        requester_name=question.person_id,
        database=question.database or "",
        level=str(terms.level["name"]),
        reason=question.reason or "",
        ticket=None,
        parent_id=None,
        terms=terms,
        requested_at=at,
        lapses_at=at + timedelta(hours=24),
    )


def junit_xml(tested: Sequence[PolicyTestResult], *, name: str) -> str:
    """The results as JUnit XML, which build servers read."""
    failed = [one for one in tested if not one.passed]
    suite = ET.Element("testsuite", name=name, tests=str(len(tested)), failures=str(len(failed)), errors="0")
    for one in tested:
        case = ET.SubElement(suite, "testcase", classname=name, name=f"{one.entry.ask} → {one.entry.expect}")
        if not one.passed:
            ET.SubElement(case, "failure", message=one.difference).text = "\n".join(one.why)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)


# Request lines.


@dataclass(frozen=True, kw_only=True)
class RequestLine:
    """A parsed request line, such as ``U01ADA orders-prod readonly 2h PAY-311 refund``. None: the part was left out."""

    person_id: str
    database: str
    level: str | None
    duration: timedelta | None
    reason: str | None


def parse_request_line(text: str, levels: Mapping[str, Iterable[str]]) -> RequestLine:
    """Parse ``PERSON DATABASE [LEVEL] [DURATION] [REASON…]``. ``levels``: the level names of each database. Raises ValueError."""
    parts = text.split()
    if len(parts) < 2:  # noqa: PLR2004 - person and database
        raise ValueError("a request line looks like: U01ADA orders-prod readonly 2h PAY-311 refund")
    person, database, *left = parts
    is_level = bool(left) and not DURATION_WORD.fullmatch(left[0]) and _is_level(left, levels.get(database, ()))
    level = left.pop(0) if is_level else None
    duration = parse_duration(left.pop(0)) if left and DURATION_WORD.fullmatch(left[0]) else None
    reason = " ".join(left) or None
    return RequestLine(
        person_id=person,
        database=database,
        level=level,
        duration=duration,
        reason=reason,
    )


def _is_level(left: Sequence[str], levels: Iterable[str]) -> bool:
    """Return whether the first word is a level: one of the database, or a word that stands alone or before a duration."""
    return left[0] in levels or len(left) == 1 or DURATION_WORD.fullmatch(left[1]) is not None
