"""The commands, buttons and forms of a request. The fixture fails if a message, form or reply exceeds Slack's limits."""

from __future__ import annotations

import asyncio
import re

import pytest

from storage.records import Cause, State
from tests.access.environment import CARDS
from tests.slack.conftest import ADA, ADMIN, GONE, GUEST, LEAD, OUTSIDER, ROBOT, SECOND, STRANGER, SlackEnvironment


async def test_request_is_granted_used_and_ended_with_a_receipt(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.expect_reply(ADA, "Request #1 is waiting for <@U0LEAD>, <@U0SECOND>")
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_card(card["ts"], "until")
    message = await slack_environment.expect_dm(ADA, "is ready")
    username, password = (re.search(rf"\*{n}\*\\n`([^`]+)`", str(message)) for n in ("Username", "Password"))
    assert username is not None
    assert password is not None
    assert slack_environment.environment.server.login(username[1], password[1])
    assert password[1] not in message["text"]
    await slack_environment.slack.click(ADA, message, "New password")
    await slack_environment.expect_reply(ADA, "A new password is on its way")
    fresh = await slack_environment.slack.wait(
        "another password",
        lambda: next(
            (m for m in slack_environment.slack.dm(ADA) if "is ready" in str(m) and password[1] not in str(m)), None
        ),
    )
    await slack_environment.slack.click(ADA, fresh, "I'm done")
    ended = await slack_environment.expect_card(card["ts"], "1 session ended")
    assert "Revoke" not in str(ended)
    assert password[1] not in str(slack_environment.slack.dm(ADA))
    closed = await slack_environment.expect_dm(ADA, "Ask again")
    await slack_environment.slack.click(ADA, closed, "Ask again")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    assert form["callback_id"] == "ask_form"
    await slack_environment.slack.wait(
        "the feed", lambda: any("verified" in m["text"] for m in slack_environment.slack.messages("C0AUDIT"))
    )


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
async def test_only_members_can_act(slack_environment: SlackEnvironment, who: str, why: str) -> None:
    slack_environment.environment.policy["rules"][0]["approvals"][0]["from"] = [
        LEAD,
        SECOND,
        *([who] if who != "USLACKBOT" else []),
    ]
    slack_environment.environment.policy["rules"][0]["requesters"] = ["anyone"]
    slack_environment.environment.write()
    await slack_environment.slack.command(who, "request shop readonly 1h looking at a refund")
    await slack_environment.expect_reply(who, f"Only members of this workspace can use dbaccess ({why})")
    card = await slack_environment.make_request()
    await slack_environment.slack.click(who, card, "Approve")
    await slack_environment.slack.wait("refused", lambda: len(slack_environment.slack.answers(who)) == 2)
    await slack_environment.slack.click(LEAD, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    outcome = await slack_environment.slack.submit(who, form, why="because I say so")
    assert "Only members" in str(outcome.errors)
    assert (await slack_environment.request()).state is State.PENDING


async def test_requester_and_non_approvers_cannot_approve(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request(user=LEAD)
    for who, words in ((LEAD, "your own request"), (STRANGER, "Only the approvers"), (ADMIN, "Only the approvers")):
        await slack_environment.slack.click(who, card, "Approve")
        await slack_environment.expect_reply(who, words)
    assert slack_environment.environment.server.users == {}


async def test_click_delivered_twice_is_one_decision(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve", twice=True)
    await slack_environment.expect_dm(ADA, "is ready")
    assert len(slack_environment.environment.server.users) == 1
    assert len(await slack_environment.environment.ledger.requests.decisions(1)) == 1


async def test_command_delivered_twice_is_one_request(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.command(ADA, "request shop readonly 1h looking at a refund", twice=True)
    await slack_environment.expect_reply(ADA, "is waiting already")
    assert len(await slack_environment.environment.ledger.requests.find()) == 1


async def test_second_approver_is_told_what_happened(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_card(card["ts"], "Revoke")
    await slack_environment.slack.click(SECOND, card, "Approve")
    await slack_environment.expect_reply(SECOND, "#1 was approved by @lead")


async def test_deny_form_denies_with_its_reason(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    assert form["title"]["text"] == "Deny #1"
    assert "1 to 1000" in str((await slack_environment.slack.submit(LEAD, form, why="   ")).errors)
    assert (await slack_environment.slack.submit(LEAD, form, why="<!channel> not today & never *bold*")).ack == {}
    await slack_environment.expect_card(card["ts"], "Denied")
    told = await slack_environment.expect_dm(ADA, "was denied by <@U0LEAD>")
    assert "&lt;!channel&gt; not today &amp; never" in told["text"]


async def test_form_shows_its_errors_and_makes_a_request(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    assert [b["label"]["text"] for b in form["blocks"] if b["type"] == "input"] == [
        "Database",
        "Level",
        "For how long",
        "Why",
    ]
    assert form["submit"]["text"] == "Ask"
    short = await slack_environment.slack.submit(ADA, form, why="x")
    assert "at least 5 characters" in short.errors["why"]
    done = await slack_environment.slack.submit(ADA, form, why="looking at a refund", for_how_long="30m")
    assert done.ack is not None
    assert "is waiting for" in str(done.ack["view"])
    await slack_environment.slack.wait("the card", lambda: "for 30 min" in str(slack_environment.slack.messages(CARDS)))


async def test_wrong_commands_are_answered_with_the_right_usage(slack_environment: SlackEnvironment) -> None:
    for wanted, words in (
        (
            "request shop readonly tow hours please",
            "I did not understand “tow hours”. A duration looks like 30m, 2h or 1h30m.",
        ),
        ("request shop readonly 9h looking at a refund", "9 h is too long for readonly on shop: at most 8 h"),
        ("request shp readonly 1h looking at a refund", "Did you mean shop?"),
        ("dance", "Try /dbaccess help"),
        ("cancel x", "/dbaccess cancel 42"),
        ("status 77", "There is no request #77 that you may see."),
        ("pending", "comes with a later version"),
        ("", "/dbaccess request"),
        ("databases", "up to 8 h"),
        ("explain shop readonly 2h", "Allowed to ask."),
    ):
        await slack_environment.slack.command(ADA, wanted)
        await slack_environment.expect_reply(ADA, words)
    assert await slack_environment.environment.ledger.requests.find() == ()


async def test_list_status_and_cancel_respect_visibility(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request()
    await slack_environment.slack.command(ADA, "list")
    await slack_environment.expect_reply(ADA, "*#1* readonly on shop")
    await slack_environment.slack.command(STRANGER, "list shop")
    await slack_environment.expect_reply(STRANGER, "There is nothing waiting")
    await slack_environment.slack.command(STRANGER, "status 1")
    await slack_environment.expect_reply(STRANGER, "There is no request #1 that you may see.")
    await slack_environment.slack.command(LEAD, "status #1")
    await slack_environment.expect_reply(LEAD, "Why: looking at a refund")
    await slack_environment.slack.command(STRANGER, "cancel 1")
    await slack_environment.slack.wait(
        "refused",
        lambda: slack_environment.slack.answers(STRANGER).count("There is no request #1 that you may see.") == 2,
    )
    await slack_environment.slack.command(ADA, "cancel 1")
    await slack_environment.expect_reply(ADA, "#1 is withdrawn.")


async def test_only_approvers_and_admins_can_explain_others(slack_environment: SlackEnvironment) -> None:
    for who, words in (
        (STRANGER, "Only approvers of that database and admins"),
        (SECOND, "Allowed to ask."),
        (ADMIN, "Allowed to ask."),
    ):
        await slack_environment.slack.command(who, f"explain shop readonly 1h <@{ADA}|ada>")
        await slack_environment.expect_reply(who, words)


async def test_only_approvers_and_admins_can_revoke(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    live = await slack_environment.expect_card(card["ts"], "Revoke")
    await slack_environment.slack.click(STRANGER, live, "Revoke")
    await slack_environment.expect_reply(STRANGER, "There is no request #1 that you may see.")
    await slack_environment.slack.click(ADA, live, "Revoke")
    await slack_environment.expect_reply(ADA, "Only those who can approve #1 and admins can revoke it")
    await slack_environment.slack.command(SECOND, "revoke #1")
    await slack_environment.expect_card(card["ts"], "revoked by <@U0SECOND>")
    await slack_environment.slack.wait("the user is removed", lambda: not slack_environment.environment.server.users)


async def test_only_the_requester_can_get_a_new_password(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    message = await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.slack.click(LEAD, message, "New password")
    await slack_environment.expect_reply(LEAD, "There is no request #1")


async def test_card_with_another_key_is_out_of_date(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    text = str(card["blocks"][-1]["elements"][0]["value"])
    card["blocks"][-1]["elements"][0]["value"] = f"{text.split('.', maxsplit=1)[0]}.{'0' * 16}"
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "This card is out of date.")
    assert (await slack_environment.request()).state is State.PENDING


async def test_unknown_button_is_answered(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    card["blocks"][-1]["elements"][0]["action_id"] = "of_another_version"
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "This button is outdated.")


@pytest.mark.parametrize(
    "reason", ["<!channel> " * 90 + "x" * 10, "\u202e" + "تجربة " * 160, "*a*`b`_c_" * 111, "&" * 1000, "line\n" * 200]
)
async def test_hostile_reasons_mention_nobody_and_stay_within_limits(
    slack_environment: SlackEnvironment, reason: str
) -> None:
    await slack_environment.slack.command(ADA, "request shop readonly 1h")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    assert not (await slack_environment.slack.submit(ADA, form, why=reason[:1000])).errors
    card = dict((await slack_environment.slack.wait("a card", lambda: slack_environment.slack.messages(CARDS)))[0])
    await slack_environment.slack.click(LEAD, card, "Deny")
    deny = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    assert not (await slack_environment.slack.submit(LEAD, deny, why=reason[:1000])).errors
    await slack_environment.expect_card(card["ts"], "Denied")
    await slack_environment.expect_dm(ADA, "was denied")
    await slack_environment.slack.wait(
        "the feed", lambda: any("denied" in m["text"] for m in slack_environment.slack.messages("C0AUDIT"))
    )
    seen = [m for c in (CARDS, "C0AUDIT", "D0ADA") for m in slack_environment.slack.messages(c)]
    assert all("<!channel>" not in m["text"] for m in seen)
    assert all(
        "<!channel>" not in part["text"]
        for m in seen
        for b in m["blocks"]
        for part in [b.get("text") or {"type": "", "text": ""}]
        if part["type"] == "mrkdwn"
    )
    assert "\u202e" not in str(seen)


async def test_expired_trigger_is_answered(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    slack_environment.slack.failures["views.open"].append({"error": "expired_trigger_id"})
    await slack_environment.slack.click(LEAD, card, "Deny")
    await slack_environment.expect_reply(LEAD, "Slack did not wait for the form. Please try again.")


async def test_failing_slack_calls_are_retried(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.failures["chat.postMessage"] += [500, {"error": "ratelimited"}, {"error": "fatal_error"}]
    card = await slack_environment.make_request()
    slack_environment.slack.failures["chat.update"] += [503, {"error": "ratelimited"}]
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.expect_card(card["ts"], "Revoke")


async def test_failed_person_lookup_never_approves(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    slack_environment.slack.failures["users.info"] += [{"error": "fatal_error"}] * 3
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "Slack did not answer who you are")
    assert (await slack_environment.request()).state is State.PENDING


@pytest.mark.parametrize("way", ["button", "command"])
async def test_failed_person_lookup_does_not_stop_done(slack_environment: SlackEnvironment, way: str) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    message = await slack_environment.expect_dm(ADA, "is ready")
    slack_environment.slack.failures["users.info"] += [{"error": "fatal_error"}] * 9
    await slack_environment.slack.event("user_change", user={"id": ADA})
    await asyncio.sleep(0)
    if way == "button":
        await slack_environment.slack.click(ADA, message, "I'm done")
    else:
        await slack_environment.slack.command(ADA, "done 1")
    await slack_environment.expect_dm(ADA, "given back")
    assert (await slack_environment.request()).ended_because is Cause.DONE


async def test_new_guest_is_refused_at_once(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Deny")
    await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    slack_environment.slack.workspace.users[LEAD]["is_restricted"] = True
    await slack_environment.slack.event("user_change", user={"id": LEAD})
    await asyncio.sleep(0)
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_reply(LEAD, "Only members of this workspace")


async def test_dropped_socket_is_replaced(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request()
    await slack_environment.slack.drop_sockets()
    await slack_environment.slack.command(ADA, "list")
    await slack_environment.expect_reply(ADA, "*#1* readonly on shop")


async def test_home_tab_shows_the_commands(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.event("app_home_opened", user=ADA, tab="home")
    home = await slack_environment.slack.wait("a Home", lambda: slack_environment.slack.workspace.homes.get(ADA))
    assert "/dbaccess request" in str(home)
