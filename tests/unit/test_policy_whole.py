"""Properties of policies with stages, groups, hours, tickets and break-glass, checked by an oracle that follows the contract."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.policy.authorization import MayDecide, may_decide
from bot.policy.catalog import catalog_entries
from bot.policy.config import Config
from bot.policy.evaluation import evaluate
from bot.policy.explain import explain_evaluation
from bot.policy.facts import Facts
from bot.policy.questions import Allowed, Evaluation, NotAllowed, PolicyQuestion
from storage.records import Decision, Request, RequestKind, UsageCounts
from storage.transitions import open_stage
from tests.soak import rounds
from tests.unit.config import config_of, database, decision, waiting_request

PEOPLE = ["U01ANN", "U02BOB", "U03CAT", "U04DAN", "U05EVE"]
GROUPS = ["S01ONE", "S02TWO", "@three"]
ADDRESSES = ["ann@example.com"]
ANYBODY = [*PEOPLE, *GROUPS, *ADDRESSES]
CALM = settings(deadline=None, max_examples=rounds(400), suppress_health_check=[HealthCheck.too_slow])
HOURS = st.fixed_dictionaries({
    "days": st.sampled_from(["mon-fri", "sat-sun", "mon-sun", "fri-mon", ["tue", "sun"]]),
    "from": st.sampled_from(["00:00", "02:30", "08:00", "22:00"]),
    "to": st.sampled_from(["03:00", "07:59", "19:00", "24:00"]),
    "tz": st.sampled_from(["Europe/Berlin", "America/New_York", "UTC", "Asia/Kathmandu"]),
})  # fmt: skip
MOMENTS = st.integers(0, 2 * 365 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
) | (
    # Around the hours that come twice or never.
    st.sampled_from([datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)]).flatmap(
        lambda day: st.integers(0, 300).map(lambda minutes: day + timedelta(minutes=minutes))
    )
)


def some(values: list[str], least: int = 1, most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True, min_size=least, max_size=most)


@st.composite
def rules(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A rule of any kind that the validation accepts."""
    found: dict[str, Any] = {
        "name": f"rule {number}",
        "channel": "C01CARDS",
        "requesters": draw(
            st.sampled_from([["anyone"], ["anyone"], PEOPLE[:3], ["S01ONE"], ["@three", "U02BOB"]]) | some(ANYBODY)
        ),
        "databases": draw(st.sampled_from([["*"], ["*"], ["shop"], [{"env": "prod"}], [{"env": "test"}]])),
        "levels": draw(st.sampled_from([["*"], ["*"], ["*"], ["readonly"], ["migrate"]])),
    }
    kind = draw(st.sampled_from(["stages", "stages", "stages", "none", "refuse", "glass"]))
    if kind == "refuse":
        return {**found, "refuse": "Not here.", "break_glass": draw(st.booleans())}
    stages = st.fixed_dictionaries({"from": some(ANYBODY), "count": st.integers(1, 2)})
    found["approvals"] = draw(st.lists(stages, min_size=1, max_size=3)) if kind == "stages" else []
    if kind == "glass":
        found |= {"break_glass": True, "review": {"from": draw(some(ANYBODY)), "within": "24h"}}
    if kind == "stages" and draw(st.booleans()):
        found["escalate"] = {"after": "1h", "to": draw(some(ANYBODY))}
    if kind == "none" and draw(st.booleans()):
        found["automatic"] = {"per_person_per_day": draw(st.integers(1, 2))}
    for key, values in (
        ("hours", HOURS),
        ("deciding_hours", HOURS),
        ("ticket", st.just("[A-Z]+-[0-9]+")),
        ("otherwise", st.just("next")),
        ("max_duration", st.sampled_from(["30m", "1h", "4h"])),
        ("max_total", st.sampled_from(["45m", "2h"])),
    ):
        if draw(st.integers(0, 2)) == 0:
            found[key] = draw(values)
    return found


