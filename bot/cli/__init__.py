"""``dbaccess``: the same verbs as in Slack, for those who run it. Exit status 0, 1 (no, or something is wrong), 2 (wrong use)."""

from __future__ import annotations

import secrets
import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import structlog
import typer

from adapters.base import AdapterError
from bot.access.errors import AccessError
from bot.app import CannotStart
from bot.cli import common, doctor, listing, policy, revoke, run, store, sweep
from bot.http import CannotListen
from bot.policy.load import ConfigError
from bot.settings import SettingsError
from storage.errors import LedgerError

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
    common.is_debugging = debug


def main() -> None:
    """The console script. What is foreseen is a sentence and status 1; what is not, a sentence with a reference."""
    try:
        app()
    except (SettingsError, ConfigError, CannotStart, CannotListen, AccessError, LedgerError, AdapterError) as wrong:
        if common.is_debugging:
            raise
        typer.echo(str(wrong), err=True)
        sys.exit(1)
    except Exception as unforeseen:
        if common.is_debugging:
            raise
        reference = secrets.token_hex(4).upper()
        structlog.get_logger(__name__).error(
            "a command failed",
            reference=reference,
            error=type(unforeseen).__name__,
            exc_info=None if common.is_answering else unforeseen,
        )
        typer.echo(
            f"That did not work ({type(unforeseen).__name__}). Reference {reference}; run again with --debug to see more.",
            err=True,
        )
        sys.exit(1)
