"""``dbaccess revoke``: end grants, wait until they are dead, print the receipts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from bot.access import revoke as verbs
from bot.access.context import Context
from bot.access.descriptions import describe_receipt
from bot.access.errors import AccessError, TooLate
from bot.app import command_line_context, operator
from bot.cli import common
from bot.cli.listing import number
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from storage.records import Request, State

LOOK_SECONDS = 1.0
TELL_SECONDS = 5.0


def revoke(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Numbers of requests.")] = None,
    database: Annotated[str | None, typer.Option(help="All grants of this database.")] = None,
    person: Annotated[str | None, typer.Option(help="All grants of this person (U…).")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All grants.")] = False,
    gone: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="The server is no more: end without proof, and say so for ever."),
    ] = None,
    wait: Annotated[float, typer.Option(help="How many seconds to wait for the servers.")] = 60.0,
    as_json: common.Json = False,
) -> None:
    """End grants. Waits until they are dead and prints the receipts; status 1 when one is not."""
    if sum((bool(ids), database is not None or person is not None, all_)) != 1:
        raise common.wrong_use("Name requests by their numbers, or a --database or --person, or --all.")
    if gone is not None and not gone.strip():
        raise common.wrong_use("--gone needs a reason: it stays in the receipt for ever.")
    numbers = list(dict.fromkeys(number(i) for i in ids or ()))
    ended, refused = asyncio.run(_revoke(numbers, database=database, person=person, gone=gone, wait=wait))
    if as_json:
        common.print_json([common.request_json(r) for r in ended])
    else:
        for request in ended:
            typer.echo(_line(request))
        if not (ended or refused):
            typer.echo("There is nothing live.")
    for no in refused:
        typer.echo(no, err=True)
    if refused or any(r.state is not State.REVOKED for r in ended):
        raise typer.Exit(1)


def _line(request: Request) -> str:
    if request.receipt is not None:
        return f"#{request.id} {request.username} on {request.database}: {describe_receipt(request.receipt)}"
    return f"#{request.id} {request.username} on {request.database}: not ended yet ({request.state}). A running bot keeps trying; see dbaccess show {request.id}."


async def _revoke(
    numbers: list[int], *, database: str | None, person: str | None, gone: str | None, wait: float
) -> tuple[list[Request], list[str]]:
    """What was ended, or is still being ended, and what was refused: one refusal does not spare the others."""
    refused: list[str] = []
    async with command_line_context(common.quiet_settings(to_end=True)) as context:
        if not numbers:
            numbers = sorted(r.id for r in await context.ledger.live_grants(person_id=person, database=database))
        begun = []
        for request_id in numbers:
            try:
                await _begin(context, request_id, gone)
                begun.append(request_id)
            except AccessError as no:
                refused.append(str(no))
        await _wait(context, begun, wait)
        return [await context.ledger.request(request_id) for request_id in begun], refused


async def _begin(context: Context, request_id: int, gone: str | None) -> None:
    try:
        if gone is not None:
            await verbs.declare_gone(context, operator(), request_id, gone)
        else:
            await verbs.revoke(context, operator(), request_id)
    except TooLate:
        state = (await context.ledger.request(request_id)).state
        if state not in (State.REVOKING, State.REVOKED):
            raise


async def _wait(context: Context, numbers: list[int], seconds: float) -> None:
    """A running bot does the work; where none runs we are it, for as long as this takes."""
    deadline = time.monotonic() + seconds
    works_itself = context.ledger.take_sole_run() if context.ledger.is_sqlite else True
    if works_itself and context.ledger.is_sqlite:
        await context.ledger.free_leases()
    try:
        async with _working(context) if works_itself else nullcontext():
            await _ended(context, numbers, deadline)
            if works_itself:
                await _told(context, numbers, min(deadline, time.monotonic() + TELL_SECONDS))
    finally:
        if works_itself:
            context.ledger.release_sole_run()


@asynccontextmanager
async def _working(context: Context) -> AsyncIterator[None]:
    """The runner at work; what it has begun when it is told to stop is let end."""
    stop = asyncio.Event()
    running = asyncio.create_task(Runner(context, JOBS).run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def _ended(context: Context, numbers: list[int], deadline: float) -> None:
    progress = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    bar = progress.add_task("Ending", total=len(numbers))
    with progress:
        while time.monotonic() < deadline and (alive := await _alive(context, numbers)):
            progress.update(bar, completed=len(numbers) - alive)
            await context.ledger.changed(LOOK_SECONDS, reader="revoke")


async def _told(context: Context, numbers: list[int], deadline: float) -> None:
    """Cards and messages follow the ends. Where Slack does not answer they are left to the bot's next run."""
    while time.monotonic() < deadline and await _is_due(context, numbers):
        await context.ledger.changed(LOOK_SECONDS, reader="revoke")


async def _is_due(context: Context, numbers: list[int]) -> bool:
    now = await context.ledger.now()
    tasks = [task for request_id in numbers for task in await context.ledger.tasks(request_id=request_id)]
    return any(task.due_at <= now for task in tasks)


async def _alive(context: Context, numbers: list[int]) -> int:
    states = [(await context.ledger.request(request_id)).state for request_id in numbers]
    return sum(state is not State.REVOKED for state in states)
