"""The command line while the bot runs, and while it does not."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.e2e.harness import ADMIN, REQUESTER, Environment
from tests.e2e.messages import number


def test_commands_work_with_and_without_a_running_bot(environment: Environment) -> None:
    environment.write_config()
    assert "no ledger" in _stderr(environment, "list")
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 1h looking at a refund")
    (row,) = json.loads(environment.cli("list", "--json"))
    assert set(row) == {
        "id",
        "state",
        "kind",
        "requester",
        "database",
        "level",
        "username",
        "asked_at",
        "expires_at",
        "ended_at",
        "ended_because",
        "receipt",
    }
    assert (row["state"], row["requester"], row["database"]) == ("active", REQUESTER, "shop")
    assert row["asked_at"].endswith("Z")
    assert "another bot runs" in _stderr(environment, "run")
    assert "user removed" in environment.cli("revoke", f"#{number(card)}")
    environment.wait_until_no_users()
    assert json.loads(environment.cli("list", "--json")) == []
    shown = environment.cli("show", str(number(card)))
    assert "revoked by cli:" in shown or "grant.revoked" in shown
    assert "cli:" in shown
    second, _ = environment.request_and_approve("shop readonly 2h looking at a refund")
    environment.stop()
    assert environment.users()
    (ended,) = json.loads(environment.cli("revoke", "--person", REQUESTER, "--json"))
    assert ended["state"] == "revoked"
    assert ended["receipt"]["was_absent"] is False
    assert environment.users() == []
    assert environment.cli("revoke", "--all").strip() == "There is nothing live."
    environment.cli("revoke", expect=2)
    environment.cli("revoke", "nonsense", expect=2)
    environment.cli("show", "99", expect=1)
    assert "is well" in environment.cli("store", "check")
    assert "No errors" in environment.cli("policy", "check")
    assert "Allowed" in environment.cli("policy", "explain", REQUESTER, "shop")
    environment.cli("policy", "explain", ADMIN, "shop", expect=1)
    environment.cli("policy", "explain", REQUESTER, "shop", "readonly", "never", expect=2)
    assert number(second) == 2


def test_grant_on_a_lost_server_is_declared_gone(environment: Environment) -> None:
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 1h looking at a refund")
    environment.stop()
    environment.admin_url = environment.admin_url.replace(f":{environment.harness.server.port}/", ":1/")
    assert "not ended yet" in environment.cli("revoke", str(number(card)), "--wait", "3", expect=1)
    answer = environment.cli("revoke", str(number(card)), "--gone", "the server was scrapped")
    assert "Declared gone by an administrator: the server was scrapped" in answer
    assert environment.request(number(card))["receipt"] == {"gone": "the server was scrapped"}
    with environment.harness.superuser("postgres") as connection:
        for user in environment.users():
            connection.execute(f"DROP ROLE {user}")


def _stderr(environment: Environment, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment.env,
        cwd=environment.folder,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr
