"""The delay of an end while many calls hang, with the figures of real outages. In real time with real back-off; takes minutes.

Each test prints what it measured.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from bot.access.ports import Delayed, Notice
from storage.records import Request, State
from tests.access.environment import CARDS
from tests.access.hanging import HangingServers, expect, waiting_requests
from tests.soak import soak_only

LATE_AT_MOST = 2.0
"""Seconds after its expiry at which a grant must be over."""

TO_GO = 30
"""Seconds that the good grant has left when the clock starts to run."""


async def how_late(fleet: HangingServers, good: Request) -> float:
    """Seconds from the expiry of the good grant until its user was gone, by the clock of the test environment."""
    environment = fleet.environment
    environment.clock.run()
    async with fleet.running():

        async def is_gone() -> bool:
            return str(good.username) not in environment.server.users

        await expect("the user is gone", is_gone, within=150)
        gone_at = environment.clock()
    due = (await environment.now(good)).expires_at
    assert due is not None
    return (gone_at - due).total_seconds()


def print_delay(capsys: pytest.CaptureFixture[str], what: str, late: float) -> None:
    with capsys.disabled():
        print(f"\n{what}: the end came {late:.2f} s after its time")  # noqa: T201


@soak_only
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("servers", "each"), [(1, 60), (20, 8)])
async def test_end_is_in_time_while_other_ends_take_ten_seconds(
    fleet: HangingServers, capsys: pytest.CaptureFixture[str], servers: int, each: int
) -> None:
    fleet.build(servers)
    for n in range(servers):
        await fleet.granted(f"far{n}", each)
    (good,) = await fleet.granted("shop", minutes=60)
    fleet.server.holds, fleet.server.seconds = (lambda what: what.startswith("env:FAR")), 10.0
    fleet.environment.clock.at += timedelta(minutes=60, seconds=-TO_GO)
    late = await how_late(fleet, good)
    print_delay(capsys, f"{each} expired grants on each of {servers} servers that hang 10 s a call", late)
    assert late < LATE_AT_MOST


@soak_only
@pytest.mark.timeout(600)
async def test_end_is_in_time_while_slack_takes_fifteen_seconds_a_call(
    fleet: HangingServers, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.build()
    fleet.slack_may_hang()
    (good,) = await fleet.granted("shop", minutes=60)
    await waiting_requests(fleet.environment, 60)
    fleet.slack.holds, fleet.slack.seconds = (lambda _notice: True), 15.0
    fleet.environment.clock.at += timedelta(minutes=60, seconds=-TO_GO)
    late = await how_late(fleet, good)
    print_delay(capsys, "60 waiting requests and a Slack that hangs 15 s a call", late)
    assert late < LATE_AT_MOST


@soak_only
@pytest.mark.timeout(600)
async def test_end_is_in_time_with_three_hundred_pending_requests(
    fleet: HangingServers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All reminders are due at once. Slack takes one message a second in the channel and delays all others."""
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    await waiting_requests(environment, 300)
    post, last = environment.messenger.post, [0.0]

    async def paced(channel: str, notice: Notice, *, thread: str | None = None) -> Any:
        await asyncio.sleep(0.1)
        if channel == CARDS:
            if time.monotonic() - last[0] < 1:
                raise Delayed("Slack asks to wait", retry_after=1)
            last[0] = time.monotonic()
        return await post(channel, notice, thread=None)

    monkeypatch.setattr(environment.messenger, "post", paced)
    environment.clock.at += timedelta(minutes=60, seconds=-TO_GO)
    late = await how_late(fleet, good)
    print_delay(capsys, "300 reminders at once, one message a second", late)
    assert (await environment.now(good)).state is State.REVOKED
    assert late < LATE_AT_MOST
