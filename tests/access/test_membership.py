"""Former members and changed groups: seen by Slack's events, and by periodic checks where an event was lost."""

from __future__ import annotations

import pytest

from bot.access import membership
from bot.access.errors import Refused
from bot.monitors import groups, members
from bot.notifications.notices import AlertNotice, CardNotice
from storage.audit_kinds import AuditKind
from storage.records import Cause, State
from tests.access.environment import ADA, ALERTS, CARDS, LEAD, SECOND, STRANGER, AccessEnvironment

LEADS = "S0LEADS"


@pytest.fixture
async def environment(environment: AccessEnvironment) -> AccessEnvironment:
    environment.people.groups = {LEADS: {LEAD}}
    environment.policy["rules"][0]["approvals"] = [{"from": [LEADS, SECOND]}]
    environment.write()
    environment.context.files.refresh()
    return environment


async def alerts(environment: AccessEnvironment) -> list[str]:
    await environment.drain()
    return [notice.what for notice in environment.messenger.on(ALERTS, AlertNotice)]


async def changes(environment: AccessEnvironment) -> list[dict[str, object]]:
    events = await environment.ledger.audit.events_after(0, limit=1000)
    return [dict(e.facts) for e in events if e.kind == AuditKind.GROUP_CHANGED]


async def test_former_member_loses_grants_and_pending_requests(environment: AccessEnvironment) -> None:
    grant, waiting = await environment.granted(), await environment.ask(reason="another one, later")
    await members.end_access_of_former_member(environment.context, ADA)
    assert (await environment.now(grant)).state is State.ACTIVE
    environment.people.leaves(ADA)
    await members.check_members(environment.context)
    await environment.drain()
    ended, closed = await environment.now(grant), await environment.now(waiting)
    assert (ended.state, ended.ended_because, ended.ended_by) == (State.REVOKED, Cause.LEFT, "directory")
    assert closed.state is State.OUTDATED
    assert closed.ended_note == "the requester is no longer a member of the workspace (deactivated)."
    assert environment.server.users == {}


async def test_failed_lookup_ends_nothing(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    environment.people.leaves(ADA)
    environment.people.is_silent = True
    await members.check_members(environment.context)
    assert (await environment.now(grant)).state is State.ACTIVE


async def test_group_change_is_recorded_once_and_alerted(environment: AccessEnvironment) -> None:
    await groups.check_groups(environment.context)
    assert await changes(environment) == []
    environment.people.groups[LEADS] = {STRANGER}
    for _ in range(2):
        await groups.check_groups(environment.context)
    assert await changes(environment) == [{"group": LEADS, "added": [STRANGER], "removed": [LEAD]}]
    (told,) = await alerts(environment)
    assert "added @stranger (U0STRANGER); removed @lead (U0LEAD)" in told


async def test_group_change_during_downtime_is_found_at_the_next_check(environment: AccessEnvironment) -> None:
    await groups.check_groups(environment.context)
    environment.people.groups[LEADS] = set()
    await environment.restart()
    await groups.check_groups(environment.context)
    assert len(await changes(environment)) == 1


async def test_group_without_an_answer_counts_as_unchanged(environment: AccessEnvironment) -> None:
    await groups.check_groups(environment.context)
    environment.people.silent_groups = {LEADS}
    await groups.check_groups(environment.context)
    environment.people.silent_groups = set()
    await groups.check_groups(environment.context)
    assert await changes(environment) == []


async def test_group_without_an_answer_is_one_alert_until_it_is_answered(environment: AccessEnvironment) -> None:
    environment.people.silent_groups = {LEADS}
    await environment.ask()  # SECOND could still decide
    for _ in range(3):
        await groups.check_groups(environment.context)
        await environment.turn(minutes=61)
    (told,) = await alerts(environment)
    assert "Slack does not say who is in S0LEADS" in told
    environment.people.silent_groups = set()
    await groups.check_groups(environment.context)
    assert await environment.ledger.alerts.open() == ()


async def test_reading_a_membership_writes_nothing(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a handle at first sight nor a group without an answer is written down by a use case that only reads."""
    environment.people.handles = {"@leads": LEADS}
    environment.people.silent_groups = {LEADS}
    environment.policy["rules"][0]["approvals"] = [{"from": ["@leads", LEADS, SECOND]}]
    environment.write()
    config = environment.context.config_in_force()
    written: list[object] = []

    async def write(work: object, **_how: object) -> None:
        written.append(work)

    monkeypatch.setattr(environment.ledger.database, "write", write)
    await membership.facts(environment.context, config)
    assert written == []


async def test_handle_of_another_group_is_refused(environment: AccessEnvironment) -> None:
    environment.people.groups["S0OTHER"] = {STRANGER}
    environment.people.handles = {"@leads": LEADS}
    environment.policy["rules"][0]["approvals"] = [{"from": ["@leads"]}]
    environment.write()
    request = await environment.ask()
    await groups.check_groups(environment.context)
    environment.people.handles = {"@leads": "S0OTHER"}
    for person in (STRANGER, LEAD):
        with pytest.raises(Refused, match="did not say who is in @leads"):
            await environment.approve(request, person)
    await groups.check_groups(environment.context)
    assert any("@leads now means the group S0OTHER" in told for told in await alerts(environment))
    environment.people.handles = {"@leads": LEADS}
    assert (await environment.approve(request, LEAD)).state is State.APPROVED


async def test_unresolved_handle_is_refused(environment: AccessEnvironment) -> None:
    environment.people.groups["S0OTHER"] = {STRANGER}
    environment.people.handles = {"@leads": LEADS}
    environment.policy["rules"][0]["approvals"] = [{"from": ["@leads"]}]
    environment.write()
    request = await environment.ask()
    environment.people.handles, environment.people.silent_handles = {"@leads": "S0OTHER"}, {"@leads"}
    with pytest.raises(Refused, match="did not say who is in @leads"):
        await environment.approve(request, STRANGER)


async def test_group_that_the_policy_drops_is_forgotten(environment: AccessEnvironment) -> None:
    environment.people.handles = {"@leads": LEADS}
    environment.policy["rules"][0]["approvals"] = [{"from": ["@leads", SECOND]}]
    environment.write()
    await environment.ask()
    await groups.check_groups(environment.context)
    assert await environment.ledger.observations.pins() == {"@leads": LEADS}
    environment.policy["rules"][0]["approvals"] = [{"from": [SECOND, LEAD]}]
    environment.write()
    environment.context.files.refresh()
    await groups.check_groups(environment.context)
    assert await environment.ledger.observations.pins() == {}
    assert await environment.ledger.observations.groups() == {}


async def test_handles_and_addresses_are_mentioned_by_id(environment: AccessEnvironment) -> None:
    environment.people.handles = {"@leads": LEADS}
    environment.people.groups["lead@example.com"] = {LEAD}
    environment.policy["rules"][0]["approvals"] = [{"from": ["@leads", "lead@example.com", "@gone", SECOND]}]
    environment.write()
    await environment.ask()
    (card,) = environment.messenger.on(CARDS, CardNotice)
    assert card.waits_for == (LEADS, LEAD, "@gone", SECOND)


async def test_hundreds_of_unanswered_addresses_are_one_alert(environment: AccessEnvironment) -> None:
    addresses = [f"a{n}@example.com" for n in range(300)]
    environment.policy["rules"][0]["approvals"] = [{"from": [SECOND, *addresses]}]
    environment.write()
    await environment.ask()
    await groups.check_groups(environment.context)
    (told,) = await alerts(environment)
    assert "a0@example.com and 299 more" in told
