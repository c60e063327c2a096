"""Extensions, break-glass access and reloading the policy, with the real bot process on a real PostgreSQL."""

from __future__ import annotations

import signal
import time

import psycopg

from tests.e2e.harness import ADMIN, ALERTS, AUDIT, CARDS, LEAD, REQUESTER, Environment, is_dead, wait
from tests.e2e.messages import pasted_url, text_of


def test_extension_keeps_the_open_session(environment: Environment) -> None:
    environment.start()
    card, message = environment.request_and_approve("shop readonly 40s looking at a refund")
    with psycopg.connect(pasted_url(message), autocommit=True) as session:
        environment.slack.command(REQUESTER, CARDS, "extend 1 25s the refund takes longer")
        card_of_extension = wait(
            "a card", lambda: next((m for m in environment.slack.messages(CARDS) if "More time #2" in text_of(m)), None)
        )
        live = environment.request(1)
        before = live["expires_at"]
        environment.click(LEAD, card_of_extension, "Approve")
        environment.dm_says("has more time")
        assert environment.request(1)["expires_at"] > before
        with environment.harness.superuser("postgres") as connection:
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
        with environment.harness.superuser("postgres") as connection:
            wait(
                "the former end is over",
                lambda: connection.execute("SELECT now() > %s", (before,)).fetchone() == (True,),
            )
        time.sleep(1)
        assert session.execute("SELECT 1").fetchone() == (1,)
        wait("the end", lambda: is_dead(session))
    assert "user removed" in text_of(environment.card_says(card["ts"], "Ended"))
    environment.wait_until_no_users()
    assert environment.stop() == 0


def test_break_glass_and_sign_off(environment: Environment) -> None:
    environment.policy["rules"].append({
        "name": "break glass", "break_glass": True, "requesters": [REQUESTER], "databases": ["*"], "levels": ["*"],
        "approvals": [], "review": {"from": [LEAD, ADMIN], "within": "24h"},
    })  # fmt: skip
    environment.start()
    environment.slack.command(REQUESTER, CARDS, "breakglass shop readonly 1h everything is down")
    message = environment.dm_says("is ready (#1)")
    with psycopg.connect(pasted_url(message), autocommit=True) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    wait("an alert", lambda: any("used break-glass access" in text_of(m) for m in environment.slack.messages(ALERTS)))
    card = wait(
        "the card",
        lambda: next((m for m in environment.slack.messages(CARDS) if "Break-glass access #1" in text_of(m)), None),
    )
    environment.click(REQUESTER, environment.card(card["ts"]), "Sign off")
    environment.answer_says("You cannot sign off your own access", REQUESTER)
    environment.click(LEAD, environment.card(card["ts"]), "Sign off")
    environment.card_says(card["ts"], "signed off by")
    environment.feed_says("BREAK-GLASS granted")
    assert "user removed" in environment.cli("revoke", "1")
    environment.wait_until_no_users()
    assert environment.stop() == 0


def test_sighup_reloads_the_files_and_an_invalid_file_is_not_in_force(environment: Environment) -> None:
    environment.start()
    assert environment.bot is not None
    environment.bot.send_signal(signal.SIGHUP)
    wait(
        "it was read again",
        lambda: text_of({"text": str(environment.slack.messages(AUDIT))}).count("policy.loaded") >= 2,
    )
    (environment.folder / "config" / "policy.yml").write_text("rules: [\n")
    environment.bot.send_signal(signal.SIGHUP)
    wait("an alert", lambda: any("is not in force" in text_of(m) for m in environment.slack.messages(ALERTS)))
    environment.request_and_approve("shop readonly 1h looking at a refund")
    environment.cli("revoke", "1")
    assert environment.stop() == 0