@dataclass(frozen=True, kw_only=True)
class World:
    """A policy, the members of its groups, and the current usage."""

    policy: dict[str, Any]
    facts: Facts

    @property
    def config(self) -> Config:
        shop = database("readonly", "migrate", labels={"env": "prod"})
        shop["levels"]["migrate"]["max_duration"] = "1h"
        return config_of({"shop": shop, "lab": database("readonly", labels={"env": "test"})}, self.policy)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    listed = [draw(rules(number)) for number in range(draw(st.integers(1, 4)))]
    members = {name: frozenset(draw(some(PEOPLE, 0))) for name in GROUPS if draw(st.integers(0, 2))}
    members |= {name: frozenset({"U01ANN"}) for name in ADDRESSES if draw(st.booleans())}
    usage = UsageCounts(
        live_of_person=draw(st.sampled_from([0, 0, 2])),
        waiting_of_person=draw(st.sampled_from([0, 0, 1])),
        automatic={"rule 0": draw(st.integers(0, 2))},
        unreviewed=draw(st.sampled_from([None, None, 7])),
    )
    limits = draw(st.sampled_from([{}, {"live_per_person": 2}, {"waiting_per_person": 1}]))
    return World(policy={"rules": listed, "limits": limits}, facts=Facts(members=members, usage=usage))


ASKS = st.builds(
    PolicyQuestion,
    person_id=st.sampled_from(PEOPLE),
    database=st.sampled_from(["shop", "shop", "lab", "nosuch"]),
    level=st.sampled_from(["readonly", "migrate"]),
    duration=st.none() | st.sampled_from([60, 1800, 3600, 7200, 14400]).map(lambda s: timedelta(seconds=s)),
    reason=st.sampled_from(["looking at a refund", "PAY-311 a refund"]),
    kind=st.sampled_from([RequestKind.ACCESS, RequestKind.ACCESS, RequestKind.BREAK_GLASS]),
    at=st.none() | MOMENTS,
)


# The oracle: the contract's sentences, sharing no code with the evaluation.


def means(world: World, listed: list[str], person: str) -> bool | None:
    """Return whether the names include the person; None where unknown members decide it."""
    known = [
        person in world.facts.members[n] if n in world.facts.members else None
        for n in listed
        if n[0] in "S@" or "@" in n
    ]
    if person in listed or "anyone" in listed or True in known:
        return True
    return None if None in known else False


def covers(hours: dict[str, Any], at: datetime) -> bool:
    names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
    days: set[int] = set()
    for part in hours["days"] if isinstance(hours["days"], list) else [hours["days"]]:
        first, _, last = part.partition("-")
        number = names.index(first)
        days.add(number)
        while names[number] != (last or first):
            number = (number + 1) % 7
            days.add(number)
    local = at.astimezone(ZoneInfo(hours["tz"]))
    now = f"{local:%H:%M}"
    if hours["from"] < hours["to"]:
        return local.weekday() in days and hours["from"] <= now < hours["to"]
    begun_today, begun_yesterday = local.weekday() in days, (local.weekday() - 1) % 7 in days
    return (begun_today and now >= hours["from"]) or (begun_yesterday and now < hours["to"])


def seconds(span: str) -> int:
    return int(span[:-1]) * {"h": 3600, "m": 60}[span[-1]]


def answering(world: World, question: PolicyQuestion) -> tuple[dict[str, Any] | None, str]:
    """The rule that answers, and its answer: allowed, refused or unknown."""
    if question.database not in ("shop", "lab") or (question.database == "lab" and question.level == "migrate"):
        return None, "refused"
    wanted = {"shop": ["*", "shop", {"env": "prod"}], "lab": ["*", {"env": "test"}]}[question.database]
    for found in world.policy["rules"]:
        about = any(name in wanted for name in found["databases"]) and bool(
            {"*", question.level} & set(found["levels"])
        )
        if not about or bool(found.get("break_glass")) != (question.kind is RequestKind.BREAK_GLASS):
            continue
        mine = means(world, found["requesters"], question.person_id)
        if mine is None:
            return found, "unknown"
        if not mine:
            continue
        verdict = by_one(world, found, question)
        if verdict != "next":
            return found, verdict
    return None, "refused"


def by_one(world: World, found: dict[str, Any], question: PolicyQuestion) -> str:
    if "refuse" in found:
        return "refused"
    caps = [seconds(found.get("max_duration", "8h")), seconds(found.get("max_total", "24h"))]
    caps += [3600] if question.level == "migrate" else []
    out = question.at is not None and "hours" in found and not covers(found["hours"], question.at)
    long = question.duration is not None and question.duration.total_seconds() > min(caps)
    no_ticket = "ticket" in found and "PAY-311" not in str(question.reason)
    if out or long or no_ticket:
        return "next" if found.get("otherwise") else "refused"
    usage, limits = world.facts.usage or UsageCounts(), world.policy["limits"]
    if question.kind is RequestKind.BREAK_GLASS:
        return "refused" if usage.unreviewed else "allowed"
    over = [
        usage.live_of_person >= limits.get("live_per_person", 99),
        usage.waiting_of_person >= limits.get("waiting_per_person", 99),
        usage.automatic.get(found["name"], 0) >= found.get("automatic", {}).get("per_person_per_day", 99),
    ]
    return "refused" if any(over) else completable(world, found, question)


