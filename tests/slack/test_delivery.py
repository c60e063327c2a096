"""Slack delivers late, out of order, without an answer, or on a new socket. Nothing is decided twice, and everybody gets an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bot.slack import forms
from storage.records import State, Verdict
from tests.access.environment import CARDS
from tests.fake_slack.server import LOST
from tests.slack.conftest import ADA, ADMIN, GUEST, LEAD, OUTSIDER, SECOND, SlackEnvironment


async def hold_back(slack_environment: SlackEnvironment, *acts: Any) -> list[asyncio.Task[Any]]:
    """Start the acts in this order while Slack delivers nothing."""
    slack_environment.slack.hold()
    running = []
    for count, act in enumerate(acts, start=1):
        running.append(asyncio.create_task(act))
        await slack_environment.slack.wait("it is held", lambda count=count: slack_environment.slack.held == count)
    return running


async def test_clicks_out_of_order_are_decided_once(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(SECOND, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(SECOND))
    clicks = await hold_back(
        slack_environment,
        slack_environment.slack.click(LEAD, card, "Approve"),
        slack_environment.slack.submit(SECOND, form, why="not today please"),
    )
    slack_environment.slack.release(newest_first=True)
    approved, denied = await asyncio.gather(*clicks)
    decisions = await slack_environment.environment.ledger.requests.decisions(1)
    assert len(decisions) == 1
    if decisions[0].verdict is Verdict.DENY:
        assert denied.errors == {}
        await slack_environment.expect_reply(LEAD, "#1 was denied by @second")
        assert slack_environment.environment.server.users == {}
    else:
        assert "was approved by @lead" in str(denied.errors)
        await slack_environment.expect_dm(ADA, "is ready")
    assert approved.was_acked


async def test_ten_concurrent_clicks_make_one_decision(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await asyncio.gather(*(slack_environment.slack.click(who, card, "Approve") for who in (LEAD, SECOND) * 5))
    await slack_environment.expect_dm(ADA, "is ready")
    assert len(await slack_environment.environment.ledger.requests.decisions(1)) == 1
    assert len(slack_environment.environment.server.users) == 1
    assert sum("is ready" in m["text"] for m in slack_environment.slack.dm(ADA)) == 1


async def test_click_delivered_after_the_cancellation_decides_nothing(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    [click] = await hold_back(slack_environment, slack_environment.slack.click(LEAD, card, "Approve"))
    cancel = asyncio.create_task(slack_environment.slack.command(ADA, "cancel 1"))
    await slack_environment.slack.wait("both are held", lambda: slack_environment.slack.held == 2)
    slack_environment.slack.release(newest_first=True)
    await asyncio.gather(click, cancel)
    await slack_environment.slack.wait(
        "both are answered", lambda: slack_environment.slack.answers(LEAD) or slack_environment.slack.dm(ADA)
    )
    if await slack_environment.environment.ledger.requests.decisions(1) == ():
        assert (await slack_environment.request()).state is State.CANCELLED
        await slack_environment.expect_reply(LEAD, "#1 was")
        assert slack_environment.environment.server.users == {}
    else:
        await slack_environment.expect_dm(ADA, "is ready")
        await slack_environment.slack.wait(
            "the requester learns of it", lambda: len(slack_environment.slack.answers(ADA)) > 1
        )


async def test_approver_removed_from_the_policy_cannot_approve(
    slack_environment: SlackEnvironment,
) -> None:
    card = await slack_environment.make_request()
    slack_environment.environment.policy["rules"][0]["approvals"][0]["from"] = [SECOND, ADMIN]
    slack_environment.environment.write()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.slack.wait("an answer", lambda: slack_environment.slack.answers(LEAD))
    assert (await slack_environment.request()).state is State.PENDING
    assert slack_environment.environment.server.users == {}


async def test_card_posted_twice_is_decided_once(slack_environment: SlackEnvironment) -> None:
    del slack_environment.environment.policy["audit_channel"]  # the card is the first message
    slack_environment.environment.write()
    slack_environment.slack.failures["chat.postMessage"].append(LOST)
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await slack_environment.slack.wait("a second card", lambda: len(slack_environment.slack.messages(CARDS)) == 2)
    lost, known = slack_environment.slack.messages(CARDS)
    await slack_environment.slack.click(LEAD, lost, "Approve")
    await slack_environment.expect_card(known["ts"], "Revoke")
    await slack_environment.slack.click(SECOND, lost, "Approve")
    await slack_environment.expect_reply(SECOND, "#1 was approved by @lead")
    assert len(await slack_environment.environment.ledger.requests.decisions(1)) == 1


async def test_lost_answer_to_the_credential_message_leaves_no_password(
    slack_environment: SlackEnvironment,
) -> None:
    card = await slack_environment.make_request()
    slack_environment.slack.failures["chat.update"] += [LOST, LOST]
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.slack.wait("a login", lambda: slack_environment.environment.server.users)
    await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.expect_card(card["ts"], "Revoke")
    passwords = [user.password for user in slack_environment.environment.server.users.values()]
    await slack_environment.slack.command(ADA, "done 1")
    await slack_environment.slack.wait("the user is removed", lambda: not slack_environment.environment.server.users)
    await slack_environment.slack.wait(
        "no password is left", lambda: not any(p in json.dumps(slack_environment.slack.dm(ADA)) for p in passwords)
    )


async def test_refreshed_socket_is_opened_again(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request()
    for _ in range(2):
        await slack_environment.slack.refresh_sockets()
    for _ in range(4):  # a command between two sockets is lost, and Slack shows an error
        if (await slack_environment.slack.command(ADA, "status 1")).was_acked:
            break
    slack_environment.slack.problems[:] = [p for p in slack_environment.slack.problems if "was not acked" not in p]
    await slack_environment.expect_reply(ADA, "Why: looking at a refund")


async def test_people_of_a_connected_organisation_are_refused_under_our_team_id(
    slack_environment: SlackEnvironment,
) -> None:
    card = await slack_environment.make_request()
    slack_environment.slack.workspace.users[OUTSIDER]["is_stranger"] = False
    await slack_environment.slack.click(OUTSIDER, card, "Approve")
    await slack_environment.expect_reply(OUTSIDER, "not of this workspace")
    await slack_environment.slack.click(OUTSIDER, card, "Deny")
    assert slack_environment.slack.form(OUTSIDER) is None


async def test_non_members_cannot_use_any_command(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request()
    for who in (GUEST, OUTSIDER):
        for verb in ("list", "status 1", "databases", "help", "revoke 1"):
            before = len(slack_environment.slack.answers(who))
            await slack_environment.slack.command(who, verb)
            await slack_environment.slack.wait(
                "an answer", lambda who=who, before=before: len(slack_environment.slack.answers(who)) > before
            )
        assert all("Only members of this workspace" in text for text in slack_environment.slack.answers(who))


async def test_late_result_of_a_form_is_sent_as_a_dm(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    submit = forms._ack_arguments

    async def submit_slowly(*arguments: Any) -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return await submit(*arguments)

    monkeypatch.setattr(forms, "_ack_arguments", submit_slowly)
    monkeypatch.setattr(forms, "ACK_SECONDS", 0.01)
    assert (await slack_environment.slack.submit(ADA, form, why="x")).ack == {}
    await slack_environment.expect_dm(ADA, "at least 5 characters")
