"""Properties that hold for every policy, every person and every order of decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.durations import format_duration, short_duration
from bot.policy import evaluation, explain
from bot.policy.authorization import MayDecide, Outdated, may_decide
from bot.policy.catalog import catalog_entries
from bot.policy.config import Config
from bot.policy.questions import Allowed, MissingPart, NotAllowed, PolicyQuestion
from storage.records import Decision, Request, RequestKind, State
from storage.transitions import open_stage
from tests.soak import rounds
from tests.unit.config import NOON, config_of, database, decision, rule, waiting_request

PEOPLE = ["U01ANN", "U02BOB", "U03CAT", "U04DAN"]
LEVELS = ["readonly", "readwrite", "migrate"]
NAMES = ["orders-prod", "orders-test", "books-prod", "books-test"]
LABELS = [{"env": "prod"}, {"env": "test"}, {"env": "prod", "team": "a"}, {"team": "b"}]
CALM = settings(deadline=None, max_examples=rounds(60), suppress_health_check=[HealthCheck.too_slow])
World: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
REASON = "a reason that is long enough for every rule"
SPANS = st.sampled_from([10, 60, 1800, 3600, 5400, 7200, 14400, 28800]).map(lambda s: timedelta(seconds=s))


def some(values: list[Any], **bounds: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), unique_by=str, min_size=1, **bounds)


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    found = database(*draw(some(LEVELS)), labels=draw(st.sampled_from([{}, *LABELS])))
    if draw(st.booleans()):
        found["levels"]["readonly"] = {"roles": [draw(st.sampled_from(["readonly_role", "writer"]))]}
    for level in found["levels"].values():
        if (cap := draw(st.none() | SPANS)) is not None:
            level["max_duration"] = short_duration(cap)
    return found


@st.composite
def rules(draw: st.DrawFn, number: int) -> dict[str, Any]:
    found = rule(
        f"rule {number}",
        requesters=draw(some(["anyone", *PEOPLE])),
        databases=draw(some(["*", "orders-*", "*-test", *NAMES, *LABELS])),
        levels=draw(some(["*", *LEVELS])),
        approvals=[{"from": draw(some(PEOPLE)), "count": draw(st.sampled_from([1, 1, 2, 3]))}],
    )
    for key in ("max_duration", "duration"):
        if (span := draw(st.none() | SPANS)) is not None:
            found[key] = short_duration(span)
    return found


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """The contents of both files."""
    databases = {name: draw(entries()) for name in draw(some(NAMES))}
    listed = [draw(rules(number)) for number in range(draw(st.integers(1, 3)))]
    defaults = {"max_duration": short_duration(span)} if (span := draw(st.none() | SPANS)) else {}
    return databases, {"rules": listed, "defaults": defaults}


@st.composite
def asks(draw: st.DrawFn, world: World) -> PolicyQuestion:
    """Mostly a level that exists, for a person whom a rule names; impossible questions would test little."""
    databases, policy = world
    named = [who for found in policy["rules"] for who in found["requesters"] if who != "anyone"]
    name = draw(st.sampled_from(sorted(databases)))
    likely = st.builds(
        PolicyQuestion,
        person_id=st.sampled_from(named or PEOPLE),
        database=st.just(name),
        level=st.sampled_from(sorted(databases[name]["levels"])),
        duration=st.none() | SPANS,
        reason=st.just(REASON),
    )
    return draw(likely | likely | ANY_ASK)


ANY_ASK = st.builds(
    PolicyQuestion,
    person_id=st.sampled_from([*PEOPLE, "U99STRANGER"]),
    database=st.sampled_from([*NAMES, "nosuch"]) | st.none(),
    level=st.sampled_from([*LEVELS, "nosuch"]) | st.none(),
    duration=st.none() | SPANS | st.timedeltas(timedelta(days=-1), timedelta(days=2)),
    reason=st.just(REASON) | st.none(),
    kind=st.just(RequestKind.ACCESS) | st.sampled_from(list(RequestKind)),
)
CASES = worlds().flatmap(lambda world: st.tuples(st.just(world), asks(world)))
CLICKS = st.lists(st.sampled_from([*PEOPLE, "U99STRANGER"]), max_size=10)


def first_match(
    databases: dict[str, Any], policy: dict[str, Any], question: PolicyQuestion, level: str
) -> dict[str, Any] | None:
    """The first matching rule, found from the files' contents by the product contract. Shares no code with the evaluation."""
    entry = databases.get(str(question.database))
    if entry is None or level not in entry["levels"] or question.kind is not RequestKind.ACCESS:
        return None
    for found in policy["rules"]:
        by_person = "anyone" in found["requesters"] or question.person_id in found["requesters"]
        by_level = "*" in found["levels"] or level in found["levels"]
        by_database = any(
            fnmatchcase(str(question.database), wanted)
            if isinstance(wanted, str)
            else wanted.items() <= entry["labels"].items()
            for wanted in found["databases"]
        )
        if by_person and by_level and by_database:
            return dict(found)
    return None


