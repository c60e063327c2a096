"""One grant from request to receipt, with the real bot process, local-slack and a private PostgreSQL; once with the ledger in SQLite, once in PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from tests.e2e.harness import ALERTS, AUDIT, CARDS, LEAD, REQUESTER, Environment, is_dead, psql, wait
from tests.e2e.messages import buttons, number, pasted_url, text_of
from tests.servers.postgresql import PASSWORD, SUPERUSER


def test_grant_from_request_to_receipt(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 40s looking at a refund")
    assert f"<@{REQUESTER}> asks for *readonly* on *shop* for 40 s." in text_of(card)
    environment.click(LEAD, card, "Approve")
    message = environment.dm_says("is ready")
    for name in ("Host", "Port", "Database", "Username", "Password"):
        assert f"*{name}*\\n`" in text_of(message)
    with psycopg.connect(pasted_url(message), autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("DELETE FROM shop.customers")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(
                pasted_url(message).replace(f"/{environment.harness.database}", f"/{environment.harness.other}")
            )
        read = psql(message, "SELECT current_user, count(*) FROM shop.customers")
        assert (read.returncode, read.stdout.split("|")[-1].strip()) == (0, "1000"), read.stderr
        written = psql(message, "DELETE FROM shop.customers")
        assert written.returncode != 0
        assert "permission denied" in written.stderr
        assert "Revoke" in buttons(environment.card_says(card["ts"], "until"))
        ended = environment.card_says(card["ts"], "Login blocked · 1 session ended")
        assert is_dead(session)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(pasted_url(message))
    environment.wait_until_no_users()
    assert " · verified " in text_of(ended)
    assert not buttons(ended)
    closed = environment.dm_says("ended")
    assert "Password" not in text_of(closed)
    for text in ("requested", "approved", "granted", "verified"):
        environment.feed_says(text)
    request = environment.request(number(card))
    assert request["state"] == "revoked"
    assert request["ended_because"] == "expired"
    assert environment.stop() == 0
    assert not environment.slack.messages(ALERTS)
    assert environment.slack.messages(AUDIT)
    assert CARDS


def test_card_says_what_of_a_grant_may_outlive_it(environment: Environment) -> None:
    """Users of the level ``write`` may create in the schema, those of ``readonly`` may not."""
    environment.databases["databases"]["shop"]["levels"]["write"] = {"roles": ["shop_writer"]}
    environment.start()
    wait("the server was measured", lambda: "server_checked" in environment.log())
    card = environment.request_access("shop write 1h correcting a refund")
    assert "⚠ Users of this level can leave tables and functions in the schema shop behind (CREATE)." in text_of(card)
    assert "(CREATE)" not in text_of(environment.request_access("shop readonly 1h looking at a refund"))


def test_grant_with_the_ledger_on_postgresql_after_store_upgrade(environment: Environment) -> None:
    database = environment.harness.server.new_database("ledger")
    environment.ledger_url = environment.harness.server.url(SUPERUSER, PASSWORD, database).replace(
        "postgresql://", "postgresql+psycopg://"
    )
    environment.write_config()
    refused = subprocess.run(
        [sys.executable, "-m", "bot.cli", "run"],
        capture_output=True,
        text=True,
        check=False,
        env=environment.env,
        cwd=environment.folder,
    )
    assert refused.returncode == 1
    assert "run `dbaccess store upgrade`" in refused.stderr
    assert PASSWORD not in refused.stderr
    environment.cli("store", "upgrade")
    environment.start()
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    environment.click(REQUESTER, message, "I'm done")
    assert "user removed" in text_of(environment.card_says(card["ts"], "Ended"))
    environment.wait_until_no_users()
    second, _ = environment.request_and_approve("shop readonly 2h looking at a refund")
    assert "user removed" in environment.cli("revoke", str(number(second)))
    environment.wait_until_no_users()
    assert PASSWORD not in environment.log()
    assert environment.stop() == 0
