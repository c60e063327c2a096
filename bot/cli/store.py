"""``dbaccess store``: create, upgrade and check the ledger."""

from __future__ import annotations

import asyncio

import typer

from bot.access.log_events import POOLER_COSTS
from bot.cli import common
from storage.ledger import Ledger

app = typer.Typer(no_args_is_help=True, help="The ledger: create it, upgrade it, check it.")


@app.command()
def upgrade() -> None:
    """Create the ledger, or upgrade it."""
    typer.echo(f"The ledger {asyncio.run(_upgrade())} is up to date.")


@app.command()
def check(as_json: common.JsonOption = False) -> None:
    """Check that the ledger exists in this version and can be written."""
    found = asyncio.run(_check())
    if as_json:
        common.print_json([found])
    else:
        typer.echo(
            f"The ledger {found['ledger']} is well: {found['requests']} requests, {found['live']} live, {found['tasks']} tasks."
        )
        if found["pooler"]:
            typer.echo(f"A connection pooler is in front of it. {POOLER_COSTS}")


async def _upgrade() -> str:
    ledger = Ledger(common.quiet_settings().store_url.get_secret_value())
    try:
        await ledger.open(create=True)
        return ledger.id
    finally:
        await ledger.close()


async def _check() -> dict[str, object]:
    ledger = Ledger(common.quiet_settings().store_url.get_secret_value())
    try:
        await ledger.open(create=False)
        await ledger.observations.set_cursor("check", int((await ledger.now()).timestamp()))
        requests, live, tasks = (
            await ledger.requests.find(),
            await ledger.requests.live_grants(),
            await ledger.tasks.all(),
        )
        return {
            "ledger": ledger.id,
            "requests": len(requests),
            "live": len(live),
            "tasks": len(tasks),
            "pooler": await ledger.is_behind_pooler(),
        }
    finally:
        await ledger.close()
