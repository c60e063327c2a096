"""Who is told and who decides: guests, other organisations, shared channels, addresses and groups that change hands. By the strict double."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.access import alerts, membership_facts
from bot.monitors import groups as group_monitor
from storage.audit_log import AuditKind
from storage.records import State
from tests.access.environment import ALERTS, AUDIT, CARDS
from tests.access.steps import BREAK_GLASS_RULE, load_now, put_in_force
from tests.open_faults import open_fault
from tests.slack.conftest import ADA, ADMIN, GONE, GUEST, LEAD, OUTSIDER, SECOND, STRANGER, SlackEnvironment

LEADS, DBAS, BOSS, NEXT = "S0LEADS", "S0DBAS", "boss@example.com", "U0NEXT"
A_WHILE = 3.0
"""Seconds in which what must not come would have come: it comes within one."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the double may take longer than a person would wait; then no answer would hide what is tested."""
    for module in ("user_groups", "emails"):
        monkeypatch.setattr(f"bot.slack.{module}.WITHIN_SECONDS", 60.0)


async def comes(found: Any, seconds: float = A_WHILE) -> bool:
    """Whether there is something within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not found() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    return bool(found())


async def decided_or_told(slack_environment: SlackEnvironment, person: str, known: int = 0) -> None:
    """Until a click had its consequence."""
    await slack_environment.slack.wait(
        "the click is answered",
        lambda: (
            "is ready" in str(slack_environment.slack.dm(ADA)) or len(slack_environment.slack.answers(person)) > known
        ),
    )


# Only our own people are told, and counted (R5, R12).


@pytest.mark.parametrize("reviewer", [GUEST, OUTSIDER])
@open_fault("R5", "somebody who is not ours is told, and that counts: the grant goes live")
async def test_break_glass_is_not_given_where_only_a_guest_could_be_told(
    slack_environment: SlackEnvironment, reviewer: str
) -> None:
    slack_environment.slack.workspace.add_group(DBAS, "dbas", reviewer)
    slack_environment.environment.policy["admins"] = [GONE]
    slack_environment.environment.policy["rules"].append(
        {**BREAK_GLASS_RULE, "requesters": [ADA], "review": {"from": [DBAS], "within": "24h"}}
    )
    put_in_force(slack_environment.environment)
    await slack_environment.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await slack_environment.slack.wait(
        "it is given or refused",
        lambda: any(words in str(slack_environment.slack.dm(ADA)) for words in ("is ready", "was refused")),
    )
    assert (await slack_environment.request()).state is State.DENIED
    assert slack_environment.environment.server.users == {}
    assert slack_environment.slack.dm(reviewer) == []


@pytest.mark.parametrize("stranger", [GUEST, OUTSIDER])
@open_fault("R12", "a card with reason and buttons is sent to somebody who is not ours")
async def test_a_card_of_their_own_goes_to_members_alone(slack_environment: SlackEnvironment, stranger: str) -> None:
    slack_environment.slack.workspace.channels[CARDS]["members"] = [ADA]
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD, stranger)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    await slack_environment.ask("shop readonly 1h Jane Doe's refunds")
    await slack_environment.expect_dm(LEAD, "Jane Doe")
    assert not await comes(lambda: slack_environment.slack.dm(stranger), 1.0)


async def share(slack_environment: SlackEnvironment, channel: str, *, shared: bool = True) -> None:
    """With another organisation, and Slack says so."""
    slack_environment.slack.workspace.channels[channel]["is_ext_shared"] = shared
    kind = "channel_shared" if shared else "channel_unshared"
    await slack_environment.slack.event(kind, channel=channel, connected_team_id="T0OTHER")


@open_fault("R12", "the card is posted where another organisation reads it")
async def test_no_card_goes_to_a_channel_shared_with_others(slack_environment: SlackEnvironment) -> None:
    await share(slack_environment, CARDS)
    await slack_environment.slack.command(ADA, "request shop readonly 1h Jane Doe's refunds")
    await slack_environment.slack.wait(
        "a card", lambda: slack_environment.slack.messages(CARDS) or slack_environment.slack.dm(LEAD)
    )
    assert slack_environment.slack.messages(CARDS) == []
    assert "Jane Doe" in str(slack_environment.slack.dm(LEAD))
    assert "Jane Doe" in str(slack_environment.slack.dm(SECOND))


@open_fault("R12", "the alert is posted where another organisation reads it")
async def test_no_alert_goes_to_a_channel_shared_with_others(slack_environment: SlackEnvironment) -> None:
    load_now(slack_environment.environment)
    await share(slack_environment, ALERTS)
    await alerts.raise_alert(slack_environment.environment.context, None, "Something is wrong.")
    await slack_environment.slack.wait(
        "an alert", lambda: slack_environment.slack.messages(ALERTS) or slack_environment.slack.dm(ADMIN)
    )
    assert slack_environment.slack.messages(ALERTS) == []
    assert "Something is wrong." in str(slack_environment.slack.dm(ADMIN))


@open_fault("R12", "the audit lines are posted where another organisation reads them")
async def test_audit_lines_wait_while_their_channel_is_shared_with_others(slack_environment: SlackEnvironment) -> None:
    await share(slack_environment, AUDIT)
    await slack_environment.ask("shop readonly 1h Jane Doe's refunds")
    assert not await comes(lambda: slack_environment.slack.messages(AUDIT))
    await share(slack_environment, AUDIT, shared=False)
    slack_environment.environment.clock.at += membership_facts.ALERT_PAUSE  # whatever was kept in mind is old
    slack_environment.environment.runner.wake()
    await slack_environment.slack.wait(
        "the lines come", lambda: "Jane Doe" in str(slack_environment.slack.messages(AUDIT))
    )


# Addresses (R7, R13).


async def addressed(slack_environment: SlackEnvironment, **keys: Any) -> None:
    """LEAD approves by an address; NEXT is there, with another one."""
    slack_environment.slack.workspace.add_person(NEXT, "next")
    slack_environment.slack.workspace.users[LEAD]["profile"]["email"] = BOSS
    put_in_force(slack_environment.environment, approvals=[{"from": [BOSS, SECOND]}], **keys)


async def gets_address(slack_environment: SlackEnvironment, person: str, address: str) -> None:
    profile = {**slack_environment.slack.workspace.users[person]["profile"], "email": address}
    await slack_environment.slack.person_changes(person, profile=profile)


async def changes_hands(slack_environment: SlackEnvironment) -> None:
    await gets_address(slack_environment, LEAD, "old-lead@example.com")
    await gets_address(slack_environment, NEXT, BOSS)


async def test_an_address_means_its_owner_of_today(slack_environment: SlackEnvironment) -> None:
    await addressed(slack_environment)
    card = await slack_environment.ask()
    await changes_hands(slack_environment)
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_told(LEAD, "Only the approvers")
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R13", "an answer that was on its way when the address changed hands brings its former owner back")
async def test_an_answer_from_before_an_address_changed_hands_is_not_believed(
    slack_environment: SlackEnvironment,
) -> None:
    await addressed(slack_environment)
    arrives = slack_environment.slack.late["users.lookupByEmail"] = asyncio.Event()
    looked = asyncio.create_task(slack_environment.environment.context.directory.members([BOSS]))
    await slack_environment.slack.wait(
        "the question is asked", lambda: "users.lookupByEmail" in dict(slack_environment.slack.calls)
    )
    await changes_hands(slack_environment)
    arrives.set()
    await looked
    card = await slack_environment.ask()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await decided_or_told(slack_environment, LEAD)
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R7", "an address changes hands, its new owner approves, and nothing says so")
async def test_an_address_that_changes_hands_is_told(slack_environment: SlackEnvironment) -> None:
    await addressed(slack_environment)
    card = await slack_environment.ask()
    await changes_hands(slack_environment)
    await slack_environment.slack.click(NEXT, card, "Approve")
    await decided_or_told(slack_environment, NEXT)
    events = await slack_environment.environment.ledger.events_after(0, limit=1000)
    assert any(BOSS in str(event.facts) for event in events)
    assert await comes(lambda: BOSS in str(slack_environment.slack.messages(ALERTS)))


@open_fault("R7", "an address that Slack has not confirmed counts")
async def test_an_address_that_is_not_confirmed_means_nobody(slack_environment: SlackEnvironment) -> None:
    await addressed(slack_environment)
    slack_environment.slack.workspace.users[LEAD]["is_email_confirmed"] = False
    card = await slack_environment.ask()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await decided_or_told(slack_environment, LEAD)
    assert (await slack_environment.request()).state is State.PENDING


# Groups (R7).


@open_fault("R7", "both events come when the group is right again: nothing is on record")
async def test_who_was_in_a_group_for_a_moment_and_approved_is_on_record(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    await group_monitor.check_groups(slack_environment.environment.context)
    card = await slack_environment.ask()
    slack_environment.slack.workspace.change_group(LEADS, LEAD, STRANGER)
    slack_environment.environment.context.directory.forget_groups()  # a minute has passed
    await slack_environment.slack.click(STRANGER, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
    slack_environment.slack.workspace.change_group(LEADS, LEAD)
    for added, removed in (([STRANGER], []), ([], [STRANGER])):  # Slack tries again after one minute and after five
        await slack_environment.slack.event(
            "subteam_members_changed", subteam_id=LEADS, added_users=added, removed_users=removed,
            added_users_count=len(added), removed_users_count=len(removed),
        )  # fmt: skip
    await group_monitor.check_groups(slack_environment.environment.context)
    kinds = [event.kind for event in await slack_environment.environment.ledger.events_after(0, limit=1000)]
    assert AuditKind.GROUP_CHANGED in kinds


async def test_a_handle_that_goes_to_another_group_lets_nobody_decide(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0EVIL", "evil", STRANGER)
    put_in_force(slack_environment.environment, approvals=[{"from": ["@leads"]}])
    card = await slack_environment.ask()
    groups = slack_environment.slack.workspace.groups
    groups["S0EVIL"]["handle"], groups[LEADS]["handle"] = "leads", "old"
    await slack_environment.slack.event("subteam_updated", subteam=groups["S0EVIL"])
    for person in (STRANGER, LEAD):
        await slack_environment.slack.click(person, card, "Approve")
        await slack_environment.expect_told(person, "did not say who is in @leads")
    await slack_environment.slack.wait(
        "an alert", lambda: "@leads now means the group S0EVIL" in str(slack_environment.slack.messages(ALERTS))
    )
    assert (await slack_environment.request()).state is State.PENDING


async def test_a_disabled_group_with_the_same_handle_decides_nothing(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0OLD", "leads", STRANGER)
    slack_environment.slack.workspace.groups["S0OLD"]["date_delete"] = 1
    put_in_force(slack_environment.environment, approvals=[{"from": ["@leads", SECOND]}])
    card = await slack_environment.ask()
    await slack_environment.slack.click(STRANGER, card, "Approve")
    await decided_or_told(slack_environment, STRANGER)
    assert (await slack_environment.request()).state is State.PENDING
    await slack_environment.slack.click(SECOND, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")


@pytest.mark.parametrize("failure", [500, "ratelimited", "internal_error", "missing_scope"])
async def test_groups_that_fail_at_the_click_are_no_yes(
    slack_environment: SlackEnvironment, failure: int | str
) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    card = await slack_environment.ask()
    slack_environment.environment.context.directory.forget_groups()
    error: Any = failure if isinstance(failure, int) else {"error": failure}
    slack_environment.slack.failures["usergroups.list"] = [error] * 3
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_told(LEAD, "did not say who is in S0LEADS")
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R7", "the requester approves under the other id")
async def test_nobody_approves_their_own_under_a_second_id(slack_environment: SlackEnvironment) -> None:
    """In an organisation an old id of a workspace and a new one may mean one person: Slack answers both with the same."""
    slack_environment.slack.workspace.users["W0ADA"] = dict(slack_environment.slack.workspace.users[ADA])
    slack_environment.slack.workspace.add_group(LEADS, "leads", "W0ADA", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    card = await slack_environment.ask()
    await slack_environment.slack.click("W0ADA", card, "Approve")
    await decided_or_told(slack_environment, "W0ADA")
    assert (await slack_environment.request()).state is State.PENDING
