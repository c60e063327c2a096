"""Use local-slack's page in Chromium as a person would. For the screenshots, and for tests of forms."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, expect, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-sync",
]
WIDTH, HEIGHT = 1280, 860


class BrowserMissing(Exception):
    """Chromium is not installed."""


def chromium() -> str:
    """The path of the system's Chromium. Raises BrowserMissing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise BrowserMissing("chromium is not installed; on Debian: apt-get install chromium")
    return found


@contextmanager
def page(url: str) -> Iterator[Page]:
    """Open the workspace."""
    program = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            opened.goto(url)
            expect(opened.locator(".sidebar-item").first).to_be_visible()
            yield opened
        finally:
            browser.close()


def act_as(opened: Page, user: str) -> None:
    opened.locator("select").filter(has=opened.locator(f'option[value="{user}"]')).first.select_option(user)


def go_to(opened: Page, channel: str) -> None:
    opened.locator(".sidebar-item", has_text=channel).first.click()


def type_command(opened: Page, text: str) -> None:
    box = opened.locator("textarea").first
    box.fill(text)
    box.press("Enter")


def click(opened: Page, label: str) -> None:
    """Click the newest button with that label."""
    opened.locator(".bk-button", has_text=label).last.click()


def form(opened: Page) -> Locator:
    found = opened.locator(".modal")
    expect(found).to_be_visible()
    return found


def field(opened: Page, label: str) -> Locator:
    return (
        form(opened)
        .locator(".bk-input", has=opened.locator(".bk-label", has_text=label))
        .locator("input, textarea, select")
        .first
    )
