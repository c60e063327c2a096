"""What the policy promises, by the real process on a real PostgreSQL: more time with a session open, break-glass, a file read anew."""

from __future__ import annotations

import signal
import time

import psycopg

from tests.e2e.harness import ADMIN, ALERTS, AUDIT, CARDS, LEAD, REQUESTER, World, is_dead, pasted, text_of, wait


def test_more_time_while_the_session_lives(world: World) -> None:
    world.start()
    card, message = world.granted("shop readonly 40s looking at a refund")
    with psycopg.connect(pasted(message), autocommit=True) as session:
        world.slack.command(REQUESTER, CARDS, "extend 1 25s the refund takes longer")
        asked = wait(
            "a card", lambda: next((m for m in world.slack.messages(CARDS) if "More time #2" in text_of(m)), None)
        )
        live = world.request(1)
        before = live["expires_at"]
        world.click(LEAD, asked, "Approve")
        world.dm_says("has more time")
        assert world.request(1)["expires_at"] > before
        with world.harness.superuser("postgres") as connection:
            moved = wait(
                "the server's own end",
                lambda: (
                    connection.execute(
                        "SELECT rolvaliduntil > %s::timestamptz + interval '24 s' FROM pg_roles WHERE rolname = %s",
                        (before, live["username"]),
                    ).fetchone()
                    == (True,)
                ),
            )
        assert moved
        with world.harness.superuser("postgres") as connection:
            wait(
                "the former end is over",
                lambda: connection.execute("SELECT now() > %s", (before,)).fetchone() == (True,),
            )
        time.sleep(1)
        assert session.execute("SELECT 1").fetchone() == (1,)
        wait("the end", lambda: is_dead(session))
    assert "user removed" in text_of(world.card_says(card["ts"], "Ended"))
    world.no_users()
    assert world.stop() == 0


def test_break_glass_and_sign_off(world: World) -> None:
    world.policy["rules"].append({
        "name": "break glass", "break_glass": True, "requesters": [REQUESTER], "databases": ["*"], "levels": ["*"],
        "approvals": [], "review": {"from": [LEAD, ADMIN], "within": "24h"},
    })  # fmt: skip
    world.start()
    world.slack.command(REQUESTER, CARDS, "breakglass shop readonly 1h everything is down")
    message = world.dm_says("is ready (#1)")
    with psycopg.connect(pasted(message), autocommit=True) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    wait("an alert", lambda: any("used break-glass access" in text_of(m) for m in world.slack.messages(ALERTS)))
    card = wait(
        "the card",
        lambda: next((m for m in world.slack.messages(CARDS) if "Break-glass access #1" in text_of(m)), None),
    )
    world.click(REQUESTER, world.card(card["ts"]), "Sign off")
    world.told("You cannot sign off your own access", REQUESTER)
    world.click(LEAD, world.card(card["ts"]), "Sign off")
    world.card_says(card["ts"], "signed off by")
    world.feed_says("BREAK-GLASS granted")
    assert "user removed" in world.cli("revoke", "1")
    world.no_users()
    assert world.stop() == 0


def test_the_files_are_read_anew_on_sighup_and_what_is_broken_is_not_in_force(world: World) -> None:
    world.start()
    assert world.bot is not None
    world.bot.send_signal(signal.SIGHUP)
    wait("it was read again", lambda: text_of({"text": str(world.slack.messages(AUDIT))}).count("policy.loaded") >= 2)
    (world.folder / "config" / "policy.yml").write_text("rules: [\n")
    world.bot.send_signal(signal.SIGHUP)
    wait("an alert", lambda: any("is not in force" in text_of(m) for m in world.slack.messages(ALERTS)))
    world.granted("shop readonly 1h looking at a refund")
    world.cli("revoke", "1")
    assert world.stop() == 0
