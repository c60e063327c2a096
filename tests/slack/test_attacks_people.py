"""Who is told and who decides: guests, other organisations, shared channels, addresses and groups that change hands. By the strict double."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.access import membership
from storage.audit_log import AuditKind
from storage.records import State
from tests.access.house import ALERTS, AUDIT, CARDS
from tests.access.steps import GLASS, load_now, put_in_force
from tests.open_faults import open_fault
from tests.slack.conftest import ADA, ADMIN, GONE, GUEST, LEAD, OUTSIDER, SECOND, STRANGER, Office

LEADS, DBAS, BOSS, NEXT = "S0LEADS", "S0DBAS", "boss@example.com", "U0NEXT"
A_WHILE = 3.0
"""Seconds in which what must not come would have come: it comes within one."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the double may take longer than a person would wait; then no answer would hide what is tested."""
    for module in ("groups", "addresses"):
        monkeypatch.setattr(f"bot.slack.{module}.WITHIN_SECONDS", 60.0)


async def comes(found: Any, seconds: float = A_WHILE) -> bool:
    """Whether there is something within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not found() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    return bool(found())


async def decided_or_told(office: Office, person: str, known: int = 0) -> None:
    """Until a click had its consequence."""
    await office.slack.wait(
        "the click is answered",
        lambda: "is ready" in str(office.slack.dm(ADA)) or len(office.slack.answers(person)) > known,
    )


# Only our own people are told, and counted (R5, R12).


@pytest.mark.parametrize("reviewer", [GUEST, OUTSIDER])
@open_fault("R5", "somebody who is not ours is told, and that counts: the grant goes live")
async def test_break_glass_is_not_given_where_only_a_guest_could_be_told(office: Office, reviewer: str) -> None:
    office.slack.workspace.add_group(DBAS, "dbas", reviewer)
    office.house.policy["admins"] = [GONE]
    office.house.policy["rules"].append({**GLASS, "requesters": [ADA], "review": {"from": [DBAS], "within": "24h"}})
    put_in_force(office.house)
    await office.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await office.slack.wait(
        "it is given or refused",
        lambda: any(words in str(office.slack.dm(ADA)) for words in ("is ready", "was refused")),
    )
    assert (await office.request()).state is State.DENIED
    assert office.house.server.users == {}
    assert office.slack.dm(reviewer) == []


@pytest.mark.parametrize("stranger", [GUEST, OUTSIDER])
@open_fault("R12", "a card with reason and buttons is sent to somebody who is not ours")
async def test_a_card_of_their_own_goes_to_members_alone(office: Office, stranger: str) -> None:
    office.slack.workspace.channels[CARDS]["members"] = [ADA]
    office.slack.workspace.add_group(LEADS, "leads", LEAD, stranger)
    put_in_force(office.house, approvals=[{"from": [LEADS]}])
    await office.ask("shop readonly 1h Jane Doe's refunds")
    await office.expect_dm(LEAD, "Jane Doe")
    assert not await comes(lambda: office.slack.dm(stranger), 1.0)


async def share(office: Office, channel: str, *, shared: bool = True) -> None:
    """With another organisation, and Slack says so."""
    office.slack.workspace.channels[channel]["is_ext_shared"] = shared
    kind = "channel_shared" if shared else "channel_unshared"
    await office.slack.event(kind, channel=channel, connected_team_id="T0OTHER")


@open_fault("R12", "the card is posted where another organisation reads it")
async def test_no_card_goes_to_a_channel_shared_with_others(office: Office) -> None:
    await share(office, CARDS)
    await office.slack.command(ADA, "request shop readonly 1h Jane Doe's refunds")
    await office.slack.wait("a card", lambda: office.slack.messages(CARDS) or office.slack.dm(LEAD))
    assert office.slack.messages(CARDS) == []
    assert "Jane Doe" in str(office.slack.dm(LEAD))
    assert "Jane Doe" in str(office.slack.dm(SECOND))


@open_fault("R12", "the alert is posted where another organisation reads it")
async def test_no_alert_goes_to_a_channel_shared_with_others(office: Office) -> None:
    load_now(office.house)
    await share(office, ALERTS)
    await membership.raise_alert(office.house.context, None, "Something is wrong.")
    await office.slack.wait("an alert", lambda: office.slack.messages(ALERTS) or office.slack.dm(ADMIN))
    assert office.slack.messages(ALERTS) == []
    assert "Something is wrong." in str(office.slack.dm(ADMIN))


@open_fault("R12", "the audit lines are posted where another organisation reads them")
async def test_audit_lines_wait_while_their_channel_is_shared_with_others(office: Office) -> None:
    await share(office, AUDIT)
    await office.ask("shop readonly 1h Jane Doe's refunds")
    assert not await comes(lambda: office.slack.messages(AUDIT))
    await share(office, AUDIT, shared=False)
    office.house.clock.at += membership.ALERT_PAUSE  # whatever was kept in mind is old
    office.house.runner.nudge()
    await office.slack.wait("the lines come", lambda: "Jane Doe" in str(office.slack.messages(AUDIT)))


# Addresses (R7, R13).


async def addressed(office: Office, **keys: Any) -> None:
    """LEAD approves by an address; NEXT is there, with another one."""
    office.slack.workspace.add_person(NEXT, "next")
    office.slack.workspace.users[LEAD]["profile"]["email"] = BOSS
    put_in_force(office.house, approvals=[{"from": [BOSS, SECOND]}], **keys)


async def gets_address(office: Office, person: str, address: str) -> None:
    profile = {**office.slack.workspace.users[person]["profile"], "email": address}
    await office.slack.person_changes(person, profile=profile)


async def changes_hands(office: Office) -> None:
    await gets_address(office, LEAD, "old-lead@example.com")
    await gets_address(office, NEXT, BOSS)


async def test_an_address_means_its_owner_of_today(office: Office) -> None:
    await addressed(office)
    card = await office.ask()
    await changes_hands(office)
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "Only the approvers")
    assert (await office.request()).state is State.PENDING


@open_fault("R13", "an answer that was on its way when the address changed hands brings its former owner back")
async def test_an_answer_from_before_an_address_changed_hands_is_not_believed(office: Office) -> None:
    await addressed(office)
    arrives = office.slack.late["users.lookupByEmail"] = asyncio.Event()
    looked = asyncio.create_task(office.house.context.directory.members([BOSS]))
    await office.slack.wait("the question is asked", lambda: "users.lookupByEmail" in dict(office.slack.calls))
    await changes_hands(office)
    arrives.set()
    await looked
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    await decided_or_told(office, LEAD)
    assert (await office.request()).state is State.PENDING


@open_fault("R7", "an address changes hands, its new owner approves, and nothing says so")
async def test_an_address_that_changes_hands_is_told(office: Office) -> None:
    await addressed(office)
    card = await office.ask()
    await changes_hands(office)
    await office.slack.click(NEXT, card, "Approve")
    await decided_or_told(office, NEXT)
    events = await office.house.ledger.events_after(0, limit=1000)
    assert any(BOSS in str(event.facts) for event in events)
    assert await comes(lambda: BOSS in str(office.slack.messages(ALERTS)))


@open_fault("R7", "an address that Slack has not confirmed counts")
async def test_an_address_that_is_not_confirmed_means_nobody(office: Office) -> None:
    await addressed(office)
    office.slack.workspace.users[LEAD]["is_email_confirmed"] = False
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    await decided_or_told(office, LEAD)
    assert (await office.request()).state is State.PENDING


# Groups (R7).


@open_fault("R7", "both events come when the group is right again: nothing is on record")
async def test_who_was_in_a_group_for_a_moment_and_approved_is_on_record(office: Office) -> None:
    office.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(office.house, approvals=[{"from": [LEADS]}])
    await membership.follow_groups(office.house.context)
    card = await office.ask()
    office.slack.workspace.change_group(LEADS, LEAD, STRANGER)
    office.house.context.directory.forget_groups()  # a minute has passed
    await office.slack.click(STRANGER, card, "Approve")
    await office.expect_dm(ADA, "is ready")
    office.slack.workspace.change_group(LEADS, LEAD)
    for added, removed in (([STRANGER], []), ([], [STRANGER])):  # Slack tries again after one minute and after five
        await office.slack.event(
            "subteam_members_changed", subteam_id=LEADS, added_users=added, removed_users=removed,
            added_users_count=len(added), removed_users_count=len(removed),
        )  # fmt: skip
    await membership.follow_groups(office.house.context)
    kinds = [event.kind for event in await office.house.ledger.events_after(0, limit=1000)]
    assert AuditKind.GROUP_CHANGED in kinds


async def test_a_handle_that_goes_to_another_group_lets_nobody_decide(office: Office) -> None:
    office.slack.workspace.add_group(LEADS, "leads", LEAD)
    office.slack.workspace.add_group("S0EVIL", "evil", STRANGER)
    put_in_force(office.house, approvals=[{"from": ["@leads"]}])
    card = await office.ask()
    groups = office.slack.workspace.groups
    groups["S0EVIL"]["handle"], groups[LEADS]["handle"] = "leads", "old"
    await office.slack.event("subteam_updated", subteam=groups["S0EVIL"])
    for person in (STRANGER, LEAD):
        await office.slack.click(person, card, "Approve")
        await office.expect_told(person, "did not say who is in @leads")
    await office.slack.wait(
        "an alert", lambda: "@leads now means the group S0EVIL" in str(office.slack.messages(ALERTS))
    )
    assert (await office.request()).state is State.PENDING


async def test_a_disabled_group_with_the_same_handle_decides_nothing(office: Office) -> None:
    office.slack.workspace.add_group(LEADS, "leads", LEAD)
    office.slack.workspace.add_group("S0OLD", "leads", STRANGER)
    office.slack.workspace.groups["S0OLD"]["date_delete"] = 1
    put_in_force(office.house, approvals=[{"from": ["@leads", SECOND]}])
    card = await office.ask()
    await office.slack.click(STRANGER, card, "Approve")
    await decided_or_told(office, STRANGER)
    assert (await office.request()).state is State.PENDING
    await office.slack.click(SECOND, card, "Approve")
    await office.expect_dm(ADA, "is ready")


@pytest.mark.parametrize("failure", [500, "ratelimited", "internal_error", "missing_scope"])
async def test_groups_that_fail_at_the_click_are_no_yes(office: Office, failure: int | str) -> None:
    office.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(office.house, approvals=[{"from": [LEADS]}])
    card = await office.ask()
    office.house.context.directory.forget_groups()
    error: Any = failure if isinstance(failure, int) else {"error": failure}
    office.slack.failures["usergroups.list"] = [error] * 3
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "did not say who is in S0LEADS")
    assert (await office.request()).state is State.PENDING


@open_fault("R7", "the requester approves under the other id")
async def test_nobody_approves_their_own_under_a_second_id(office: Office) -> None:
    """In an organisation an old id of a workspace and a new one may mean one person: Slack answers both with the same."""
    office.slack.workspace.users["W0ADA"] = dict(office.slack.workspace.users[ADA])
    office.slack.workspace.add_group(LEADS, "leads", "W0ADA", LEAD)
    put_in_force(office.house, approvals=[{"from": [LEADS]}])
    card = await office.ask()
    await office.slack.click("W0ADA", card, "Approve")
    await decided_or_told(office, "W0ADA")
    assert (await office.request()).state is State.PENDING
