"""Pending requests: stages, reminders, escalation, limits, and who is notified."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from bot.access import request_access, use_case_types
from bot.access.errors import Refused
from bot.notifications.notices import AlertNotice, CardNotice, EndingSoonNotice, GrantedNotice, ReminderNotice
from storage.audit_kinds import AuditKind
from storage.records import State
from tests.access.environment import ADA, ADMIN, ALERTS, CARDS, HOUR, LEAD, SECOND, STRANGER, AccessEnvironment

LEADS, DBAS, ONCALL = "S0LEADS", "S0DBAS", "S0ONCALL"


@pytest.fixture
async def environment(environment: AccessEnvironment) -> AccessEnvironment:
    environment.people.groups = {LEADS: {LEAD}, DBAS: {SECOND, ADA}, ONCALL: {STRANGER}}
    return environment


def rule(environment: AccessEnvironment, **keys: Any) -> None:
    environment.policy["rules"][0].update(keys)
    environment.write()


async def test_two_stages_need_different_people_in_order(environment: AccessEnvironment) -> None:
    rule(environment, approvals=[{"from": [LEADS, LEAD]}, {"from": [DBAS, LEADS]}])
    request = await environment.ask()
    with pytest.raises(Refused, match="stage 1 of 2"):
        await environment.approve(request, SECOND)
    assert (await environment.approve(request, LEAD)).state is State.PENDING
    with pytest.raises(Refused, match="decided"):
        await environment.approve(request, LEAD)
    with pytest.raises(Refused, match="your own"):
        await environment.approve(request, ADA)
    assert (await environment.approve(request, SECOND)).state is State.APPROVED


async def test_emptied_group_cannot_approve(environment: AccessEnvironment) -> None:
    rule(environment, approvals=[{"from": [LEADS]}])
    request = await environment.ask()
    environment.people.groups[LEADS] = set()
    with pytest.raises(Refused, match="Only"):
        await environment.approve(request)
    environment.people.silent_groups = {LEADS}
    with pytest.raises(Refused, match="did not say who is in S0LEADS"):
        await environment.approve(request)
    environment.people.silent_groups, environment.people.groups[LEADS] = set(), {LEAD}
    assert (await environment.approve(request)).state is State.APPROVED


@pytest.mark.parametrize("silent", [True, False])
async def test_groups_without_an_answer_or_members_grant_nothing(environment: AccessEnvironment, silent: bool) -> None:
    rule(environment, approvals=[{"from": [LEADS]}])
    environment.people.groups[LEADS] = set()
    environment.people.silent_groups = {LEADS} if silent else set()
    with pytest.raises(Refused, match="S0LEADS"):
        await environment.ask()
    await environment.drain()
    assert not await environment.ledger.requests.find()
    assert "S0LEADS" in environment.messenger.on(ALERTS, AlertNotice)[-1].what


async def test_unanswered_group_of_a_rule_stops_the_rules_below(environment: AccessEnvironment) -> None:
    above = {"name": "contractors", "requesters": ["S0OUT"], "databases": ["shop"], "levels": ["*"], "refuse": "No."}
    environment.policy["rules"].insert(0, above)
    environment.write()
    with pytest.raises(Refused, match="did not say who is in S0OUT"):
        await environment.ask()


async def test_pauses_between_reminders_grow(environment: AccessEnvironment) -> None:
    rule(environment, remind_after="30m", request_ttl="24h")
    request = await environment.ask()
    reminded = []
    for _ in range(48):
        await environment.turn(minutes=30)
        reminded.append(len(environment.messenger.on(CARDS, ReminderNotice)))
    assert [n for n in range(1, 49) if reminded[n - 1] > (reminded[n - 2] if n > 1 else 0)] == [1, 3, 7, 15, 31]
    assert (await environment.now(request)).state is State.LAPSED


async def test_escalation_adds_approvers(environment: AccessEnvironment) -> None:
    rule(environment, approvals=[{"from": [LEADS]}], escalate={"after": "1h", "to": [ONCALL]})
    environment.people.not_in_the_channel = {STRANGER}
    request = await environment.ask()
    await environment.turn(minutes=59)
    with pytest.raises(Refused):
        await environment.approve(request, STRANGER)
    await environment.turn(minutes=1)
    assert environment.messenger.on(STRANGER, CardNotice)
    assert [n.waits_for for n in environment.messenger.on(CARDS, CardNotice)] == [(LEADS, ONCALL)]
    assert any(n.is_escalation for n in environment.messenger.on(CARDS, ReminderNotice))
    assert (await environment.approve(request, STRANGER)).state is State.APPROVED
    assert AuditKind.ESCALATED in [e.kind for e in await environment.ledger.audit.history(request.id)]


async def test_requester_is_warned_before_the_end(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.turn(minutes=44)
    assert not environment.messenger.on(ADA, EndingSoonNotice)
    await environment.turn(minutes=1)
    assert [n.request.id for n in environment.messenger.on(ADA, EndingSoonNotice)] == [request.id]


async def test_policy_approves_up_to_the_limit_and_notifies(environment: AccessEnvironment) -> None:
    rule(environment, approvals=[], automatic={"per_person_per_day": 2}, notify=[CARDS, LEADS])
    first = await environment.ask()
    assert (await environment.now(first)).state is State.ACTIVE
    assert [n.request.id for n in environment.messenger.on(LEAD, GrantedNotice)] == [first.id]
    assert [n.request.id for n in environment.messenger.on(CARDS, GrantedNotice)] == [first.id]
    await environment.ask(duration=2 * HOUR)
    with pytest.raises(Refused, match="2 times in the last 24 hours"):
        await environment.ask()
    await environment.turn(hours=25)
    await environment.ask()


async def test_task_approves_a_request_after_a_crash(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule(environment, approvals=[])

    async def dies(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(request_access, "approve_by_policy", dies)
        with pytest.raises(ConnectionError):
            await environment.ask()
    await environment.drain()
    assert [r.state for r in await environment.ledger.requests.find()] == [State.ACTIVE]


async def test_limits_do_not_count_break_glass(environment: AccessEnvironment) -> None:
    environment.policy["limits"] = {"live_per_person": 1, "waiting_per_person": 2}
    environment.write()
    await environment.ask(duration=HOUR)
    await environment.ask(duration=2 * HOUR)
    with pytest.raises(Refused, match="2 waiting requests, and 2 is the most"):
        await environment.ask(duration=3 * HOUR)
    waiting = await environment.ledger.requests.pending()
    await environment.approve(waiting[0])
    await environment.drain()
    with pytest.raises(Refused, match="1 live grants, and 1 is the most"):
        await environment.ask(duration=3 * HOUR)


async def test_hours_apply_to_request_and_deciding_hours_to_decision(environment: AccessEnvironment) -> None:
    days = {"days": "mon-fri", "from": "08:00", "tz": "Europe/Berlin"}
    rule(environment, hours={**days, "to": "10:30"}, deciding_hours={**days, "to": "12:00"})
    request = await environment.ask()  # Monday 10:00 in Berlin
    await environment.turn(hours=1)
    with pytest.raises(Refused, match="can be asked for mon, tue, wed, thu, fri 08:00-10:30 Europe/Berlin"):
        await environment.ask(duration=2 * HOUR)
    await environment.turn(hours=1)
    with pytest.raises(Refused, match="can be decided"):
        await environment.approve(request)
    await environment.turn(hours=20)
    assert (await environment.approve(request)).state is State.APPROVED


async def test_ticket_in_the_reason_is_linked(environment: AccessEnvironment) -> None:
    environment.policy["ticket_url"] = "https://tickets.test/{ticket}"
    rule(environment, ticket="[A-Z]+-[0-9]+")
    with pytest.raises(Refused, match="ticket that looks like"):
        await environment.ask(reason="looking at a refund")
    request = await environment.ask(reason="PAY-311 looking at a refund")
    assert request.ticket == "PAY-311"
    assert environment.messenger.on(CARDS, CardNotice)[-1].ticket_url == "https://tickets.test/PAY-311"


async def test_escalation_counts_from_the_request(environment: AccessEnvironment) -> None:
    rule(
        environment,
        approvals=[{"from": [LEADS], "count": 1}, {"from": [DBAS]}],
        escalate={"after": "1h", "to": [ADMIN]},
    )
    request = await environment.ask()
    await environment.turn(minutes=30)
    await environment.approve(request, LEAD)
    await environment.turn(minutes=30)
    assert (await environment.approve(request, ADMIN)).state is State.APPROVED
    assert request.requested_at + timedelta(hours=1) == await environment.ledger.now()


@pytest.mark.parametrize(
    "keys",
    [
        {"requesters": [STRANGER]},
        {"requesters": ["S0NOBODYKNOWS"]},
        {"max_duration": "10m"},
        {"ticket": "[A-Z]+-[0-9]+"},
        {"min_reason": 500},
        {"hours": {"days": "sat-sun", "from": "08:00", "to": "19:00", "tz": "UTC"}},
        {"approvals": [{"from": ["S0EMPTY"]}]},
        {"approvals": [{"from": [LEAD]}, {"from": [LEAD]}]},
        {"refuse": "Not here.", "approvals": None},
        {"levels": ["*"], "approvals": [], "automatic": {"per_person_per_day": 1}, "name": "spent"},
    ],
)
async def test_refused_request_stores_nothing(environment: AccessEnvironment, keys: dict[str, Any]) -> None:
    if keys.get("name") == "spent":
        rule(environment, **keys)
        await environment.ask()
    environment.policy["rules"][0] = {
        k: v for k, v in {**environment.policy["rules"][0], **keys}.items() if v is not None
    }
    environment.people.groups["S0EMPTY"] = set()
    environment.write()
    requests = await environment.ledger.requests.find()
    await environment.drain()
    before = [t for t in await environment.ledger.tasks.all() if t.request_id is not None]
    with pytest.raises(Refused):
        await environment.ask(reason="looking at another refund")
    assert await environment.ledger.requests.find() == requests
    assert [t for t in await environment.ledger.tasks.all() if t.request_id is not None] == before


async def test_unanswered_group_is_reported_without_a_level(environment: AccessEnvironment) -> None:
    rule(environment, requesters=[LEADS])
    environment.people.silent_groups = {LEADS}
    with pytest.raises(Refused, match="did not say who is in S0LEADS"):
        await request_access.request_access(
            environment.context,
            await environment.person(ADA),
            use_case_types.RequestInput(database="shop", reason="looking at a refund"),
        )


async def test_concurrent_requests_stay_within_the_limit(environment: AccessEnvironment) -> None:
    rule(environment, approvals=[], automatic={"per_person_per_day": 2})
    ada = await environment.person(ADA)
    wanted = [
        use_case_types.RequestInput(
            database="shop", level="readonly", duration=(n + 1) * HOUR, reason="looking at a refund"
        )
        for n in range(6)
    ]
    asked = await asyncio.gather(
        *(request_access.request_access(environment.context, ada, one) for one in wanted), return_exceptions=True
    )
    assert sum(isinstance(one, Refused) for one in asked) == 4
    await environment.drain()
    assert len(await environment.ledger.requests.live_grants()) == 2
