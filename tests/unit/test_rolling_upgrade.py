"""A newer version upgrades the ledger while older replicas run. These go on, unless the migration says that they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import storage
from storage.database import Database
from storage.errors import SchemaMismatch
from storage.ledger import Ledger
from storage.records import State
from storage.transitions import Transition
from tests.unit.ledgers import TurnableClock, bring, command_for, draft

NEWER_MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{head}"
{readable_from}


def upgrade() -> None:
    op.add_column("bots", sa.Column("zone", sa.String(8)))
"""
HEAD = "0005"
UPGRADES = "import asyncio, sys; from storage.ledger import Ledger; asyncio.run(Ledger(sys.argv[1]).open(create=True))"


def upgrade_with_newer_version(folder: Path, url: str, *, readable_from: str | None) -> None:
    """Run the upgrade of a program that has one migration more. ``readable_from``: what this migration declares."""
    shutil.copytree(Path(storage.__file__).parent, folder / "storage")
    declared = f'readable_from = "{readable_from}"' if readable_from else ""
    text = NEWER_MIGRATION.format(head=HEAD, readable_from=declared)
    (folder / "storage" / "migrations" / "versions" / "v9001_newer.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", UPGRADES, url], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("create", [False, True])
async def test_an_older_version_uses_the_ledger_of_a_compatible_newer_one(
    ledger: Ledger, ledger_url: str, tmp_path: Path, clock: TurnableClock, create: bool
) -> None:
    live = await bring(ledger, clock, State.ACTIVE)
    ledger.replicas.join("older", "1")
    await ledger.replicas.heartbeat("abc123")
    upgrade_with_newer_version(tmp_path / "newer", ledger_url, readable_from=HEAD)

    await ledger.replicas.heartbeat("abc123")  # the one that runs
    ended = await ledger.requests.advance(live.id, command_for(Transition.REVOKE, live))
    assert ended.state is State.REVOKING

    again = Ledger(ledger_url, clock=clock)  # one that starts
    await again.open(create=create)
    assert again.id == ledger.id
    await again.requests.submit(draft())
    assert (await again.requests.advance(live.id, command_for(Transition.CONFIRM, live))).state is State.REVOKED
    await again.close()


@pytest.mark.parametrize("create", [False, True])
@pytest.mark.parametrize("readable_from", [None, "9001", "9000"])
async def test_an_older_version_refuses_the_ledger_of_an_incompatible_newer_one(
    ledger: Ledger, ledger_url: str, tmp_path: Path, create: bool, readable_from: str | None
) -> None:
    upgrade_with_newer_version(tmp_path / "newer", ledger_url, readable_from=readable_from)
    again = Ledger(ledger_url)
    with pytest.raises(SchemaMismatch, match="newer dbaccess"):
        await again.open(create=create)
    await again.close()


async def test_the_tests_above_add_to_the_newest_migration(ledger_url: str) -> None:
    database = Database(ledger_url)
    await database.migrate(lambda _tx: None)
    assert (
        await database.read(lambda tx: tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()) == HEAD
    )
    await database.close()
