"""Nobody who may request, approve or log in delays the end of somebody else's grant, and neither does a server that lies or falters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import structlog

from adapters.base import Rejected, ServerDown
from bot.access.ports import Person
from storage.records import Request
from tests.access.hanging import HangingServers, at_once, expect
from tests.open_faults import open_fault

LATE_AT_MOST = 2.0
SOON = timedelta(seconds=2)
"""The time that the good grant has left when the clock starts to run."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No tracebacks with colours, which take a second each and which the real process never prints."""
    with structlog.testing.capture_logs():
        yield


OPERATOR = Person(id="cli:root", name="root", is_member=True)


async def seconds_late(fleet: HangingServers, good: Request, *, within: float = 40.0, server: Any = None) -> float:
    """Seconds from the expiry until the login is blocked or the user gone."""
    server = server or fleet.environment.server
    name = str(good.username)
    await expect(
        "the end of the good grant",
        lambda: at_once(lambda: name not in server.users or name in server.blocked),
        within,
    )
    due = (await fleet.environment.now(good)).expires_at
    assert due is not None
    return (fleet.environment.clock() - due).total_seconds()


async def near_its_end(fleet: HangingServers, good: Request) -> None:
    """The clock runs from two seconds before the expiry."""
    due = (await fleet.environment.now(good)).expires_at
    assert due is not None
    fleet.environment.clock.at = due - SOON
    fleet.environment.clock.run()


def replace_block(
    fleet: HangingServers, block: Callable[[Sequence[str], Callable[..., frozenset[str]]], frozenset[str]]
) -> None:
    """Another answer of ``block_users`` at the server of the shop."""
    shop = fleet.environment.engines.adapter_class("postgresql")
    original = shop.block_users

    def block_users(self: Any, usernames: Sequence[str]) -> frozenset[str]:
        return block(usernames, lambda names: original(self, names))

    shop.block_users = block_users  # type: ignore[method-assign]


async def test_addresses_that_hang_delay_no_other_address_of_their_server(fleet: HangingServers) -> None:
    """Two clones with the identity of a healthy server hang: they take the places of the pool."""
    fleet.build(3)
    for n in (0, 1):
        await fleet.granted(f"far{n}", 8)
    (good,) = await fleet.granted("far2", minutes=60)
    fleet.server.holds = lambda what: what in ("env:FAR0", "env:FAR1")
    fleet.server.seconds = 10.0
    due = (await fleet.environment.now(good)).expires_at
    fleet.environment.clock.at = due - timedelta(minutes=1)
    async with fleet.running():
        await expect("it hangs", lambda: at_once(lambda: fleet.server.inside >= 6))
        fleet.environment.clock.at = due
        fleet.environment.clock.run()
        fleet.environment.runner.wake()
        assert await seconds_late(fleet, good, server=fleet.far) < LATE_AT_MOST


async def poison(fleet: HangingServers, hang: float) -> float:
    """One user that breaks each connection that touches it. Its end was tried; then the end of the good grant comes."""
    fleet.build()
    (bad,) = await fleet.granted("shop", minutes=30)
    (good,) = await fleet.granted("shop", minutes=60)
    name = str(bad.username)

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        if name in names:
            time.sleep(hang)
            raise ServerDown("the connection broke")
        return original(names)

    replace_block(fleet, block)
    fleet.server.holds, fleet.server.seconds = (lambda what: what == name), hang
    await near_its_end(fleet, good)
    async with fleet.running():
        return await seconds_late(fleet, good)


async def test_user_that_breaks_each_connection_delays_nobody_else(fleet: HangingServers) -> None:
    assert await poison(fleet, 0.0) < LATE_AT_MOST


@open_fault("S1", "a group keeps its ends from their own tasks for as long as its block hangs")
async def test_block_that_hangs_delays_no_drop(fleet: HangingServers) -> None:
    fleet.build()
    grants = await fleet.granted("shop", 40, minutes=30)

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        time.sleep(6)
        raise ServerDown("timed out")

    replace_block(fleet, block)
    last = grants[-1]
    await near_its_end(fleet, last)
    fleet.environment.clock.at += SOON
    async with fleet.running():
        assert await seconds_late(fleet, last) < LATE_AT_MOST


async def test_refused_user_of_a_group_delays_nobody_else(fleet: HangingServers) -> None:
    fleet.build()
    hostile = await fleet.granted("shop", 12, minutes=30)
    good = await fleet.granted("shop", 20, minutes=31)
    names = {str(one.username) for one in hostile}

    def block(asked: Sequence[str], original: Any) -> frozenset[str]:
        if names & set(asked):
            raise Rejected("no")
        return original(asked)

    replace_block(fleet, block)
    fleet.server.holds, fleet.server.seconds = names.__contains__, 8.0
    await near_its_end(fleet, good[-1])
    fleet.environment.clock.at += SOON
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < LATE_AT_MOST


async def test_server_that_lies_about_the_block_delays_no_drop(fleet: HangingServers) -> None:
    """It says that all are blocked, and blocks none. Each is dropped all the same."""
    fleet.build()
    good = await fleet.granted("shop", 40)
    replace_block(fleet, lambda asked, _original: frozenset(asked))
    await near_its_end(fleet, good[-1])
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < LATE_AT_MOST


async def test_block_that_names_others_delays_no_drop(fleet: HangingServers) -> None:
    fleet.build()
    good = await fleet.granted("shop", 40)
    replace_block(fleet, lambda asked, _original: frozenset({"root", "postgres"}))
    await near_its_end(fleet, good[-1])
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < LATE_AT_MOST


async def test_server_that_flaps_delays_no_other_server(fleet: HangingServers) -> None:
    """It is away for half of each second. Another server ends its grants in time, and it ends its own."""
    fleet.build()
    await fleet.granted("far0", 30)
    (good,) = await fleet.granted("shop", minutes=31)
    await near_its_end(fleet, good)
    stop = threading.Event()

    def flap() -> None:
        while not stop.wait(0.1):
            fleet.far.is_up = not fleet.far.is_up

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        async with fleet.running():
            assert await seconds_late(fleet, good) < LATE_AT_MOST
    finally:
        stop.set()
        thread.join()
