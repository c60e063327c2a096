"""A check, or a fault in dbaccess, may refuse a grant. It never refuses, delays or skips an end, and a missing end raises an alert."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from adapters.base import AdapterError, ServerDown
from bot.access.ports import Person
from bot.access.targets import target_of
from bot.engines import Engines
from bot.jobs import runner
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors import strays
from bot.notifications.notices import AlertNotice
from storage.commands import Command, RevokeGrant
from storage.errors import LedgerUnavailable
from storage.records import Cause, Request, State, TaskKind
from storage.schema import requests
from storage.task_plans import user_lock_key
from storage.transitions import TaskPlan, Transition
from tests.access.environment import ALERTS, HOUR, AccessEnvironment
from tests.access.fake_engine import FakeServer, engine
from tests.access.hanging import expect
from tests.open_faults import require

OPERATOR = Person(id="cli:root", name="root", is_member=True)


def broken_engine(environment: AccessEnvironment, breaks: Callable[[], bool]) -> None:
    """An adapter that raises errors that no adapter should raise."""

    class Broken(engine(environment.server)):  # type: ignore[misc]
        def _reach(self, name: str) -> None:
            if breaks():
                raise NotImplementedError("postgresql://bot:ShopAdminSecret@localhost/shop")
            super()._reach(name)

    environment.engines = Engines({"postgresql": Broken})
    environment.context = replace(environment.context, engines=environment.engines)
    environment.runner = Runner(environment.context, JOBS)


async def test_unexpected_adapter_error_is_retried_and_alerted(environment: AccessEnvironment) -> None:
    is_broken = False
    broken_engine(environment, lambda: is_broken)
    request = await environment.granted()
    is_broken = True
    await environment.turn(hours=1, minutes=1)
    (alert,) = [one for one in environment.messenger.on(ALERTS, AlertNotice) if "is not ended" in one.what]
    assert f"#{request.id}" in alert.what
    assert "NotImplementedError" in alert.what
    assert "ShopAdminSecret" not in f"{alert} {[task.last_error for task in await environment.ledger.tasks.all()]}"
    is_broken = False
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}


async def test_every_adapter_failure_is_an_adapter_error(environment: AccessEnvironment) -> None:
    """An unexpected error of one server does not stop the checks of the others."""
    request = await environment.granted()
    broken_engine(environment, lambda: True)
    with pytest.raises(AdapterError) as caught:
        await environment.engines.call(target_of(request), lambda adapter: adapter.list_users())
    assert isinstance(caught.value, ServerDown)
    found = await strays.find_strays(environment.context)
    assert "NotImplementedError" in found.unanswered["shop"]


async def test_end_that_fails_by_a_fault_of_dbaccess_raises_an_alert(environment: AccessEnvironment) -> None:
    """A row of a later version cannot be read. Nothing can be done, so an alert must say it."""
    request = await environment.granted()
    unread = {**(request.target or {}), "of a later version": True}
    damage = update(requests).where(requests.c.id == request.id).values(target=unread)
    await environment.ledger.database.write(lambda tx: tx.execute(damage))
    await environment.turn(hours=1, minutes=1)
    told = [one.what for one in environment.messenger.on(ALERTS, AlertNotice)]
    assert any(f"#{request.id} is not ended" in what and "TypeError" in what for what in told), told


async def test_grant_ended_by_a_person_at_its_expiry_is_revoked(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The revoke task reads a live grant, then a person ends it first. There is one task, and it must not be lost."""
    request = await environment.approve(
        await environment.ask()
    )  # never started: its end is the last moment it could have had
    assert request.start_before is not None
    environment.clock.at = request.start_before + HOUR
    real = environment.ledger.requests.advance

    async def slower(request_id: int, command: Command, **more: Any) -> Request:
        if command.actor == "clock":
            monkeypatch.undo()
            await real(request_id, RevokeGrant(actor="cli:root", cause=Cause.REVOKED))
        return await real(request_id, command, **more)

    monkeypatch.setattr(environment.ledger.requests, "advance", slower)
    await environment.drain()
    await environment.turn(minutes=1)
    assert (await environment.now(request)).state is State.REVOKED
    assert (await environment.now(request)).ended_because is Cause.REVOKED


