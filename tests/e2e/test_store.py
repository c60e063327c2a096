"""The same bot with its ledger on PostgreSQL."""

from __future__ import annotations

import subprocess
import sys

from tests.e2e.harness import REQUESTER, World, number, text_of
from tests.servers.postgresql import PASSWORD, SUPERUSER


def test_on_postgresql_only_upgrade_makes_tables_and_the_story_is_the_same(world: World) -> None:
    database = world.harness.server.new_database("ledger")
    world.store = world.harness.server.url(SUPERUSER, PASSWORD, database).replace(
        "postgresql://", "postgresql+psycopg://"
    )
    world.write_config()
    refused = subprocess.run(
        [sys.executable, "-m", "bot.cli", "run"],
        capture_output=True,
        text=True,
        check=False,
        env=world.env,
        cwd=world.folder,
    )
    assert refused.returncode == 1
    assert "run `dbaccess store upgrade`" in refused.stderr
    assert PASSWORD not in refused.stderr
    world.cli("store", "upgrade")
    world.start()
    card, message = world.granted("shop readonly 1h looking at a refund")
    world.click(REQUESTER, message, "I'm done")
    assert "user removed" in text_of(world.card_says(card["ts"], "Ended"))
    world.no_users()
    again, _ = world.granted("shop readonly 2h looking at a refund")
    assert "user removed" in world.cli("revoke", str(number(again)))
    world.no_users()
    assert PASSWORD not in world.log()
    assert world.stop() == 0
