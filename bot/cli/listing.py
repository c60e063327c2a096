"""``dbaccess list`` and ``show``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bot.access import queries
from bot.app import command_line_context, operator
from bot.cli import common
from bot.durations import format_duration
from storage.records import AuditEvent, Decision, Request

PIPED_WIDTH = 300
"""Columns where the output is not a terminal: each request stays on one line."""


def list_requests(
    all_: Annotated[bool, typer.Option("--all", help="Every request, newest first.")] = False,
    database: Annotated[str | None, typer.Option(help="Of this database.")] = None,
    person: Annotated[str | None, typer.Option(help="Of this person (U…).")] = None,
    as_json: common.JsonOption = False,
) -> None:
    """List live grants and waiting requests, or all requests."""
    found = asyncio.run(_fetch_requests(all_=all_, database=database, person=person))
    if as_json:
        common.print_json([common.request_json(r) for r in found])
    elif not found:
        typer.echo("There is nothing waiting and nothing live." if not all_ else "There are no requests.")
    else:
        console = Console()
        Console(width=None if console.is_terminal else PIPED_WIDTH, markup=False, emoji=False).print(_table(found))


async def _fetch_requests(*, all_: bool, database: str | None, person: str | None) -> tuple[Request, ...]:
    async with command_line_context(common.quiet_settings()) as context:
        if all_:
            return await context.ledger.requests.find(person_id=person, database=database)
        live = await context.ledger.requests.live_grants(person_id=person, database=database)
        waiting = await context.ledger.requests.pending(person_id=person, database=database)
        return tuple(sorted((*live, *waiting), key=lambda r: -r.id))


def _table(found: tuple[Request, ...]) -> Table:
    table = Table("id", "state", "requester", "database", "level", "user", "until", "ended", box=None)
    for r in found:
        until = r.expires_at if r.is_live else None
        ended = f"{common.local_time(r.ended_at)}, {r.ended_because}" if r.ended_because else "-"
        table.add_row(
            f"#{r.id}", r.state, r.requester_id, r.database, r.level, r.username or "-", common.local_time(until), ended
        )
    return table


def show(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="The request's number, with or without #.")],
    as_json: common.JsonOption = False,
) -> None:
    """Show one request with its whole history."""
    request, trouble, decisions, events = asyncio.run(_fetch_request(parse_request_number(request_id)))
    if as_json:
        history = [
            {"at": common.rfc3339(e.at), "kind": e.kind, "actor": e.actor, "facts": dict(e.facts), "text": e.text}
            for e in events
        ]
        common.print_json([{**common.request_json(request), "reason": request.reason, "history": history}])
        return
    typer.echo(
        f"#{request.id} {request.state}: {request.level} on {request.database} for {format_duration(request.effective_duration)}"
    )
    typer.echo(
        f"  asked {common.local_time(request.requested_at)} by {request.requester_id} ({request.requester_name}): {request.reason}"
    )
    typer.echo(f"  rule {request.terms.rule}, policy {request.terms.policy_digest}")
    troubles = [f"not ended yet: {trouble}"] if trouble else []
    for line in (*_decision_lines(decisions), *_grant_lines(request), *troubles):
        typer.echo(f"  {line}")
    for event in events:
        typer.echo(
            f"  {common.local_time(event.at)}  {event.kind}  {event.actor}{'  ' + event.text if event.text else ''}"
        )


async def _fetch_request(
    request_id: int,
) -> tuple[Request, str | None, tuple[Decision, ...], tuple[AuditEvent, ...]]:
    async with command_line_context(common.quiet_settings()) as context:
        request = await queries.visible(context, operator(), request_id)
        trouble = await queries.end_trouble(context, request)
        return (
            request,
            trouble,
            await context.ledger.requests.decisions(request_id),
            await context.ledger.audit.history(request_id),
        )


def _decision_lines(decisions: tuple[Decision, ...]) -> list[str]:
    return [
        f"{d.verdict} by {d.person_id} ({d.person_name}) {common.local_time(d.at)}{': ' + d.reason if d.reason else ''}"
        for d in decisions
    ]


def _grant_lines(request: Request) -> list[str]:
    lines = []
    if request.username:
        lines.append(f"user {request.username}, until {common.local_time(request.expires_at)}")
    if request.ended_because:
        lines.append(
            f"ended {common.local_time(request.ended_at)}: {request.ended_because}{' — ' + request.ended_note if request.ended_note else ''}"
        )
    if request.receipt:
        lines.append(f"receipt: {common.receipt_text(request.receipt)}")
    return lines


def parse_request_number(text: str) -> int:
    """Parse ``42`` or ``#42``. Anything else is wrong usage."""
    digits = text.removeprefix("#")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= queries.REQUEST_ID_MAX_DIGITS):
        raise common.usage_error(f"{text} is not a request number; it looks like 42 or #42.")
    return int(digits)
