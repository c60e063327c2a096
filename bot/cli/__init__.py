"""The ``dbaccess`` command. Exit status: 0; 1 if the answer is no or something is wrong; 2 for wrong usage."""

from __future__ import annotations

import asyncio
import os
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
from bot.app import App, CannotStart
from bot.cli import common, doctor, listing, lockdown, policy, revoke, store, sweep
from bot.http import CannotListen
from bot.observer import Observer
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


TOKENS = ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET")
"""Removed from the environment once they are read. Bolt would read them too, next to the client that has its token."""


@app.command()
def run(
    observe: Annotated[
        bool, typer.Option("--observe", help="Only look and report: grant nothing, end nothing, change nothing.")
    ] = False,
) -> None:
    """Run the bot until it is told to stop (Ctrl-C, SIGTERM)."""
    settings = common.settings()
    for name in TOKENS:
        os.environ.pop(name, None)
    asyncio.run(Observer(settings).run() if observe else _serve(App(settings)))


async def _serve(bot: App) -> None:
    """Run the bot. A process that was told to stop ends without waiting for calls that hang: Python would wait for their threads."""
    try:
        await bot.run()
    except EXPECTED_ERRORS as wrong:
        if not bot.is_cut_off:
            raise
        typer.echo(str(wrong), err=True)
        _leave(1)
    if bot.is_cut_off:
        _leave(0)


def _leave(status: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


app.command("doctor")(doctor.doctor)
app.command("list")(listing.list_requests)
app.command("show")(listing.show)
app.command("revoke")(revoke.revoke)
app.command("lockdown")(lockdown.lockdown)
app.command("unlock")(lockdown.unlock)
app.command("sweep")(sweep.sweep)


EXPECTED_ERRORS = (SettingsError, ConfigError, CannotStart, CannotListen, AccessError, LedgerError, AdapterError)


def main() -> None:
    """The console script. An expected error is printed as its message, any other error with a reference; both exit with status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a missing character must not end the command
    logs.configure_early()
    threading.excepthook = _on_thread_failure
    try:
        _require_utf8(sys.argv[1:])
        app()
    except EXPECTED_ERRORS as wrong:
        _exit(str(wrong), wrong)
    except Exception as unforeseen:
        number = secrets.token_hex(4).upper()
        reference = f"{number[:4]}-{number[4:]}"
        kind = type(unforeseen).__name__
        if common.is_running:
            log.exception("command_failed", reference=reference, error=kind)
        _exit(f"Something went wrong ({kind}). Reference {reference}; run again with --debug to see more.", unforeseen)


def _require_utf8(arguments: Sequence[str]) -> None:
    """Exit with status 2 where an argument is not UTF-8: no name contains such bytes."""
    for number, argument in enumerate(arguments, start=1):
        if any("\ud800" <= sign <= "\udfff" for sign in argument):
            typer.echo(f"Argument {number} is not text in UTF-8.", err=True)
            sys.exit(2)


def _exit(message: str, why: BaseException) -> NoReturn:
    if common.is_debugging:
        typer.echo(logs.scrub("".join(traceback.format_exception(why))), err=True)
    typer.echo(message, err=True)
    sys.exit(1)


def _on_thread_failure(failed: threading.ExceptHookArgs) -> None:
    """Log one line where a thread fails. A driver's thread that answers after the loop is closed is ignored."""
    if failed.exc_type is RuntimeError and "loop is closed" in str(failed.exc_value):
        return
    if common.is_debugging and failed.exc_value is not None:
        typer.echo(logs.scrub("".join(traceback.format_exception(failed.exc_value))), err=True)
    log.error("thread_failed", error=failed.exc_type.__name__)
