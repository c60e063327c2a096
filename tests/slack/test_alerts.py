"""Alerts in Slack: one message for each trouble, edited while it lasts; and nothing that one person does holds them up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from bot.access import request_access
from bot.access.alerts import raise_alert, resolve_alert
from bot.access.use_case_types import RequestInput
from storage.records import State, TaskKind
from tests.access.environment import ALERTS, CARDS, HOUR
from tests.access.hanging import expect
from tests.access.steps import BREAK_GLASS_RULE
from tests.slack.conftest import ADA, LEAD, SECOND, SlackEnvironment

MANY = 300


def rich_text(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of the rich text block."""
    (block,) = [block for block in message["blocks"] if block["type"] == "rich_text"]
    return list(block["elements"])


def shown(part: dict[str, Any]) -> str:
    """A part as a reader sees it, with ‹› around what Slack draws."""
    elements = part["elements"]
    if part["type"] == "rich_text_list":
        return "\n".join(f"• {shown(one)}" for one in elements)
    drawn = {"text": lambda e: e["text"], "date": lambda _e: "‹date›", "channel": lambda _e: "‹channel›"}
    return "".join(drawn[one["type"]](one) for one in elements)


async def the_alert(slack_environment: SlackEnvironment, text: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        alerts = slack_environment.slack.messages(ALERTS)
        return next((one for one in alerts if text in str([shown(part) for part in rich_text(one)])), None)

    return dict(await slack_environment.slack.wait(f"an alert with {text!r}", found))


async def is_live(slack_environment: SlackEnvironment) -> bool:
    return (await slack_environment.request()).state is State.ACTIVE


async def test_failed_end_is_one_alert_from_its_third_try_until_it_is_over(slack_environment: SlackEnvironment) -> None:
    environment, slack = slack_environment.environment, slack_environment.slack
    card = await slack_environment.make_request()
    await slack.click(LEAD, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
    await expect("it is live", lambda: is_live(slack_environment))
    environment.server.errors["drop"] = KeyError("postgresql://bot:ShopAdminSecret@db")  # its server answers otherwise
    environment.clock.at += HOUR
    environment.runner.wake()
    alert = await the_alert(slack_environment, "#1 is not ended")
    username = (await slack_environment.request()).username
    facts, steps, intro, statements = map(shown, rich_text(alert))
    title, enforced, next_try = facts.splitlines()
    assert title.startswith("🔴 #1 is not ended: shop: its adapter failed: KeyError, reference ")
    assert title.endswith(" since ‹date› (3 tries)")
    assert enforced in (
        "New logins are refused by FakeSQL since ‹date›. Open sessions may still work.",
        "Its login is blocked and its sessions are ended since ‹date›. Its user is still there.",
    )
    assert next_try == "Next try ‹date›."
    assert steps.splitlines()[-1] == "• If the server is no more: dbaccess revoke 1 --gone REASON"
    assert intro == "By hand, as an administrator of the server:"
    assert statements == f"BLOCK USER {username};\nEND SESSIONS OF {username};"
    assert alert["text"].startswith("🔴 #1 is not ended")
    environment.server.errors.clear()
    await slack.wait("it is ended", lambda: str(username) not in environment.server.users)
    over = await the_alert(slack_environment, "✓ Resolved ‹date›: #1 ended, 0 sessions ended, verified.")
    assert over["ts"] == alert["ts"], "the same message"
    assert len(slack.messages(ALERTS)) == 1
    assert len(rich_text(over)) == 1, "nothing is left to do"
    assert "ShopAdminSecret" not in str(slack.calls)
    assert any(method == "chat.update" and sent["channel"] == ALERTS for method, sent in slack.calls)


async def test_break_glass_alert_has_its_reason_and_its_buttons(slack_environment: SlackEnvironment) -> None:
    environment, slack = slack_environment.environment, slack_environment.slack
    environment.policy["rules"].append({**BREAK_GLASS_RULE, "requesters": [ADA]})
    environment.write()
    await slack.command(ADA, "breakglass shop readonly 30m payments are *down* <!channel> INC-77")
    alert = await the_alert(slack_environment, "used break-glass access")
    title, until, reason, card, *_ = shown(rich_text(alert)[0]).splitlines()
    assert title == "🔴 @ada used break-glass access: #1, readonly on shop for 30 min."
    assert until == "Live until ‹date›."
    assert (reason, card) == ("“payments are *down* <!channel> INC-77”", "Its card is in ‹channel›.")
    await slack.click(SECOND, alert, "Sign off")
    await slack_environment.expect_reply(SECOND, "#1 is signed off")
    await slack.click(SECOND, alert, "Revoke")
    await slack.wait("it is ended", lambda: environment.server.users == {})


async def test_alert_that_is_resolved_while_slack_hangs_is_shown_as_resolved(
    slack_environment: SlackEnvironment,
) -> None:
    environment, slack = slack_environment.environment, slack_environment.slack
    load = environment.context.files
    load.refresh()
    slack.failures["chat.postMessage"] += [503, 503]
    await raise_alert(environment.context, None, "The disk is full.", cause="disk")
    await resolve_alert(environment.context, "disk", "There is room.")
    await the_alert(slack_environment, "✓ Resolved ‹date›: There is room.")
    assert len(slack.messages(ALERTS)) == 1


async def test_many_requests_of_one_person_hold_up_neither_alerts_nor_credentials_nor_other_channels(
    slack_environment: SlackEnvironment,
) -> None:
    """The cards wait for their turn in one channel, which takes minutes. What else is sent meanwhile comes at once."""
    environment, slack = slack_environment.environment, slack_environment.slack
    card = await slack_environment.make_request()
    ada = await environment.person(ADA)
    for n in range(MANY):
        lasts = timedelta(minutes=30, seconds=n)
        wanted = RequestInput(database="shop", level="readonly", duration=lasts, reason="looking at a refund")
        await request_access.request_access(environment.context, ada, wanted)
    await raise_alert(environment.context, None, "The disk is full.", cause="disk")
    await slack.click(LEAD, card, "Approve")
    await asyncio.gather(the_alert(slack_environment, "The disk is full"), slack_environment.expect_dm(ADA, "is ready"))
    await expect("it is live", lambda: is_live(slack_environment))
    assert len(slack.messages(CARDS)) < MANY, "the cards still wait for their turns"
    tried = [task.attempts for task in await environment.ledger.tasks.all() if task.kind is TaskKind.POST_CARD]
    assert max(tried) <= 1, "a message that waits for its turn was not tried"
