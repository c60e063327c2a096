"""Groups and people that change, through the strict double: by Slack's own events, silent, slow, empty."""

from __future__ import annotations

from typing import Any

import pytest

from bot.monitors import groups
from storage.records import State
from tests.access.environment import ALERTS
from tests.slack.conftest import ADA, LEAD, STRANGER, SlackEnvironment

LEADS = "S0LEADS"


@pytest.fixture
async def led(slack_environment: SlackEnvironment) -> SlackEnvironment:
    """Approvals by a group."""
    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.environment.policy["rules"][0]["approvals"] = [{"from": [LEADS]}]
    slack_environment.environment.write()
    return slack_environment


async def alerted(slack_environment: SlackEnvironment, words: str) -> None:
    await slack_environment.slack.wait(
        f"an alert says {words!r}", lambda: words in str(slack_environment.slack.messages(ALERTS))
    )


async def test_a_group_decides(led: SlackEnvironment) -> None:
    card = await led.ask()
    assert "<!subteam^S0LEADS>" in str(card)
    await led.slack.click(STRANGER, card, "Approve")
    await led.expect_told(STRANGER, "Only the approvers")
    await led.slack.click(LEAD, card, "Approve")
    await led.expect_dm(ADA, "is ready")


async def test_a_group_emptied_between_card_and_click(led: SlackEnvironment) -> None:
    card = await led.ask()
    await groups.check_groups(led.environment.context)  # seen for the first time
    await led.slack.group_changes(LEADS)
    await alerted(led, "which the policy names, was changed in Slack: removed @lead")
    await led.slack.click(LEAD, card, "Approve")
    await led.expect_told(LEAD, "Only the approvers")
    assert (await led.request()).state is State.PENDING
    await led.slack.command(ADA, "request shop readonly 2h looking at another refund")
    await led.expect_told(ADA, "Nobody could approve this")
    await alerted(led, "A request was refused because of who is in S0LEADS")


@pytest.mark.parametrize("trouble", ["fails", "limited", "slow", "disabled", "gone"])
async def test_groups_that_do_not_answer_give_nobody_access(
    led: SlackEnvironment, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.slack.user_groups.WITHIN_SECONDS", 0.2)
    failures: dict[str, list[Any]] = {"fails": [500] * 9, "limited": [{"error": "ratelimited"}] * 9}
    led.slack.failures["usergroups.list"] = failures.get(trouble, [])
    led.slack.slow = {"usergroups.list": 1.0} if trouble == "slow" else {}
    if trouble == "disabled":
        led.slack.workspace.change_group(LEADS, LEAD, disabled=True)
    if trouble == "gone":
        del led.slack.workspace.groups[LEADS]
    await led.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await led.expect_told(
        ADA, "Nobody could approve this" if trouble == "disabled" else "did not say who is in S0LEADS"
    )
    await alerted(led, "S0LEADS")
    assert await led.environment.ledger.requests() == ()


@pytest.mark.parametrize("change", [{"deleted": True}, {"is_restricted": True}])
async def test_who_is_deactivated_or_made_a_guest_loses_everything(
    led: SlackEnvironment, change: dict[str, bool]
) -> None:
    card = await led.ask()
    await led.slack.click(LEAD, card, "Approve")
    await led.expect_dm(ADA, "is ready")
    waiting = await led.ask("shop readonly 2h looking at another refund")
    await led.slack.person_changes(ADA, **change)
    await led.expect_card(card["ts"], "no longer a member of the workspace")
    await led.expect_card(card["ts"], "Read back from the server")
    await led.expect_card(waiting["ts"], "Out of date")
    assert led.environment.server.users == {}
