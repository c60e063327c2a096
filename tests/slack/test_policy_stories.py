"""What the policy promises, through the strict double: two stages with escalation, more time, break-glass with review and without."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from storage.records import State
from tests.access.environment import ALERTS, CARDS
from tests.slack.conftest import ADA, LEAD, SECOND, STRANGER, SlackEnvironment

BREAK_GLASS_RULE = {
    "name": "break glass", "break_glass": True, "requesters": [ADA], "databases": ["*"], "levels": ["*"],
    "max_duration": "1h", "approvals": [], "review": {"from": ["S0DBA"], "within": "24h"},
}  # fmt: skip


@pytest.fixture
async def ruled(slack_environment: SlackEnvironment) -> SlackEnvironment:
    slack_environment.slack.workspace.add_group("S0LEADS", "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0DBA", "dba", SECOND)
    slack_environment.slack.workspace.add_group("S0ONCALL", "oncall", STRANGER)
    return slack_environment


def change(slack_environment: SlackEnvironment, **keys: Any) -> None:
    slack_environment.environment.policy["rules"][0].update(keys)
    slack_environment.environment.write()


def turn(slack_environment: SlackEnvironment, **by: float) -> None:
    slack_environment.environment.clock.at += timedelta(**by)
    slack_environment.environment.runner.wake()


async def alerted(slack_environment: SlackEnvironment, words: str) -> None:
    await slack_environment.slack.wait(
        f"an alert says {words!r}", lambda: words in str(slack_environment.slack.messages(ALERTS))
    )


async def test_two_stages_with_escalation(ruled: SlackEnvironment) -> None:
    change(
        ruled,
        approvals=[{"from": ["S0LEADS"]}, {"from": ["S0DBA"]}],
        escalate={"after": "1h", "to": ["S0ONCALL"]},
        remind_after="30m",
    )
    card = await ruled.ask()
    assert "· <!subteam^S0LEADS> — waiting for 1" in str(card)
    await ruled.slack.click(SECOND, card, "Approve")
    await ruled.expect_told(SECOND, "stage 1 of 2")
    await ruled.slack.click(LEAD, card, "Approve")
    await ruled.expect_card(card["ts"], "✓ <!subteam^S0LEADS> — <@U0LEAD>")
    await ruled.slack.click(STRANGER, card, "Approve")
    await ruled.expect_told(STRANGER, "stage 2 of 2")
    turn(ruled, minutes=30)
    await ruled.slack.wait("a reminder", lambda: "still waits" in str(ruled.slack.messages(CARDS)))
    turn(ruled, minutes=31)
    await ruled.expect_card(card["ts"], "Can decide: <!subteam^S0DBA>, <!subteam^S0ONCALL>")
    await ruled.slack.wait("said", lambda: "may be decided by more people now" in str(ruled.slack.messages(CARDS)))
    reminders = [m for m in ruled.slack.messages(CARDS) if m["ts"] != card["ts"]]
    assert {m.get("thread_ts") for m in reminders} == {card["ts"]}
    await ruled.slack.click(STRANGER, card, "Approve")
    await ruled.expect_dm(ADA, "is ready")


async def test_more_time(ruled: SlackEnvironment) -> None:
    card = await ruled.ask()
    await ruled.slack.click(LEAD, card, "Approve")
    message = await ruled.expect_dm(ADA, "is ready")
    await ruled.expect_card(card["ts"], "until")
    grant = await ruled.request()
    await ruled.slack.click(ADA, message, "Extend")
    form = await ruled.slack.wait("the form", lambda: ruled.slack.form(ADA))
    assert form["callback_id"] == "extend_form"
    outcome = await ruled.slack.submit(ADA, form, for_how_long="2h", why="the refund takes longer")
    assert not outcome.errors
    asked = await ruled.slack.wait("a card", lambda: ruled.slack.messages(CARDS)[1:])
    assert "More time #2" in str(asked[0])
    await ruled.slack.click(LEAD, asked[0], "Approve")
    await ruled.expect_dm(ADA, "has more time. It now ends")
    after = await ruled.request()
    assert grant.expires_at is not None
    assert after.expires_at == grant.expires_at + timedelta(hours=2)
    await ruled.expect_card(card["ts"], "until")
    await ruled.slack.wait(
        "the server", lambda: ruled.environment.server.users[str(grant.username)].expires_at > grant.expires_at
    )
    await ruled.slack.command(ADA, "extend 1 30m still not done with it")
    await ruled.expect_told(ADA, "Request #3 is waiting")
    await ruled.slack.command(ADA, "done 1")
    await ruled.expect_dm(ADA, "the access #1 that it would have extended has ended")


async def test_break_glass_with_review(ruled: SlackEnvironment) -> None:
    ruled.environment.policy["rules"].append(BREAK_GLASS_RULE)
    ruled.environment.write()
    await ruled.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await ruled.expect_told(ADA, "Break-glass access is being prepared: #1")
    await ruled.expect_dm(ADA, "is ready")
    assert "Extend" not in str(ruled.slack.dm(ADA))
    (card,) = await ruled.slack.wait("a card", lambda: ruled.slack.messages(CARDS))
    await ruled.expect_card(card["ts"], "Break-glass access #1")
    await alerted(ruled, "@ada used break-glass access: #1")
    await ruled.expect_dm(LEAD, "was given")
    mine = await ruled.expect_dm(SECOND, "Sign off")
    await ruled.slack.click(ADA, ruled.card(card["ts"]), "Sign off")
    await ruled.expect_told(ADA, "You cannot sign off your own access")
    await ruled.slack.click(SECOND, mine, "Sign off")
    await ruled.expect_told(SECOND, "#1 is signed off")
    await ruled.expect_card(card["ts"], "signed off by <@U0SECOND>")


async def test_break_glass_without_review(ruled: SlackEnvironment) -> None:
    ruled.environment.policy["rules"].append(BREAK_GLASS_RULE)
    ruled.environment.write()
    await ruled.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await ruled.expect_dm(ADA, "is ready")
    turn(ruled, minutes=31)
    await ruled.expect_dm(ADA, "Ask again")
    assert (await ruled.request()).state is State.REVOKED
    await ruled.slack.command(ADA, "breakglass shop readonly 30m everything is down again")
    await ruled.expect_told(ADA, "#1 has not been signed off")
    turn(ruled, hours=24)
    await alerted(ruled, "Break-glass #1 of @ada on shop is not signed off")
    asked = await ruled.expect_dm(SECOND, "its time is over")
    assert asked
    await ruled.slack.command(SECOND, "review 1")
    await ruled.expect_told(SECOND, "#1 is signed off")
    await ruled.slack.command(ADA, "breakglass shop readonly 30m everything is down again")
    await ruled.expect_told(ADA, "Break-glass access is being prepared: #2")


async def test_a_ticket_is_asked_for_in_the_form(ruled: SlackEnvironment) -> None:
    ruled.environment.policy["ticket_url"] = "https://tickets.test/{ticket}"
    change(ruled, ticket="[A-Z]+-[0-9]+")
    await ruled.slack.command(ADA, "request shop readonly 1h")
    form = await ruled.slack.wait("the form", lambda: ruled.slack.form(ADA))
    outcome = await ruled.slack.submit(ADA, form, why="looking at a refund", ticket="none")
    assert "must name a ticket" in str(outcome.errors)
    outcome = await ruled.slack.submit(ADA, form, why="looking at a refund", ticket="PAY-311")
    assert not outcome.errors
    (card,) = await ruled.slack.wait("a card", lambda: ruled.slack.messages(CARDS))
    assert "<https://tickets.test/PAY-311|PAY-311>" in str(card)
    assert (await ruled.request()).reason == "looking at a refund PAY-311"


async def test_a_password_that_is_shown_on_demand(ruled: SlackEnvironment) -> None:
    change(ruled, delivery="reveal")
    card = await ruled.ask()
    await ruled.slack.click(LEAD, card, "Approve")
    message = await ruled.expect_dm(ADA, "Show password")
    assert "*Password*" not in str(message)
    await ruled.expect_card(card["ts"], "until")
    await ruled.slack.click(STRANGER, message, "Show password")
    await ruled.expect_told(STRANGER, "There is no request #1")
    await ruled.slack.click(ADA, message, "Show password")
    form = await ruled.slack.wait("it", lambda: "*Password*" in str(ruled.slack.form(ADA)) and ruled.slack.form(ADA))
    shown = re.search(r"\*Password\*\\n`([^`]+)`", str(form))
    assert shown is not None
    assert ruled.environment.server.login(str((await ruled.request()).username), shown[1])
    said = [ruled.slack.messages(channel) for channel in ruled.slack.workspace.messages]
    assert shown[1] not in str(said)
