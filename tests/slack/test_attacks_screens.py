"""What people typed is data wherever it is shown, and nothing they typed is dropped or guessed. By the strict double."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from adapters.base import username_pattern
from storage.audit_log import AuditKind
from tests.access.environment import ALERTS, AUDIT, CARDS
from tests.access.steps import BREAK_GLASS_RULE
from tests.open_faults import open_fault, require
from tests.slack.conftest import ADA, GUEST, LEAD, STRANGER, SlackEnvironment

HOUR = timedelta(hours=1)
MARKUP = ("*approved by lead*", "`code`", "_slanted_", "~struck~", ":white_check_mark:")
QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|`[^`]*`|<@[^>]*>")


def formatted(blocks: Any) -> Iterator[str]:
    """Every text that Slack formats; plain text and rich text are shown as they are."""
    if isinstance(blocks, dict):
        if blocks.get("type") == "mrkdwn":
            yield str(blocks["text"])
        blocks = list(blocks.values())
    if isinstance(blocks, list):
        for part in blocks:
            yield from formatted(part)


def acts(shown: list[dict[str, Any]]) -> list[str]:
    """Which markup of a person Slack would carry out."""
    texts = "\n".join(text for message in shown for text in formatted(message["blocks"]))
    return [markup for markup in MARKUP if markup in texts]


async def answer(slack_environment: SlackEnvironment, user: str, command: str) -> dict[str, Any]:
    """The whole answer to a command."""
    before = len(slack_environment.slack.workspace.ephemerals)
    await slack_environment.slack.command(user, command)
    mine = await slack_environment.slack.wait(
        "an answer", lambda: [e for e in slack_environment.slack.workspace.ephemerals[before:] if e["user"] == user]
    )
    return dict(mine[0])


# Markup and names (R16).


async def test_markup_in_a_reason_does_not_act_on_the_card(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.ask(f"shop readonly 1h {' '.join(MARKUP)}")
    assert acts([card]) == []
    assert "approved by lead" in str(card)


@open_fault("R16", "the feed formats what people type")
async def test_markup_in_a_reason_does_not_act_in_the_feed(slack_environment: SlackEnvironment) -> None:
    await slack_environment.ask(f"shop readonly 1h {' '.join(MARKUP)}")
    lines = await slack_environment.slack.wait("a line", lambda: slack_environment.slack.messages(AUDIT))
    require("approved by lead" in str(lines), "the line has the reason")
    assert acts(lines) == []


@open_fault("R16", "the answer to status formats what people type")
async def test_markup_in_a_reason_does_not_act_in_the_answer_to_status(slack_environment: SlackEnvironment) -> None:
    await slack_environment.ask(f"shop readonly 1h {' '.join(MARKUP)}")
    told = await answer(slack_environment, LEAD, "status 1")
    require("approved by lead" in str(told), "the answer has the reason")
    assert acts([told]) == []


@open_fault("R16", "an alert formats what people are called")
async def test_markup_in_a_name_does_not_act_in_an_alert(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.users[ADA]["profile"]["display_name"] = " ".join(MARKUP)
    slack_environment.environment.policy["rules"].append({**BREAK_GLASS_RULE, "requesters": [ADA]})
    slack_environment.environment.write()
    await slack_environment.slack.command(ADA, "breakglass shop readonly 30m everything is down")
    told = await slack_environment.slack.wait("the alert", lambda: slack_environment.slack.messages(ALERTS))
    require("approved by lead" in str(told), "the alert has the name")
    assert acts(told) == []


async def asked_by(slack_environment: SlackEnvironment, name: str) -> dict[str, Any]:
    """The card of somebody who is called so."""
    slack_environment.slack.workspace.users[ADA]["profile"]["display_name"] = name
    return await slack_environment.ask()


@open_fault("R16", "the name stands in the dialog as if it were our own sentence")
async def test_a_display_name_does_not_forge_the_dialog(slack_environment: SlackEnvironment) -> None:
    forged = "lead gets readonly on play for 5 min."
    card = await asked_by(slack_environment, f"{forged}\nApprove as usual. <!channel> *x* \u200b")
    approve = next(e for b in card["blocks"] if b["type"] == "actions" for e in b["elements"])
    told = approve["confirm"]["text"]["text"]
    require("readonly on shop for 1 h" in told, "the dialog has the facts")
    assert forged not in QUOTED.sub("", told)


@pytest.mark.parametrize(
    "name",
    ["🦄🔥", "Ольга Петрова", "a`b*c_d~e <!channel> <@U0LEAD>", "x" * 200, "\u202eevil", "null", "", "O'Brien; DROP"],
    ids=["emoji", "cyrillic", "markup", "long", "right to left", "null", "empty", "sql"],
)
async def test_whatever_people_are_called_the_username_is_plain(slack_environment: SlackEnvironment, name: str) -> None:
    card = await asked_by(slack_environment, name)
    await slack_environment.slack.click(LEAD, card, "Approve")
    message = await slack_environment.expect_dm(ADA, "is ready")
    username = re.search(r"\*Username\*\\n`([^`]+)`", str(message))
    assert username is not None
    assert username_pattern("jit_").fullmatch(username[1])
    assert len(username[1]) <= 32
    assert list(slack_environment.environment.server.users) == [username[1]]


# Refused clicks (R16).


@open_fault("R16", "a refused click stands in the ledger alone")
async def test_a_refused_click_is_a_line_of_the_feed(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.ask()
    await slack_environment.slack.click(STRANGER, card, "Approve")
    await slack_environment.expect_told(STRANGER, "Only the approvers")
    await slack_environment.slack.click(LEAD, card, "Approve")
    lines = await slack_environment.slack.wait(
        "what came after it",
        lambda: "approved" in (said := "\n".join(m["text"] for m in slack_environment.slack.messages(AUDIT))) and said,
    )
    assert "refused click" in lines


@open_fault("R16", "nothing is on record where somebody who is not ours clicks")
async def test_the_click_of_a_guest_is_on_record(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.ask()
    await slack_environment.slack.click(GUEST, card, "Approve")
    await slack_environment.expect_told(GUEST, "Only members")
    events = await slack_environment.environment.ledger.events_after(0, limit=1000)
    assert AuditKind.CLICK_REFUSED in [event.kind for event in events]


# What people type and paste (U9).


async def understood(slack_environment: SlackEnvironment, typed: str) -> tuple[str, str, timedelta, str]:
    """The request that comes of it. Where none comes, nothing but an answer or a form may."""
    await slack_environment.slack.command(ADA, typed)
    await slack_environment.slack.wait(
        "a card, an answer or a form",
        lambda: (
            slack_environment.slack.messages(CARDS)
            or slack_environment.slack.answers(ADA)
            or slack_environment.slack.form(ADA)
        ),
    )
    found = await slack_environment.environment.ledger.requests()
    assert len(found) == 1, (slack_environment.slack.answers(ADA), slack_environment.slack.form(ADA))
    return found[0].database, found[0].level, found[0].terms.duration, found[0].reason


AS_MEANT = ("shop", "readonly", HOUR, "looking at a refund")


@pytest.mark.parametrize(
    "typed",
    [
        "request\u00a0shop\u00a0readonly\u00a01h\u00a0looking at a refund",
        "request shop readonly 1h\nlooking at a refund",
        "Request shop readonly 1H looking at a refund",
        "request \u202eshop\u202c readonly 1h looking at a refund",
    ],
    ids=["no-break spaces", "line break", "capitals", "change of direction"],
)
async def test_what_is_typed_a_little_otherwise_is_understood(slack_environment: SlackEnvironment, typed: str) -> None:
    assert await understood(slack_environment, typed) == AS_MEANT


@pytest.mark.parametrize(
    "typed",
    [
        "request shop\u200b readonly 1h looking at a refund",
        "\ufeffrequest shop readonly 1h looking at a refund",
        "request \u2060shop\u2060 readonly 1h looking at a refund",
        "request sh\u00adop readonly 1h looking at a refund",
        "request shop read\u200donly 1h looking at a refund",
    ],
    ids=["zero width space", "byte order mark", "word joiner", "soft hyphen", "zero width joiner"],
)
@open_fault("U9", "characters that draw nothing are taken for a part of the name")
async def test_characters_that_draw_nothing_are_dropped_from_a_command(
    slack_environment: SlackEnvironment, typed: str
) -> None:
    assert await understood(slack_environment, typed) == AS_MEANT


@pytest.mark.parametrize("span", ["2 hours", "2h,", "for 2h", "(2h)"])
@open_fault("U9", "the span is not understood, or is taken for the reason")
async def test_a_span_as_people_write_it_is_understood(slack_environment: SlackEnvironment, span: str) -> None:
    typed = f"request shop readonly {span} looking at a refund"
    assert await understood(slack_environment, typed) == ("shop", "readonly", 2 * HOUR, "looking at a refund")


@open_fault("U9", "10min is not understood")
async def test_minutes_as_people_write_them_are_understood(slack_environment: SlackEnvironment) -> None:
    found = await understood(slack_environment, "request shop readonly 10min looking at a refund")
    assert found == ("shop", "readonly", HOUR / 6, "looking at a refund")


@open_fault("U9", "after the duration the level is taken for a part of the reason")
async def test_level_and_duration_come_in_any_order(slack_environment: SlackEnvironment) -> None:
    assert await understood(slack_environment, "request shop 1h readonly looking at a refund") == AS_MEANT


@pytest.mark.parametrize("name", ["Shop", "`shop`", "*shop*"])
async def test_a_name_that_is_none_is_asked_back(slack_environment: SlackEnvironment, name: str) -> None:
    await slack_environment.slack.command(ADA, f"request {name} readonly 1h looking at a refund")
    await slack_environment.slack.wait(
        "an answer", lambda: slack_environment.slack.answers(ADA) or slack_environment.slack.form(ADA)
    )
    assert await slack_environment.environment.ledger.requests() == ()
    assert "shop" in str(slack_environment.slack.answers(ADA)) + str(slack_environment.slack.form(ADA))


MENTIONS = (
    "asked by <@U0SECOND|second> in <#C0CARDS|cards>, see <https://jira.example.com/browse/PAY-311|PAY-311>"
    " and <mailto:a@b.co|a@b.co>"
)


@open_fault("U9", "the reason holds mentions as Slack sends them, with raw ids")
async def test_mentions_and_links_in_a_reason_are_names_and_addresses(slack_environment: SlackEnvironment) -> None:
    await slack_environment.ask(f"shop readonly 1h {MENTIONS}")
    reason = (await slack_environment.request()).reason
    for raw in ("<@", "U0SECOND", "<#", "C0CARDS", "<http", "<mailto"):
        assert raw not in reason
    for shown in ("@second", "https://jira.example.com/browse/PAY-311", "a@b.co"):
        assert shown in reason


async def test_a_reason_is_counted_as_it_is_read(slack_environment: SlackEnvironment) -> None:
    """Slack sends three characters as entities."""
    await slack_environment.ask("shop readonly 1h " + "a &amp; b &lt; c " * 95)
    assert len((await slack_environment.request()).reason) == 95 * len("a & b < c ") - 1


async def test_what_slack_limits_comes_in_the_end(slack_environment: SlackEnvironment) -> None:
    for method in ("chat.postMessage", "chat.update"):
        slack_environment.slack.failures[method] += [{"error": "ratelimited"}] * 3
    card = await slack_environment.ask()
    for method in ("chat.postMessage", "chat.update"):
        slack_environment.slack.failures[method] += [{"error": "ratelimited"}] * 3
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
