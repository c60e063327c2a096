"""Notification and authorization of guests, other organisations, shared channels, and addresses and groups that change."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bot.access import alerts
from bot.monitors import groups as group_monitor
from storage.audit_kinds import AuditKind
from storage.records import State
from tests.access.environment import ALERTS, AUDIT, CARDS, HOUR
from tests.access.steps import BREAK_GLASS_RULE, load_now, put_in_force
from tests.open_faults import open_fault
from tests.slack.conftest import ADA, ADMIN, GONE, GUEST, LEAD, OUTSIDER, SECOND, STRANGER, SlackEnvironment

LEADS, DBAS, BOSS, NEXT = "S0LEADS", "S0DBAS", "boss@example.com", "U0NEXT"
ABSENCE_SECONDS = 3.0
"""Seconds after which a message counts as not sent. Messages arrive within one second."""


@pytest.fixture(autouse=True)
def long_lookup_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limit of lookups. On a busy machine a timeout would hide the expected result."""
    for module in ("user_groups", "emails"):
        monkeypatch.setattr(f"bot.slack.{module}.WAIT_SECONDS", 60.0)


async def appears_within(found: Any, seconds: float = ABSENCE_SECONDS) -> bool:
    """Whether ``found`` returns something within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not found() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.02)
    return bool(found())


async def wait_for_click_result(slack_environment: SlackEnvironment, person: str, known: int = 0) -> None:
    """Wait until the click was answered or the access is ready."""
    await slack_environment.slack.wait(
        "the click is answered",
        lambda: (
            "is ready" in str(slack_environment.slack.dm(ADA)) or len(slack_environment.slack.answers(person)) > known
        ),
    )


# Only members are notified and counted (R5, R12).


@pytest.mark.parametrize("reviewer", [GUEST, OUTSIDER])
@open_fault("R5", "a non-member is notified and counts as a reviewer: the grant goes live")
async def test_break_glass_is_denied_if_no_reviewer_is_a_member(
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
        "it is granted or refused",
        lambda: any(text in str(slack_environment.slack.dm(ADA)) for text in ("is ready", "was refused")),
    )
    assert (await slack_environment.request()).state is State.DENIED
    assert slack_environment.environment.server.users == {}
    assert slack_environment.slack.dm(reviewer) == []


@pytest.mark.parametrize("stranger", [GUEST, OUTSIDER])
@open_fault("R12", "a card with reason and buttons is sent to a non-member")
async def test_only_members_get_a_copy_of_the_card(slack_environment: SlackEnvironment, stranger: str) -> None:
    slack_environment.slack.workspace.channels[CARDS]["members"] = [ADA]
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD, stranger)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    await slack_environment.make_request("shop readonly 1h Jane Doe's refunds")
    await slack_environment.expect_dm(LEAD, "Jane Doe")
    assert not await appears_within(lambda: slack_environment.slack.dm(stranger), 1.0)


async def share(slack_environment: SlackEnvironment, channel: str, *, shared: bool = True) -> None:
    """Share a channel with another organisation, and send Slack's event."""
    slack_environment.slack.workspace.channels[channel]["is_ext_shared"] = shared
    kind = "channel_shared" if shared else "channel_unshared"
    await slack_environment.slack.event(kind, channel=channel, connected_team_id="T0OTHER")


@open_fault("R12", "the card is posted in a channel that another organisation reads")
async def test_no_card_is_posted_in_a_shared_channel(slack_environment: SlackEnvironment) -> None:
    await share(slack_environment, CARDS)
    await slack_environment.slack.command(ADA, "request shop readonly 1h Jane Doe's refunds")
    await slack_environment.slack.wait(
        "a card", lambda: slack_environment.slack.messages(CARDS) or slack_environment.slack.dm(LEAD)
    )
    assert slack_environment.slack.messages(CARDS) == []
    assert "Jane Doe" in str(slack_environment.slack.dm(LEAD))
    assert "Jane Doe" in str(slack_environment.slack.dm(SECOND))


@open_fault("R12", "the alert is posted in a channel that another organisation reads")
async def test_no_alert_is_posted_in_a_shared_channel(slack_environment: SlackEnvironment) -> None:
    load_now(slack_environment.environment)
    await share(slack_environment, ALERTS)
    await alerts.raise_alert(slack_environment.environment.context, None, "Something is wrong.", cause="test")
    await slack_environment.slack.wait(
        "an alert", lambda: slack_environment.slack.messages(ALERTS) or slack_environment.slack.dm(ADMIN)
    )
    assert slack_environment.slack.messages(ALERTS) == []
    assert "Something is wrong." in str(slack_environment.slack.dm(ADMIN))


@open_fault("R12", "the audit lines are posted in a channel that another organisation reads")
async def test_audit_lines_wait_while_the_audit_channel_is_shared(slack_environment: SlackEnvironment) -> None:
    await share(slack_environment, AUDIT)
    await slack_environment.make_request("shop readonly 1h Jane Doe's refunds")
    assert not await appears_within(lambda: slack_environment.slack.messages(AUDIT))
    await share(slack_environment, AUDIT, shared=False)
    slack_environment.environment.clock.at += HOUR
    slack_environment.environment.runner.wake()
    await slack_environment.slack.wait(
        "the lines come", lambda: "Jane Doe" in str(slack_environment.slack.messages(AUDIT))
    )


# Addresses (R7, R13).


async def approve_by_address(slack_environment: SlackEnvironment, **keys: Any) -> None:
    """The rule names LEAD by an address. NEXT has another address."""
    slack_environment.slack.workspace.add_person(NEXT, "next")
    slack_environment.slack.workspace.users[LEAD]["profile"]["email"] = BOSS
    put_in_force(slack_environment.environment, approvals=[{"from": [BOSS, SECOND]}], **keys)


