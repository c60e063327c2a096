"""``dbaccess run``."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from bot.app import App
from bot.cli import common

TOKENS = ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "SLACK_SIGNING_SECRET")
"""Taken out of the environment once they are read: Bolt would read them too, beside the client that has its token."""


def run(
    observe: Annotated[bool, typer.Option("--observe", hidden=True, help="Comes with a later version.")] = False,
) -> None:
    """Run the bot until it is told to stop (Ctrl-C, SIGTERM)."""
    if observe:
        raise common.wrong_use("--observe comes with a later version.")
    settings = common.settings()
    for name in TOKENS:
        os.environ.pop(name, None)
    asyncio.run(App(settings).run())
