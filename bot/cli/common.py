"""What the commands share: settings, the answer as words or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

import typer

from bot import logs
from bot.settings import Settings, read_settings
from storage.records import Request
from storage.serialization import receipt_json

is_debugging = False
is_running = False
"""The running bot keeps in its log what a command that answers a question shows to nobody."""

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer as JSON: a list of objects.")]
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
    """The environment of the running bot, with logs set up by it. Raises SettingsError."""
    global is_running  # noqa: PLW0603 - one command a process
    is_running = True
    found = read_settings(to_end=True)
    logs.set_up(found)
    return found


def quiet_settings(*, to_end: bool = False) -> Settings:
    """For commands that answer a question: only what is wrong is logged. ``to_end``: the command ends grants."""
    found = read_settings(to_end=to_end)
    logs.set_up(found.model_copy(update={"log_level": "error"}))
    return found


def print_json(objects: Sequence[Any]) -> None:
    """A list, whatever was asked."""
    typer.echo(json.dumps(list(objects), indent=2, ensure_ascii=False))


def rfc3339(at: datetime | None) -> str | None:
    """In UTC, with ``Z``."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def request_json(request: Request) -> dict[str, Any]:
    """A request as tools read it."""
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
        "receipt": dict(receipt_json(request.receipt)) if request.receipt else None,
    }
    assert tuple(found) == FIELDS, "the contract names these fields"
    return found


def local(at: datetime | None) -> str:
    """For people at this machine."""
    return "-" if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def wrong_use(words: str) -> typer.Exit:
    """Exit status 2, said on stderr."""
    typer.echo(words, err=True)
    return typer.Exit(2)