def completable(world: World, found: dict[str, Any], question: PolicyQuestion) -> str:
    """Try every order of people."""
    also = found.get("escalate", {}).get("to", [])
    slots = [
        {p for p in PEOPLE if p != question.person_id and means(world, [*stage["from"], *also], p)}
        for stage in found["approvals"]
        for _ in range(stage["count"])
    ]
    seats = permutations([p for p in PEOPLE if p != question.person_id], len(slots))
    return "allowed" if any(all(p in s for p, s in zip(order, slots, strict=True)) for order in seats) else "refused"


# Properties.


@given(worlds(), ASKS)
@CALM
def test_evaluation_agrees_with_the_oracle(world: World, question: PolicyQuestion) -> None:
    answer = evaluate(world.config, question, world.facts)
    found, verdict = answering(world, question)
    assert isinstance(answer, Allowed) == (verdict == "allowed")
    if isinstance(answer, Allowed):
        assert found is not None
        assert answer.terms.rule == found["name"]
        assert [(list(s.approvers), s.count) for s in answer.terms.stages] == [
            (s["from"], s["count"]) for s in found["approvals"]
        ]


@given(worlds(), ASKS)
@CALM
def test_explanation_matches_the_evaluation(world: World, question: PolicyQuestion) -> None:
    answer = evaluate(world.config, question, world.facts)
    lines = explain_evaluation(answer)
    assert lines[0] == ("Allowed to ask." if isinstance(answer, Allowed) else "Refused.")
    says = [line for line in lines if line.endswith("answers.") and line.startswith("Rule")]
    if isinstance(answer, Allowed):
        assert says == [f"Rule “{answer.terms.rule}” answers."]
    again = evaluate(world.config, replace(question, needs_reason=False), world.facts)
    assert again == answer


@given(worlds(), ASKS)
@CALM
def test_unknown_members_never_allow_more(world: World, question: PolicyQuestion) -> None:
    """The members of each group are unknown, then those of all groups."""
    answer = evaluate(world.config, question, world.facts)
    for silent in [[name] for name in world.facts.members] + [list(world.facts.members)]:
        members = {name: people for name, people in world.facts.members.items() if name not in silent}
        less = evaluate(world.config, question, replace(world.facts, members=members))
        if isinstance(less, Allowed):
            assert isinstance(answer, Allowed)
            assert less.terms == answer.terms


def waiting(world: World, question: PolicyQuestion) -> Request | None:
    answer: Evaluation = evaluate(world.config, question, world.facts)
    if not isinstance(answer, Allowed):
        return None
    made = waiting_request(answer.terms, person_id=question.person_id, database=str(question.database))
    return replace(made, kind=question.kind, reason=str(question.reason), requested_at=question.at or made.requested_at)


def timeless(world: World) -> World:
    """The same world without hours."""
    hours = ("hours", "deciding_hours")
    listed = [{k: v for k, v in found.items() if k not in hours} for found in world.policy["rules"]]
    return replace(world, policy={**world.policy, "rules": listed})


def clicked(world: World, request: Request, clicks: list[str], at: datetime) -> tuple[Decision, ...]:
    made: tuple[Decision, ...] = ()
    for person in clicks:
        answer = may_decide(world.config, request, made, person, world.facts, at=at)
        if isinstance(answer, MayDecide):
            made += (decision(person, stage=answer.stage),)
    return made


@st.composite
def tangled(draw: st.DrawFn) -> World:
    """A rule whose stages name the same few people."""
    stages = st.fixed_dictionaries({"from": some(PEOPLE[1:], 1, 3), "count": st.sampled_from([1, 1, 1, 2])})
    approvals = draw(st.lists(stages, min_size=2, max_size=3))
    found = {"name": "tangled", "channel": "C01CARDS", "requesters": ["anyone"], "databases": ["*"], "levels": ["*"]}
    return World(policy={"rules": [{**found, "approvals": approvals}], "limits": {}}, facts=Facts())


