"""The real bot process is killed with SIGKILL at random moments. Every grant on the real PostgreSQL server still ends."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.e2e.harness import LEAD, Environment, wait
from tests.e2e.messages import number, text_of
from tests.soak import SOAK, rounds

SEED = 20261123


@pytest.mark.timeout(600 * SOAK)
def test_every_grant_ends_although_the_bot_is_killed_at_random_moments(environment: Environment) -> None:
    moments = random.Random(SEED)
    environment.policy["rules"][0]["requesters"] = ["U01REQUESTER", "U01SECOND"]
    environment.start()
    numbers = []
    for round_number in range(rounds(6)):
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
