"""``dbaccess lockdown`` and ``dbaccess unlock``. They work without Slack, and where no bot runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import typer

from bot.access import lockdown as verbs
from bot.access import queries
from bot.access.context import Context
from bot.access.descriptions import count, describe_scope
from bot.access.use_case_types import LockdownOutcome, LockdownScope, UnlockOutcome
from bot.app import command_line_context, operator
from bot.cli import common
from bot.cli.ends import wait_for_ends
from bot.policy.model import PERSON
from storage.records import Lockdown, Request, TaskKind

LISTED_MAX = 20
NOTIFIED_SECONDS = 5.0
NOTIFICATIONS = frozenset({TaskKind.LOCKDOWN, TaskKind.ALERT})

DatabaseOption: TypeAlias = Annotated[str | None, typer.Option(help="Of this database.")]
PersonOption: TypeAlias = Annotated[str | None, typer.Option(help="Of this person (U…).")]
WaitOption: TypeAlias = Annotated[float, typer.Option(help="How many seconds to wait for the servers.")]


def lockdown(
    database: DatabaseOption = None,
    person: PersonOption = None,
    wait: WaitOption = 60.0,
    as_json: common.JsonOption = False,
) -> None:
    """End all matching grants, refuse new ones, and wait until they have ended. Status 1 when one has not ended."""
    outcome, live, trouble = asyncio.run(_lock_down(_scope(database, person), wait))
    if as_json:
        common.print_json([lockdown_json(outcome.lockdown, live)])
    else:
        for line in _lines(outcome, live, trouble):
            typer.echo(line)
    if live:
        raise typer.Exit(1)


def unlock(database: DatabaseOption = None, person: PersonOption = None, as_json: common.JsonOption = False) -> None:
    """Lift the lockdown of a database or person, or every lockdown. Status 1 when one has to be lifted by another admin."""
    outcome = asyncio.run(_unlock(_scope(database, person)))
    if as_json:
        common.print_json([lockdown_json(one, ()) for one in outcome.lifted])
    else:
        for one in outcome.lifted:
            typer.echo(f"The lockdown of {describe_scope(one)} is lifted.")
        if not (outcome.lifted or outcome.refused):
            typer.echo("Nothing is locked down.")
    for one in outcome.refused:
        typer.echo(f"The lockdown of {describe_scope(one)} must be lifted by another admin.", err=True)
    if outcome.refused:
        raise typer.Exit(1)


def _scope(database: str | None, person: str | None) -> LockdownScope:
    if database is not None and person is not None:
        raise common.usage_error("Name a --database or a --person, or neither for everything.")
    if person is not None and not PERSON.fullmatch(person):
        raise common.usage_error(f"{person} is not the ID of a person; it looks like U01ABCDEF.")
    if database is not None and not database.strip():
        raise common.usage_error("--database is empty. Leave it out to lock down everything.")
    return LockdownScope(database=database, person_id=person)


async def _lock_down(scope: LockdownScope, wait: float) -> tuple[LockdownOutcome, tuple[Request, ...], dict[int, str]]:
    """Returns the outcome, the grants that have not ended, and by id why the first of them have not."""
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        outcome = await verbs.lock_down(context, operator(), scope)
        ledger, found = context.ledger, outcome.lockdown
        await wait_for_ends(
            context, lambda: ledger.lockdowns.count_live(found), seconds=wait, notified=lambda: _is_notified(context)
        )
        live = await ledger.requests.live_grants(person_id=scope.person_id, database=scope.database)
        return outcome, live, {one.id: await _trouble(context, one) for one in live[:LISTED_MAX]}


async def _unlock(scope: LockdownScope) -> UnlockOutcome:
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        outcome = await verbs.unlock(context, operator(), scope)
        if outcome.lifted:
            await wait_for_ends(
                context, _nothing_live, seconds=NOTIFIED_SECONDS, notified=lambda: _is_notified(context)
            )
        return outcome


async def _nothing_live() -> int:
    return 0


async def _trouble(context: Context, request: Request) -> str:
    return await queries.end_trouble(context, request) or request.state


async def _is_notified(context: Context) -> bool:
    """Whether the message of the lockdown, and alerts, are sent."""
    now = await context.ledger.now()
    return not any(one.due_at <= now for one in await context.ledger.tasks.all() if one.kind in NOTIFICATIONS)


def lockdown_json(lockdown: Lockdown, live: Sequence[Request]) -> dict[str, Any]:
    """A lockdown as a JSON object. ``not_ended`` has the numbers of its grants that have not ended."""
    return {
        "id": lockdown.id,
        "database": lockdown.database,
        "person": lockdown.person_id,
        "set_by": lockdown.locked_by,
        "set_at": common.rfc3339(lockdown.at),
        "grants": lockdown.grants,
        "not_ended": sorted(one.id for one in live),
        "lifted_by": lockdown.unlocked_by,
        "lifted_at": common.rfc3339(lockdown.unlocked_at),
    }


def _lines(outcome: LockdownOutcome, live: Sequence[Request], trouble: dict[int, str]) -> list[str]:
    scope, total = describe_scope(outcome.lockdown), max(outcome.lockdown.grants, len(live))
    already = "" if outcome.is_new else f", since {common.local_time(outcome.lockdown.at)}"
    ended = f"{len(live)} of {count(total, 'grant')} not ended yet" if live else f"{count(total, 'grant')}, all ended"
    lines = [f"Lockdown of {scope}{already}: {ended}. New access is refused until another admin lifts it."]
    lines += [
        f"#{one.id} {one.username} on {one.database}: not ended yet ({trouble[one.id]}). A running bot keeps trying."
        for one in live[:LISTED_MAX]
    ]
    return lines + ([f"and {len(live) - LISTED_MAX} more"] if len(live) > LISTED_MAX else [])
