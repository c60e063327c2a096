"""Policy features in Slack: stages, escalation, extensions, break-glass, tickets, revealed passwords."""

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
async def with_groups(slack_environment: SlackEnvironment) -> SlackEnvironment:
    slack_environment.slack.workspace.add_group("S0LEADS", "leads", LEAD)
    slack_environment.slack.workspace.add_group("S0DBA", "dba", SECOND)
    slack_environment.slack.workspace.add_group("S0ONCALL", "oncall", STRANGER)
    return slack_environment


def change_rule(slack_environment: SlackEnvironment, **keys: Any) -> None:
    slack_environment.environment.policy["rules"][0].update(keys)
    slack_environment.environment.write()


def advance_clock(slack_environment: SlackEnvironment, **by: float) -> None:
    slack_environment.environment.clock.at += timedelta(**by)
    slack_environment.environment.runner.wake()


async def expect_alert(slack_environment: SlackEnvironment, text: str) -> None:
    await slack_environment.slack.wait(
        f"an alert has {text!r}", lambda: text in str(slack_environment.slack.messages(ALERTS))
    )


async def test_two_stages_with_escalation_grant_access(with_groups: SlackEnvironment) -> None:
    change_rule(
        with_groups,
        approvals=[{"from": ["S0LEADS"]}, {"from": ["S0DBA"]}],
        escalate={"after": "1h", "to": ["S0ONCALL"]},
        remind_after="30m",
    )
    card = await with_groups.make_request()
    assert "· <!subteam^S0LEADS> — waiting for 1" in str(card)
    await with_groups.slack.click(SECOND, card, "Approve")
    await with_groups.expect_reply(SECOND, "stage 1 of 2")
    await with_groups.slack.click(LEAD, card, "Approve")
    await with_groups.expect_card(card["ts"], "✓ <!subteam^S0LEADS> — <@U0LEAD>")
    await with_groups.slack.click(STRANGER, card, "Approve")
    await with_groups.expect_reply(STRANGER, "stage 2 of 2")
    advance_clock(with_groups, minutes=30)
    await with_groups.slack.wait("a reminder", lambda: "still waits" in str(with_groups.slack.messages(CARDS)))
    advance_clock(with_groups, minutes=31)
    await with_groups.expect_card(card["ts"], "Can decide: <!subteam^S0DBA>, <!subteam^S0ONCALL>")
    await with_groups.slack.wait(
        "the escalation is announced",
        lambda: "may be decided by more people now" in str(with_groups.slack.messages(CARDS)),
    )
    reminders = [m for m in with_groups.slack.messages(CARDS) if m["ts"] != card["ts"]]
    assert {m.get("thread_ts") for m in reminders} == {card["ts"]}
    await with_groups.slack.click(STRANGER, card, "Approve")
    await with_groups.expect_dm(ADA, "is ready")


async def test_approved_extension_moves_the_end(with_groups: SlackEnvironment) -> None:
    card = await with_groups.make_request()
    await with_groups.slack.click(LEAD, card, "Approve")
    message = await with_groups.expect_dm(ADA, "is ready")
    await with_groups.expect_card(card["ts"], "until")
    grant = await with_groups.request()
    await with_groups.slack.click(ADA, message, "Extend")
    form = await with_groups.slack.wait("the form", lambda: with_groups.slack.form(ADA))
    assert form["callback_id"] == "extend_form"
    outcome = await with_groups.slack.submit(ADA, form, for_how_long="2h", why="the refund takes longer")
    assert not outcome.errors
    asked = await with_groups.slack.wait("a card", lambda: with_groups.slack.messages(CARDS)[1:])
    assert "More time #2" in str(asked[0])
    await with_groups.slack.click(LEAD, asked[0], "Approve")
    await with_groups.expect_dm(ADA, "has more time. It now ends")
    after = await with_groups.request()
    assert grant.expires_at is not None
    assert after.expires_at == grant.expires_at + timedelta(hours=2)
    await with_groups.expect_card(card["ts"], "until")
    await with_groups.slack.wait(
        "the server", lambda: with_groups.environment.server.users[str(grant.username)].expires_at > grant.expires_at
    )
    await with_groups.slack.command(ADA, "extend 1 30m still not done with it")
    await with_groups.expect_reply(ADA, "Request #3 is waiting")
    await with_groups.slack.command(ADA, "done 1")
    await with_groups.expect_dm(ADA, "the access #1 that it would have extended has ended")


