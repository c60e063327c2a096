"""The main job through the strict double: every message, form and answer passes Slack's limits, or the fixture fails the test."""

from __future__ import annotations

import asyncio
import re

import pytest

from storage.records import Cause, State
from tests.access.house import CARDS
from tests.slack.conftest import ADA, ADMIN, GONE, GUEST, LEAD, OUTSIDER, ROBOT, SECOND, STRANGER, Office


async def test_from_request_to_receipt(office: Office) -> None:
    card = await office.ask()
    await office.expect_told(ADA, "Request #1 is waiting for <@U0LEAD>, <@U0SECOND>")
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_card(card["ts"], "until")
    message = await office.expect_dm(ADA, "is ready")
    username, password = (re.search(rf"\*{n}\*\\n`([^`]+)`", str(message)) for n in ("Username", "Password"))
    assert username is not None
    assert password is not None
    assert office.house.server.login(username[1], password[1])
    assert password[1] not in message["text"]
    await office.slack.click(ADA, message, "New password")
    await office.expect_told(ADA, "A new password is on its way")
    fresh = await office.slack.wait(
        "another password",
        lambda: next((m for m in office.slack.dm(ADA) if "is ready" in str(m) and password[1] not in str(m)), None),
    )
    await office.slack.click(ADA, fresh, "I'm done")
    ended = await office.expect_card(card["ts"], "1 session ended")
    assert "Revoke" not in str(ended)
    assert password[1] not in str(office.slack.dm(ADA))
    closed = await office.expect_dm(ADA, "Ask again")
    await office.slack.click(ADA, closed, "Ask again")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    assert form["callback_id"] == "ask_form"
    await office.slack.wait("the feed", lambda: any("verified" in m["text"] for m in office.slack.messages("C0AUDIT")))


@pytest.mark.parametrize(
    ("who", "why"),
    [
        (GUEST, "a guest"),
        (OUTSIDER, "not of this workspace"),
        (GONE, "deactivated"),
        (ROBOT, "a bot"),
        ("USLACKBOT", "a bot"),
    ],
)
async def test_only_our_own_members_act(office: Office, who: str, why: str) -> None:
    office.house.policy["rules"][0]["approvals"][0]["from"] = [LEAD, SECOND, *([who] if who != "USLACKBOT" else [])]
    office.house.policy["rules"][0]["requesters"] = ["anyone"]
    office.house.write()
    await office.slack.command(who, "request shop readonly 1h looking at a refund")
    await office.expect_told(who, f"Only members of this workspace can use dbaccess ({why})")
    card = await office.ask()
    await office.slack.click(who, card, "Approve")
    await office.slack.wait("refused", lambda: len(office.slack.answers(who)) == 2)
    await office.slack.click(LEAD, card, "Deny")
    form = await office.slack.wait("the form", lambda: office.slack.form(LEAD))
    outcome = await office.slack.submit(who, form, why="because I say so")
    assert "Only members" in str(outcome.errors)
    assert (await office.request()).state is State.PENDING


async def test_nobody_approves_their_own_or_what_is_not_theirs(office: Office) -> None:
    card = await office.ask(user=LEAD)
    for who, words in ((LEAD, "your own request"), (STRANGER, "Only the approvers"), (ADMIN, "Only the approvers")):
        await office.slack.click(who, card, "Approve")
        await office.expect_told(who, words)
    assert office.house.server.users == {}


