"""What ``dbaccess run`` says on a terminal and in a log: ready, and one line for each grant, end, refusal and reload."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from tests.e2e.harness import APP_TOKEN, BOT_TOKEN, BYSTANDER, REQUESTER, SECOND, World, credentials, number, wait


def lines(world: World) -> list[str]:
    return world.log().splitlines()


def expect_line(world: World, pattern: str) -> str:
    return wait(f"a line like {pattern}", lambda: next((s for s in lines(world) if re.fullmatch(pattern, s)), None), 30)


def events(world: World) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(world) if line.startswith("{")]


def expect_event(world: World, event: str) -> dict[str, Any]:
    found = wait(f"the event {event}", lambda: next((e for e in events(world) if e["event"] == event), None), 30)
    return {name: value for name, value in found.items() if name not in ("event", "timestamp")}


def live_through_everything(world: World) -> str:
    """A grant, its end, what is refused in every way, a reload and a refused one. Gives the password that was delivered."""
    card, message = world.granted("shop readonly 1h looking at a refund")
    world.click(BYSTANDER, card, "Revoke")
    world.told(f"There is no request #{number(card)}", BYSTANDER)
    world.click(REQUESTER, message, "I'm done")
    world.card_says(card["ts"], "Ended")
    world.slack.command(REQUESTER, "C01DBACCESS", "request shop readonly 9h looking at a refund")
    world.told("9 h is too long", REQUESTER)
    mine = world.ask("shop readonly 2h another refund", SECOND)
    world.click(SECOND, mine, "Approve")
    world.told("You cannot decide your own request", SECOND)
    world.policy["rules"].append({**world.policy["rules"][0], "name": "the shop again"})
    world.write_config()
    return credentials(message)["Password"]


def break_the_policy(world: World) -> None:
    world.policy["rules"][0]["surprise"] = True
    world.write_config()


def test_lines_for_a_person(world: World) -> None:
    world.further_env["DBACCESS_LOG"] = "console"
    world.further_env["DBACCESS_LOG_LEVEL"] = "info"
    world.start()
    assert lines(world)[0] == f"ready: workspace Shop, 1 databases, 1 rules, ledger {world.folder}/ledger.db"
    password = live_through_everything(world)
    for pattern in (
        r"#1 live: requester, readonly on shop, until (\d{4}-\d\d-\d\d )?\d\d:\d\d",
        r"#1 refused click: bystander, revoke",
        r"#1 ended: requester, readonly on shop, given back, 0 sessions ended",
        r"refused: requester, readonly on shop: 9 h is too long for readonly on shop: at most 8 h\. Rule: the shop\.",
        r"#2 refused click: second, decide",
        r"reloaded: 1 databases, 2 rules",
    ):
        expect_line(world, pattern)
    break_the_policy(world)
    refused = expect_line(world, r"reload refused, the last good configuration stays in force: .*")
    assert re.search(r"policy\.yml:\d+: error: .*surprise: unknown key", refused)
    assert world.stop() == 0
    assert_no_secret(world, password)
    assert "Traceback" not in world.log()


def test_events_for_a_machine(world: World) -> None:
    world.further_env["DBACCESS_LOG_LEVEL"] = "info"
    world.start()
    ready = expect_event(world, "bot_ready")
    assert ready == {
        "workspace": "Shop", "databases": 1, "rules": 1, "ledger": f"{world.folder}/ledger.db", "level": "info",
    }  # fmt: skip
    password = live_through_everything(world)
    about = {"request": 1, "who": "requester", "who_id": REQUESTER, "access_level": "readonly", "database": "shop"}
    live = expect_event(world, "grant_live")
    assert datetime.fromisoformat(live.pop("until")).tzinfo is not None
    assert live.pop("username").startswith(world.prefix)
    assert live == {**about, "level": "info"}
    assert expect_event(world, "grant_ended") == {**about, "why": "given back", "sessions": 0, "level": "info"}
    refused = expect_event(world, "request_refused")
    assert refused.pop("why").startswith("9 h is too long")
    assert refused == {k: v for k, v in about.items() if k != "request"} | {"level": "info"}
    assert expect_event(world, "click_refused")["verb"] == "revoke"
    assert expect_event(world, "configuration_loaded") == {"databases": 1, "rules": 2, "level": "info"}
    break_the_policy(world)
    (problem,) = expect_event(world, "configuration_refused")["problems"]
    assert "unknown key" in problem
    assert world.stop() == 0
    assert all(line.startswith("{") for line in lines(world)), "each line is JSON"
    assert_no_secret(world, password)


def assert_no_secret(world: World, password: str) -> None:
    assert not [secret for secret in (password, BOT_TOKEN, APP_TOKEN, world.admin_url) if secret in world.log()]


def test_the_library_has_nothing_to_say(world: World) -> None:
    """It warns where it finds the token twice: in the environment, and in the client that it was given."""
    world.further_env["DBACCESS_LOG_LEVEL"] = "info"
    world.start()
    expect_event(world, "bot_ready")
    assert not [event for event in events(world) if event["level"] != "info"]
    assert "`token`" not in world.log()