async def test_break_glass_is_granted_and_signed_off(with_groups: SlackEnvironment) -> None:
    with_groups.environment.policy["rules"].append(BREAK_GLASS_RULE)
    with_groups.environment.write()
    await with_groups.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await with_groups.expect_reply(ADA, "Break-glass access is being prepared: #1")
    await with_groups.expect_dm(ADA, "is ready")
    assert "Extend" not in str(with_groups.slack.dm(ADA))
    (card,) = await with_groups.slack.wait("a card", lambda: with_groups.slack.messages(CARDS))
    await with_groups.expect_card(card["ts"], "Break-glass access #1")
    await expect_alert(with_groups, "@ada used break-glass access: #1")
    await with_groups.expect_dm(LEAD, "was given")
    dm = await with_groups.expect_dm(SECOND, "Sign off")
    await with_groups.slack.click(ADA, with_groups.card(card["ts"]), "Sign off")
    await with_groups.expect_reply(ADA, "You cannot sign off your own access")
    await with_groups.slack.click(SECOND, dm, "Sign off")
    await with_groups.expect_reply(SECOND, "#1 is signed off")
    await with_groups.expect_card(card["ts"], "signed off by <@U0SECOND>")


async def test_break_glass_without_sign_off_blocks_the_next_one(with_groups: SlackEnvironment) -> None:
    with_groups.environment.policy["rules"].append(BREAK_GLASS_RULE)
    with_groups.environment.write()
    await with_groups.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    await with_groups.expect_dm(ADA, "is ready")
    advance_clock(with_groups, minutes=31)
    await with_groups.expect_dm(ADA, "Ask again")
    assert (await with_groups.request()).state is State.REVOKED
    await with_groups.slack.command(ADA, "breakglass shop readonly 30m everything is down again")
    await with_groups.expect_reply(ADA, "#1 has not been signed off")
    advance_clock(with_groups, hours=24)
    await expect_alert(with_groups, "Break-glass #1 of @ada on shop is not signed off")
    asked = await with_groups.expect_dm(SECOND, "its time is over")
    assert asked
    await with_groups.slack.command(SECOND, "review 1")
    await with_groups.expect_reply(SECOND, "#1 is signed off")
    await with_groups.slack.command(ADA, "breakglass shop readonly 30m everything is down again")
    await with_groups.expect_reply(ADA, "Break-glass access is being prepared: #2")


async def test_form_requires_a_ticket_if_the_rule_does(with_groups: SlackEnvironment) -> None:
    with_groups.environment.policy["ticket_url"] = "https://tickets.test/{ticket}"
    change_rule(with_groups, ticket="[A-Z]+-[0-9]+")
    await with_groups.slack.command(ADA, "request shop readonly 1h")
    form = await with_groups.slack.wait("the form", lambda: with_groups.slack.form(ADA))
    outcome = await with_groups.slack.submit(ADA, form, why="looking at a refund", ticket="none")
    assert "must name a ticket" in str(outcome.errors)
    outcome = await with_groups.slack.submit(ADA, form, why="looking at a refund", ticket="PAY-311")
    assert not outcome.errors
    (card,) = await with_groups.slack.wait("a card", lambda: with_groups.slack.messages(CARDS))
    assert "<https://tickets.test/PAY-311|PAY-311>" in str(card)
    assert (await with_groups.request()).reason == "looking at a refund PAY-311"


async def test_revealed_password_appears_only_in_the_form(with_groups: SlackEnvironment) -> None:
    change_rule(with_groups, delivery="reveal")
    card = await with_groups.make_request()
    await with_groups.slack.click(LEAD, card, "Approve")
    message = await with_groups.expect_dm(ADA, "Show password")
    assert "*Password*" not in str(message)
    await with_groups.expect_card(card["ts"], "until")
    await with_groups.slack.click(STRANGER, message, "Show password")
    await with_groups.expect_reply(STRANGER, "There is no request #1")
    await with_groups.slack.click(ADA, message, "Show password")
    form = await with_groups.slack.wait(
        "it", lambda: "*Password*" in str(with_groups.slack.form(ADA)) and with_groups.slack.form(ADA)
    )
    shown = re.search(r"\*Password\*\\n`([^`]+)`", str(form))
    assert shown is not None
    assert with_groups.environment.server.login(str((await with_groups.request()).username), shown[1])
    messages = [with_groups.slack.messages(channel) for channel in with_groups.slack.workspace.messages]
    assert shown[1] not in str(messages)
