"""The real bot process is killed with SIGKILL. Every grant on the real servers still ends, and nothing is lost. And a load over three replicas."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.e2e.harness import LEAD, Environment, wait
from tests.e2e.messages import number, text_of
from tests.nightly import crash, load
from tests.nightly.fleet import Servers
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer
from tests.soak import soak_only

SEED = 20261123


def test_every_grant_ends_although_the_bot_is_killed_at_random_moments(environment: Environment) -> None:
    moments = random.Random(SEED)
    environment.policy["rules"][0]["requesters"] = ["U01REQUESTER", "U01SECOND"]
    environment.start()
    numbers = []
    for round_number in range(6):
        card = environment.request_access(f"shop readonly {10 + round_number}s looking at refund {round_number}")
        numbers.append(number(card))
        environment.click(LEAD, card, "Approve")
        time.sleep(moments.uniform(0.0, 0.35))  # between the click and the credential message
        environment.restart(signal.SIGKILL)
        if environment.request(numbers[-1])["state"] == "pending":  # the click was lost with the process
            environment.click(LEAD, environment.card(card["ts"]), "Approve")
    for _ in range(3):
        time.sleep(moments.uniform(1.0, 5.0))  # while grants end
        environment.restart(signal.SIGKILL)
    for request_id in numbers:
        wait(
            f"#{request_id} is over",
            lambda request_id=request_id: environment.request(request_id)["state"] == "revoked",
        )
    environment.wait_until_no_users()
    assert not any("Password" in text_of(m) for m in environment.slack.dm("U01REQUESTER"))
    assert environment.stop() == 0


@soak_only
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("ledger", ["sqlite", "postgresql"])
async def test_nothing_is_lost_and_nobody_left_by_kills_at_every_kind_of_moment(
    postgresql15: PostgresServer, redis7: RedisServer, ledger: str
) -> None:
    """One bot with a ledger in SQLite, three replicas with one in PostgreSQL. ``make nightly`` does 500 rounds."""
    result = await crash.run(Servers(postgresql15, redis7), ledger=ledger, rounds=20)
    assert result.figures["grants"] > 0
    assert result.figures["sessions held"] > 0
    assert [str(one) for one in result.findings] == []


@soak_only
@pytest.mark.timeout(1800)
async def test_load_over_three_replicas(postgresql15: PostgresServer, redis7: RedisServer) -> None:
    """Five minutes. The hour, and how late ends are at p99, belong to ``make nightly``: other tests use this machine too."""
    result = await load.run(Servers(postgresql15, redis7), seconds=300)
    assert result["grants"] > 0
    assert [one for one in result["findings"] if not one.startswith("late: p99")] == []
