"""``dbaccess store restore`` and ``dbaccess store resume``: a copy becomes the ledger, in recovery mode; and the return to normal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import typer

from bot.access.context import Context
from bot.access.descriptions import count
from bot.access.recovery import RULES, STEPS, close_waiting_requests, recovery_alert
from bot.access.targets import unknown_servers
from bot.app import build_context, command_line_context, operator
from bot.cli import common
from bot.monitors.new_ledger import highest_number, list_all_users
from bot.monitors.strays import Stray, StrayKind, SweepResult, find_strays
from storage.backup import Backup, read_backup
from storage.errors import LedgerInUse
from storage.restore import Notice, Restored, check_may_replace, content_to_replace, is_served, restore

NAMED_AT_MOST = 20


async def restore_ledger(path: Path, *, replaces: bool) -> None:
    """Restore the ledger of the settings from a copy. Raises BackupError, LedgerInUse and the other errors of the ledger."""
    backup = read_backup(path)
    context = build_context(common.quiet_settings())
    database = context.ledger.database
    try:
        await _check_no_bot_runs(context)
        content = await content_to_replace(database)
        if content is not None and not context.ledger.is_sqlite and await is_served(database):
            raise LedgerInUse("a bot was seen on this ledger within two minutes; stop all of them first")
        if not replaces:
            check_may_replace(content, backup)
        number, unanswered = await _numbers_on_servers(context, backup)
        evidence = _evidence(backup, unanswered)
        notice = Notice(evidence=evidence, alert=recovery_alert(evidence))
        keep_as = await _name_to_keep(context, backup)
        done = await restore(database, backup, content, found=number, notice=notice, keep_as=keep_as)
    finally:
        context.engines.close()
        context.ledger.release_run_lock()
        await context.ledger.close()
    _report(backup, done, unanswered)


async def _check_no_bot_runs(context: Context) -> None:
    """Take the run lock of a SQLite ledger. Raises LedgerInUse where a bot has it."""
    if context.ledger.is_sqlite:
        folder = context.ledger.database.path.resolve().parent
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        if not context.ledger.acquire_run_lock(is_to_be_made=True):
            raise LedgerInUse("a bot runs on this ledger; stop it first")


async def _numbers_on_servers(context: Context, backup: Backup) -> tuple[int, Sequence[str]]:
    """The highest number of a user of the ledger, and why servers were not looked at."""
    context.files.refresh()
    found, unanswered = await list_all_users(context)
    whys = [*unknown_servers(context).values(), *sorted(unanswered.values())]
    return highest_number(found, backup.ledger), whys[:NAMED_AT_MOST]


def _evidence(backup: Backup, unanswered: Sequence[str]) -> tuple[str, ...]:
    return (f"it was restored from a copy of {backup.made_at:%Y-%m-%d %H:%M} UTC", *unanswered)


async def _name_to_keep(context: Context, backup: Backup) -> Path:
    """The file for what is replaced: beside the SQLite file, or beside the copy."""
    ledger, at = context.ledger, await context.ledger.now()
    base = ledger.database.path.resolve() if ledger.is_sqlite else backup.path.resolve().with_name("ledger")
    return base.with_name(f"{base.name}.replaced-{at:%Y%m%dT%H%M%SZ}")


def _report(backup: Backup, done: Restored, unanswered: Sequence[str]) -> None:
    typer.echo(
        f"Restored ledger {backup.ledger} as of {backup.made_at:%Y-%m-%d %H:%M:%S} UTC: {count(backup.requests, 'request')}."
    )
    if done.kept is not None:
        typer.echo(f"What it replaced is kept in {done.kept}.")
    for why in unanswered:
        typer.echo(f"Not looked at: {why}", err=True)
    typer.echo(f"New requests get numbers above #{done.number}. The ledger is in recovery mode. {RULES}")
    for step in STEPS:
        typer.echo(f"- {step}")


# The return to normal.


async def resume_ledger(*, accepts: bool) -> bool:
    """Return to normal. False where something is left and not accepted: then it is printed, and nothing is changed."""
    async with command_line_context(common.quiet_settings()) as context:
        if await context.ledger.recovery.current() is None:
            typer.echo("The ledger is not in recovery mode.")
            return True
        found = await find_strays(context)
        left = _left(found)
        if left and not accepts:
            _print_left(left, has_unknown=any(_is_unknown(stray) for stray in found.strays))
            return False
        closed = await close_waiting_requests(context, operator())
        number = max((stray.request_id or 0 for stray in found.strays if _is_unknown(stray)), default=0)
        await context.ledger.recovery.resume(
            operator().id, found=number, resolution=f"{operator().id} returned it to normal."
        )
    typer.echo(
        f"The ledger is back to normal: requests are granted again. Requests from before that were closed: {closed}."
    )
    if left:
        typer.echo("The next sweep of the bot ends the users of this ledger without a live grant.")
    return True


def _is_unknown(stray: Stray) -> bool:
    return stray.kind is StrayKind.ORPHAN and not stray.is_trial


def _left(found: SweepResult) -> list[str]:
    """What the operator has to know before the return to normal, as sentences without a full stop."""
    unknown = [stray.what for stray in found.strays if _is_unknown(stray)]
    return [*unknown, *(f"{why}: users there were not compared" for why in found.unanswered.values())]


def _print_left(left: Sequence[str], *, has_unknown: bool) -> None:
    for sentence in left[:NAMED_AT_MOST]:
        typer.echo(f"{sentence}.", err=True)
    if len(left) > NAMED_AT_MOST:
        typer.echo(f"And {len(left) - NAMED_AT_MOST} more.", err=True)
    first = "End these users with dbaccess sweep --adopt" if has_unknown else "Mend this"
    typer.echo(
        f"The ledger stays in recovery mode. {first}, then resume again. "
        "Or dbaccess store resume --accept: then the next sweep of the bot ends users without a live grant.",
        err=True,
    )
