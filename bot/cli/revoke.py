"""``dbaccess revoke``: end grants, wait until they have ended, print the receipts."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from bot.access import queries
from bot.access import revoke as verbs
from bot.access.context import Context
from bot.access.errors import AccessError, TooLate
from bot.app import command_line_context, operator
from bot.cli import common
from bot.cli.ends import wait_for_ends
from bot.cli.listing import parse_request_number
from storage.records import Request, State


def revoke(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Numbers of requests.")] = None,
    database: Annotated[str | None, typer.Option(help="All grants of this database.")] = None,
    person: Annotated[str | None, typer.Option(help="All grants of this person (U…).")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All grants.")] = False,
    gone: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="The server no longer exists: end without verification; the receipt says so."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(help="How many seconds to wait for the servers.")] = 60.0,
    as_json: common.JsonOption = False,
) -> None:
    """End grants, wait until they have ended, print the receipts. Status 1 when one has not ended."""
    if sum((bool(ids), database is not None or person is not None, all_)) != 1:
        raise common.usage_error("Name requests by their numbers, or a --database or --person, or --all.")
    if gone is not None and not gone.strip():
        raise common.usage_error("--gone needs a reason, which becomes part of the receipt.")
    numbers = list(dict.fromkeys(parse_request_number(i) for i in ids or ()))
    ended, troubles, refused = asyncio.run(_revoke(numbers, database=database, person=person, gone=gone, wait=wait))
    if as_json:
        common.print_json([common.request_json(r) for r in ended])
    else:
        for request in ended:
            typer.echo(_line(request, troubles[request.id]))
        if not (ended or refused):
            typer.echo("There is nothing live.")
    for no in refused:
        typer.echo(no, err=True)
    if refused or any(r.state is not State.REVOKED for r in ended):
        raise typer.Exit(1)


def _line(request: Request, trouble: str | None) -> str:
    if request.receipt is not None:
        return f"#{request.id} {request.username} on {request.database}: {common.receipt_text(request.receipt)}"
    return f"#{request.id} {request.username} on {request.database}: not ended yet ({trouble or request.state}). A running bot keeps trying; see dbaccess show {request.id}."


async def _revoke(
    numbers: list[int], *, database: str | None, person: str | None, gone: str | None, wait: float
) -> tuple[list[Request], dict[int, str | None], list[str]]:
    """End the grants. Returns those that ended or are ending, by id why they have not ended, and the refusals. A refusal does not stop the others."""
    refused: list[str] = []
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        if not numbers:
            numbers = sorted(
                r.id for r in await context.ledger.requests.live_grants(person_id=person, database=database)
            )
        begun = []
        for request_id in numbers:
            try:
                await _revoke_one(context, request_id, gone)
                begun.append(request_id)
            except AccessError as no:
                refused.append(str(no))
        await wait_for_ends(
            context, lambda: _count_live(context, begun), seconds=wait, notified=lambda: _is_notified(context, begun)
        )
        ended = [await context.ledger.requests.get(request_id) for request_id in begun]
        return ended, {r.id: await queries.end_trouble(context, r) for r in ended}, refused


async def _revoke_one(context: Context, request_id: int, gone: str | None) -> None:
    try:
        if gone is not None:
            await verbs.declare_gone(context, operator(), request_id, gone)
        else:
            await verbs.revoke(context, operator(), request_id)
    except TooLate:
        state = (await context.ledger.requests.get(request_id)).state
        if state not in (State.REVOKING, State.REVOKED):
            raise


async def _count_live(context: Context, numbers: list[int]) -> int:
    found = await context.ledger.requests.get_many(numbers)
    return len(numbers) - sum(request.state is State.REVOKED for request in found.values())


async def _is_notified(context: Context, numbers: list[int]) -> bool:
    """Whether cards and messages of these grants are updated."""
    now, wanted = await context.ledger.now(), set(numbers)
    return not any(task.due_at <= now for task in await context.ledger.tasks.all() if task.request_id in wanted)
