"""Random policies, people and clicks on a real ledger: the use cases do what the evaluation says, and a refusal stores nothing."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bot.access import decide, request_access, use_case_types
from bot.access.errors import AccessError
from bot.access.ports import Person
from bot.access.use_case_types import FormNeeded
from bot.policy.evaluation import evaluate
from bot.policy.facts import Facts
from bot.policy.questions import Allowed, PolicyQuestion
from storage.records import Request, RequestKind, State, UsageCounts, Verdict
from tests.access.environment import AccessEnvironment
from tests.soak import rounds
from tests.unit.test_policy_whole import ASKS, PEOPLE, World, tangled, timeless, worlds

CLICKS = st.lists(st.sampled_from([*PEOPLE, "U99STRANGER"]), min_size=3, max_size=12)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, created once and copied."""
    folder = tmp_path_factory.mktemp("template")
    environment = AccessEnvironment(folder=folder, store=f"sqlite+aiosqlite:///{folder}/ledger.db")

    async def made() -> None:
        await environment.open()
        await environment.close()

    asyncio.run(made())
    return folder / "ledger.db"


async def assert_run_matches_evaluation(
    world: World, question: PolicyQuestion, clicks: list[str], folder: Path
) -> None:
    environment = AccessEnvironment(folder=folder, store=f"sqlite+aiosqlite:///{folder}/ledger.db")
    environment.people.known = {
        who: Person(id=who, name=who.lower(), is_member=True) for who in [*PEOPLE, "U99STRANGER"]
    }
    told = world.facts.members
    environment.people.handles = {name: f"S0{name[1:].upper()}" for name in told if name.startswith("@")}
    environment.people.groups = {
        environment.people.handles.get(name, name): set(people) for name, people in told.items()
    }
    environment.policy = {**world.policy, "admins": ["U05EVE"], "audit_channel": "C0AUDIT", "alert_channel": "C0ALERTS"}
    entry = environment.databases["databases"]["shop"]
    shop = {
        **entry,
        "labels": {"env": "prod"},
        "levels": {"readonly": {"roles": ["r"]}, "migrate": {"roles": ["m"], "max_duration": "1h"}},
    }
    environment.databases = {"databases": {"shop": shop, "lab": {**entry, "labels": {"env": "test"}}}}
    environment.write()
    await environment.open()
    try:
        await assert_request_matches_evaluation(environment, world, question, clicks)
    finally:
        await environment.close()


async def assert_request_matches_evaluation(
    environment: AccessEnvironment, world: World, question: PolicyQuestion, clicks: list[str]
) -> None:
    environment.context.files.refresh()
    config = environment.context.files.config
    if config is None:
        return  # the validation refuses this policy
    facts = Facts(members=world.facts.members, usage=UsageCounts())
    expected = evaluate(config, replace(question, at=environment.clock()), facts)
    request_input = use_case_types.RequestInput(
        database=question.database,
        level=question.level,
        duration=question.duration,
        reason=question.reason,
        kind=question.kind,
    )
    try:
        outcome = await request_access.request_access(
            environment.context, await environment.person(question.person_id), request_input
        )
    except (AccessError, FormNeeded):
        assert not isinstance(expected, Allowed)
        assert await environment.ledger.requests.find() == ()
        assert [task for task in await environment.ledger.tasks.all() if task.request_id is not None] == []
        return
    assert isinstance(expected, Allowed)
    assert outcome.request.terms == expected.terms
    await assert_clicks_count_once(environment, outcome.request, clicks)


async def assert_clicks_count_once(environment: AccessEnvironment, request: Request, clicks: list[str]) -> None:
    for who in clicks:
        try:
            await decide.approve(environment.context, await environment.person(who), request)
        except AccessError:
            continue
    await environment.drain()
    after, made = (
        await environment.ledger.requests.get(request.id),
        await environment.ledger.requests.decisions(request.id),
    )
    people = [d.person_id for d in made if d.verdict is Verdict.APPROVE]
    assert len(people) == len(set(people))
    assert request.requester_id not in people
    needed = sum(stage.count for stage in request.terms.stages)
    if request.kind is RequestKind.BREAK_GLASS:
        assert not people
    elif len(people) < needed:
        assert after.state in (State.PENDING, State.OUTDATED)
        assert environment.server.users == {}
    else:
        assert len(people) == needed
        assert after.state is State.ACTIVE
        assert after.duration == request.terms.duration


CALM = settings(
    deadline=None,
    max_examples=rounds(80),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
PLAIN = PolicyQuestion(person_id=PEOPLE[0], database="shop", level="readonly", reason="PAY-311 a refund")
CASES = st.tuples(worlds(), ASKS) | st.tuples(tangled(), st.just(PLAIN)) | st.tuples(tangled(), st.just(PLAIN))


BY_HANDLE = World(
    policy={
        "rules": [
            {
                "name": "rule 0",
                "channel": "C01CARDS",
                "requesters": ["@three"],
                "databases": ["*"],
                "levels": ["*"],
                "approvals": [{"from": ["U02BOB"], "count": 1}],
            }
        ],
        "limits": {},
    },
    facts=Facts(members={"@three": frozenset({PEOPLE[0]})}),
)
"""Requesters named by a handle are drawn in some of the runs only."""


@given(CASES, CLICKS)
@example((BY_HANDLE, PLAIN), ["U02BOB"])
@CALM
def test_ledger_matches_the_evaluation_of_random_policies(
    template: Path, monkeypatch: pytest.MonkeyPatch, case: tuple[World, PolicyQuestion], clicks: list[str]
) -> None:
    world, question = case
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://admin:not-a-secret@db.test/shop")
    with TemporaryDirectory() as name:
        shutil.copy(template, Path(name) / "ledger.db")
        asyncio.run(assert_run_matches_evaluation(timeless(world), replace(question, at=None), clicks, Path(name)))
