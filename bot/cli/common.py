"""Parts that the commands share: settings, and output as text or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import typer

from bot import logs
from bot.access.descriptions import describe_notes, describe_receipt
from bot.settings import Settings, read_settings
from storage.records import Receipt, Request
from storage.serialization import receipt_json

is_debugging = False
is_running = False
"""True in the process of the running bot. It also logs an unexpected error, which other commands only print."""

JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer as JSON: a list of objects.")]
FIELDS = (
    "id",
    "state",
    "kind",
    "requester",
    "database",
    "level",
    "username",
    "asked_at",
    "expires_at",
    "ended_at",
    "ended_because",
    "receipt",
)


def settings() -> Settings:
    """The settings of the running bot. Configures logs by them. Raises SettingsError."""
    global is_running  # noqa: PLW0603 - one command a process
    is_running = True
    found = read_settings(to_end=True)
    logs.configure(found)
    return found


def quiet_settings(*, to_end: bool = False) -> Settings:
    """The settings of a command that answers and ends: only errors are logged. ``to_end``: the command ends grants."""
    found = read_settings(to_end=to_end)
    logs.configure(found.model_copy(update={"log_level": "error"}))
    return found


def print_json(objects: Sequence[Any]) -> None:
    """Print a list of objects."""
    typer.echo(json.dumps(list(objects), indent=2, ensure_ascii=False))


def rfc3339(at: datetime | None) -> str | None:
    """Format a time as RFC 3339 in UTC, with ``Z``."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def request_json(request: Request) -> dict[str, Any]:
    """A request as a JSON object, with exactly the keys in ``FIELDS``."""
    found = {
        "id": request.id,
        "state": request.state.value,
        "kind": request.kind.value,
        "requester": request.requester_id,
        "database": request.database,
        "level": request.level,
        "username": request.username,
        "asked_at": rfc3339(request.requested_at),
        "expires_at": rfc3339(request.expires_at),
        "ended_at": rfc3339(request.ended_at),
        "ended_because": request.ended_because.value if request.ended_because else None,
        "receipt": _receipt(request.receipt) if request.receipt else None,
    }
    assert tuple(found) == FIELDS, "the contract names these fields"
    return found


def _receipt(receipt: Receipt) -> dict[str, Any]:
    """A receipt as scripts know it: the keys of its outcome, without the outcome itself."""
    return {name: value for name, value in receipt_json(receipt).items() if name != "outcome"}


def receipt_text(receipt: Receipt) -> str:
    """The receipt as text: the proof, when the server was read back, and the notes."""
    verified = f" · verified {local_time(receipt.read_back_at)}" if receipt.read_back_at else ""
    return f"{describe_receipt(receipt)}{verified}. {describe_notes(receipt)}".rstrip()


def local_time(at: datetime | None) -> str:
    """Format a time in this machine's zone."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def usage_error(message: str) -> typer.Exit:
    """Print the message on stderr; the caller raises the result, which exits with status 2."""
    typer.echo(message, err=True)
    return typer.Exit(2)
