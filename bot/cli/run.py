"""``dbaccess run``."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from bot.app import App
from bot.cli import common


def run(
    observe: Annotated[bool, typer.Option("--observe", hidden=True, help="Comes with a later version.")] = False,
) -> None:
    """Run the bot until it is told to stop (Ctrl-C, SIGTERM)."""
    if observe:
        raise common.wrong_use("--observe comes with a later version.")
    settings = common.settings()
    asyncio.run(App(settings).run())
