"""The file's own ``tests:``, run without Slack, without a ledger and without a token. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from xml.etree import ElementTree as ET

from bot.policy.asking import Allowed, Answer, Missing, PolicyQuestion, Refused
from bot.policy.authorization import MayDecide, vote
from bot.policy.evaluation import may_ask
from bot.policy.facts import Facts
from bot.policy.loader import Config
from bot.policy.model import EMAIL, PolicyFile, TestEntry
from bot.policy.typed import parse_ask
from storage.records import Decision, Request, RequestKind, State, Terms, Verdict
from storage.transitions import open_stage

Outcome = Literal["refused", "waiting", "granted"]
NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""What a test without ``at`` stands at; no hours are judged by it."""


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One test and what came of it. ``why`` has the path through the rules."""

    entry: TestEntry
    outcome: Outcome
    rule: str | None
    why: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        return self.outcome == self.entry.expect and self.entry.rule in (None, self.rule)

    @property
    def difference(self) -> str:
        """What was expected and what came, in one line; empty where it is right."""
        if self.is_right:
            return ""
        wanted = f"{self.entry.expect}{f' by “{self.entry.rule}”' if self.entry.rule else ''}"
        return f"expected {wanted}, got {self.outcome}{f' by “{self.rule}”' if self.rule else ''}"


def run_tests(config: Config) -> tuple[Tested, ...]:
    """All tests of the file, in its order. Raises ValueError where an ask cannot be read (``checks`` finds that first)."""
    facts = facts_in_tests(config.policy, config.named)
    return tuple(_tested(config, entry, facts) for entry in config.policy.tests)


def facts_in_tests(policy: PolicyFile, named: Iterable[str]) -> Facts:
    """The groups as the file says; an address means whoever is asked for by it."""
    members = {name: frozenset({name}) for name in named if EMAIL.fullmatch(name)}
    members |= {name: frozenset(people) for name, people in policy.groups_in_tests.items()}
    return Facts(members=members, is_offline=True)


def ask_of(entry: TestEntry, config: Config) -> PolicyQuestion:
    """The ask of a test. Raises ValueError."""
    ask = parse_ask(entry.ask, {name: found.levels for name, found in config.databases.items()})
    kind = RequestKind.BREAK_GLASS if entry.break_glass else RequestKind.ACCESS
    return PolicyQuestion(**vars(ask), at=entry.at, kind=kind, needs_reason=ask.reason is not None)


def _tested(config: Config, entry: TestEntry, facts: Facts) -> Tested:
    ask = ask_of(entry, config)
    answer = may_ask(config, ask, facts)
    if not isinstance(answer, Allowed):
        rule = answer.rule if isinstance(answer, Refused) else None
        return Tested(entry=entry, outcome="refused", rule=rule, why=_why(answer))
    made = votes(config, request_of(ask, answer.terms), entry.approve, facts, at=entry.at)
    is_complete = open_stage(request_of(ask, answer.terms), made) is None
    outcome: Outcome = "granted" if is_complete else "waiting"
    return Tested(entry=entry, outcome=outcome, rule=answer.terms.rule, why=(*answer.path, *_votes_words(answer, made)))


def _why(answer: Answer) -> tuple[str, ...]:
    if isinstance(answer, Missing):
        return (f"The {answer.what} is missing; one of {', '.join(answer.choices)}.",)
    return (*answer.path, answer.reason) if isinstance(answer, Refused) else answer.path


def _votes_words(answer: Allowed, made: Sequence[Decision]) -> tuple[str, ...]:
    stages = answer.terms.stages
    return tuple(
        f"Stage {number + 1}: {sum(d.stage == number for d in made)} of {stage.count} approved."
        for number, stage in enumerate(stages)
    )


def votes(
    config: Config, request: Request, people: Iterable[str], facts: Facts, *, at: datetime | None
) -> tuple[Decision, ...]:
    """What counts of these approvals, in their order; whoever may not decide is passed over."""
    made: tuple[Decision, ...] = ()
    for person_id in people:
        answer = vote(config, request, request.terms, made, person_id, facts=facts, at=at)
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


def request_of(ask: PolicyQuestion, terms: Terms) -> Request:
    """The request an ask would become; of no ledger."""
    at = ask.at or NO_TIME
    return Request(
        id=0,
        key="",
        kind=ask.kind,
        state=State.PENDING,
        version=1,
        team_id="",
        requester_id=ask.person_id,
        requester_name=ask.person_id,
        database=ask.database or "",
        level=str(terms.level["name"]),
        reason=ask.reason or "",
        ticket=None,
        parent_id=None,
        terms=terms,
        requested_at=at,
        lapses_at=at + timedelta(hours=24),
    )


def junit(tested: Sequence[Tested], *, name: str) -> str:
    """JUnit's XML, as build servers read it."""
    failed = [one for one in tested if not one.is_right]
    suite = ET.Element("testsuite", name=name, tests=str(len(tested)), failures=str(len(failed)), errors="0")
    for one in tested:
        case = ET.SubElement(suite, "testcase", classname=name, name=f"{one.entry.ask} → {one.entry.expect}")
        if not one.is_right:
            ET.SubElement(case, "failure", message=one.difference).text = "\n".join(one.why)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True)
