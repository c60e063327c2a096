"""The command line beside the running bot, and without one."""

from __future__ import annotations

import json

from tests.e2e.harness import ADMIN, REQUESTER, World, number


def test_beside_the_bot_and_without_it(world: World) -> None:
    world.write_config()
    assert "no ledger" in _stderr(world, "list")
    world.start()
    card, _ = world.granted("shop readonly 1h looking at a refund")
    (row,) = json.loads(world.cli("list", "--json"))
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
    assert "another bot runs" in _stderr(world, "run")
    assert "user removed" in world.cli("revoke", f"#{number(card)}")
    world.no_users()
    assert json.loads(world.cli("list", "--json")) == []
    shown = world.cli("show", str(number(card)))
    assert "revoked by cli:" in shown or "grant.revoked" in shown
    assert "cli:" in shown
    again, _ = world.granted("shop readonly 2h looking at a refund")
    world.stop()
    assert world.users()
    (ended,) = json.loads(world.cli("revoke", "--person", REQUESTER, "--json"))
    assert ended["state"] == "revoked"
    assert ended["receipt"]["was_absent"] is False
    assert world.users() == []
    assert world.cli("revoke", "--all").strip() == "There is nothing live."
    world.cli("revoke", expect=2)
    world.cli("revoke", "nonsense", expect=2)
    world.cli("show", "99", expect=1)
    assert "is well" in world.cli("store", "check")
    assert "No errors" in world.cli("policy", "check")
    assert "Allowed" in world.cli("policy", "explain", REQUESTER, "shop")
    world.cli("policy", "explain", ADMIN, "shop", expect=1)
    world.cli("policy", "explain", REQUESTER, "shop", "readonly", "never", expect=2)
    assert number(again) == 2


def test_declared_gone(world: World) -> None:
    world.start()
    card, _ = world.granted("shop readonly 1h looking at a refund")
    world.stop()
    world.admin_url = world.admin_url.replace(f":{world.harness.server.port}/", ":1/")
    assert "not ended yet" in world.cli("revoke", str(number(card)), "--wait", "3", expect=1)
    said = world.cli("revoke", str(number(card)), "--gone", "the server was scrapped")
    assert "Declared gone by an administrator: the server was scrapped" in said
    assert world.request(number(card))["receipt"] == {"gone": "the server was scrapped"}
    with world.harness.superuser("postgres") as connection:
        for user in world.users():
            connection.execute(f"DROP ROLE {user}")


def _stderr(world: World, *arguments: str) -> str:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=world.env,
        cwd=world.folder,
    )
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr
