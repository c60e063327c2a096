"""The log of ``dbaccess run``, on a terminal and as JSON: one line when it is ready, and one for each grant, end, refusal and reload."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from tests.e2e.harness import APP_TOKEN, BOT_TOKEN, BYSTANDER, REQUESTER, SECOND, Environment, wait
from tests.e2e.messages import credentials, number


def lines(environment: Environment) -> list[str]:
    return environment.log().splitlines()


def expect_line(environment: Environment, pattern: str) -> str:
    return wait(
        f"a line like {pattern}", lambda: next((s for s in lines(environment) if re.fullmatch(pattern, s)), None), 30
    )


def events(environment: Environment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(environment) if line.startswith("{")]


def expect_event(environment: Environment, event: str) -> dict[str, Any]:
    found = wait(f"the event {event}", lambda: next((e for e in events(environment) if e["event"] == event), None), 30)
    return {name: value for name, value in found.items() if name not in ("event", "timestamp")}


def cause_every_event(environment: Environment) -> str:
    """Cause a grant, its end, each kind of refusal and a reload. Returns the password of the grant."""
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    environment.click(BYSTANDER, card, "Revoke")
    environment.answer_says(f"There is no request #{number(card)}", BYSTANDER)
    environment.click(REQUESTER, message, "I'm done")
    environment.card_says(card["ts"], "Ended")
    environment.slack.command(REQUESTER, "C01DBACCESS", "request shop readonly 9h looking at a refund")
    environment.answer_says("9 h is too long", REQUESTER)
    mine = environment.request_access("shop readonly 2h another refund", SECOND)
    environment.click(SECOND, mine, "Approve")
    environment.answer_says("You cannot decide your own request", SECOND)
    environment.policy["rules"].append({**environment.policy["rules"][0], "name": "the shop again"})
    environment.write_config()
    return credentials(message)["Password"]


def break_the_policy(environment: Environment) -> None:
    environment.policy["rules"][0]["surprise"] = True
    environment.write_config()


def test_console_log_has_a_line_for_each_event(environment: Environment) -> None:
    environment.extra_env["DBACCESS_LOG"] = "console"
    environment.extra_env["DBACCESS_LOG_LEVEL"] = "info"
    environment.start()
    assert (
        lines(environment)[0] == f"ready: workspace Shop, 1 databases, 1 rules, ledger {environment.folder}/ledger.db"
    )
    password = cause_every_event(environment)
    for pattern in (
        r"#1 live: requester, readonly on shop, until (\d{4}-\d\d-\d\d )?\d\d:\d\d",
        r"#1 refused click: bystander, revoke",
        r"#1 ended: requester, readonly on shop, given back, 0 sessions ended",
        r"refused: requester, readonly on shop: 9 h is too long for readonly on shop: at most 8 h\. Rule: the shop\.",
        r"#2 refused click: second, decide",
        r"reloaded: 1 databases, 2 rules",
    ):
        expect_line(environment, pattern)
    break_the_policy(environment)
    refused = expect_line(environment, r"reload refused, the last good configuration stays in force: .*")
    assert re.search(r"policy\.yml:\d+: error: .*surprise: unknown key", refused)
    assert environment.stop() == 0
    assert_no_secret(environment, password)
    assert "Traceback" not in environment.log()


def test_json_log_has_an_event_with_fields_for_each_event(environment: Environment) -> None:
    environment.extra_env["DBACCESS_LOG_LEVEL"] = "info"
    environment.start()
    ready = expect_event(environment, "bot_ready")
    assert ready == {
        "workspace": "Shop", "databases": 1, "rules": 1, "ledger": f"{environment.folder}/ledger.db", "level": "info",
    }  # fmt: skip
    password = cause_every_event(environment)
    about = {"request": 1, "who": "requester", "who_id": REQUESTER, "access_level": "readonly", "database": "shop"}
    live = expect_event(environment, "grant_live")
    assert datetime.fromisoformat(live.pop("until")).tzinfo is not None
    assert live.pop("username").startswith(environment.prefix)
    assert live == {**about, "level": "info"}
    assert expect_event(environment, "grant_ended") == {**about, "why": "given back", "sessions": 0, "level": "info"}
    refused = expect_event(environment, "request_refused")
    assert refused.pop("why").startswith("9 h is too long")
    assert refused == {k: v for k, v in about.items() if k != "request"} | {"level": "info"}
    assert expect_event(environment, "click_refused")["verb"] == "revoke"
    assert expect_event(environment, "configuration_loaded") == {"databases": 1, "rules": 2, "level": "info"}
    break_the_policy(environment)
    (problem,) = expect_event(environment, "configuration_refused")["problems"]
    assert "unknown key" in problem
    assert environment.stop() == 0
    assert all(line.startswith("{") for line in lines(environment)), "each line is JSON"
    assert_no_secret(environment, password)


def assert_no_secret(environment: Environment, password: str) -> None:
    assert not [
        secret for secret in (password, BOT_TOKEN, APP_TOKEN, environment.admin_url) if secret in environment.log()
    ]


def test_slack_library_logs_no_warning(environment: Environment) -> None:
    """It would warn if it found the token twice, in the environment variables and in the client that it gets."""
    environment.extra_env["DBACCESS_LOG_LEVEL"] = "info"
    environment.start()
    expect_event(environment, "bot_ready")
    assert not [event for event in events(environment) if event["level"] != "info"]
    assert "`token`" not in environment.log()
