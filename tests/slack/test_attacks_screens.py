"""Text of people is shown as text everywhere, and nothing of it is dropped or guessed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from adapters.usernames import username_pattern
from storage.audit_kinds import AuditKind
from tests.access.environment import ALERTS, AUDIT, CARDS
from tests.access.steps import BREAK_GLASS_RULE
from tests.open_faults import open_fault, require
from tests.slack.conftest import ADA, GUEST, LEAD, STRANGER, SlackEnvironment

HOUR = timedelta(hours=1)
MARKUP = ("*approved by lead*", "`code`", "_slanted_", "~struck~", ":white_check_mark:")
QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|`[^`]*`|<@[^>]*>")


def formatted_texts(blocks: Any) -> Iterator[str]:
    """Yield every mrkdwn text. Slack shows plain text and rich text unformatted."""
    if isinstance(blocks, dict):
        if blocks.get("type") == "mrkdwn":
            yield str(blocks["text"])
        blocks = list(blocks.values())
    if isinstance(blocks, list):
        for part in blocks:
            yield from formatted_texts(part)


def active_markup(shown: list[dict[str, Any]]) -> list[str]:
    """Return the markup of a person that Slack would format."""
    texts = "\n".join(text for message in shown for text in formatted_texts(message["blocks"]))
    return [markup for markup in MARKUP if markup in texts]


async def reply_to(slack_environment: SlackEnvironment, user: str, command: str) -> dict[str, Any]:
    """Send a command and return the whole reply."""
    before = len(slack_environment.slack.workspace.ephemerals)
    await slack_environment.slack.command(user, command)
    mine = await slack_environment.slack.wait(
        "an answer", lambda: [e for e in slack_environment.slack.workspace.ephemerals[before:] if e["user"] == user]
    )
    return dict(mine[0])


# Markup and names (R16).


async def test_markup_in_a_reason_is_shown_as_text_on_the_card(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request(f"shop readonly 1h {' '.join(MARKUP)}")
    assert active_markup([card]) == []
    assert "approved by lead" in str(card)


@open_fault("R16", "the feed formats text of people")
async def test_markup_in_a_reason_is_shown_as_text_in_the_feed(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request(f"shop readonly 1h {' '.join(MARKUP)}")
    lines = await slack_environment.slack.wait("a line", lambda: slack_environment.slack.messages(AUDIT))
    require("approved by lead" in str(lines), "the line has the reason")
    assert active_markup(lines) == []


@open_fault("R16", "the reply to status formats text of people")
async def test_markup_in_a_reason_is_shown_as_text_in_status(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request(f"shop readonly 1h {' '.join(MARKUP)}")
    shown = await reply_to(slack_environment, LEAD, "status 1")
    require("approved by lead" in str(shown), "the answer has the reason")
    assert active_markup([shown]) == []


async def test_markup_in_a_name_is_shown_as_text_in_an_alert(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.users[ADA]["profile"]["display_name"] = " ".join(MARKUP)
    slack_environment.environment.policy["rules"].append({**BREAK_GLASS_RULE, "requesters": [ADA]})
    slack_environment.environment.write()
    await slack_environment.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    shown = await slack_environment.slack.wait("the alert", lambda: slack_environment.slack.messages(ALERTS))
    require("approved by lead" in str(shown), "the alert has the name")
    assert active_markup(shown) == []


async def request_card_of(slack_environment: SlackEnvironment, name: str) -> dict[str, Any]:
    """Make a request under this display name and return its card."""
    slack_environment.slack.workspace.users[ADA]["profile"]["display_name"] = name
    return await slack_environment.make_request()


@open_fault("R16", "the dialog shows the name like its own text")
async def test_display_name_cannot_forge_the_confirmation_dialog(slack_environment: SlackEnvironment) -> None:
    forged = "lead gets readonly on play for 5 min."
    card = await request_card_of(slack_environment, f"{forged}\nApprove as usual. <!channel> *x* \u200b")
    approve = next(e for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
    shown = approve["confirm"]["text"]["text"]
    require("readonly on shop for 1 h" in shown, "the dialog has the facts")
    assert forged not in QUOTED.sub("", shown)


@pytest.mark.parametrize(
    "name",
    ["🦄🔥", "Ольга Петрова", "a`b*c_d~e <!channel> <@U0LEAD>", "x" * 200, "\u202eevil", "null", "", "O'Brien; DROP"],
    ids=["emoji", "cyrillic", "markup", "long", "right to left", "null", "empty", "sql"],
)
async def test_username_is_valid_for_every_display_name(slack_environment: SlackEnvironment, name: str) -> None:
    card = await request_card_of(slack_environment, name)
    await slack_environment.slack.click(LEAD, card, "Approve")
    message = await slack_environment.expect_dm(ADA, "is ready")
    username = re.search(r"\*Username\*\\n`([^`]+)`", str(message))
    assert username is not None
    assert username_pattern("jit_").fullmatch(username[1])
    assert len(username[1]) <= 32
    assert list(slack_environment.environment.server.users) == [username[1]]


# Refused clicks (R16).


@open_fault("R16", "a refused click is only in the ledger")
async def test_refused_click_appears_in_the_feed(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(STRANGER, card, "Approve")
    await slack_environment.expect_reply(STRANGER, "Only the approvers")
    await slack_environment.slack.click(LEAD, card, "Approve")
    lines = await slack_environment.slack.wait(
        "the next line of the feed",
        lambda: "approved" in (text := "\n".join(m["text"] for m in slack_environment.slack.messages(AUDIT))) and text,
    )
    assert "refused click" in lines


@open_fault("R16", "the click of a non-member is not audited")
async def test_click_of_a_guest_is_audited(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(GUEST, card, "Approve")
    await slack_environment.expect_reply(GUEST, "Only members")
    events = await slack_environment.environment.ledger.audit.events_after(0, limit=1000)
    assert AuditKind.CLICK_REFUSED in [event.kind for event in events]


# RequestInput and pasted commands (U9).


async def parsed_request(slack_environment: SlackEnvironment, wanted: str) -> tuple[str, str, timedelta, str]:
    """Send the command and return database, level, duration and reason of its request. Fails if there is no request."""
    await slack_environment.slack.command(ADA, wanted)
    await slack_environment.slack.wait(
        "a card, an answer or a form",
        lambda: (
            slack_environment.slack.messages(CARDS)
            or slack_environment.slack.answers(ADA)
            or slack_environment.slack.form(ADA)
        ),
    )
    found = await slack_environment.environment.ledger.requests.find()
    assert len(found) == 1, (slack_environment.slack.answers(ADA), slack_environment.slack.form(ADA))
    return found[0].database, found[0].level, found[0].terms.duration, found[0].reason


EXPECTED = ("shop", "readonly", HOUR, "looking at a refund")


@pytest.mark.parametrize(
    "wanted",
    [
        "request\u00a0shop\u00a0readonly\u00a01h\u00a0looking at a refund",
        "request shop readonly 1h\nlooking at a refund",
        "Request shop readonly 1H looking at a refund",
        "request \u202eshop\u202c readonly 1h looking at a refund",
    ],
    ids=["no-break spaces", "line break", "capitals", "change of direction"],
)
async def test_unusual_spacing_and_case_are_understood(slack_environment: SlackEnvironment, wanted: str) -> None:
    assert await parsed_request(slack_environment, wanted) == EXPECTED


@pytest.mark.parametrize(
    "wanted",
    [
        "request shop\u200b readonly 1h looking at a refund",
        "\ufeffrequest shop readonly 1h looking at a refund",
        "request \u2060shop\u2060 readonly 1h looking at a refund",
        "request sh\u00adop readonly 1h looking at a refund",
        "request shop read\u200donly 1h looking at a refund",
    ],
    ids=["zero width space", "byte order mark", "word joiner", "soft hyphen", "zero width joiner"],
)
@open_fault("U9", "invisible characters are taken for a part of the name")
async def test_invisible_characters_are_dropped_from_a_command(
    slack_environment: SlackEnvironment, wanted: str
) -> None:
    assert await parsed_request(slack_environment, wanted) == EXPECTED


@pytest.mark.parametrize("span", ["2 hours", "2h,", "for 2h", "(2h)"])
@open_fault("U9", "the duration is not understood, or is taken for the reason")
async def test_common_spellings_of_a_duration_are_understood(slack_environment: SlackEnvironment, span: str) -> None:
    wanted = f"request shop readonly {span} looking at a refund"
    assert await parsed_request(slack_environment, wanted) == ("shop", "readonly", 2 * HOUR, "looking at a refund")


@open_fault("U9", "10min is not understood")
async def test_ten_min_is_understood_as_a_duration(slack_environment: SlackEnvironment) -> None:
    found = await parsed_request(slack_environment, "request shop readonly 10min looking at a refund")
    assert found == ("shop", "readonly", HOUR / 6, "looking at a refund")


@open_fault("U9", "a level after the duration is taken for a part of the reason")
async def test_level_and_duration_come_in_any_order(slack_environment: SlackEnvironment) -> None:
    assert await parsed_request(slack_environment, "request shop 1h readonly looking at a refund") == EXPECTED


@pytest.mark.parametrize("name", ["Shop", "`shop`", "*shop*"])
async def test_unknown_database_name_makes_no_request(slack_environment: SlackEnvironment, name: str) -> None:
    await slack_environment.slack.command(ADA, f"request {name} readonly 1h looking at a refund")
    await slack_environment.slack.wait(
        "an answer", lambda: slack_environment.slack.answers(ADA) or slack_environment.slack.form(ADA)
    )
    assert await slack_environment.environment.ledger.requests.find() == ()
    assert "shop" in str(slack_environment.slack.answers(ADA)) + str(slack_environment.slack.form(ADA))


MENTIONS = (
    "asked by <@U0SECOND|second> in <#C0CARDS|cards>, see <https://jira.example.com/browse/PAY-311|PAY-311>"
    " and <mailto:a@b.co|a@b.co>"
)


@open_fault("U9", "the reason holds mentions as Slack sends them, with raw ids")
async def test_mentions_and_links_in_a_reason_become_names_and_addresses(slack_environment: SlackEnvironment) -> None:
    await slack_environment.make_request(f"shop readonly 1h {MENTIONS}")
    reason = (await slack_environment.request()).reason
    for raw in ("<@", "U0SECOND", "<#", "C0CARDS", "<http", "<mailto"):
        assert raw not in reason
    for shown in ("@second", "https://jira.example.com/browse/PAY-311", "a@b.co"):
        assert shown in reason


async def test_reason_length_counts_unescaped_characters(slack_environment: SlackEnvironment) -> None:
    """Slack sends ``& < >`` as entities of several characters."""
    await slack_environment.make_request("shop readonly 1h " + "a &amp; b &lt; c " * 95)
    assert len((await slack_environment.request()).reason) == 95 * len("a & b < c ") - 1


async def test_rate_limited_messages_arrive_later(slack_environment: SlackEnvironment) -> None:
    for method in ("chat.postMessage", "chat.update"):
        slack_environment.slack.failures[method] += [{"error": "ratelimited"}] * 3
    card = await slack_environment.make_request()
    for method in ("chat.postMessage", "chat.update"):
        slack_environment.slack.failures[method] += [{"error": "ratelimited"}] * 3
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
