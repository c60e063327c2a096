"""The Slack forms, in a real browser."""

from __future__ import annotations

import os

import pytest

from demo import browser
from tests.e2e.harness import CARDS, LEAD, REQUESTER, Environment, wait
from tests.e2e.messages import buttons, number, text_of


@pytest.fixture(autouse=True)
def chromium() -> None:
    try:
        browser.chromium()
    except browser.BrowserMissing as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def test_request_is_denied_with_a_reason(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    with browser.page(environment.slack.url) as page:
        browser.act_as(page, LEAD)
        browser.go_to(page, "db-access")
        browser.click(page, "Deny")
        browser.field(page, "Why").fill("Not before the <!channel> freeze ends")
        browser.form(page).locator(".modal-btn.primary").click()
        denied = environment.card_says(card["ts"], "Denied")
    assert "Not before the <!channel> freeze ends" in text_of(denied)
    assert not buttons(denied)
    message = environment.dm_says("was denied by")
    assert "Ask again" in buttons(message)
    assert "<!channel>" not in message["text"]
    assert environment.request(number(card))["ended_because"] == "denied"
    assert environment.users() == []


def test_request_form_asks_for_the_missing_reason(environment: Environment) -> None:
    environment.start()
    with browser.page(environment.slack.url) as page:
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
        "the card", lambda: next((m for m in environment.slack.messages(CARDS) if "Access request" in text_of(m)), None)
    )
    assert "*readonly* on *shop* for 30 min" in text_of(card)