def limits(
    databases: dict[str, Any], policy: dict[str, Any], found: dict[str, Any], question: PolicyQuestion, level: str
) -> set[str]:
    """Every limit on the duration."""
    shared = policy["defaults"].get("max_duration")
    spans = {found.get("max_duration"), shared, databases[str(question.database)]["levels"][level].get("max_duration")}
    return {span for span in spans if span} | ({"8h"} if not shared and not found.get("max_duration") else set())


def seconds(span: str) -> int:
    units = {"h": 3600, "m": 60, "s": 1}
    total, digits = 0, ""
    for sign in span:
        if sign.isdigit():
            digits += sign
        else:
            total, digits = total + int(digits) * units[sign], ""
    return total


@given(CASES)
@CALM
def test_allowed_only_by_the_first_matching_rule(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    answer = evaluation.evaluate(config_of(*world), question)
    if isinstance(answer, Allowed):
        found = first_match(*world, question, str(answer.terms.level["name"]))
        assert found is not None
        assert answer.terms.rule == found["name"]
        assert [(list(s.approvers), s.count) for s in answer.terms.stages] == [
            (s["from"], s["count"]) for s in found["approvals"]
        ]
        assert question.level in (None, answer.terms.level["name"])


@given(CASES)
@CALM
def test_request_within_the_first_matching_rule_is_allowed(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    question = replace(question, level=question.level or "readonly", reason=REASON)
    found = first_match(*world, question, str(question.level))
    if found is not None:
        cap = min(seconds(span) for span in limits(*world, found, question, str(question.level)))
        answer = evaluation.evaluate(config_of(*world), replace(question, duration=timedelta(seconds=cap)))
        assert isinstance(answer, Allowed) or (isinstance(answer, NotAllowed) and answer.about == "people")


@given(CASES)
@CALM
def test_allowed_duration_is_within_the_limits_and_never_shortened(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    answer = evaluation.evaluate(config_of(*world), question)
    if isinstance(answer, Allowed):
        level = str(answer.terms.level["name"])
        found = first_match(*world, question, level)
        assert found is not None
        longest = min(seconds(span) for span in limits(*world, found, question, level))
        assert timedelta(seconds=10) <= answer.terms.duration <= timedelta(seconds=longest)
        assert question.duration in (None, answer.terms.duration)


@given(CASES)
@CALM
def test_explanation_and_evaluation_always_agree(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    config = config_of(*world)
    decided = evaluation.evaluate(config, question)
    explained = evaluation.evaluate(config, replace(question, needs_reason=False))
    if not (isinstance(decided, MissingPart) and decided.part == "reason"):
        assert explained == decided
    else:
        assert isinstance(explained, Allowed) or explained.about == "people"
    lines = explain.explain_evaluation(explained)
    answering = [line for line in lines if line.endswith(" answers.")]
    if isinstance(explained, Allowed):
        assert lines[0] == "Allowed to ask."
        assert answering == [f"Rule “{explained.terms.rule}” answers."]
    elif isinstance(explained, NotAllowed):
        assert (lines[0], lines[-1]) == ("Refused.", explained.reason)
        assert bool(answering) == (explained.about in ("duration", "people"))


@given(CASES)
@CALM
def test_catalog_lists_exactly_what_is_allowed(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    config = config_of(*world)
    offered = {(o.database, o.level): o for o in catalog_entries(config, question.person_id)}
    for name in (*NAMES, "nosuch"):
        for level in (*LEVELS, "nosuch"):
            plain = PolicyQuestion(
                person_id=question.person_id, database=name, level=level, reason=REASON, is_new=False
            )
            answer, entry = evaluation.evaluate(config, plain), offered.get((name, level))
            assert isinstance(answer, Allowed) == (entry is not None)
            if entry is not None:
                over = replace(plain, duration=entry.max_duration + timedelta(seconds=1))
                assert isinstance(evaluation.evaluate(config, replace(plain, duration=entry.max_duration)), Allowed)
                assert isinstance(evaluation.evaluate(config, over), NotAllowed)


@given(CASES)
@CALM
def test_refusal_never_names_forbidden_databases(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    config = config_of(*world)
    answer = evaluation.evaluate(config, question)
    if isinstance(answer, NotAllowed):
        mine = {o.database for o in catalog_entries(config, question.person_id)}
        for name in set(NAMES) - mine - {str(question.database)}:
            assert name not in answer.reason


def voted(config: Config, request: Request, clicks: list[str]) -> tuple[tuple[Decision, ...], bool]:
    """The decisions that counted, in order, and whether they were enough."""
    counted: tuple[Decision, ...] = ()
    for person_id in clicks:
        answer = may_decide(config, request, counted, person_id, at=NOON)
        if isinstance(answer, MayDecide):
            counted = (*counted, decision(person_id, stage=answer.stage))
    return counted, open_stage(request, counted) is None


def waiting(config: Config, question: PolicyQuestion) -> Request | None:
    answer = evaluation.evaluate(config, replace(question, reason=REASON))
    if not isinstance(answer, Allowed):
        return None
    return waiting_request(answer.terms, person_id=question.person_id, database=str(question.database))


@given(CASES, CLICKS)
@CALM
def test_only_distinct_approvers_other_than_the_requester_count(
    case: tuple[World, PolicyQuestion], clicks: list[str]
) -> None:
    world, question = case
    config = config_of(*world)
    request = waiting(config, question)
    if request is None:
        return
    counted, is_approved = voted(config, request, clicks)
    people = [decision.person_id for decision in counted]
    (stage,) = request.terms.stages
    assert len(set(people)) == len(people)
    assert question.person_id not in people
    assert set(people) <= set(stage.approvers)
    assert is_approved == (len(set(clicks) & set(stage.approvers) - {question.person_id}) >= stage.count)


@st.composite
def changes(draw: st.DrawFn) -> tuple[World, World, PolicyQuestion]:
    """A world, the same world with one part changed, and a question about the first."""
    (databases, policy), question = draw(CASES)
    listed, entries_then = list(policy["rules"]), dict(databases)
    what = draw(st.sampled_from(["nothing", "rule", "rule's approvals", "entry", "defaults", "order", "everything"]))
    number = draw(st.integers(0, max(len(listed) - 1, 0)))
    if what == "everything":
        return (databases, policy), draw(worlds()), question
    if what == "entry":
        entries_then[draw(st.sampled_from(sorted(databases)))] = draw(entries())
    elif what == "order":
        listed.reverse()
    elif what.startswith("rule") and listed:
        new = draw(rules(number))
        listed[number] = new if what == "rule" else {**listed[number], "approvals": new["approvals"]}
    defaults = {"max_duration": "30m"} if what == "defaults" else policy["defaults"]
    return (databases, policy), (entries_then, {"rules": listed, "defaults": defaults}), question


@given(changes(), CLICKS)
@CALM
def test_decision_counts_only_where_todays_policy_allows_the_request(
    change: tuple[World, World, PolicyQuestion], clicks: list[str]
) -> None:
    before, after, question = change
    today = config_of(*after)
    request = waiting(config_of(*before), question)
    if request is None:
        return
    found = first_match(*after, question, request.level)
    for person_id in (*PEOPLE, *clicks):
        answer = may_decide(today, request, (), person_id, at=NOON)
        assert isinstance(answer, MayDecide | NotAllowed | Outdated)
        may = found is not None and person_id != question.person_id and is_same(before, after, found, request)
        assert isinstance(answer, MayDecide) == (may and person_id in (found or {})["approvals"][0]["from"])


def is_same(before: World, after: World, found: dict[str, Any], request: Request) -> bool:
    """Return whether the request is unchanged by the contract: rule, count of its stage, level; and not too long today."""
    roles = [databases[request.database]["levels"][request.level]["roles"] for databases, _ in (before, after)]
    question = PolicyQuestion(person_id=request.requester_id, database=request.database)
    longest = min(seconds(span) for span in limits(*after, found, question, request.level))
    return (
        found["name"] == request.terms.rule
        and found["approvals"][0]["count"] == request.terms.stages[0].count
        and roles[0] == roles[1]
        and request.terms.duration <= timedelta(seconds=longest)
    )


@given(CASES, CLICKS, st.sampled_from(PEOPLE))
@CALM
def test_one_more_approver_never_prevents_an_approval(
    case: tuple[World, PolicyQuestion], clicks: list[str], person_id: str
) -> None:
    (databases, policy), question = case
    wider = {**policy, "rules": [with_approver(found, person_id) for found in policy["rules"]]}
    config, wide = config_of(databases, policy), config_of(databases, wider)
    request, same = waiting(config, question), waiting(wide, question)
    assert request is None or same is not None
    if request is None or same is None:
        return
    (_, is_approved), (_, is_approved_then) = voted(config, request, clicks), voted(wide, same, clicks)
    assert is_approved_then or not is_approved
    # Added between card and click, it is no change of the stages either.
    assert voted(wide, request, clicks)[1] or not is_approved


def with_approver(found: dict[str, Any], person_id: str) -> dict[str, Any]:
    (stage,) = found["approvals"]
    return {**found, "approvals": [{**stage, "from": list(dict.fromkeys([*stage["from"], person_id]))}]}


@given(CASES)
@CALM
def test_request_waits_until_enough_people_have_approved(case: tuple[World, PolicyQuestion]) -> None:
    world, question = case
    request = waiting(config_of(*world), question)
    if request is not None:
        assert request.state is State.PENDING
        assert open_stage(request, ()) == 0
        assert format_duration(request.terms.duration) != "0 s"
