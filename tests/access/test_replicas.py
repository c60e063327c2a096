"""Several replicas on one ledger: one with an older configuration grants nothing, and what must happen once happens once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from bot.access import decide
from bot.access.context import NEWER_CONFIGURATION
from bot.access.errors import Refused
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors.alerts import check_alerts
from bot.monitors.configuration import announce_files
from bot.monitors.replicas import CAUSE, HEARTBEAT_SECONDS, REPLACED_CAUSE, Heartbeat
from storage.records import Request, State, TaskKind
from tests.access.environment import ADMIN, LEAD, SECOND, AccessEnvironment
from tests.servers.postgresql import PostgresServer

numbers = count(1)
REPLICAS = 3


@dataclass
class Replica:
    """One running bot: its environment, and its heartbeat."""

    environment: AccessEnvironment
    heartbeat: Heartbeat

    async def look_at_files(self) -> None:
        """As the scheduler does every few seconds."""
        await announce_files(self.environment.context)
        await self.heartbeat.on_files_checked()


@pytest.fixture
async def replicas(
    tmp_path: Path, postgresql15: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Replica]]:
    """Three bots on one PostgreSQL ledger and one target server, each with files of its own."""
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    database = postgresql15.new_database(f"replicas_{next(numbers)}")
    store = postgresql15.superuser_url(database).replace("postgresql://", "postgresql+psycopg://")
    found = list[Replica]()
    for number in range(REPLICAS):
        (folder := tmp_path / str(number)).mkdir()
        one = AccessEnvironment(folder=folder, store=store)
        await one.open()
        if found:
            first = found[0].environment
            one.clock, one.server, one.messenger = first.clock, first.server, first.messenger
            one.ledger.database.clock = first.clock
            one.context = replace(one.context, messenger=first.messenger, engines=first.engines)
            one.runner = Runner(one.context, JOBS)
        one.ledger.replicas.join(one.runner.worker, "1.0")
        replica = Replica(one, Heartbeat(one.context))
        await announce_files(one.context)
        await replica.heartbeat.run()
        found.append(replica)
    yield found
    for replica in reversed(found):
        await replica.environment.close()


def change_policy(replica: Replica, *, approvers: list[str] | None = None) -> None:
    """Write another policy: other approvers, or none."""
    environment = replica.environment
    stages = [{"from": approvers, "count": 1}] if approvers else []
    environment.policy["rules"][0] |= {"approvals": stages}
    environment.write()
    environment.context.files.forget()


async def waiting_request(replica: Replica) -> Request:
    request = await replica.environment.ask()
    assert request.state is State.PENDING
    return request


async def test_a_click_on_a_replica_with_an_older_policy_grants_nothing(replicas: list[Replica]) -> None:
    newer, older, _ = replicas
    request = await waiting_request(newer)
    change_policy(newer, approvers=[SECOND, ADMIN])
    await newer.look_at_files()

    with pytest.raises(Refused) as refused:
        await older.environment.approve(request, SECOND)
    assert str(refused.value) == NEWER_CONFIGURATION
    with pytest.raises(Refused, match="newer configuration"):  # the newer policy may allow it
        await older.environment.approve(request, ADMIN)
    with pytest.raises(Refused, match="newer configuration"):
        await older.environment.ask(LEAD)
    assert (await newer.environment.now(request)).state is State.PENDING

    change_policy(older, approvers=[SECOND, ADMIN])  # a click is enough: it looks at the files
    assert (await older.environment.approve(request, SECOND)).state is State.APPROVED


async def test_an_older_policy_denies_and_ends(replicas: list[Replica]) -> None:
    newer, older, _ = replicas
    grant = await newer.environment.granted()
    request = await newer.environment.ask(LEAD)
    change_policy(newer, approvers=[SECOND, ADMIN])
    await newer.look_at_files()
    person = await older.environment.person(SECOND)
    assert (await decide.deny(older.environment.context, person, request, "not today")).state is State.DENIED
    older.environment.clock.at += timedelta(hours=2)
    await older.environment.drain()
    assert (await older.environment.now(grant)).state is State.REVOKED


async def test_an_older_policy_does_not_outdate_what_a_newer_one_allows(replicas: list[Replica]) -> None:
    newer, older, _ = replicas
    newer.environment.databases["databases"]["shop"]["levels"]["write"] = {"roles": ["writer"]}
    newer.environment.policy["rules"][0]["levels"] = ["write"]
    change_policy(newer, approvers=[LEAD])
    await newer.look_at_files()
    request = await newer.environment.ask(duration=timedelta(minutes=30), level="write")
    with pytest.raises(Refused, match="newer configuration"):
        await older.environment.approve(request)
    assert (await newer.environment.now(request)).state is State.PENDING


async def test_a_click_right_after_a_change_is_not_refused(replicas: list[Replica]) -> None:
    """The click itself finds the changed files, before the check that runs every few seconds."""
    first, second, _ = replicas
    request = await waiting_request(first)
    change_policy(second, approvers=[SECOND])
    assert (await second.environment.approve(request, SECOND)).state is State.APPROVED
    change_policy(second)
    assert (await second.environment.ask(LEAD)).state is State.ACTIVE


async def test_tasks_that_grant_are_left_to_a_replica_with_the_newest_policy(replicas: list[Replica]) -> None:
    newer, older, _ = replicas
    request = await newer.environment.approve(await waiting_request(newer))
    change_policy(newer, approvers=[SECOND, ADMIN])
    await newer.look_at_files()
    await older.environment.drain()
    assert (await older.environment.now(request)).started_at is None
    found = await older.environment.ledger.tasks.all(request_id=request.id)
    (task,) = [one for one in found if one.kind is TaskKind.PROVISION]
    assert task.attempts == 0, "it was put back, and not tried"
    older.environment.clock.at += timedelta(seconds=5)
    await newer.environment.drain()
    assert (await newer.environment.now(request)).state is State.ACTIVE


async def test_one_alert_says_that_replicas_are_behind_and_when_they_are_not(replicas: list[Replica]) -> None:
    newer, *behind = replicas
    change_policy(newer, approvers=[SECOND])
    await newer.look_at_files()
    ledger, clock = newer.environment.ledger, newer.environment.clock
    for beat in range(3):
        for replica in replicas:
            await replica.heartbeat.run()
        found = await ledger.alerts.open()
        assert len(found) == (beat > 0), "a change reaches all replicas within seconds: the first beat tells nobody"
        clock.at += timedelta(seconds=HEARTBEAT_SECONDS)
    (alert,) = found
    assert alert.cause == CAUSE
    assert "2 replicas" in alert.what
    assert all(one.environment.runner.worker in alert.what for one in behind)
    for replica in behind:
        change_policy(replica, approvers=[SECOND])
        await replica.look_at_files()
    await check_alerts(newer.environment.context)
    assert await ledger.alerts.open() == ()


async def test_a_replaced_ledger_file_is_an_alert_and_back_in_its_place_it_is_not(
    environment: AccessEnvironment, tmp_path: Path
) -> None:
    ledger, path = environment.ledger, environment.ledger.database.path
    assert ledger.acquire_run_lock()
    ledger.replicas.join("bot-1", "1.0")
    heartbeat = Heartbeat(environment.context)
    await heartbeat.run()
    assert await ledger.alerts.open() == ()
    path.rename(tmp_path / "moved.db")
    await heartbeat.run()
    (alert,) = await ledger.alerts.open()
    assert (alert.cause, str(path) in alert.what) == (REPLACED_CAUSE, True)
    (tmp_path / "moved.db").rename(path)
    await heartbeat.run()
    assert await ledger.alerts.open() == ()
