"""The real process, killed with SIGKILL at moments nobody chose, against a real PostgreSQL."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.e2e.harness import LEAD, World, number, text_of, wait
from tests.soak import SOAK, rounds

SEED = 20261123


@pytest.mark.timeout(600 * SOAK)
def test_killed_at_random_moments_everything_still_ends(world: World) -> None:
    moments = random.Random(SEED)
    world.policy["rules"][0]["requesters"] = ["U01REQUESTER", "U01SECOND"]
    world.start()
    numbers = []
    for round_number in range(rounds(6)):
        card = world.ask(f"shop readonly {10 + round_number}s looking at refund {round_number}")
        numbers.append(number(card))
        world.click(LEAD, card, "Approve")
        time.sleep(moments.uniform(0.0, 0.35))  # anywhere between the click and the filled message
        world.restart(signal.SIGKILL)
        if world.request(numbers[-1])["state"] == "pending":  # the click died with the process
            world.click(LEAD, world.card(card["ts"]), "Approve")
    for _ in range(3):
        time.sleep(moments.uniform(1.0, 5.0))  # anywhere in the endings
        world.restart(signal.SIGKILL)
    for request_id in numbers:
        wait(f"#{request_id} is over", lambda request_id=request_id: world.request(request_id)["state"] == "revoked")
    world.no_users()
    assert not any("Password" in text_of(m) for m in world.slack.dm("U01REQUESTER"))
    assert world.stop() == 0
