"""``dbaccess sweep``: compare the managed users on the servers with the ledger."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from adapters.base import AdapterError
from bot.access.context import Context
from bot.access.descriptions import count, count_left
from bot.app import command_line_context, operator
from bot.cli import common
from bot.monitors.strays import Stray, StrayKind, SweepResult, end_stray, find_strays, is_to_end, plan_set_back

SET_BACK = "the running bot sets it back"


def sweep(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="End managed users of this ledger without a live grant, and set moved ends back."),
    ] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Compare managed users with the ledger: users without a grant, grants without a user, changed users, users of others. Status 1 when something is wrong."""
    found, became = asyncio.run(_sweep(fix=fix))
    if as_json:
        common.print_json([_json(stray, became) for stray in found.strays])
    else:
        _print(found, became)
    for name, why in found.unanswered.items():
        typer.echo(f"{name} was not checked: {why}", err=True)
    if found.unanswered or any(_is_wrong(stray, became.get(stray.username)) for stray in found.strays):
        raise typer.Exit(1)


async def _sweep(*, fix: bool) -> tuple[SweepResult, dict[str, str]]:
    """By username, what became of it."""
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        found = await find_strays(context, refreshes=fix, drops_leftovers=True)
        fixed = [(stray.username, await _fix(context, stray)) for stray in found.strays] if fix else []
    return found, {name: became for name, became in fixed if became is not None}


async def _fix(context: Context, stray: Stray) -> str | None:
    """What became of it; None where nothing is done."""
    if stray.kind is StrayKind.MOVED:
        return SET_BACK if await plan_set_back(context, stray) else None
    if not is_to_end(stray):
        return None
    try:
        removal = await end_stray(context, stray, actor=operator().id)
    except AdapterError as error:
        return f"not ended: {error}"
    left = max(removal.left_count, len(removal.left_behind))
    kept = f", {count_left(left, removal.left_with, removal.left_behind)}" if left else ""
    return f"ended, {count(removal.sessions_ended, 'session')}{kept}"


def _is_wrong(stray: Stray, became: str | None) -> bool:
    is_fixed = became is not None and (became == SET_BACK or became.startswith("ended"))
    return stray.kind is not StrayKind.FOREIGN and not is_fixed


def _print(found: SweepResult, became: dict[str, str]) -> None:
    for stray in found.strays:
        done = f" → {became[stray.username]}" if stray.username in became else ""
        typer.echo(f"{stray.kind}: {stray.what}{done}")
    for name, sentences in found.refreshed.items():
        for sentence in sentences:
            typer.echo(f"levels: {name}: {sentence}")
    for sentence in found.dropped:
        typer.echo(f"leftovers: {sentence}")
    typer.echo(f"{found.servers} servers, {found.users} managed users, {len(found.strays)} strays")


def _json(stray: Stray, became: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": stray.kind.value,
        "database": stray.target.name,
        "engine": stray.target.engine,
        "username": stray.username,
        "request": stray.request_id,
        "ledger": stray.ledger,
        "what": stray.what,
        "became": became.get(stray.username),
    }
