"""What time brings to a request that waits, and who is told without being asked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from bot.access import request_access
from bot.access.errors import Refused
from bot.access.ports import AlertNotice, CardNotice, EndingSoonNotice, GrantedNotice, ReminderNotice
from storage.audit_log import AuditKind
from storage.records import State
from tests.access.house import ADA, ADMIN, ALERTS, CARDS, HOUR, LEAD, SECOND, STRANGER, House

LEADS, DBAS, ONCALL = "S0LEADS", "S0DBAS", "S0ONCALL"


@pytest.fixture
async def house(house: House) -> House:
    house.people.groups = {LEADS: {LEAD}, DBAS: {SECOND, ADA}, ONCALL: {STRANGER}}
    return house


def rule(house: House, **keys: Any) -> None:
    house.policy["rules"][0].update(keys)
    house.write()


async def test_two_stages_in_order_with_different_people(house: House) -> None:
    rule(house, approvals=[{"from": [LEADS, LEAD]}, {"from": [DBAS, LEADS]}])
    request = await house.ask()
    with pytest.raises(Refused, match="stage 1 of 2"):
        await house.approve(request, SECOND)
    assert (await house.approve(request, LEAD)).state is State.PENDING
    with pytest.raises(Refused, match="decided"):
        await house.approve(request, LEAD)
    with pytest.raises(Refused, match="your own"):
        await house.approve(request, ADA)
    assert (await house.approve(request, SECOND)).state is State.APPROVED


async def test_a_group_emptied_between_card_and_click(house: House) -> None:
    rule(house, approvals=[{"from": [LEADS]}])
    request = await house.ask()
    house.people.groups[LEADS] = set()
    with pytest.raises(Refused, match="Only"):
        await house.approve(request)
    house.people.silent_groups = {LEADS}
    with pytest.raises(Refused, match="did not say who is in S0LEADS"):
        await house.approve(request)
    house.people.silent_groups, house.people.groups[LEADS] = set(), {LEAD}
    assert (await house.approve(request)).state is State.APPROVED


@pytest.mark.parametrize("silent", [True, False])
async def test_groups_silent_or_empty_give_nobody_access(house: House, silent: bool) -> None:
    rule(house, approvals=[{"from": [LEADS]}])
    house.people.groups[LEADS] = set()
    house.people.silent_groups = {LEADS} if silent else set()
    with pytest.raises(Refused, match="S0LEADS"):
        await house.ask()
    await house.drain()
    assert not await house.ledger.requests()
    assert "S0LEADS" in house.wall.on(ALERTS, AlertNotice)[-1].what


async def test_a_silent_group_above_never_lets_a_rule_below_answer(house: House) -> None:
    above = {"name": "contractors", "requesters": ["S0OUT"], "databases": ["shop"], "levels": ["*"], "refuse": "No."}
    house.policy["rules"].insert(0, above)
    house.write()
    with pytest.raises(Refused, match="did not say who is in S0OUT"):
        await house.ask()


async def test_reminders_come_less_often_each_time(house: House) -> None:
    rule(house, remind_after="30m", request_ttl="24h")
    request = await house.ask()
    reminded = []
    for _ in range(48):
        await house.turn(minutes=30)
        reminded.append(len(house.wall.on(CARDS, ReminderNotice)))
    assert [n for n in range(1, 49) if reminded[n - 1] > (reminded[n - 2] if n > 1 else 0)] == [1, 3, 7, 15, 31]
    assert (await house.now(request)).state is State.LAPSED


async def test_escalation_widens_who_may_decide(house: House) -> None:
    rule(house, approvals=[{"from": [LEADS]}], escalate={"after": "1h", "to": [ONCALL]})
    house.people.not_in_the_channel = {STRANGER}
    request = await house.ask()
    await house.turn(minutes=59)
    with pytest.raises(Refused):
        await house.approve(request, STRANGER)
    await house.turn(minutes=1)
    assert house.wall.on(STRANGER, CardNotice)
    assert [n.waits_for for n in house.wall.on(CARDS, CardNotice)] == [(LEADS, ONCALL)]
    assert any(n.is_escalation for n in house.wall.on(CARDS, ReminderNotice))
    assert (await house.approve(request, STRANGER)).state is State.APPROVED
    assert AuditKind.ESCALATED in [e.kind for e in await house.ledger.history(request.id)]


async def test_the_requester_is_warned_before_the_end(house: House) -> None:
    request = await house.granted()
    await house.turn(minutes=44)
    assert not house.wall.on(ADA, EndingSoonNotice)
    await house.turn(minutes=1)
    assert [n.request.id for n in house.wall.on(ADA, EndingSoonNotice)] == [request.id]


async def test_approved_by_the_policy_up_to_the_cap_and_told(house: House) -> None:
    rule(house, approvals=[], automatic={"per_person_per_day": 2}, notify=[CARDS, LEADS])
    first = await house.ask()
    assert (await house.now(first)).state is State.ACTIVE
    assert [n.request.id for n in house.wall.on(LEAD, GrantedNotice)] == [first.id]
    assert [n.request.id for n in house.wall.on(CARDS, GrantedNotice)] == [first.id]
    await house.ask(duration=2 * HOUR)
    with pytest.raises(Refused, match="2 times in the last 24 hours"):
        await house.ask()
    await house.turn(hours=25)
    await house.ask()


async def test_an_ask_that_died_before_the_policy_approved_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    rule(house, approvals=[])

    async def dies(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(request_access, "approve_alone", dies)
        with pytest.raises(ConnectionError):
            await house.ask()
    await house.drain()
    assert [r.state for r in await house.ledger.requests()] == [State.ACTIVE]


async def test_limits_count_and_break_glass_does_not(house: House) -> None:
    house.policy["limits"] = {"live_per_person": 1, "waiting_per_person": 2}
    house.write()
    await house.ask(duration=HOUR)
    await house.ask(duration=2 * HOUR)
    with pytest.raises(Refused, match="2 waiting requests, and 2 is the most"):
        await house.ask(duration=3 * HOUR)
    waiting = await house.ledger.waiting_requests()
    await house.approve(waiting[0])
    await house.drain()
    with pytest.raises(Refused, match="1 live grants, and 1 is the most"):
        await house.ask(duration=3 * HOUR)


async def test_hours_are_judged_at_the_ask_and_deciding_hours_at_the_click(house: House) -> None:
    days = {"days": "mon-fri", "from": "08:00", "tz": "Europe/Berlin"}
    rule(house, hours={**days, "to": "10:30"}, deciding_hours={**days, "to": "12:00"})
    request = await house.ask()  # Monday 10:00 in Berlin
    await house.turn(hours=1)
    with pytest.raises(Refused, match="can be asked for mon, tue, wed, thu, fri 08:00-10:30 Europe/Berlin"):
        await house.ask(duration=2 * HOUR)
    await house.turn(hours=1)
    with pytest.raises(Refused, match="is to be decided"):
        await house.approve(request)
    await house.turn(hours=20)
    assert (await house.approve(request)).state is State.APPROVED


async def test_a_ticket_is_found_in_the_reason_and_linked(house: House) -> None:
    house.policy["ticket_url"] = "https://tickets.test/{ticket}"
    rule(house, ticket="[A-Z]+-[0-9]+")
    with pytest.raises(Refused, match="ticket that looks like"):
        await house.ask(reason="looking at a refund")
    request = await house.ask(reason="PAY-311 looking at a refund")
    assert request.ticket == "PAY-311"
    assert house.wall.on(CARDS, CardNotice)[-1].ticket_url == "https://tickets.test/PAY-311"


async def test_the_clock_of_an_escalation_starts_at_the_ask(house: House) -> None:
    rule(house, approvals=[{"from": [LEADS], "count": 1}, {"from": [DBAS]}], escalate={"after": "1h", "to": [ADMIN]})
    request = await house.ask()
    await house.turn(minutes=30)
    await house.approve(request, LEAD)
    await house.turn(minutes=30)
    assert (await house.approve(request, ADMIN)).state is State.APPROVED
    assert request.asked_at + timedelta(hours=1) == await house.ledger.now()


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
async def test_what_is_refused_leaves_nothing_behind(house: House, keys: dict[str, Any]) -> None:
    if keys.get("name") == "spent":
        rule(house, **keys)
        await house.ask()
    house.policy["rules"][0] = {k: v for k, v in {**house.policy["rules"][0], **keys}.items() if v is not None}
    house.people.groups["S0EMPTY"] = set()
    house.write()
    requests = await house.ledger.requests()
    await house.drain()
    before = [t for t in await house.ledger.tasks() if t.request_id is not None]
    with pytest.raises(Refused):
        await house.ask(reason="looking at another refund")
    assert await house.ledger.requests() == requests
    assert [t for t in await house.ledger.tasks() if t.request_id is not None] == before


async def test_a_silent_group_is_said_also_where_the_level_was_left_out(house: House) -> None:
    rule(house, requesters=[LEADS])
    house.people.silent_groups = {LEADS}
    with pytest.raises(Refused, match="did not say who is in S0LEADS"):
        await request_access.request_access(
            house.context, await house.person(ADA), request_access.Typed(database="shop", reason="looking at a refund")
        )


async def test_asks_at_once_never_pass_the_cap(house: House) -> None:
    rule(house, approvals=[], automatic={"per_person_per_day": 2})
    ada = await house.person(ADA)
    typed = [
        request_access.Typed(database="shop", level="readonly", duration=(n + 1) * HOUR, reason="looking at a refund")
        for n in range(6)
    ]
    asked = await asyncio.gather(
        *(request_access.request_access(house.context, ada, one) for one in typed), return_exceptions=True
    )
    assert sum(isinstance(one, Refused) for one in asked) == 4
    await house.drain()
    assert len(await house.ledger.live_grants()) == 2