async def test_a_click_that_comes_twice_is_one_decision(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve", twice=True)
    await office.expect_dm(ADA, "is ready")
    assert len(office.house.server.users) == 1
    assert len(await office.house.ledger.decisions(1)) == 1


async def test_a_command_that_comes_twice_is_one_request(office: Office) -> None:
    await office.slack.command(ADA, "request shop readonly 1h looking at a refund", twice=True)
    await office.expect_told(ADA, "is waiting already")
    assert len(await office.house.ledger.requests()) == 1


async def test_the_second_click_learns_what_happened(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_card(card["ts"], "Revoke")
    await office.slack.click(SECOND, card, "Approve")
    await office.expect_told(SECOND, "#1 was approved by @lead")


async def test_deny_with_its_form(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Deny")
    form = await office.slack.wait("the form", lambda: office.slack.form(LEAD))
    assert form["title"]["text"] == "Deny #1"
    assert "1 to 1000" in str((await office.slack.submit(LEAD, form, why="   ")).errors)
    assert (await office.slack.submit(LEAD, form, why="<!channel> not today & never *bold*")).ack == {}
    await office.expect_card(card["ts"], "Denied")
    told = await office.expect_dm(ADA, "was denied by <@U0LEAD>")
    assert "&lt;!channel&gt; not today &amp; never" in told["text"]


async def test_the_form_asks_and_says_what_is_wrong(office: Office) -> None:
    await office.slack.command(ADA, "request")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    assert [b["label"]["text"] for b in form["blocks"] if b["type"] == "input"] == [
        "Database",
        "Level",
        "For how long",
        "Why",
    ]
    assert form["submit"]["text"] == "Ask"
    short = await office.slack.submit(ADA, form, why="x")
    assert "at least 5 characters" in short.errors["why"]
    done = await office.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")
    assert done.ack is not None
    assert "is waiting for" in str(done.ack["view"])
    await office.slack.wait("the card", lambda: "for 30 min" in str(office.slack.messages(CARDS)))


async def test_what_was_typed_wrong_is_answered_with_what_is_right(office: Office) -> None:
    for typed, words in (
        (
            "request shop readonly tow hours please",
            "I did not understand “tow hours”. A duration looks like 30m, 2h or 1h30m.",
        ),
        ("request shop readonly 9h looking at a refund", "9 h is too long for readonly on shop: at most 8 h"),
        ("request shp readonly 1h looking at a refund", "Did you mean shop?"),
        ("dance", "Try /dbaccess help"),
        ("cancel x", "/dbaccess cancel 42"),
        ("status 77", "There is no request #77 that you may see."),
        ("lockdown", "comes with a later version"),
        ("", "/dbaccess request"),
        ("databases", "up to 8 h"),
        ("explain shop readonly 2h", "Allowed to ask."),
    ):
        await office.slack.command(ADA, typed)
        await office.expect_told(ADA, words)
    assert await office.house.ledger.requests() == ()


async def test_list_status_cancel(office: Office) -> None:
    await office.ask()
    await office.slack.command(ADA, "list")
    await office.expect_told(ADA, "*#1* readonly on shop")
    await office.slack.command(STRANGER, "list shop")
    await office.expect_told(STRANGER, "There is nothing waiting")
    await office.slack.command(STRANGER, "status 1")
    await office.expect_told(STRANGER, "There is no request #1 that you may see.")
    await office.slack.command(LEAD, "status #1")
    await office.expect_told(LEAD, "Why: looking at a refund")
    await office.slack.command(STRANGER, "cancel 1")
    await office.slack.wait(
        "refused", lambda: office.slack.answers(STRANGER).count("There is no request #1 that you may see.") == 2
    )
    await office.slack.command(ADA, "cancel 1")
    await office.expect_told(ADA, "#1 is withdrawn.")


async def test_what_others_may_have_is_for_approvers_and_admins(office: Office) -> None:
    for who, words in (
        (STRANGER, "Only approvers of that database and admins"),
        (SECOND, "Allowed to ask."),
        (ADMIN, "Allowed to ask."),
    ):
        await office.slack.command(who, f"explain shop readonly 1h <@{ADA}|ada>")
        await office.expect_told(who, words)


async def test_revoke_is_for_those_who_may(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    live = await office.expect_card(card["ts"], "Revoke")
    await office.slack.click(STRANGER, live, "Revoke")
    await office.expect_told(STRANGER, "There is no request #1 that you may see.")
    await office.slack.click(ADA, live, "Revoke")
    await office.expect_told(ADA, "Only those who can approve #1 and admins can revoke it")
    await office.slack.command(SECOND, "revoke #1")
    await office.expect_card(card["ts"], "revoked by <@U0SECOND>")
    await office.slack.wait("nobody is left", lambda: not office.house.server.users)


async def test_a_new_password_is_for_the_requester_alone(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    message = await office.expect_dm(ADA, "is ready")
    await office.slack.click(LEAD, message, "New password")
    await office.expect_told(LEAD, "There is no request #1")


async def test_an_old_card_is_out_of_date(office: Office) -> None:
    card = await office.ask()
    text = str(card["blocks"][-1]["elements"][0]["value"])
    card["blocks"][-1]["elements"][0]["value"] = f"{text.split('.', maxsplit=1)[0]}.{'0' * 16}"
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "This card is out of date.")
    assert (await office.request()).state is State.PENDING


async def test_an_unknown_button_says_so(office: Office) -> None:
    card = await office.ask()
    card["blocks"][-1]["elements"][0]["action_id"] = "of_another_version"
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "This button is outdated.")


@pytest.mark.parametrize(
    "reason", ["<!channel> " * 90 + "x" * 10, "\u202e" + "تجربة " * 160, "*a*`b`_c_" * 111, "&" * 1000, "line\n" * 200]
)
async def test_hostile_reasons_mention_nobody_and_break_no_limit(office: Office, reason: str) -> None:
    await office.slack.command(ADA, "request shop readonly 1h")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    assert not (await office.slack.submit(ADA, form, why=reason[:1000])).errors
    card = dict((await office.slack.wait("a card", lambda: office.slack.messages(CARDS)))[0])
    await office.slack.click(LEAD, card, "Deny")
    deny = await office.slack.wait("the form", lambda: office.slack.form(LEAD))
    assert not (await office.slack.submit(LEAD, deny, why=reason[:1000])).errors
    await office.expect_card(card["ts"], "Denied")
    await office.expect_dm(ADA, "was denied")
    await office.slack.wait("the feed", lambda: any("denied" in m["text"] for m in office.slack.messages("C0AUDIT")))
    seen = [m for c in (CARDS, "C0AUDIT", "D0ADA") for m in office.slack.messages(c)]
    assert all("<!channel>" not in m["text"] for m in seen)
    assert all(
        "<!channel>" not in part["text"]
        for m in seen
        for b in m["blocks"]
        for part in [b.get("text") or {"type": "", "text": ""}]
        if part["type"] == "mrkdwn"
    )
    assert "\u202e" not in str(seen)


async def test_an_expired_trigger_is_answered_in_words(office: Office) -> None:
    card = await office.ask()
    office.slack.failures["views.open"].append({"error": "expired_trigger_id"})
    await office.slack.click(LEAD, card, "Deny")
    await office.expect_told(LEAD, "Slack did not wait for the form. Please try again.")


async def test_slack_failing_loses_nothing(office: Office) -> None:
    office.slack.failures["chat.postMessage"] += [500, {"error": "ratelimited"}, {"error": "fatal_error"}]
    card = await office.ask()
    office.slack.failures["chat.update"] += [503, {"error": "ratelimited"}]
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_dm(ADA, "is ready")
    await office.expect_card(card["ts"], "Revoke")


async def test_no_answer_about_a_person_is_a_no(office: Office) -> None:
    card = await office.ask()
    office.slack.failures["users.info"] += [{"error": "fatal_error"}] * 3
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "Slack did not answer who you are")
    assert (await office.request()).state is State.PENDING


@pytest.mark.parametrize("way", ["button", "command"])
async def test_no_answer_about_a_person_keeps_nobody_from_giving_their_grant_back(office: Office, way: str) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    message = await office.expect_dm(ADA, "is ready")
    office.slack.failures["users.info"] += [{"error": "fatal_error"}] * 9
    await office.slack.event("user_change", user={"id": ADA})
    await asyncio.sleep(0)
    if way == "button":
        await office.slack.click(ADA, message, "I'm done")
    else:
        await office.slack.command(ADA, "done 1")
    await office.expect_dm(ADA, "given back")
    assert (await office.request()).ended_because is Cause.DONE


async def test_a_person_who_became_a_guest_is_seen_at_once(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Deny")
    await office.slack.wait("the form", lambda: office.slack.form(LEAD))
    office.slack.workspace.users[LEAD]["is_restricted"] = True
    await office.slack.event("user_change", user={"id": LEAD})
    await asyncio.sleep(0)
    await office.slack.click(LEAD, card, "Approve")
    await office.expect_told(LEAD, "Only members of this workspace")


async def test_the_socket_that_drops_is_built_again(office: Office) -> None:
    await office.ask()
    await office.slack.drop_sockets()
    await office.slack.command(ADA, "list")
    await office.expect_told(ADA, "*#1* readonly on shop")


async def test_home_opened(office: Office) -> None:
    await office.slack.event("app_home_opened", user=ADA, tab="home")
    home = await office.slack.wait("a Home", lambda: office.slack.workspace.homes.get(ADA))
    assert "/dbaccess request" in str(home)
