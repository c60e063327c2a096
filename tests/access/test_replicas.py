"""Several replicas on one ledger: one with an older configuration grants nothing, and what must happen once happens once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from bot.access import decide, request_access, use_case_types
from bot.access.context import NEWER_CONFIGURATION
from bot.access.errors import Refused
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors.alerts import check_alerts
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from bot.monitors.replicas import CAUSE, HEARTBEAT_SECONDS, REPLACED_CAUSE, Heartbeat
from bot.monitors.retention import RetentionMonitor
from bot.monitors.sweep import Sweep
from bot.notifications.notices import CardNotice, CredentialsNotice
from storage.audit_kinds import AuditKind
from storage.errors import NoSuchRequest
from storage.records import AuditEvent, Request, State, TaskKind
from tests.access.environment import ADA, ADMIN, CARDS, HOUR, LEAD, SECOND, AccessEnvironment
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


async def at_once(replicas: list[Replica], check: Callable[[Replica], Awaitable[object]]) -> None:
    """All replicas do it at the same time."""
    await asyncio.gather(*(check(replica) for replica in replicas))


def count_events(events: Sequence[AuditEvent], kind: AuditKind) -> int:
    return [event.kind for event in events].count(kind)


async def test_each_periodic_check_does_its_work_once(replicas: list[Replica]) -> None:
    """Sweep, groups, members, retention: whatever the number of replicas."""
    first, ledger = replicas[0].environment, replicas[0].environment.ledger
    old = await first.ask(LEAD)
    await request_access.cancel(first.context, await first.person(LEAD), old.id)
    await first.drain()
    first.clock.at += timedelta(days=500)
    grant = await first.granted()
    last = await ledger.audit.last_event()
    group = "S0LEADS"
    for replica in replicas:
        replica.environment.policy |= {"retention": "400d", "auditors": [group]}
        change_policy(replica, approvers=[LEAD, SECOND])
        replica.environment.people.groups = {group: {LEAD}}
        await replica.look_at_files()
    await at_once(replicas, lambda one: check_groups(one.environment.context))
    for replica in replicas:
        replica.environment.people.groups = {group: {LEAD, ADA}}
        replica.environment.people.leaves(ADA)
    sweeps = [Sweep(replica.environment.context) for replica in replicas]
    await at_once(replicas, lambda one: check_groups(one.environment.context))
    await at_once(replicas, lambda one: check_members(one.environment.context))
    await asyncio.gather(*(sweep.run() for sweep in sweeps))
    retention = [RetentionMonitor(replica.environment.context) for replica in replicas]
    await asyncio.gather(*(one.run() for one in retention))

    events = await ledger.audit.events_after(last, limit=1000)
    once = (AuditKind.GROUP_CHANGED, AuditKind.REVOKING, AuditKind.ENTRIES_REMOVED)
    assert {kind: count_events(events, kind) for kind in once} == dict.fromkeys(once, 1)
    assert (await first.now(grant)).state is State.REVOKING
    with pytest.raises(NoSuchRequest):
        await ledger.requests.get(old.id)
    assert not await ledger.observations.take_turn("sweep", timedelta(minutes=1)), "one of them swept"


async def test_each_message_and_each_end_happens_once(replicas: list[Replica]) -> None:
    """All replicas run the tasks that are due, at the same time: cards, reminders, the credential message, the end."""
    first = replicas[0].environment
    for replica in replicas:
        replica.environment.policy["rules"][0]["remind_after"] = "30m"
        change_policy(replica, approvers=[LEAD, SECOND])
        await replica.look_at_files()
    wanted = use_case_types.RequestInput(database="shop", level="readonly", duration=HOUR, reason="looking at it")
    outcome = await request_access.request_access(first.context, await first.person(ADA), wanted)
    await at_once(replicas, lambda one: one.environment.drain())
    first.clock.at += timedelta(minutes=31)
    await at_once(replicas, lambda one: one.environment.drain())
    request = await first.approve(outcome.request)
    await at_once(replicas, lambda one: one.environment.drain())
    assert len(first.messenger.on(CARDS, CardNotice)) == 1
    assert len(first.messenger.on(ADA, CredentialsNotice)) == 1
    reminders = [event for event in await first.ledger.audit.history(request.id) if event.kind == AuditKind.REMINDED]
    assert len(reminders) == 1
    first.clock.at += timedelta(hours=2)
    await at_once(replicas, lambda one: one.environment.drain())
    history = await first.ledger.audit.history(request.id)
    for kind in (AuditKind.STARTED, AuditKind.ACTIVATED, AuditKind.REVOKING, AuditKind.REVOKED):
        assert count_events(history, kind) == 1
    assert first.server.users == {}


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
