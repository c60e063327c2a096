"""The turns of messages, with a clock that the test sets: who waits for whom, and how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from bot.slack.pacing import CHANNELS_MAX, SHARES, TURN_LIFE, UPDATES_PER_MINUTE, Pacing, Urgency

OTHERS, CARDS, ALERTS = Urgency.OTHER, "C0CARDS", "C0ALERTS"


@dataclass
class Slack:
    """Callers that come back when their turn is due, as the runner lets them. ``sent`` has the time of each message."""

    now: float = 1000.0
    sent: list[tuple[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacing = Pacing(lambda: self.now)

    def post_all(self, channel: str, names: list[str], urgency: Urgency = OTHERS, *, late: float = 0.0) -> int:
        """Post these messages, all waiting from now on. Each caller comes ``late`` seconds after its turn. Returns how often they came."""
        due, looks = dict.fromkeys(names, self.now), 0
        while due:
            name = min(due, key=lambda one: due[one])
            self.now, looks = max(self.now, due[name]), looks + 1
            seconds = self.pacing.wait_to_post(channel, name, urgency)
            if seconds > 0:
                due[name] = self.now + seconds + late
            else:
                del due[name]
                self.sent.append((channel, self.now))
        return looks

    def updates(self, count: int, urgency: Urgency) -> int:
        """How many of so many new messages may be updated now."""
        waits = [self.pacing.wait_to_update((urgency, self.now, n), urgency) for n in range(count)]
        return sum(seconds == 0 for seconds in waits)


@pytest.mark.parametrize("late", [0.0, 0.03, 0.3])
def test_a_channel_gets_one_message_a_second_and_each_caller_comes_twice(late: float) -> None:
    slack = Slack()
    looks = slack.post_all(CARDS, [f"m{n}" for n in range(300)], late=late)
    times = [at for _, at in slack.sent]
    assert all(b - a >= 0.5 for a, b in pairwise(times))
    assert 299 <= times[-1] - times[0] <= 305
    assert looks <= 2 * 300, "nobody comes in vain again and again"


def test_messages_keep_their_order() -> None:
    slack = Slack()
    for name in ("a", "b", "c"):
        slack.pacing.wait_to_post(CARDS, name, OTHERS)
    slack.now += 1
    assert slack.pacing.wait_to_post(CARDS, "later", OTHERS) == 2, "it waits behind those that have a turn"
    assert slack.pacing.wait_to_post(CARDS, "b", OTHERS) == 0


def test_three_hundred_messages_delay_no_other_channel_and_nothing_urgent() -> None:
    slack = Slack()
    for n in range(300):
        slack.pacing.wait_to_post(CARDS, n, OTHERS)
    assert slack.pacing.wait_to_post("C0OTHER", "card", OTHERS) == 0
    assert slack.pacing.wait_to_post(ALERTS, "alert", Urgency.ALERT) == 0
    assert slack.pacing.wait_to_post(CARDS, "alert", Urgency.ALERT) == 1, "only for the message that was sent just now"
    slack.now += 1
    assert slack.pacing.wait_to_post(CARDS, "alert", Urgency.ALERT) == 0
    assert slack.pacing.wait_to_post(CARDS, 1, OTHERS) > 0, "the others make way for it"


def test_turn_that_nobody_used_is_given_up() -> None:
    slack = Slack()
    slack.pacing.wait_to_post(CARDS, "first", OTHERS)
    assert slack.pacing.wait_to_post(CARDS, "stopped", OTHERS) == 1
    slack.now += TURN_LIFE + 10
    slack.pacing.wait_to_post(CARDS, "next", OTHERS)
    assert slack.pacing.wait_to_post(CARDS, "stopped", OTHERS) > 0, "it has no right of way any more"


def test_channels_that_are_free_are_forgotten() -> None:
    slack = Slack()
    for n in range(CHANNELS_MAX + 10):
        slack.now += 1
        slack.pacing.wait_to_post(f"C{n}", "m", OTHERS)
    assert len(slack.pacing._channels) <= CHANNELS_MAX


def test_others_leave_the_reserved_updates_free() -> None:
    slack = Slack()
    assert slack.updates(1000, OTHERS) <= UPDATES_PER_MINUTE, "cards do not get everything"
    for urgency in (Urgency.ALERT, Urgency.CREDENTIALS, Urgency.CLOSING):
        assert slack.updates(5, urgency) == 5
    assert slack.updates(1000, Urgency.CLOSING) < 1000
    assert slack.updates(5, Urgency.ALERT) == 5, "a thousand closings leave them free, too"
    assert slack.updates(5, Urgency.CREDENTIALS) == 5


def test_filling_sixty_four_credential_messages_at_once_is_a_burst() -> None:
    assert Slack().updates(64, Urgency.CREDENTIALS) == 64


def test_updates_of_a_busy_hour_stay_within_the_limit() -> None:
    """All purposes want more than they may have. After the burst, a minute has no more updates than Slack allows."""
    slack = Slack()
    for urgency in SHARES:
        slack.updates(1000, urgency)
    slack.now += 3600
    keys = [(urgency, n) for urgency in SHARES for n in range(300)]
    minutes = []
    for _ in range(6):
        sent = 0
        for _second in range(60):
            slack.now += 1
            done = [key for key in keys if slack.pacing.wait_to_update(key, key[0]) == 0]
            keys = [key for key in keys if key not in set(done)]
            sent += len(done)
        minutes.append(sent)
    assert max(minutes[2:]) <= UPDATES_PER_MINUTE + len(SHARES)


def test_refused_updates_wait_for_retry_after_and_posts_do_not() -> None:
    slack = Slack()
    slack.pacing.on_updates_refused(30)
    assert slack.pacing.wait_to_update("a", Urgency.ALERT) == 30
    assert slack.pacing.wait_to_update("a", OTHERS) == 30
    assert slack.pacing.wait_to_post(ALERTS, "b", Urgency.ALERT) == 0
    slack.now += 30
    assert slack.updates(1000, OTHERS) <= 1, "no burst after a refusal"
    assert slack.updates(1, Urgency.ALERT) == 1


def test_refused_post_closes_its_channel_alone() -> None:
    slack = Slack()
    assert slack.pacing.wait_to_post(CARDS, "a", OTHERS) == 0
    slack.pacing.on_posts_refused(CARDS, 20)
    assert slack.pacing.wait_to_post(CARDS, "a", OTHERS) == 20
    assert slack.pacing.wait_to_post(CARDS, "alert", Urgency.ALERT) == 20
    assert slack.pacing.wait_to_post(ALERTS, "a", OTHERS) == 0
    assert slack.pacing.wait_to_update("a", OTHERS) == 0
    slack.now += 20
    assert slack.pacing.wait_to_post(CARDS, "a", OTHERS) == 0
