"""``dbaccess sweep``: compare the managed users on the servers with the ledger."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from adapters.base import AdapterError
from bot.access.descriptions import count_left
from bot.app import command_line_context, operator
from bot.cli import common
from bot.monitors import servers


def sweep(
    fix: Annotated[bool, typer.Option("--fix", help="End managed users of this ledger without a live grant.")] = False,
    as_json: common.JsonOption = False,
) -> None:
    """Compare managed users with the ledger: users without a grant, grants without a user, users of others. Status 1 when something is wrong."""
    found, ended = asyncio.run(_sweep(fix=fix))
    if as_json:
        common.print_json([_json(stray, ended) for stray in found.strays])
    else:
        _print(found, ended)
    wrong = [
        s
        for s in found.strays
        if s.kind is not servers.StrayKind.FOREIGN and not ended.get(s.username, "").startswith("ended")
    ]
    for name, why in found.unanswered.items():
        typer.echo(f"{name} was not checked: {why}", err=True)
    if wrong or found.unanswered:
        raise typer.Exit(1)


async def _sweep(*, fix: bool) -> tuple[servers.SweepResult, dict[str, str]]:
    """By username, what became of it."""
    ended: dict[str, str] = {}
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        found = await servers.find_strays(context, drops_leftovers=True)
        for stray in found.strays if fix else ():
            if stray.kind is not servers.StrayKind.ORPHAN:
                continue
            try:
                removal = await servers.end_stray(context, stray, actor=operator().id)
            except AdapterError as error:
                ended[stray.username] = f"not ended: {error}"
            else:
                left = max(removal.left_count, len(removal.left_behind))
                kept = f", {count_left(left, removal.left_with, removal.left_behind)}" if left else ""
                ended[stray.username] = f"ended, {removal.sessions_ended} sessions{kept}"
    return found, ended


def _print(found: servers.SweepResult, ended: dict[str, str]) -> None:
    for stray in found.strays:
        became = f" → {ended[stray.username]}" if stray.username in ended else ""
        typer.echo(f"{stray.kind}: {stray.what}{became}")
    for sentence in found.dropped:
        typer.echo(f"leftovers: {sentence}")
    typer.echo(f"{found.servers} servers, {found.users} managed users, {len(found.strays)} strays")


def _json(stray: servers.Stray, ended: dict[str, str]) -> dict[str, Any]:
    return {
        "kind": stray.kind.value,
        "database": stray.target.name,
        "engine": stray.target.engine,
        "username": stray.username,
        "request": stray.request_id,
        "ledger": stray.ledger,
        "became": ended.get(stray.username),
    }
