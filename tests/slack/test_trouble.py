"""An answer to trouble says what is certain, and nothing else: what was asked of the ledger, after the trouble."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bot.access import decide, password, request_access, revoke
from bot.slack import forms
from storage.errors import StoreUnavailable
from storage.records import State
from tests.access.environment import ADA, LEAD
from tests.open_faults import require
from tests.slack.conftest import SlackEnvironment

REFERENCE = r"Something went wrong\. Reference [0-9A-F]{4}-[0-9A-F]{4}\."


class Unforeseen(Exception):
    """Nobody thought of it."""


def fail_before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception | None = None) -> None:
    async def failing(*_about: Any, **_named: Any) -> None:
        raise error or Unforeseen

    monkeypatch.setattr(module, name, failing)


def fail_after(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """The verb does its work, and then something goes wrong."""
    works: Callable[..., Awaitable[Any]] = getattr(module, name)

    async def failing(*about: Any, **named: Any) -> None:
        await works(*about, **named)
        raise Unforeseen

    monkeypatch.setattr(module, name, failing)


async def live(slack_environment: SlackEnvironment) -> None:
    """A grant in the ledger's own words: its message is there a moment before."""
    await slack_environment.slack.click(LEAD, await slack_environment.ask(), "Approve")
    for _ in range(1000):
        if (await slack_environment.request()).state is State.ACTIVE:
            return
        await asyncio.sleep(0.02)
    require(False, "the grant is live")


async def expect_trouble(slack_environment: SlackEnvironment, user: str, certain: str) -> None:
    """The whole answer: a reference and what is certain."""
    said = await slack_environment.expect_told(user, "Something went wrong.")
    assert re.fullmatch(f"{REFERENCE}{re.escape(f' {certain}' if certain else '')}", said), said


async def test_a_request_that_was_stored_is_said_to_be_made(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_after(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_trouble(slack_environment, ADA, "Your request was made (#1).")
    assert (await slack_environment.request()).state is State.PENDING


async def test_a_request_that_was_granted_is_said_to_be_made(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack_environment.environment.policy["rules"][0]["approvals"] = []
    slack_environment.environment.write()
    fail_before(monkeypatch, request_access, "approve_by_policy")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_trouble(slack_environment, ADA, "Your request was made (#1).")
    await slack_environment.expect_dm(ADA, "is ready")


async def test_nothing_was_changed_where_nothing_was(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_before(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_trouble(slack_environment, ADA, "Nothing was changed.")
    assert await slack_environment.environment.ledger.requests() == ()


async def test_an_earlier_request_is_not_this_one(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.ask()
    fail_before(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 2h looking at another refund")
    await expect_trouble(slack_environment, ADA, "Nothing was changed.")


async def test_a_ledger_that_fails_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last transaction may be written or not, and it may answer again a moment later."""
    fail_before(monkeypatch, request_access, "request_access", StoreUnavailable("OperationalError"))
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_trouble(slack_environment, ADA, "")


@pytest.mark.parametrize("question", ["last_event", "changed_by"])
async def test_a_ledger_that_cannot_be_asked_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    fail_after(monkeypatch, request_access, "request_access")
    fail_before(monkeypatch, slack_environment.environment.ledger, question, StoreUnavailable("OperationalError"))
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_trouble(slack_environment, ADA, "")


async def test_a_click_that_counted_is_said_to_count(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await slack_environment.ask()
    fail_after(monkeypatch, decide, "approve")
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_trouble(slack_environment, LEAD, "Your approval of #1 was recorded.")
    await slack_environment.expect_dm(ADA, "is ready")


async def test_a_click_that_did_not_count(slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    card = await slack_environment.ask()
    fail_before(monkeypatch, decide, "approve")
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_trouble(slack_environment, LEAD, "Nothing was changed.")
    assert (await slack_environment.request()).state is State.PENDING


@pytest.mark.parametrize(
    ("module", "verb", "certain"),
    [
        (revoke, "done", "#1 is being ended."),
        (revoke, "revoke", "#1 is being ended."),
        (request_access, "cancel", "#1 was withdrawn."),
    ],
)
async def test_what_was_ended_is_said_to_be_ended(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch, module: Any, verb: str, certain: str
) -> None:
    if verb == "cancel":
        await slack_environment.ask()
    else:
        await live(slack_environment)
    fail_after(monkeypatch, module, verb)
    who = LEAD if verb == "revoke" else ADA
    await slack_environment.slack.command(who, f"{verb} 1")
    await expect_trouble(slack_environment, who, certain)


async def test_a_request_that_the_policy_closed_is_not_nothing(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The click itself closed it, in the policy's name: to the one who clicked nothing is certain."""
    card = await slack_environment.ask()
    slack_environment.environment.policy["rules"][0]["approvals"][0]["count"] = 2
    slack_environment.environment.write()

    def failing(*_about: Any) -> str:
        raise Unforeseen

    monkeypatch.setattr(decide, "describe_state", failing)
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_trouble(slack_environment, LEAD, "")
    assert (await slack_environment.request()).state is State.OUTDATED


async def test_a_password_may_be_new_without_a_record(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has it before the ledger knows."""
    slack_environment.environment.policy["defaults"]["delivery"] = "reveal"
    slack_environment.environment.write()
    await live(slack_environment)
    message = await slack_environment.expect_dm(ADA, "Show password")
    (user,) = slack_environment.environment.server.users.values()
    before = user.password
    fail_before(monkeypatch, slack_environment.environment.ledger, "advance")
    await slack_environment.slack.click(ADA, message, "Show password")
    await expect_trouble(slack_environment, ADA, "")
    assert user.password != before


async def test_a_new_password_is_a_task_without_a_record(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live(slack_environment)
    message = await slack_environment.expect_dm(ADA, "is ready")
    fail_after(monkeypatch, password, "renew")
    await slack_environment.slack.click(ADA, message, "New password")
    await expect_trouble(slack_environment, ADA, "")


async def test_a_form_says_what_is_certain_too(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    fail_after(monkeypatch, request_access, "request_access")
    outcome = await slack_environment.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")
    assert re.fullmatch(f"{REFERENCE} Your request was made \\(#1\\)\\.", outcome.errors["why"])


async def test_a_form_that_did_nothing_says_so(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await slack_environment.ask()
    await slack_environment.slack.click(LEAD, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    fail_before(monkeypatch, decide, "deny")
    outcome = await slack_environment.slack.submit(LEAD, form, why="not today please")
    assert re.fullmatch(f"{REFERENCE} Nothing was changed\\.", outcome.errors["why"])


async def test_a_form_answered_late_says_it_by_message(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    fail_after(monkeypatch, request_access, "request_access")
    monkeypatch.setattr(forms, "ACK_SECONDS", 0)
    assert (await slack_environment.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")).ack == {}
    await slack_environment.expect_dm(ADA, "Your request was made (#1).")


async def test_a_request_that_waits_for_the_policy_does_not_say_that_nothing_was_done(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored, and then Slack is silent about a group on which the grant depends."""
    slack_environment.environment.policy["rules"][0]["approvals"] = []
    slack_environment.environment.write()
    silent = "Slack did not say who is in S0LEADS, and no answer is a no."
    fail_before(monkeypatch, request_access, "approve_by_policy", request_access.Refused(silent, about="people"))
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    said = await slack_environment.expect_told(ADA, "Your request was made (#1).")
    assert silent in said
