"""The card says what may outlive a grant, where it is true of this level, as the server was last measured."""

from __future__ import annotations

from adapters.base import Finding, ServerDown
from bot.monitors import servers
from bot.notifications.cards import card_notice
from bot.slack.render.cards import WARNING_MAX, card_message
from storage.records import Request
from tests.access.environment import AccessEnvironment

SENTENCE = "Members of orders_owner can leave functions and tables behind that outlive this access."


def finding(level: str | None, sentence: str | None) -> Finding:
    return Finding(is_ok=False, is_fatal=False, what="for doctor", level=level, on_card=sentence)


async def card(environment: AccessEnvironment, request: Request) -> list[str]:
    """The texts of the block above the buttons, and the kinds of the last two blocks."""
    shown = card_message(await card_notice(environment.context, await environment.now(request))).blocks
    assert shown[-1]["type"] == "actions"
    return [element["text"] for element in shown[-2]["elements"]] if "⚠" in str(shown[-2]) else []


async def test_card_shows_what_the_server_said_of_this_level(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    assert await card(environment, request) == [], "not measured yet"
    environment.server.findings = (
        finding("readonly", SENTENCE),
        finding("migrate", "of another level"),
        finding(None, None),
    )
    await servers.measure_servers(environment.context)
    assert await card(environment, request) == [f"⚠ {SENTENCE}"]
    environment.server.errors["check"] = ServerDown("refused")
    environment.server.findings = ()
    await servers.measure_servers(environment.context)
    assert await card(environment, request) == [f"⚠ {SENTENCE}"], "the last result is kept"
    environment.server.errors.clear()
    await servers.measure_servers(environment.context)
    assert await card(environment, request) == []


async def test_warnings_of_a_card_are_bounded_and_escaped(environment: AccessEnvironment) -> None:
    environment.server.findings = (
        finding(None, "<!channel> " * 1000),
        *(finding("readonly", f"number {n}") for n in range(9)),
    )
    request = await environment.ask()
    await servers.measure_servers(environment.context)
    first, second = await card(environment, request)
    assert "<!channel>" not in first
    assert len(first) <= WARNING_MAX + 2
    assert second == "⚠ number 0"


async def test_card_of_a_level_with_set_role_says_so(environment: AccessEnvironment) -> None:
    environment.databases["databases"]["shop"]["levels"]["readonly"]["set_role"] = True
    environment.write()
    request = await environment.ask()
    assert await card(environment, request) == [
        "⚠ Its user may act as reader: what it makes as that role outlives this access."
    ]


async def test_ended_card_has_no_warning(environment: AccessEnvironment) -> None:
    environment.server.findings = (finding("readonly", SENTENCE),)
    request = await environment.granted()
    await servers.measure_servers(environment.context)
    assert await card(environment, request) == [f"⚠ {SENTENCE}"]
    await environment.turn(hours=2)
    assert "⚠" not in str(card_message(await card_notice(environment.context, await environment.now(request))).blocks)
