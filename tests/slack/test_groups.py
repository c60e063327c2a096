"""Approver groups that change, fail, are slow or are empty, and members who leave."""

from __future__ import annotations

from typing import Any

import pytest

from bot.monitors import groups
from storage.records import State
from tests.access.environment import ALERTS
from tests.slack.conftest import ADA, LEAD, STRANGER, SlackEnvironment

LEADS = "S0LEADS"


@pytest.fixture
async def group_approvals(slack_environment: SlackEnvironment) -> SlackEnvironment:
    """The rule's approvers are a group."""
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.environment.policy["rules"][0]["approvals"] = [{"from": [LEADS]}]
    slack_environment.environment.write()
    return slack_environment


async def expect_alert(slack_environment: SlackEnvironment, text: str) -> None:
    await slack_environment.slack.wait(
        f"an alert has {text!r}", lambda: text in str(slack_environment.slack.messages(ALERTS))
    )


async def test_member_of_an_approver_group_can_approve(group_approvals: SlackEnvironment) -> None:
    card = await group_approvals.make_request()
    assert "<!subteam^S0LEADS>" in str(card)
    await group_approvals.slack.click(STRANGER, card, "Approve")
    await group_approvals.expect_reply(STRANGER, "Only the approvers")
    await group_approvals.slack.click(LEAD, card, "Approve")
    await group_approvals.expect_dm(ADA, "is ready")


async def test_nobody_can_approve_after_the_group_was_emptied(group_approvals: SlackEnvironment) -> None:
    card = await group_approvals.make_request()
    await groups.check_groups(group_approvals.environment.context)  # records the members for the first time
    await group_approvals.slack.group_changes(LEADS)
    await expect_alert(group_approvals, "which the policy names, was changed in Slack: removed @lead")
    await group_approvals.slack.click(LEAD, card, "Approve")
    await group_approvals.expect_reply(LEAD, "Only the approvers")
    assert (await group_approvals.request()).state is State.PENDING
    await group_approvals.slack.command(ADA, "request shop readonly 2h looking at another refund")
    await group_approvals.expect_reply(ADA, "Nobody could approve this")
    await expect_alert(group_approvals, "A request was refused because of who is in S0LEADS")


@pytest.mark.parametrize("trouble", ["fails", "limited", "slow", "disabled", "gone"])
async def test_failed_group_lookup_grants_nothing(
    group_approvals: SlackEnvironment, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.slack.user_groups.WAIT_SECONDS", 0.2)
    failures: dict[str, list[Any]] = {"fails": [500] * 9, "limited": [{"error": "ratelimited"}] * 9}
    group_approvals.slack.failures["usergroups.list"] = failures.get(trouble, [])
    group_approvals.slack.slow = {"usergroups.list": 1.0} if trouble == "slow" else {}
    if trouble == "disabled":
        group_approvals.slack.workspace.change_group(LEADS, LEAD, disabled=True)
    if trouble == "gone":
        del group_approvals.slack.workspace.groups[LEADS]
    await group_approvals.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await group_approvals.expect_reply(
        ADA, "Nobody could approve this" if trouble == "disabled" else "did not say who is in S0LEADS"
    )
    await expect_alert(group_approvals, "S0LEADS")
    assert await group_approvals.environment.ledger.requests.find() == ()


@pytest.mark.parametrize("change", [{"deleted": True}, {"is_restricted": True}])
async def test_former_member_loses_grants_and_requests(
    group_approvals: SlackEnvironment, change: dict[str, bool]
) -> None:
    card = await group_approvals.make_request()
    await group_approvals.slack.click(LEAD, card, "Approve")
    await group_approvals.expect_dm(ADA, "is ready")
    waiting = await group_approvals.make_request("shop readonly 2h looking at another refund")
    await group_approvals.slack.person_changes(ADA, **change)
    await group_approvals.expect_card(card["ts"], "no longer a member of the workspace")
    await group_approvals.expect_card(card["ts"], " · verified ")
    await group_approvals.expect_card(waiting["ts"], "Out of date")
    assert group_approvals.environment.server.users == {}
