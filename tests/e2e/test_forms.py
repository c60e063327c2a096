"""The forms, in a real browser."""

from __future__ import annotations

import os

import pytest

from demo import browser
from tests.e2e.harness import CARDS, LEAD, REQUESTER, World, buttons, number, text_of, wait


@pytest.fixture(autouse=True)
def chromium() -> None:
    try:
        browser.chromium()
    except browser.BrowserMissing as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def test_deny_with_its_form(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    with browser.page(world.slack.url) as page:
        browser.act_as(page, LEAD)
        browser.go_to(page, "db-access")
        browser.click(page, "Deny")
        browser.field(page, "Why").fill("Not before the <!channel> freeze ends")
        browser.form(page).locator(".modal-btn.primary").click()
        denied = world.card_says(card["ts"], "Denied")
    assert "Not before the <!channel> freeze ends" in text_of(denied)
    assert not buttons(denied)
    told = world.dm_says("was denied by")
    assert "Ask again" in buttons(told)
    assert "<!channel>" not in told["text"]
    assert world.request(number(card))["ended_because"] == "denied"
    assert world.users() == []


def test_the_form_asks_for_what_was_left_out(world: World) -> None:
    world.start()
    with browser.page(world.slack.url) as page:
        browser.act_as(page, REQUESTER)
        browser.go_to(page, "db-access")
        browser.type_command(page, "/dbaccess request shop readonly 30m")
        browser.field(page, "Why").fill("no")
        browser.form(page).locator(".modal-btn.primary").click()
        wait("the form says what is wrong", lambda: "at least 5 characters" in browser.form(page).inner_text())
        browser.field(page, "Why").fill("looking at a refund")
        browser.form(page).locator(".modal-btn.primary").click()
        wait("the form says what happens now", lambda: "is waiting for" in browser.form(page).inner_text())
    card = wait(
        "the card", lambda: next((m for m in world.slack.messages(CARDS) if "Access request" in text_of(m)), None)
    )
    assert "*readonly* on *shop* for 30 min" in text_of(card)
