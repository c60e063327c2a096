"""The reply to an unexpected error says only what the ledger shows after the error."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bot.access import decide, password, request_access, revoke
from bot.slack import forms
from storage.errors import LedgerUnavailable
from storage.records import State
from tests.access.environment import ADA, LEAD
from tests.open_faults import require
from tests.slack.conftest import SlackEnvironment

REFERENCE = r"Something went wrong\. Reference [0-9A-F]{4}-[0-9A-F]{4}\."


class UnexpectedError(Exception):
    """An error that no code expects."""


def fail_before(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, error: Exception | None = None) -> None:
    async def failing(*_arguments: Any, **_named: Any) -> None:
        raise error or UnexpectedError

    monkeypatch.setattr(module, name, failing)


def fail_after(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """Let the use case finish, and raise an error then."""
    use_case: Callable[..., Awaitable[Any]] = getattr(module, name)

    async def failing(*arguments: Any, **named: Any) -> None:
        await use_case(*arguments, **named)
        raise UnexpectedError

    monkeypatch.setattr(module, name, failing)


async def make_live_grant(slack_environment: SlackEnvironment) -> None:
    """Make a live grant. Waits for the state in the ledger, because the message comes a moment before."""
    await slack_environment.slack.click(LEAD, await slack_environment.make_request(), "Approve")
    for _ in range(1000):
        if (await slack_environment.request()).state is State.ACTIVE:
            return
        await asyncio.sleep(0.02)
    require(False, "the grant is live")


async def expect_error_reply(slack_environment: SlackEnvironment, user: str, certain: str) -> None:
    """The reply is a reference and the certain changes, and nothing else."""
    reply = await slack_environment.expect_reply(user, "Something went wrong.")
    assert re.fullmatch(f"{REFERENCE}{re.escape(f' {certain}' if certain else '')}", reply), reply


async def test_stored_request_is_reported_as_made(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_after(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_error_reply(slack_environment, ADA, "Your request was made (#1).")
    assert (await slack_environment.request()).state is State.PENDING


async def test_granted_request_is_reported_as_made(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    slack_environment.environment.policy["rules"][0]["approvals"] = []
    slack_environment.environment.write()
    fail_before(monkeypatch, request_access, "approve_by_policy")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_error_reply(slack_environment, ADA, "Your request was made (#1).")
    await slack_environment.expect_dm(ADA, "is ready")


async def test_nothing_was_changed_is_said_if_it_is_true(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_before(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_error_reply(slack_environment, ADA, "Nothing was changed.")
    assert await slack_environment.environment.ledger.requests.find() == ()


async def test_earlier_request_is_not_reported_as_this_one(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.make_request()
    fail_before(monkeypatch, request_access, "request_access")
    await slack_environment.slack.command(ADA, "request shop readonly 2h looking at another refund")
    await expect_error_reply(slack_environment, ADA, "Nothing was changed.")


async def test_failed_ledger_write_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last transaction may or may not be committed, and the ledger may answer again a moment later."""
    fail_before(monkeypatch, request_access, "request_access", LedgerUnavailable("OperationalError"))
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_error_reply(slack_environment, ADA, "")


@pytest.mark.parametrize("question", ["last_event", "events_by"])
async def test_failed_ledger_query_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    fail_after(monkeypatch, request_access, "request_access")
    fail_before(
        monkeypatch, slack_environment.environment.ledger.audit, question, LedgerUnavailable("OperationalError")
    )
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await expect_error_reply(slack_environment, ADA, "")


async def test_recorded_approval_is_reported(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await slack_environment.make_request()
    fail_after(monkeypatch, decide, "approve")
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_error_reply(slack_environment, LEAD, "Your approval of #1 was recorded.")
    await slack_environment.expect_dm(ADA, "is ready")


async def test_unrecorded_approval_is_not_reported(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await slack_environment.make_request()
    fail_before(monkeypatch, decide, "approve")
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_error_reply(slack_environment, LEAD, "Nothing was changed.")
    assert (await slack_environment.request()).state is State.PENDING


@pytest.mark.parametrize(
    ("module", "verb", "certain"),
    [
        (revoke, "done", "#1 is being ended."),
        (revoke, "revoke", "#1 is being ended."),
        (request_access, "cancel", "#1 was withdrawn."),
    ],
)
async def test_ended_request_is_reported_as_ended(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch, module: Any, verb: str, certain: str
) -> None:
    if verb == "cancel":
        await slack_environment.make_request()
    else:
        await make_live_grant(slack_environment)
    fail_after(monkeypatch, module, verb)
    who = LEAD if verb == "revoke" else ADA
    await slack_environment.slack.command(who, f"{verb} 1")
    await expect_error_reply(slack_environment, who, certain)


async def test_request_closed_by_the_policy_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The click closed the request with the policy as actor. For the person who clicked nothing is certain."""
    card = await slack_environment.make_request()
    slack_environment.environment.policy["rules"][0]["approvals"][0]["count"] = 2
    slack_environment.environment.write()

    def failing(*_arguments: Any) -> str:
        raise UnexpectedError

    monkeypatch.setattr(decide, "describe_state", failing)
    await slack_environment.slack.click(LEAD, card, "Approve")
    await expect_error_reply(slack_environment, LEAD, "")
    assert (await slack_environment.request()).state is State.OUTDATED


async def test_shown_password_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has the new password before the ledger records it."""
    slack_environment.environment.policy["defaults"]["delivery"] = "reveal"
    slack_environment.environment.write()
    await make_live_grant(slack_environment)
    message = await slack_environment.expect_dm(ADA, "Show password")
    (user,) = slack_environment.environment.server.users.values()
    before = user.password
    fail_before(monkeypatch, slack_environment.environment.ledger.requests, "advance")
    await slack_environment.slack.click(ADA, message, "Show password")
    await expect_error_reply(slack_environment, ADA, "")
    assert user.password != before


async def test_new_password_task_leaves_nothing_certain(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_live_grant(slack_environment)
    message = await slack_environment.expect_dm(ADA, "is ready")
    fail_after(monkeypatch, password, "renew")
    await slack_environment.slack.click(ADA, message, "New password")
    await expect_error_reply(slack_environment, ADA, "")


async def test_form_error_reports_a_stored_request(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    fail_after(monkeypatch, request_access, "request_access")
    outcome = await slack_environment.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")
    assert re.fullmatch(f"{REFERENCE} Your request was made \\(#1\\)\\.", outcome.errors["why"])


async def test_form_error_says_that_nothing_was_changed(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    fail_before(monkeypatch, decide, "deny")
    outcome = await slack_environment.slack.submit(LEAD, form, why="not today please")
    assert re.fullmatch(f"{REFERENCE} Nothing was changed\\.", outcome.errors["why"])


async def test_late_form_error_is_sent_as_a_dm(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    fail_after(monkeypatch, request_access, "request_access")
    monkeypatch.setattr(forms, "ACK_SECONDS", 0)
    assert (await slack_environment.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")).ack == {}
    await slack_environment.expect_dm(ADA, "Your request was made (#1).")


async def test_request_that_cannot_be_approved_yet_is_reported_as_made(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is stored, and then the lookup of a group that the grant depends on fails."""
    slack_environment.environment.policy["rules"][0]["approvals"] = []
    slack_environment.environment.write()
    silent = "Slack did not say who is in S0LEADS, so access is not given."
    fail_before(monkeypatch, request_access, "approve_by_policy", request_access.Refused(silent, about="people"))
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    reply = await slack_environment.expect_reply(ADA, "Your request was made (#1).")
    assert silent in reply