@given(tangled(), st.lists(st.sampled_from(PEOPLE[1:]), max_size=4), st.permutations(PEOPLE[1:]))
@CALM
def test_early_approval_never_blocks_a_later_stage(world: World, clicks: list[str], rest: list[str]) -> None:
    question = PolicyQuestion(person_id=PEOPLE[0], database="shop", level="readonly", reason="PAY-311 a refund")
    request = waiting(world, question)
    assert (request is not None) == (completable(world, world.policy["rules"][0], question) == "allowed")
    if request is not None:
        made = clicked(world, request, [*clicks, *rest * len(PEOPLE)], TWO_YEARS_LATER)
        assert open_stage(request, made) is None


TWO_YEARS_LATER = datetime(2029, 6, 5, 12, 0, tzinfo=UTC)


@given(worlds(), ASKS, st.lists(st.sampled_from([*PEOPLE, "U99STRANGER"]), max_size=12))
@CALM
def test_stages_complete_in_order_by_distinct_approvers(
    world: World, question: PolicyQuestion, clicks: list[str]
) -> None:
    world = timeless(world)
    request = waiting(world, replace(question, at=None))
    if request is None:
        return
    made = clicked(world, request, clicks, TWO_YEARS_LATER)
    people = [d.person_id for d in made]
    assert len(people) == len(set(people))
    assert question.person_id not in people
    assert [d.stage for d in made] == sorted(d.stage for d in made)
    also = list(request.terms.escalation.to) if request.terms.escalation else []
    for number, stage in enumerate(request.terms.stages):
        mine = [d.person_id for d in made if d.stage == number]
        assert len(mine) <= stage.count
        assert all(means(world, [*stage.approvers, *also], person) for person in mine)
        assert not mine or all(
            sum(d.stage == n for d in made) == s.count for n, s in enumerate(request.terms.stages[:number])
        )


@given(worlds(), ASKS, st.lists(st.sampled_from(PEOPLE), max_size=8), st.permutations(PEOPLE))
@CALM
def test_every_order_of_approvals_can_be_completed(
    world: World, question: PolicyQuestion, clicks: list[str], rest: list[str]
) -> None:
    """After any approvals the other people can still complete the request. Worlds with unknown members are left out."""
    world = timeless(world)
    request = waiting(world, replace(question, at=None))
    if request is None or world.facts.unknown([*GROUPS, *ADDRESSES]):
        return
    made = clicked(world, request, [*clicks, *rest * len(PEOPLE)], TWO_YEARS_LATER)
    assert open_stage(request, made) is None


@given(worlds(), ASKS, st.sampled_from(PEOPLE), st.data())
@CALM
def test_one_more_approver_never_prevents_an_approval(
    world: World, question: PolicyQuestion, person: str, data: st.DataObject
) -> None:
    """A request that could be approved still can be, after one more approver is added to a stage."""
    if waiting(world, question) is None:
        return
    number = data.draw(st.integers(0, len(world.policy["rules"]) - 1))
    found = world.policy["rules"][number]
    if not found.get("approvals"):
        return
    where = data.draw(st.integers(0, len(found["approvals"]) - 1))
    stages = [
        {**stage, "from": list(dict.fromkeys([*stage["from"], person]))} if n == where else stage
        for n, stage in enumerate(found["approvals"])
    ]
    wider = [*world.policy["rules"]]
    wider[number] = {**found, "approvals": stages}
    assert waiting(replace(world, policy={**world.policy, "rules": wider}), question) is not None


@given(worlds(), st.sampled_from(PEOPLE), st.sampled_from([RequestKind.ACCESS, RequestKind.BREAK_GLASS]))
@CALM
def test_catalog_entries_can_be_requested(world: World, person: str, kind: RequestKind) -> None:
    facts = replace(world.facts, usage=None)
    for entry in catalog_entries(world.config, person, facts, kind):
        question = PolicyQuestion(
            person_id=person,
            database=entry.database,
            level=entry.level,
            kind=kind,
            reason="PAY-311 a refund",
            is_new=False,
        )
        for duration in (entry.max_duration, None):
            answer = evaluate(world.config, replace(question, duration=duration), facts)
            assert isinstance(answer, Allowed) or (isinstance(answer, NotAllowed) and answer.about == "people")
        over = evaluate(world.config, replace(question, duration=entry.max_duration + timedelta(seconds=1)), facts)
        assert not isinstance(over, Allowed)
