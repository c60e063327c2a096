"""A clock of the ledger that is set back or forward is noticed, and so is one that is right again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bot.monitors import clock as module
from bot.monitors.clock import ClockWatch
from bot.notifications.notices import AlertNotice
from tests.access.environment import ALERTS, BEGIN, HOUR, AccessEnvironment

DAY, MINUTE = timedelta(days=1), timedelta(minutes=1)


class Time:
    """Both clocks of the test: the ledger's, which it sets, and the monotonic one, which only goes on."""

    def __init__(self, environment: AccessEnvironment) -> None:
        self.environment = environment
        self.monotonic = 1000.0
        self.watch = ClockWatch(environment.context, monotonic=lambda: self.monotonic)

    async def pass_by(self, **passed: float) -> None:
        """Time passes on both clocks; then the monitor looks."""
        by = timedelta(**passed)
        self.environment.clock.at += by
        self.monotonic += by.total_seconds()
        await self.watch.run()
        await self.environment.drain()

    async def is_wrong(self) -> bool:
        return bool(await self.environment.ledger.alerts.open(prefix="clock"))

    @property
    def said(self) -> str:
        return self.environment.messenger.on(ALERTS, AlertNotice)[-1].what  # type: ignore[no-any-return]


@pytest.fixture
async def both(environment: AccessEnvironment) -> Time:
    environment.context.config_in_force()
    return Time(environment)


async def test_even_clock_is_right(both: Time) -> None:
    for seconds in (0, 60, 59, 3600, 86400):
        await both.pass_by(seconds=seconds)
        assert not await both.is_wrong()


async def test_clock_set_back_says_how_much_longer_grants_live(both: Time) -> None:
    await both.environment.granted()
    await both.pass_by(minutes=1)
    both.environment.clock.at -= DAY
    await both.pass_by(minutes=1)
    assert await both.is_wrong()
    assert "1 live grant would live up to 1 d longer." in both.said
    (alert,) = await both.environment.ledger.alerts.open(prefix="clock")
    assert alert.enforced == (
        "The servers go by their own clocks. 1 grant on FakeSQL: new logins are refused after the end, open sessions stay."
    )


async def test_clock_that_is_set_right_again_resolves_the_alert(both: Time) -> None:
    await both.environment.granted()
    await both.pass_by(minutes=1)
    both.environment.clock.at -= DAY
    await both.pass_by(minutes=1)
    both.environment.clock.at += DAY
    await both.pass_by(minutes=1)
    assert not await both.is_wrong()


async def test_clock_that_is_right_again_after_a_restart_resolves_the_alert(both: Time) -> None:
    await both.environment.granted()
    both.environment.clock.at -= DAY
    await both.pass_by()
    assert await both.is_wrong()
    both.environment.clock.at += DAY + HOUR
    restarted = Time(both.environment)
    await restarted.pass_by()
    assert not await restarted.is_wrong()


async def test_times_in_the_future_are_noticed_at_the_start(both: Time) -> None:
    """A grant was made while the clock was ahead. The first look after the clock was corrected sees it."""
    both.environment.clock.at += DAY
    await both.environment.granted()
    both.environment.clock.at -= DAY
    await both.pass_by()
    assert "The ledger has entries from the future: the newest is from 2026-11-24 09:00:00 UTC" in both.said
    assert "longer" in both.said


async def test_time_of_a_live_grant_counts_when_its_events_are_old(both: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.figures.EVENTS_SEEN", 1)
    both.environment.clock.at += DAY
    await both.environment.granted()
    both.environment.clock.at -= DAY
    await both.environment.ask(reason="a newer event")
    await both.pass_by()
    assert await both.is_wrong()


@pytest.mark.parametrize(
    ("by", "is_noticed"), [(DAY, True), (timedelta(seconds=8), True), (timedelta(seconds=2), False)]
)
async def test_jump_forward_is_noticed(both: Time, by: timedelta, is_noticed: bool) -> None:
    await both.pass_by()
    both.environment.clock.at += by
    await both.pass_by(minutes=1)
    assert await both.is_wrong() is is_noticed
    if is_noticed:
        assert "was set forward by" in both.said


async def test_small_jump_back_is_noticed(both: Time) -> None:
    """No time in the ledger is further ahead than a minute; the monotonic clock shows it."""
    await both.environment.granted()
    await both.pass_by(minutes=1)
    both.environment.clock.at -= timedelta(seconds=40)
    await both.pass_by(seconds=30)
    assert "The clock of the ledger was set back by 40 s. 1 live grant would live up to 40 s longer." in both.said


async def test_clock_that_stays_ahead_and_runs_evenly_is_taken_for_right(both: Time) -> None:
    """It was wrong before, perhaps, and NTP has corrected it."""
    await both.pass_by()
    both.environment.clock.at += HOUR
    await both.pass_by(minutes=1)
    await both.pass_by(minutes=5)
    assert await both.is_wrong()
    await both.pass_by(minutes=6)
    assert not await both.is_wrong()


async def test_drift_that_ntp_corrects_is_no_jump(both: Time) -> None:
    await both.pass_by()
    for _ in range(20):
        both.environment.clock.at += timedelta(seconds=1)
        await both.pass_by(minutes=1)
        assert not await both.is_wrong()


async def test_lasting_problem_changes_its_alert_no_more(both: Time) -> None:
    await both.environment.granted()
    both.environment.clock.at = BEGIN - DAY
    for _ in range(5):
        await both.pass_by(minutes=1)
    (alert,) = await both.environment.ledger.alerts.open(prefix="clock")
    assert alert.version == 1


async def test_slow_look_says_nothing_about_the_clock(both: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    await both.pass_by()
    times = both.environment.ledger.figures.times

    async def slow() -> object:
        found = await times()
        both.monotonic += 30
        return found

    monkeypatch.setattr(both.environment.ledger.figures, "times", slow)
    await both.pass_by(minutes=1)
    assert not await both.is_wrong()


async def test_ledger_that_does_not_answer_stops_nothing(both: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(both.environment.ledger.figures, "times", None)
    await both.watch.run()
    assert module.CAUSE == "clock"
