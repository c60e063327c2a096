"""Grants as people make them: request, approve, log in, give back. Click to usable, and the processor time of a grant."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import psycopg

from benchmarks.slack import card_number, within
from benchmarks.world import LEADS, REQUESTERS, World
from tests.e2e.messages import credentials

_reasons = iter(range(1, 1_000_000))
_requesters, _leads = cycle(REQUESTERS), cycle(LEADS)
"""Different people each time: Slack takes one message a second in the direct messages of one person."""

CREDENTIALS_WITHIN = 300.0
"""Slack takes about 50 updates of messages a minute, so many grants at a time can take minutes."""


def next_reason() -> str:
    """A reason that no other request has."""
    return f"figure{next(_reasons)}"


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A request that waits for its click."""

    number: int
    requester: str
    card: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Usable:
    """A grant whose credentials work. ``seconds`` from the click; ``filled_after`` until the message had the password."""

    waiting: Waiting
    login: dict[str, str]
    seconds: float
    filled_after: float


async def make_request(world: World, requester: str, database: str = "shop", duration: str = "2h") -> Waiting:
    """Request access by the command, and wait for the card."""
    reason = next_reason()
    card = world.slack.expect_card(reason)
    await world.slack.command(requester, f"request {database} readonly {duration} {reason}")
    call = await within(f"the card of {reason}", card)
    return Waiting(number=card_number(call), requester=requester, card=world.slack.message_of(call))


async def approve(world: World, waiting: Waiting) -> Usable:
    """Click Approve, and log in as soon as the credentials are there."""
    filled = world.slack.expect_credentials(waiting.number)
    started = time.monotonic()
    click = asyncio.create_task(world.slack.click(next(_leads), waiting.card, "Approve"))
    call = await within(f"the credentials of #{waiting.number}", filled, CREDENTIALS_WITHIN)
    login = credentials({"blocks": call.arguments["blocks"]})
    connection = await log_in(login)
    seconds = time.monotonic() - started
    await connection.close()
    await click
    return Usable(waiting=waiting, login=login, seconds=seconds, filled_after=call.received_at - started)


async def log_in(login: dict[str, str]) -> psycopg.AsyncConnection[Any]:
    """A session of the temporary user."""
    return await psycopg.AsyncConnection.connect(
        host=login["Host"], port=int(login["Port"]), dbname=login["Database"], user=login["Username"],
        password=login["Password"], autocommit=True, connect_timeout=30,
    )  # fmt: skip


async def make_usable(world: World, at_a_time: int) -> list[Usable]:
    """Request this many grants, and click on all of them at once."""
    waiting = await asyncio.gather(*(make_request(world, next(_requesters)) for _ in range(at_a_time)))
    await world.until_idle()
    return list(await asyncio.gather(*(approve(world, one) for one in waiting)))


async def give_back(world: World, grants: list[Usable]) -> None:
    """End the grants early, and wait until all that follows is done."""
    for grant in grants:
        await world.slack.command(grant.waiting.requester, f"done {grant.waiting.number}")
    numbers = [grant.waiting.number for grant in grants]
    deadline = time.monotonic() + 300
    while sum(world.ledger.count("revoked", [number]) for number in numbers) < len(numbers):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the grants {numbers} were not ended")
        await asyncio.sleep(0.05)
    await world.until_idle()
