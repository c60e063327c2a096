"""Slack's ways that hurt: late, out of order, without an answer, on a new socket. Nothing is decided twice and nobody is left alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bot.slack import views
from storage.records import State, Verdict
from tests.access.house import CARDS
from tests.fake_slack.server import LOST
from tests.slack.conftest import ADA, ADMIN, GUEST, LEAD, OUTSIDER, SECOND, Office


async def held_back(office: Office, *acts: Any) -> list[asyncio.Task[Any]]:
    """What people do while Slack delivers nothing, in this order."""
    office.slack.hold()
    running = []
    for count, act in enumerate(acts, start=1):
        running.append(asyncio.create_task(act))
        await office.slack.wait("it is held", lambda count=count: office.slack.held == count)
    return running


async def test_what_arrives_out_of_order_is_decided_once(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(SECOND, card, "Deny")
    form = await office.slack.wait("the form", lambda: office.slack.form(SECOND))
    clicks = await held_back(
        office, office.slack.click(LEAD, card, "Approve"), office.slack.submit(SECOND, form, why="not today please")
    )
    office.slack.release(newest_first=True)
    approved, denied = await asyncio.gather(*clicks)
    decisions = await office.house.ledger.decisions(1)
    assert len(decisions) == 1
    if decisions[0].verdict is Verdict.DENY:
        assert denied.errors == {}
        await office.expect_told(LEAD, "#1 was denied by @second")
        assert office.house.server.users == {}
    else:
        assert "was approved by @lead" in str(denied.errors)
        await office.expect_dm(ADA, "is ready")
    assert approved.was_acked


async def test_ten_clicks_at_once_are_one_decision(office: Office) -> None:
    card = await office.ask()
    await asyncio.gather(*(office.slack.click(who, card, "Approve") for who in (LEAD, SECOND) * 5))
    await office.expect_dm(ADA, "is ready")
    assert len(await office.house.ledger.decisions(1)) == 1
    assert len(office.house.server.users) == 1
    assert sum("is ready" in m["text"] for m in office.slack.dm(ADA)) == 1


async def test_a_click_delivered_after_the_withdrawal_decides_nothing(office: Office) -> None:
    card = await office.ask()
    [click] = await held_back(office, office.slack.click(LEAD, card, "Approve"))
    cancel = asyncio.create_task(office.slack.command(ADA, "cancel 1"))
    await office.slack.wait("both are held", lambda: office.slack.held == 2)
    office.slack.release(newest_first=True)
    await asyncio.gather(click, cancel)
    await office.slack.wait("both are answered", lambda: office.slack.answers(LEAD) or office.slack.dm(ADA))
    if await office.house.ledger.decisions(1) == ():
        assert (await office.request()).state is State.CANCELLED
        await office.expect_told(LEAD, "#1 was")
        assert office.house.server.users == {}
    else:
        await office.expect_dm(ADA, "is ready")
        await office.slack.wait("the requester learns of it", lambda: len(office.slack.answers(ADA)) > 1)


async def test_an_approver_taken_out_of_the_policy_is_refused_with_the_card_in_hand(office: Office) -> None:
    card = await office.ask()
    office.house.policy["rules"][0]["approvals"][0]["from"] = [SECOND, ADMIN]
    office.house.write()
    await office.slack.click(LEAD, card, "Approve")
    await office.slack.wait("an answer", lambda: office.slack.answers(LEAD))
    assert (await office.request()).state is State.PENDING
    assert office.house.server.users == {}


async def test_a_card_whose_answer_was_lost_is_still_decided_once(office: Office) -> None:
    del office.house.policy["audit_channel"]  # the card is the first message
    office.house.write()
    office.slack.failures["chat.postMessage"].append(LOST)
    await office.slack.command(ADA, "request shop readonly 1h looking at a refund")
    await office.slack.wait("a second card", lambda: len(office.slack.messages(CARDS)) == 2)
    lost, known = office.slack.messages(CARDS)
    await office.slack.click(LEAD, lost, "Approve")
    await office.expect_card(known["ts"], "Revoke")
    await office.slack.click(SECOND, lost, "Approve")
    await office.expect_told(SECOND, "#1 was approved by @lead")
    assert len(await office.house.ledger.decisions(1)) == 1


async def test_a_login_message_whose_answer_was_lost_leaves_no_password_behind(office: Office) -> None:
    card = await office.ask()
    office.slack.failures["chat.update"] += [LOST, LOST]
    await office.slack.click(LEAD, card, "Approve")
    await office.slack.wait("a login", lambda: office.house.server.users)
    await office.expect_dm(ADA, "is ready")
    await office.expect_card(card["ts"], "Revoke")
    passwords = [user.password for user in office.house.server.users.values()]
    await office.slack.command(ADA, "done 1")
    await office.slack.wait("nobody is left", lambda: not office.house.server.users)
    await office.slack.wait(
        "no password is left", lambda: not any(p in json.dumps(office.slack.dm(ADA)) for p in passwords)
    )


async def test_the_socket_that_slack_refreshes_is_opened_again(office: Office) -> None:
    await office.ask()
    for _ in range(2):
        await office.slack.refresh_sockets()
    for _ in range(4):  # what is typed in the gap is lost, and Slack shows an error: people type it again
        if (await office.slack.command(ADA, "status 1")).was_acked:
            break
    office.slack.problems[:] = [p for p in office.slack.problems if "was not acked" not in p]
    await office.expect_told(ADA, "Why: looking at a refund")


async def test_people_of_a_connected_organisation_submit_under_our_team_and_are_refused(office: Office) -> None:
    card = await office.ask()
    office.slack.workspace.users[OUTSIDER]["is_stranger"] = False
    await office.slack.click(OUTSIDER, card, "Approve")
    await office.expect_told(OUTSIDER, "not of this workspace")
    await office.slack.click(OUTSIDER, card, "Deny")
    assert office.slack.form(OUTSIDER) is None


async def test_nobody_outside_sees_even_a_list(office: Office) -> None:
    await office.ask()
    for who in (GUEST, OUTSIDER):
        for verb in ("list", "status 1", "databases", "help", "revoke 1"):
            before = len(office.slack.answers(who))
            await office.slack.command(who, verb)
            await office.slack.wait("an answer", lambda who=who, before=before: len(office.slack.answers(who)) > before)
        assert all("Only members of this workspace" in words for words in office.slack.answers(who))


async def test_a_verdict_that_takes_too_long_comes_as_a_message(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await office.slack.command(ADA, "request")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    judged = views._outcome

    async def slowly(*about: Any) -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return await judged(*about)

    monkeypatch.setattr(views, "_outcome", slowly)
    monkeypatch.setattr(views, "ACK_SECONDS", 0.01)
    assert (await office.slack.submit(ADA, form, why="x")).ack == {}
    await office.expect_dm(ADA, "at least 5 characters")
