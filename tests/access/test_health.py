"""Readiness and metrics: what makes the bot not ready, and that each answer comes while the ledger hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from adapters.base import Rejected
from bot import health as module
from bot.access import revoke
from bot.health import Health
from storage.errors import LedgerUnavailable
from storage.records import Priority
from tests.access.environment import HOUR, LEAD, SECOND, AccessEnvironment
from tests.access.hanging import HangingServers, expect


def health_of(environment: AccessEnvironment, *, is_connected: bool = True) -> Health:
    return Health(environment.context, environment.runner, lambda: is_connected)


async def metrics(environment: AccessEnvironment) -> dict[str, float]:
    lines = (await health_of(environment).metrics()).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("dbaccess_"): float(value) for name, value in pairs}


@pytest.mark.parametrize("early", [False, True], ids=["by the clock", "by a person"])
async def test_overdue_end_is_named_with_its_age(environment: AccessEnvironment, early: bool) -> None:
    """An end that is tried again and again is due at its next try, but overdue since its time."""
    request = await environment.granted()
    environment.server.is_up = False
    if early:
        await revoke.revoke(environment.context, await environment.person(LEAD), request.id)
        await environment.turn(minutes=3)
    else:
        await environment.turn(hours=1, minutes=3)
    assert await health_of(environment).unready_reasons() == {"ends": "1 end overdue, the oldest by 3 min"}
    found = await metrics(environment)
    assert (found["overdue_revocations"], found["late_revocations"]) == (1, 1)
    assert found["oldest_overdue_revocation_seconds"] == 180
    environment.server.is_up = True
    await environment.turn(minutes=3)
    assert await health_of(environment).unready_reasons() == {}
    assert (await metrics(environment))["overdue_revocations"] == 0


async def test_end_that_is_late_by_seconds_leaves_the_bot_ready(environment: AccessEnvironment) -> None:
    await environment.granted()
    environment.clock.at += HOUR + timedelta(seconds=30)
    assert await health_of(environment).unready_reasons() == {}
    assert (await metrics(environment))["overdue_revocations"] == 1


async def test_refused_reload_leaves_the_bot_ready(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    (environment.folder / "policy.yml").write_text("rules: [")
    environment.context.files.forget()
    environment.context.files.refresh()
    assert await health_of(environment).unready_reasons() == {}
    assert (await metrics(environment))["configuration_refused"] == 1


async def test_errors_at_start_make_the_bot_not_ready_until_they_are_corrected(environment: AccessEnvironment) -> None:
    found = health_of(environment)
    found.had_errors_at_start = True
    assert set(await found.unready_reasons()) == {"configuration"}
    environment.context.config_in_force()
    assert await found.unready_reasons() == {}


async def test_slack_that_is_not_connected_makes_the_bot_not_ready(environment: AccessEnvironment) -> None:
    assert await health_of(environment, is_connected=False).unready_reasons() == {"slack": "not connected"}


async def test_readiness_answers_while_the_ledger_hangs(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)
    tries = list[float]()

    async def hangs() -> None:
        tries.append(time.monotonic())
        await asyncio.sleep(600)

    monkeypatch.setattr(environment.ledger, "check_writable", hangs)
    found = health_of(environment)
    answers = await asyncio.wait_for(asyncio.gather(*(found.unready_reasons() for _ in range(5))), 30)
    assert {tuple(one) for one in answers} == {("store",)}
    assert "no answer" in answers[0]["store"]
    assert len(tries) == 1, "one check at a time, however many ask"
    await found.writes.stop()


async def test_write_check_is_remembered_for_a_moment(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = list[float]()

    async def fails() -> None:
        tries.append(time.monotonic())
        raise LedgerUnavailable("OperationalError")

    monkeypatch.setattr(environment.ledger, "check_writable", fails)
    found = health_of(environment)
    for _ in range(5):
        assert (await found.unready_reasons())["store"].startswith("cannot be written")
    assert len(tries) == 1


async def test_nothing_is_written_before_the_ledger_is_open(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check would create the file of a SQLite ledger."""
    monkeypatch.setattr(environment.ledger, "check_writable", None)
    found = health_of(environment)
    found.is_starting = True
    assert await found.unready_reasons() == {"store": "is being opened"}


# Metrics.


async def test_metrics_of_the_ledger(environment: AccessEnvironment) -> None:
    ending = await environment.granted()
    await environment.approve(await environment.ask(LEAD), SECOND)
    await environment.drain()
    environment.server.holds_up = Rejected("no")
    await revoke.revoke(environment.context, await environment.person(LEAD), ending.id)
    await environment.turn(minutes=2)
    found = await metrics(environment)
    assert (found["live_grants"], found["ending_grants"], found["open_alerts"]) == (2, 1, 1)
    safety = [task for task in await environment.ledger.tasks.all() if task.priority == Priority.SAFETY]
    assert found['tasks{priority="safety"}'] == len(safety) > 0
    assert found["ledger_reachable"] == 1
    config = environment.context.files.config
    assert config is not None
    assert found[f'configuration_info{{digest="{config.digest}"}}'] == 1


async def test_due_task_shows_its_age(environment: AccessEnvironment) -> None:
    await environment.granted()
    environment.clock.at += HOUR + timedelta(seconds=30)
    found = await metrics(environment)
    assert found['due_tasks{priority="safety"}'] == 1
    assert found['oldest_due_task_seconds{priority="safety"}'] == 30


async def test_metrics_of_pools_and_probes(fleet: HangingServers) -> None:
    fleet.build()
    environment = fleet.environment
    fleet.far.is_up = True
    await fleet.granted("far0", 2)
    fleet.server.holds, fleet.server.seconds = (lambda what: what.startswith("env:FAR")), 2.0
    environment.clock.at += HOUR
    environment.clock.run()
    async with fleet.running():

        async def is_closed() -> bool:
            found = await metrics(environment)
            return found["closed_servers"] == 1 and any(name.startswith("failed_probes{") for name in found)

        async def runs() -> bool:
            return any(name.startswith("running_tasks{") for name in await metrics(environment))

        await expect("a running task is shown", runs)
        await expect("the closed server is shown", is_closed)


async def test_metrics_need_few_statements(environment: AccessEnvironment) -> None:
    await environment.granted()
    seen = list[str]()
    read = environment.ledger.database.read

    async def counted(work: Callable[[Connection], Any]) -> Any:
        def counting(tx: Connection) -> Any:
            execute = tx.execute
            tx.execute = lambda *a, **k: seen.append(str(a[0])) or execute(*a, **k)  # type: ignore[method-assign, func-returns-value, assignment]
            return work(tx)

        return await read(counting)

    environment.ledger.database.read = counted  # type: ignore[method-assign, assignment]
    await metrics(environment)
    assert 0 < len(seen) <= 4


async def test_scrape_answers_while_the_ledger_hangs(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.5)

    async def hangs(_late: timedelta) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr(environment.ledger.figures, "all", hangs)
    found = await asyncio.wait_for(metrics(environment), 30)
    assert found["ledger_reachable"] == 0
    assert found["closed_servers"] == 0
    assert "live_grants" not in found


async def test_scrape_answers_without_a_ledger(environment: AccessEnvironment) -> None:
    await environment.ledger.close()
    for file in environment.folder.glob("ledger.db*"):
        file.unlink()
    assert (await metrics(environment))["ledger_reachable"] == 0
