"""``dbaccess store``: create, upgrade, check, copy and restore the ledger."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from bot.access.descriptions import count
from bot.access.log_events import POOLER_COSTS
from bot.access.recovery import describe_recovery
from bot.app import CannotStart, build_context
from bot.cli import common, restore
from bot.monitors.new_ledger import reason_against_new_ledger
from storage.backup import Backup, write_backup
from storage.ledger import Ledger

app = typer.Typer(no_args_is_help=True, help="The ledger: create it, upgrade it, check it, copy it, restore it.")
FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The copy of the ledger.")]


@app.command()
def upgrade(
    new: Annotated[
        bool, typer.Option("--new", help="Create a ledger even if servers have users that a lost one made.")
    ] = False,
) -> None:
    """Create the ledger, or upgrade it."""
    typer.echo(f"The ledger {asyncio.run(_upgrade(new=new))} is up to date.")
    if new:
        typer.echo("Users that a lost ledger made are listed by: dbaccess sweep")


@app.command()
def check(as_json: common.JsonOption = False) -> None:
    """Check that the ledger exists in this version and can be written."""
    found, recovery = asyncio.run(_check())
    if as_json:
        common.print_json([found])
        return
    requests, tasks = count(int(str(found["requests"])), "request"), count(int(str(found["tasks"])), "task")
    typer.echo(f"The ledger {found['ledger']} is well: {requests}, {found['live']} live, {tasks}.")
    if found["pooler"]:
        typer.echo(f"A connection pooler is in front of it. {POOLER_COSTS}")
    if recovery is not None:
        typer.echo(recovery)


@app.command()
def backup(file: FileArgument) -> None:
    """Copy the ledger to a new file, also while bots run."""
    made = asyncio.run(_backup(file))
    typer.echo(
        f"Copied ledger {made.ledger} to {made.path}: {count(made.requests, 'request')}, as of {made.made_at:%Y-%m-%d %H:%M:%S} UTC."
    )


@app.command("restore")
def restore_command(
    file: FileArgument,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also replace another ledger, or one that is newer than the copy.")
    ] = False,
) -> None:
    """Make a copy the ledger, in recovery mode. No bot may run. What it replaces is kept in a file."""
    asyncio.run(restore.restore_ledger(file, replaces=replace))


@app.command()
def resume(
    accept: Annotated[
        bool, typer.Option("--accept", help="Resume although users are left that the ledger does not know.")
    ] = False,
) -> None:
    """Return from recovery mode to normal. Compares the servers first. Status 1 when something is left."""
    if not asyncio.run(restore.resume_ledger(accepts=accept)):
        raise typer.Exit(1)


async def _upgrade(*, new: bool) -> str:
    context = build_context(common.quiet_settings())
    try:
        if not new and not await context.ledger.database.has_ledger():
            reason = await reason_against_new_ledger(context)
            if reason is not None:
                raise CannotStart(reason)
        await context.ledger.open(create=True)
        return context.ledger.id
    finally:
        context.engines.close()
        await context.ledger.close()


async def _check() -> tuple[dict[str, object], str | None]:
    """The answer as JSON, and the sentence about recovery mode where it is in force."""
    ledger = Ledger(common.quiet_settings().store_url.get_secret_value())
    try:
        await ledger.open(create=False)
        await ledger.observations.set_cursor("check", int((await ledger.now()).timestamp()))
        requests, live, tasks = (
            await ledger.requests.find(),
            await ledger.requests.live_grants(),
            await ledger.tasks.all(),
        )
        recovery = await ledger.recovery.current()
        found: dict[str, object] = {
            "ledger": ledger.id,
            "requests": len(requests),
            "live": len(live),
            "tasks": len(tasks),
            "pooler": await ledger.is_behind_pooler(),
            "recovery_since": None if recovery is None else common.rfc3339(recovery.since),
        }
        return found, None if recovery is None else describe_recovery(recovery)
    finally:
        await ledger.close()


async def _backup(path: Path) -> Backup:
    ledger = Ledger(common.quiet_settings().store_url.get_secret_value())
    try:
        await ledger.open(create=False)
        return await write_backup(ledger.database, path)
    finally:
        await ledger.close()