async def give_address(slack_environment: SlackEnvironment, person: str, address: str) -> None:
    profile = {**slack_environment.slack.workspace.users[person]["profile"], "email": address}
    await slack_environment.slack.person_changes(person, profile=profile)


async def move_address(slack_environment: SlackEnvironment) -> None:
    await give_address(slack_environment, LEAD, "old-lead@example.com")
    await give_address(slack_environment, NEXT, BOSS)


async def test_former_owner_of_an_address_cannot_approve(slack_environment: SlackEnvironment) -> None:
    await approve_by_address(slack_environment)
    card = await slack_environment.make_request()
    await move_address(slack_environment)
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "Only the approvers")
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R13", "a lookup that began before the address moved restores its former owner")
async def test_lookup_started_before_an_address_moved_is_discarded(
    slack_environment: SlackEnvironment,
) -> None:
    await approve_by_address(slack_environment)
    arrives = slack_environment.slack.late["users.lookupByEmail"] = asyncio.Event()
    lookup = asyncio.create_task(slack_environment.environment.context.directory.members([BOSS]))
    await slack_environment.slack.wait(
        "the lookup has begun", lambda: "users.lookupByEmail" in dict(slack_environment.slack.calls)
    )
    await move_address(slack_environment)
    arrives.set()
    await lookup
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await wait_for_click_result(slack_environment, LEAD)
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R7", "an address moves and its new owner approves without an audit event or an alert")
async def test_moved_address_is_audited_and_alerted(slack_environment: SlackEnvironment) -> None:
    await approve_by_address(slack_environment)
    card = await slack_environment.make_request()
    await move_address(slack_environment)
    await slack_environment.slack.click(NEXT, card, "Approve")
    await wait_for_click_result(slack_environment, NEXT)
    events = await slack_environment.environment.ledger.audit.events_after(0, limit=1000)
    assert any(BOSS in str(event.facts) for event in events)
    assert await appears_within(lambda: BOSS in str(slack_environment.slack.messages(ALERTS)))


@open_fault("R7", "an address that Slack has not confirmed counts")
async def test_unconfirmed_address_has_no_owner(slack_environment: SlackEnvironment) -> None:
    await approve_by_address(slack_environment)
    slack_environment.slack.workspace.users[LEAD]["is_email_confirmed"] = False
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await wait_for_click_result(slack_environment, LEAD)
    assert (await slack_environment.request()).state is State.PENDING


# Groups (R7).


@open_fault("R7", "both events come after the group was restored: nothing is audited")
async def test_approval_by_a_short_time_group_member_is_audited(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    await group_monitor.check_groups(slack_environment.environment.context)
    card = await slack_environment.make_request()
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
    kinds = [event.kind for event in await slack_environment.environment.ledger.audit.events_after(0, limit=1000)]
    assert AuditKind.GROUP_CHANGED in kinds


async def test_nobody_can_decide_after_a_handle_moved_to_another_group(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0EVIL", "evil", STRANGER)
    put_in_force(slack_environment.environment, approvals=[{"from": ["@leads"]}])
    await group_monitor.check_groups(slack_environment.environment.context)  # as at the start of the bot
    card = await slack_environment.make_request()
    groups = slack_environment.slack.workspace.groups
    groups["S0EVIL"]["handle"], groups[LEADS]["handle"] = "leads", "old"
    await slack_environment.slack.event("subteam_updated", subteam=groups["S0EVIL"])
    for person in (STRANGER, LEAD):
        await slack_environment.slack.click(person, card, "Approve")
        await slack_environment.expect_reply(person, "did not say who is in @leads")
    await slack_environment.slack.wait(
        "an alert", lambda: "@leads now means the group S0EVIL" in str(slack_environment.slack.messages(ALERTS))
    )
    assert (await slack_environment.request()).state is State.PENDING


async def test_members_of_a_disabled_group_with_the_same_handle_cannot_decide(
    slack_environment: SlackEnvironment,
) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0OLD", "leads", STRANGER)
    slack_environment.slack.workspace.groups["S0OLD"]["date_delete"] = 1
    put_in_force(slack_environment.environment, approvals=[{"from": ["@leads", SECOND]}])
    card = await slack_environment.make_request()
    await slack_environment.slack.click(STRANGER, card, "Approve")
    await wait_for_click_result(slack_environment, STRANGER)
    assert (await slack_environment.request()).state is State.PENDING
    await slack_environment.slack.click(SECOND, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")


@pytest.mark.parametrize("failure", [500, "ratelimited", "internal_error", "missing_scope"])
async def test_failed_group_lookup_never_approves(slack_environment: SlackEnvironment, failure: int | str) -> None:
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    card = await slack_environment.make_request()
    slack_environment.environment.context.directory.forget_groups()
    error: Any = failure if isinstance(failure, int) else {"error": failure}
    slack_environment.slack.failures["usergroups.list"] = [error] * 3
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "did not say who is in S0LEADS")
    assert (await slack_environment.request()).state is State.PENDING


@open_fault("R7", "the requester approves under the other id")
async def test_requester_cannot_approve_under_a_second_id(slack_environment: SlackEnvironment) -> None:
    """In an organisation an old id of a workspace and a new one may mean one person: Slack answers both with the same."""
    slack_environment.slack.workspace.users["W0ADA"] = dict(slack_environment.slack.workspace.users[ADA])
    slack_environment.slack.workspace.add_group(LEADS, "leads", "W0ADA", LEAD)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    card = await slack_environment.make_request()
    await slack_environment.slack.click("W0ADA", card, "Approve")
    await wait_for_click_result(slack_environment, "W0ADA")
    assert (await slack_environment.request()).state is State.PENDING