@pytest.mark.parametrize("minutes", [1, 59])
async def test_clock_set_back_during_an_end_loses_no_end(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """The task was due. When its transition is evaluated, the end is in the future again."""
    request = await environment.approve(await environment.ask())
    assert request.start_before is not None
    environment.clock.at = request.start_before + HOUR
    real = environment.ledger.requests.advance

    async def earlier(request_id: int, command: Command, **more: Any) -> Request:
        if command.actor == "clock":
            monkeypatch.undo()
            environment.clock.at -= timedelta(minutes=minutes)
        return await real(request_id, command, **more)

    monkeypatch.setattr(environment.ledger.requests, "advance", earlier)
    await environment.turn(hours=3)
    assert (await environment.now(request)).state is State.REVOKED


async def test_grant_on_a_removed_database_is_ended(environment: AccessEnvironment) -> None:
    """The database is removed from databases.yml, and the policy is invalid."""
    request = await environment.granted()
    environment.databases["databases"] = {
        "other": environment.databases["databases"]["shop"] | {"admin_url": "env:OTHER_URL"}
    }
    environment.write()
    (environment.folder / "policy.yml").write_text("rules: [")
    environment.context.files.refresh()
    await environment.turn(hours=1)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}


async def test_sweep_checks_the_servers_that_answer(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One adapter fails unexpectedly, the other works: the orphan on the second server is found."""
    monkeypatch.setenv("FAR", "mysql://bot:FarAdminSecret@localhost/far")
    far = FakeServer(clock=environment.clock, identity="far-1")
    request = await environment.granted()
    far.users[str(request.username).replace("_1_", "_77_")] = environment.server.users[str(request.username)]

    class Broken(engine(environment.server)):  # type: ignore[misc]
        def list_users(self) -> list[Any]:
            raise NotImplementedError

    engines = Engines({"postgresql": Broken, "mysql": engine(far)})
    environment.context = replace(environment.context, engines=engines)
    levels = {"readonly": {"grants": [{"on": ["a.b"], "privileges": ["SELECT"]}]}}
    environment.databases["databases"]["far"] = {"engine": "mysql", "admin_url": "env:FAR", "levels": levels}
    environment.write()
    environment.context.files.refresh()
    found = await strays.find_strays(environment.context)
    assert [stray.kind for stray in found.strays] == [strays.StrayKind.ORPHAN]
    assert set(found.unanswered) == {"shop"}


# The ledger away for a moment.


async def test_end_does_not_wait_for_its_lease_after_a_ledger_failure(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await environment.granted()
    environment.clock.at += HOUR
    monkeypatch.setattr(runner, "PAUSE_SECONDS", 0.01)
    fail_once(environment, monkeypatch)
    stop = asyncio.Event()
    running = asyncio.create_task(environment.runner.run(stop))
    try:
        await expect("the end, with the clock where it was", lambda: is_revoked(environment, request))
    finally:
        stop.set()
        await running
    assert environment.server.users == {}


def fail_once(environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger fails during the first revocation."""
    advance, failures = environment.ledger.requests.advance, [LedgerUnavailable("OperationalError")]

    async def failing(request_id: int, command: Command, *rest: Any, **named: Any) -> Any:
        if command.transition is Transition.REVOKE and failures:
            raise failures.pop()
        return await advance(request_id, command, *rest, **named)

    monkeypatch.setattr(environment.ledger.requests, "advance", failing)


async def is_revoked(environment: AccessEnvironment, request: Request) -> bool:
    return (await environment.now(request)).state is State.REVOKED


# Leftovers of a lost claim.


async def test_failing_repair_of_an_ended_user_raises_an_alert(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.turn(hours=2)
    require((await environment.now(request)).state is State.REVOKED, "the grant is over")
    environment.server.is_up = False
    plan = TaskPlan(
        kind=TaskKind.REPAIR, lock_key=user_lock_key(request), due_at=await environment.ledger.now(), is_single=True
    )
    await environment.ledger.tasks.add(plan, request_id=request.id)
    await environment.turn(minutes=10)
    assert "#1 is not ended: shop does not answer" in environment.messenger.on(ALERTS, AlertNotice)[-1].what
    environment.server.is_up = True
    await environment.turn(minutes=2)
    assert await environment.ledger.tasks.all() == ()
