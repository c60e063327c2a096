"""``dbaccess``: the same verbs as in Slack, for those who run it. Exit status 0, 1 (no, or something is wrong), 2 (wrong use)."""

from __future__ import annotations

import secrets
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.metadata import version as installed_version
from io import TextIOWrapper
from typing import Annotated, NoReturn

import structlog
import typer

from adapters.base import AdapterError
from bot import logs
from bot.access.errors import AccessError
from bot.app import CannotStart
from bot.cli import common, doctor, listing, policy, revoke, run, store, sweep
from bot.http import CannotListen
from bot.policy.loader import ConfigError
from bot.settings import SettingsError
from storage.errors import LedgerError

log = structlog.get_logger(__name__)
app = typer.Typer(
    name="dbaccess", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Just-in-time database access from Slack. Settings come from the environment; see README.",
)  # fmt: skip
app.add_typer(policy.app, name="policy")
app.add_typer(store.app, name="store")
app.command("run")(run.run)
app.command("doctor")(doctor.doctor)
app.command("list")(listing.list_requests)
app.command("show")(listing.show)
app.command("revoke")(revoke.revoke)
app.command("sweep")(sweep.sweep)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dbaccess {installed_version('dbaccess')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something goes wrong.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Just-in-time database access from Slack."""
    del version
    common.is_debugging = logs.shows_tracebacks = debug


EXPECTED = (SettingsError, ConfigError, CannotStart, CannotListen, AccessError, LedgerError, AdapterError)


def main() -> None:
    """The console script. Status 1: what is foreseen is a sentence, anything else a sentence with a reference."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a sign is no reason to end
    logs.begin()
    threading.excepthook = _in_a_thread
    try:
        _must_be_text(sys.argv[1:])
        app()
    except EXPECTED as wrong:
        _end(str(wrong), wrong)
    except Exception as unforeseen:
        number = secrets.token_hex(4).upper()
        reference = f"{number[:4]}-{number[4:]}"
        kind = type(unforeseen).__name__
        if common.is_running:
            log.exception("command_failed", reference=reference, error=kind)
        _end(f"Something went wrong ({kind}). Reference {reference}; run again with --debug to see more.", unforeseen)


def _must_be_text(arguments: Sequence[str]) -> None:
    """Bytes that are no UTF-8 are no name of anything. Exit status 2."""
    for number, argument in enumerate(arguments, start=1):
        if any("\ud800" <= sign <= "\udfff" for sign in argument):
            typer.echo(f"Argument {number} is not text in UTF-8.", err=True)
            sys.exit(2)


def _end(words: str, why: BaseException) -> NoReturn:
    if common.is_debugging:
        typer.echo(logs.scrubbed("".join(traceback.format_exception(why))), err=True)
    typer.echo(words, err=True)
    sys.exit(1)


def _in_a_thread(failed: threading.ExceptHookArgs) -> None:
    """A driver's thread that answers when nobody waits for it any more has nothing to say; others are one line."""
    if failed.exc_type is RuntimeError and "loop is closed" in str(failed.exc_value):
        return
    if common.is_debugging and failed.exc_value is not None:
        typer.echo(logs.scrubbed("".join(traceback.format_exception(failed.exc_value))), err=True)
    log.error("thread_failed", error=failed.exc_type.__name__)
