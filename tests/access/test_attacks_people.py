"""Notification and decisions where the policy names groups and addresses, and where members come and go."""

from __future__ import annotations

import pytest

from bot.access.alerts import raise_alert
from bot.access.errors import Refused
from bot.access.ports import Undeliverable
from bot.monitors import groups
from bot.notifications.notices import AlertNotice
from storage.audit_kinds import AuditKind
from storage.records import State, TaskKind
from tests.access.environment import ADMIN, ALERTS, LEAD, SECOND, STRANGER, AccessEnvironment
from tests.access.steps import BREAK_GLASS_RULE, alerts, put_in_force, recorded, refusal_of, use_break_glass
from tests.open_faults import open_fault, require

LEADS, BOSS = "S0LEADS", "boss@example.com"


# Alerts reach people (R6).


def is_a_place(name: str) -> bool:
    """Slack posts to channels and people only."""
    return name[0] in "CDU"


def only_real_places(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _: None if is_a_place(place) else Undeliverable("channel_not_found")


@pytest.mark.parametrize(("admins", "person"), [("S0ADMINS", ADMIN), ("@admins", ADMIN), (BOSS, LEAD)])
async def test_alert_reaches_admins_named_by_group_or_address(
    environment: AccessEnvironment, admins: str, person: str
) -> None:
    environment.people.groups, environment.people.handles = {"S0ADMINS": {ADMIN}, BOSS: {LEAD}}, {"@admins": "S0ADMINS"}
    environment.policy["admins"] = [admins]
    del environment.policy["alert_channel"]
    environment.policy["rules"].append({**BREAK_GLASS_RULE, "requesters": ["U0ADA"]})
    put_in_force(environment)
    only_real_places(environment)
    request = await use_break_glass(environment)
    require(request.state is State.ACTIVE, "break-glass access is granted")
    assert alerts(environment, person)


async def test_undelivered_alert_stays_due(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, notice: (
        Undeliverable("closed") if place in (ALERTS, ADMIN) and isinstance(notice, AlertNotice) else None
    )
    await raise_alert(environment.context, None, "Something is wrong.", cause="test")
    await environment.drain()
    environment.messenger.refuse = lambda _place, _notice: None
    await environment.turn(hours=1)
    assert "Something is wrong." in alerts(environment) + alerts(environment, ADMIN)
    assert TaskKind.ALERT not in {task.kind for task in await environment.ledger.tasks.all()}


# Members that come and go (R7, R13).


@pytest.fixture
async def led(environment: AccessEnvironment) -> AccessEnvironment:
    """An environment where a group approves, after one check of the groups."""
    environment.people.groups = {LEADS: {LEAD}, BOSS: {LEAD}}
    put_in_force(environment, approvals=[{"from": [LEADS]}])
    await groups.check_groups(environment.context)
    return environment


@open_fault("R7", "groups are compared only when Slack sends an event: nothing is recorded")
async def test_short_group_membership_of_an_approver_is_recorded(led: AccessEnvironment) -> None:
    request = await led.ask()
    led.people.groups[LEADS] = {LEAD, STRANGER}  # Slack's events are late
    await led.approve(request, STRANGER)
    led.people.groups[LEADS] = {LEAD}
    await groups.check_groups(led.context)
    await led.drain()
    assert any(STRANGER in change["added"] for change in await recorded(led, AuditKind.GROUP_CHANGED))
    assert any("stranger" in told for told in alerts(led))


@open_fault("R7", "the audit event of a decision does not say by which group or address the person could decide")
async def test_decision_records_the_membership_it_used(led: AccessEnvironment) -> None:
    await led.approve(await led.ask(), LEAD)
    (facts,) = await recorded(led, AuditKind.APPROVED)
    assert LEADS in str(facts)


@open_fault("R7", "changes of addresses are not recorded")
async def test_address_that_moves_to_another_person_is_recorded_and_alerted(led: AccessEnvironment) -> None:
    put_in_force(led, approvals=[{"from": [BOSS, SECOND]}])
    await led.ask()
    await groups.check_groups(led.context)
    led.people.groups[BOSS] = {STRANGER}
    await groups.check_groups(led.context)
    await led.drain()
    events = [e for e in await led.ledger.audit.events_after(0, limit=1000) if e.request_id is None]
    assert any(BOSS in str(e.facts) and STRANGER in str(e.facts) for e in events)
    assert any(BOSS in told for told in alerts(led))


@pytest.mark.parametrize("person_id", ["cli:root", "clock", "policy", "bot", "directory", ""])
async def test_slack_id_cannot_impersonate_operator_or_bot(environment: AccessEnvironment, person_id: str) -> None:
    assert isinstance(await refusal_of(environment.context.member(person_id)), Refused)
