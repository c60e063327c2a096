"""Sentences about what an adapter raised. A server that is down, a step that is blocked, a refusal and a fault are told apart.

Names on a server come from its users, so every sentence is bounded.
"""

from __future__ import annotations

from adapters.base import AdapterError, Blocked, Rejected, ServerDown
from bot.access.descriptions import shorten
from bot.engines import AdapterFailed

REASON_MAX = 700
"""Characters of an adapter's own sentence, so that what follows it in an alert is not cut off."""
REMEDY_MAX = 900


def describe_server_error(database: str, error: AdapterError) -> str:
    """The error as a sentence without its full stop, with the name of the database. Without its remedy."""
    match error:
        case AdapterFailed():
            return f"{database}: {shorten(error.what, REASON_MAX)}"
        case ServerDown():
            return f"{database} does not answer ({shorten(error.what, REASON_MAX)})"
        case Blocked():
            return f"{database} answers, but this step is held up: {shorten(error.what, REASON_MAX)}"
        case Rejected():
            return f"{database} refuses: {shorten(error.what, REASON_MAX)}"
        case _:
            return f"{database}: {shorten(str(error), REASON_MAX)}"


def remedies(error: AdapterError) -> tuple[str, ...]:
    """The statement or step of the error that helps, where it has one."""
    remedy = error.remedy if isinstance(error, Blocked | Rejected) else None
    return (shorten(remedy, REMEDY_MAX),) if remedy else ()
