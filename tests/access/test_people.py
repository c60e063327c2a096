"""People who leave and groups that change: followed by Slack's events, and by looking again where an event was lost."""

from __future__ import annotations

import pytest

from bot.access import membership
from bot.access.errors import Refused
from bot.access.ports import AlertNotice, CardNotice
from storage.audit_log import AuditKind
from storage.records import Cause, State
from tests.access.house import ADA, ALERTS, CARDS, LEAD, SECOND, STRANGER, House

LEADS = "S0LEADS"


@pytest.fixture
async def house(house: House) -> House:
    house.people.groups = {LEADS: {LEAD}}
    house.policy["rules"][0]["approvals"] = [{"from": [LEADS, SECOND]}]
    house.write()
    house.context.files.refresh()
    return house


async def alerts(house: House) -> list[str]:
    await house.drain()
    return [notice.what for notice in house.wall.on(ALERTS, AlertNotice)]


async def changes(house: House) -> list[dict[str, object]]:
    events = await house.ledger.events_after(0, limit=1000)
    return [dict(e.facts) for e in events if e.kind == AuditKind.GROUP_CHANGED]


async def test_who_left_loses_what_is_live_and_what_waits(house: House) -> None:
    grant, waiting = await house.granted(), await house.ask(reason="another one, later")
    await membership.left(house.context, ADA)
    assert (await house.now(grant)).state is State.ACTIVE
    house.people.leaves(ADA)
    await membership.look_at_people(house.context)
    await house.drain()
    ended, closed = await house.now(grant), await house.now(waiting)
    assert (ended.state, ended.ended_because, ended.ended_by) == (State.REVOKED, Cause.LEFT, "directory")
    assert closed.state is State.OUTDATED
    assert closed.ended_words == "the requester is no longer a member of the workspace (deactivated)."
    assert house.server.users == {}


async def test_no_answer_ends_nothing(house: House) -> None:
    grant = await house.granted()
    house.people.leaves(ADA)
    house.people.is_silent = True
    await membership.look_at_people(house.context)
    assert (await house.now(grant)).state is State.ACTIVE


async def test_a_group_that_changes_is_on_the_record_once_and_alerted(house: House) -> None:
    await membership.follow_groups(house.context)
    assert await changes(house) == []
    house.people.groups[LEADS] = {STRANGER}
    for _ in range(2):
        await membership.follow_groups(house.context)
    assert await changes(house) == [{"group": LEADS, "added": [STRANGER], "removed": [LEAD]}]
    (told,) = await alerts(house)
    assert "added @stranger (U0STRANGER); removed @lead (U0LEAD)" in told


async def test_a_change_while_the_bot_was_down_is_seen_at_the_next_look(house: House) -> None:
    await membership.follow_groups(house.context)
    house.people.groups[LEADS] = set()
    await house.restart()
    await membership.follow_groups(house.context)
    assert len(await changes(house)) == 1


async def test_a_silent_group_did_not_change(house: House) -> None:
    await membership.follow_groups(house.context)
    house.people.silent_groups = {LEADS}
    await membership.follow_groups(house.context)
    house.people.silent_groups = set()
    await membership.follow_groups(house.context)
    assert await changes(house) == []


async def test_a_silent_group_is_alerted_once_an_hour(house: House) -> None:
    house.people.silent_groups = {LEADS}
    for _ in range(3):
        await house.ask()  # SECOND could still decide
    assert len(await alerts(house)) == 1
    await house.turn(minutes=61)
    await house.ask(reason="and once more")
    assert len(await alerts(house)) == 2
    assert "Slack does not say who is in S0LEADS" in (await alerts(house))[0]


async def test_a_handle_that_now_means_another_group_is_refused(house: House) -> None:
    house.people.groups["S0OTHER"] = {STRANGER}
    house.people.handles = {"@leads": LEADS}
    house.policy["rules"][0]["approvals"] = [{"from": ["@leads"]}]
    house.write()
    request = await house.ask()
    house.people.handles = {"@leads": "S0OTHER"}
    for person in (STRANGER, LEAD):
        with pytest.raises(Refused, match="did not say who is in @leads"):
            await house.approve(request, person)
    assert any("@leads now means the group S0OTHER" in told for told in await alerts(house))
    house.people.handles = {"@leads": LEADS}
    assert (await house.approve(request, LEAD)).state is State.APPROVED


async def test_a_handle_that_slack_does_not_resolve_now_is_refused(house: House) -> None:
    house.people.groups["S0OTHER"] = {STRANGER}
    house.people.handles = {"@leads": LEADS}
    house.policy["rules"][0]["approvals"] = [{"from": ["@leads"]}]
    house.write()
    request = await house.ask()
    house.people.handles, house.people.silent_handles = {"@leads": "S0OTHER"}, {"@leads"}
    with pytest.raises(Refused, match="did not say who is in @leads"):
        await house.approve(request, STRANGER)


async def test_what_is_no_longer_named_is_forgotten(house: House) -> None:
    house.people.handles = {"@leads": LEADS}
    house.policy["rules"][0]["approvals"] = [{"from": ["@leads", SECOND]}]
    house.write()
    await house.ask()
    await membership.follow_groups(house.context)
    assert await house.ledger.remembered("pin:@leads") == LEADS
    house.policy["rules"][0]["approvals"] = [{"from": [SECOND, LEAD]}]
    house.write()
    house.context.files.refresh()
    await membership.follow_groups(house.context)
    assert await house.ledger.remembered_names("") == ()


async def test_handles_and_addresses_are_mentioned_by_their_ids(house: House) -> None:
    house.people.handles = {"@leads": LEADS}
    house.people.groups["lead@example.com"] = {LEAD}
    house.policy["rules"][0]["approvals"] = [{"from": ["@leads", "lead@example.com", "@gone", SECOND]}]
    house.write()
    await house.ask()
    (card,) = house.wall.on(CARDS, CardNotice)
    assert card.waits_for == (LEADS, LEAD, "@gone", SECOND)


async def test_hundreds_of_silent_addresses_are_one_alert(house: House) -> None:
    addresses = [f"a{n}@example.com" for n in range(300)]
    house.policy["rules"][0]["approvals"] = [{"from": [SECOND, *addresses]}]
    house.write()
    await house.ask()
    (told,) = await alerts(house)
    assert "a0@example.com and 299 more" in told
