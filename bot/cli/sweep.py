"""``dbaccess sweep``: compare the managed users on the servers with the ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from adapters.base import AdapterError
from bot.access.context import Context
from bot.access.descriptions import count, count_left
from bot.access.recovery import describe_recovery, enter_by_users
from bot.app import command_line_context, operator
from bot.cli import common
from bot.monitors.stray_ends import end_stray, is_to_end, plan_set_back
from bot.monitors.strays import UNTOUCHED, Stray, StrayKind, SweepResult, find_strays
from storage.recovery import Recovery

SET_BACK = "the running bot sets it back"
LEFT_ALONE = "not ended in recovery mode; dbaccess sweep --adopt ends it"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the options ask for. ``ledger`` is the id of a lost ledger whose users are adopted too."""

    fixes: bool
    adopts: bool
    ledger: str | None

    @property
    def changes(self) -> bool:
        return self.fixes or self.adopts


def sweep(
    fix: Annotated[
        bool,
        typer.Option("--fix", help="End managed users of this ledger without a live grant, and set moved ends back."),
    ] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="End users that this ledger does not know, in recovery mode too.")
    ] = False,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", metavar="ID", help="With --adopt: also end the users of this ledger, which is lost."),
    ] = None,
    as_json: common.JsonOption = False,
) -> None:
    """Compare managed users with the ledger: users without a grant, grants without a user, changed users, users of others. Status 1 when something is wrong."""
    if ledger is not None and not adopt:
        raise common.usage_error("--ledger needs --adopt.")
    found, became, recovery = asyncio.run(_sweep(Wanted(fixes=fix, adopts=adopt, ledger=ledger)))
    if as_json:
        common.print_json([_json(stray, became) for stray in found.strays])
    else:
        _print(found, became)
    if (hint := _hint(found, ledger)) is not None:
        typer.echo(hint, err=True)
    for name, why in found.unanswered.items():
        typer.echo(f"{name} was not checked: {why}", err=True)
    if recovery is not None:
        typer.echo(describe_recovery(recovery), err=True)
    elif found.unexplained:
        typer.echo("This ledger is not the newest: it did not start grants whose users have its mark.", err=True)
    if found.unanswered or any(_is_wrong(stray, became.get(stray.username)) for stray in found.strays):
        raise typer.Exit(1)


async def _sweep(wanted: Wanted) -> tuple[SweepResult, dict[str, str], Recovery | None]:
    """The differences; by username, what became of it; and the recovery that is in force."""
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        recovery = await context.ledger.recovery.current()
        found = await find_strays(
            context, refreshes=wanted.fixes and recovery is None, drops_leftovers=recovery is None
        )
        if wanted.changes:
            for server, users in found.unexplained.items():
                await enter_by_users(context, server, users)
            recovery = await context.ledger.recovery.current()
        in_recovery = recovery is not None
        became = [(stray.username, await _change(context, stray, wanted, in_recovery)) for stray in found.strays]
    return found, {name: what for name, what in became if what is not None}, recovery


async def _change(context: Context, stray: Stray, wanted: Wanted, in_recovery: bool) -> str | None:
    """What became of it; None where nothing is done."""
    if wanted.adopts and (stray.kind is StrayKind.ORPHAN or _is_adopted(stray, wanted)):
        return await _end(context, stray, adopts=True)
    if not wanted.fixes:
        return None
    if stray.kind is StrayKind.MOVED:
        return SET_BACK if not in_recovery and await plan_set_back(context, stray) else None
    if is_to_end(stray, in_recovery=in_recovery):
        return await _end(context, stray)
    return LEFT_ALONE if stray.kind is StrayKind.ORPHAN else None


def _is_adopted(stray: Stray, wanted: Wanted) -> bool:
    return stray.kind is StrayKind.FOREIGN and stray.ledger is not None and stray.ledger == wanted.ledger


async def _end(context: Context, stray: Stray, *, adopts: bool = False) -> str:
    try:
        removal = await end_stray(context, stray, actor=operator().id, adopts=adopts)
    except AdapterError as error:
        return f"not ended: {error}"
    left = max(removal.left_count, len(removal.left_behind))
    kept = f", {count_left(left, removal.left_with, removal.left_behind)}" if left else ""
    return f"ended, {count(removal.sessions_ended, 'session')}{kept}"


def _hint(found: SweepResult, ledger: str | None) -> str | None:
    """What to do about the users of other ledgers. ``ledger`` is the one whose users are adopted."""
    others = sorted({stray.ledger for stray in found.strays if stray.kind is StrayKind.FOREIGN and stray.ledger})
    if ledger is not None:
        return None if ledger in others else f"No user of ledger {ledger} was found."
    if not others:
        return None
    return f"If ledger {others[0]} is lost, this ends its users: dbaccess sweep --adopt --ledger {others[0]}"


def _is_wrong(stray: Stray, became: str | None) -> bool:
    is_fixed = became is not None and (became == SET_BACK or became.startswith("ended"))
    return stray.kind is not StrayKind.FOREIGN and not is_fixed


def _print(found: SweepResult, became: dict[str, str]) -> None:
    for stray in found.strays:
        if stray.username in became:
            typer.echo(f"{stray.kind}: {stray.what.removesuffix(UNTOUCHED)} → {became[stray.username]}")
        else:
            typer.echo(f"{stray.kind}: {stray.what}")
    for name, sentences in found.refreshed.items():
        for sentence in sentences:
            typer.echo(f"levels: {name}: {sentence}")
    for sentence in found.dropped:
        typer.echo(f"leftovers: {sentence}")
    counts = ((found.servers, "server"), (found.users, "managed user"), (len(found.strays), "stray"))
    typer.echo(", ".join(count(number, word) for number, word in counts))


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
