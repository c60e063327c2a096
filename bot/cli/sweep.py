"""``dbaccess sweep``: the servers' users against the ledger."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from adapters.base import AdapterError
from bot.app import command_line_context, operator
from bot.cli import common
from bot.monitors import servers


def sweep(
    fix: Annotated[bool, typer.Option("--fix", help="End the users of this ledger that no live grant has.")] = False,
    as_json: common.Json = False,
) -> None:
    """Managed users on the servers against the ledger: orphans, grants without a user, other people's. Status 1 when something is wrong."""
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
        typer.echo(f"{name} was not looked at: {why}", err=True)
    if wrong or found.unanswered:
        raise typer.Exit(1)


async def _sweep(*, fix: bool) -> tuple[servers.SweepResult, dict[str, str]]:
    """By username, what became of it."""
    ended: dict[str, str] = {}
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        found = await servers.find_strays(context)
        for stray in found.strays if fix else ():
            if stray.kind is not servers.StrayKind.ORPHAN:
                continue
            try:
                receipt = await servers.end_stray(context, stray, actor=operator().id)
            except AdapterError as error:
                ended[stray.username] = f"not ended: {error}"
            else:
                ended[stray.username] = f"ended, {receipt.sessions_ended} sessions"
    return found, ended


def _print(found: servers.SweepResult, ended: dict[str, str]) -> None:
    for stray in found.strays:
        became = f" → {ended[stray.username]}" if stray.username in ended else ""
        typer.echo(f"{stray.kind}: {stray.what}{became}")
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
