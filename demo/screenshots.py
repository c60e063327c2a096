"""Create ``docs/screenshots`` by using the demo in Chromium.

Before each screenshot passwords are masked, and dates, which local-slack shows as markup, become their fallback text.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from demo import browser
from demo.world import Demo

OUT = Path(__file__).parent.parent / "docs" / "screenshots"
REQUESTER, APPROVER = "U01REQUESTER", "U01APPROVER"
REASON = "Customer 88 was charged twice, checking the refund"
BLANK = r"""
() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    walk.currentNode.data = walk.currentNode.data
      .replace(/<!date\^\d+\^[^|]*\|([^>]*)>/g, '$1')
      .replace(/(postgresql:\/\/[^:]+:)[^@]+@/g, '$1••••••••@')
      .replace(/^[A-Za-z0-9]{32}$/g, '••••••••');
  }
}
"""
WAIT_SECONDS = 30


def shoot(page: Page, name: str) -> None:
    page.evaluate(BLANK)
    page.screenshot(path=str(OUT / f"{name}.png"))
    print(f"docs/screenshots/{name}.png")


def until(page: Page, text: str) -> None:
    expect(page.get_by_text(text, exact=False).last).to_be_visible(timeout=WAIT_SECONDS * 1000)


def wait(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not found():
        if time.monotonic() > deadline:
            raise TimeoutError("the expected state was not reached")
        time.sleep(0.1)


def break_glass_access(page: Page) -> None:
    """Use break-glass access, then sign it off."""
    browser.go_to(page, "db-access")
    browser.type_command(page, "/dbaccess breakglass shop-prod readonly 10m everything is down, looking at the orders")
    until(page, "Break-glass access #2")
    until(page, "must sign it off")
    shoot(page, "breakglass")
    browser.act_as(page, APPROVER)
    browser.click(page, "Sign off")
    until(page, "signed off by")
    browser.act_as(page, REQUESTER)


def play(demo: Demo, page: Page) -> None:
    """Do what the demo suggests, with a screenshot of each step."""
    browser.act_as(page, REQUESTER)
    browser.go_to(page, "db-access")
    browser.type_command(page, "/dbaccess request shop-prod readonly 10m")
    browser.field(page, "Why").fill(REASON)
    shoot(page, "request")
    browser.form(page).locator(".modal-btn.primary").click()
    until(page, "is waiting for")
    browser.form(page).locator(".modal-x").click()
    browser.act_as(page, APPROVER)
    until(page, "Access request #1")
    shoot(page, "card")
    browser.click(page, "Approve")
    until(page, "until")
    shoot(page, "approved")
    browser.act_as(page, REQUESTER)
    wait(lambda: any("is ready" in str(m["text"]) for m in demo.slack.dm(REQUESTER)))
    browser.go_to(page, "Requester")
    until(page, "is ready")
    shoot(page, "credentials")
    browser.click(page, "I'm done")
    until(page, "Login blocked")
    shoot(page, "ended")
    break_glass_access(page)
    browser.go_to(page, "db-audit")
    until(page, "verified")
    shoot(page, "feed")


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dbaccess-demo-") as folder:
        demo = Demo(Path(folder))
        with demo.running(), browser.page(demo.slack.url) as page:
            play(demo, page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
