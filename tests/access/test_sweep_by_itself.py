"""The sweep of the running bot: what it ends, what it reports, when its alerts are over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.base import Rejected
from bot.monitors import servers, strays, sweep
from bot.monitors.sweep import Sweep
from bot.notifications.notices import AlertNotice
from bot.trial import FIRST_NUMBER
from storage.audit_kinds import AuditKind
from storage.numbers import raise_numbers
from storage.records import State, TaskKind
from tests.access.environment import ALERTS, HOUR, AccessEnvironment
from tests.access.fake_engine import FakeServer, User
from tests.access.hanging import HangingServers
from tests.access.steps import recorded


@pytest.fixture(autouse=True)
async def numbers(environment: AccessEnvironment) -> None:
    """The ledger gave higher numbers before, so that an orphan of this file is no evidence of a newer ledger."""
    await environment.ledger.database.write(lambda tx: raise_numbers(tx, 1000))


ORPHAN, FOREIGN = "jit_77_orphan_aaaa", "jit_78_foreign_bbbb"


def put(environment: AccessEnvironment, username: str, ledger: str | None, server: FakeServer | None = None) -> None:
    number = int(username.split("_")[1])
    at = environment.clock() + timedelta(hours=1)
    (server or environment.server).users[username] = User("pw", ledger, number, (), at)


async def open_causes(environment: AccessEnvironment) -> list[str]:
    return [alert.cause.split(":")[1] for alert in await environment.ledger.alerts.open(prefix="sweep:")]


async def swept(environment: AccessEnvironment, found: Sweep | None = None) -> list[str]:
    """Sweep once, and run the tasks that it planned. Returns what the open alerts are about."""
    environment.context.config_in_force()
    await (found or Sweep(environment.context)).run(is_start=True)
    await environment.drain()
    return await open_causes(environment)


def told(environment: AccessEnvironment) -> str:
    return " ".join(notice.what for notice in environment.messenger.on(ALERTS, AlertNotice))


async def test_unknown_user_is_ended_and_reported(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    put(environment, ORPHAN, environment.ledger.id)
    session = environment.server.login(ORPHAN, "pw")
    assert await swept(environment) == []
    assert list(environment.server.users) == [request.username]
    assert session not in environment.server.sessions
    assert f"They were ended: {ORPHAN} (1 session)." in told(environment)
    assert await recorded(environment, AuditKind.SWEPT) == [
        {"database": "shop", "username": ORPHAN, "sessions_ended": 1}
    ]


async def test_user_of_a_revoked_request_is_ended(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    user = environment.server.users[str(request.username)]
    environment.clock.at += 2 * HOUR
    await environment.drain()
    environment.server.users[str(request.username)] = user  # a late statement created it again
    await swept(environment)
    assert environment.server.users == {}


async def test_sessions_of_an_ended_grant_are_ended_and_reported(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKED
    environment.server.sessions[99] = str(request.username)
    await swept(environment)
    assert environment.server.sessions == {}
    assert str(request.username) in told(environment)


async def test_user_that_is_just_being_created_is_not_ended(environment: AccessEnvironment) -> None:
    """The first look finds it, the second does not: it belonged to a grant that ended meanwhile."""
    put(environment, ORPHAN, environment.ledger.id)

    def step(name: str) -> None:
        if name == "before list" and looks.append(name) is None and len(looks) == 2:
            del environment.server.users[ORPHAN]

    looks = list[str]()
    environment.server.step = step
    await swept(environment)
    assert len(looks) == 2
    assert told(environment) == ""


async def test_trial_of_doctor_is_left_alone_until_the_next_sweep(environment: AccessEnvironment) -> None:
    trial = f"jit_{FIRST_NUMBER + 5}_trial_abcd"
    put(environment, trial, environment.ledger.id)
    one = Sweep(environment.context)
    await swept(environment, one)
    assert trial in environment.server.users
    await swept(environment, one)
    assert environment.server.users == {}


async def test_foreign_user_is_reported_once_and_until_it_is_gone(environment: AccessEnvironment) -> None:
    put(environment, FOREIGN, "another")
    for _ in range(3):
        assert await swept(environment) == ["foreign"]
    assert told(environment).count(FOREIGN) == 1
    assert FOREIGN in environment.server.users, "a foreign user is never touched"
    environment.server.is_up = False
    assert await swept(environment) == ["foreign"], "a server that does not answer proves nothing"
    environment.server.is_up = True
    del environment.server.users[FOREIGN]
    assert await swept(environment) == []


async def test_many_foreign_users_make_few_alerts(environment: AccessEnvironment) -> None:
    for number in range(50):
        put(environment, f"jit_{1000 + number}_foreign_bbbb", "another")
    assert await swept(environment) == ["foreign"] * sweep.NAMED_AT_MOST + ["more"]
    assert "30 more foreign users" in told(environment)


async def test_missing_user_of_a_live_grant_is_reported_until_it_ends(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    del environment.server.users[str(request.username)]
    assert await swept(environment) == ["missing"]
    assert f"of live grant #{request.id} is not on the server of shop" in told(environment)
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert await swept(environment) == []


async def test_rights_changed_by_hand_are_reported_until_they_are_equal_again(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.differences = {str(request.username): ("it has the role superuser", *"abcdef")}
    assert await swept(environment) == ["changed"]
    assert "was changed by hand: it has the role superuser; a; b; c; d; and 2 more." in told(environment)
    environment.server.differences = {}
    assert await swept(environment) == []


async def test_changed_user_that_has_ended_is_no_problem_any_more(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.differences = {str(request.username): ("it has the role superuser",)}
    assert await swept(environment) == ["changed"]
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert await swept(environment) == []


async def test_end_moved_on_the_server_is_set_back(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    assert request.expires_at is not None
    user = environment.server.users[str(request.username)]
    user.expires_at = request.expires_at + timedelta(days=1)
    assert await swept(environment) == ["moved"]
    assert user.expires_at == request.expires_at
    assert "ends 1 d later on the server of shop than in the ledger. It is set back." in told(environment)
    assert await swept(environment) == []


async def test_clock_of_a_server_that_differs_a_little_is_no_moved_end(environment: AccessEnvironment) -> None:
    """The task that sets the end back changes nothing then: the sweep learns the difference."""
    environment.server.clock = lambda: environment.clock() + timedelta(seconds=30)
    await environment.granted()
    one = Sweep(environment.context)
    assert await swept(environment, one) == ["moved"]
    for _ in range(3):
        assert await swept(environment, one) == []


async def test_end_that_is_earlier_on_the_server_is_reported_only(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    user = environment.server.users[str(request.username)]
    user.expires_at -= timedelta(minutes=20)
    one, moved = Sweep(environment.context), user.expires_at
    assert await swept(environment, one) == [], "an extension may be on its way to the server"
    assert await swept(environment, one) == ["moved"]
    assert user.expires_at == moved


async def test_managed_roles_of_live_grants_are_made_equal(environment: AccessEnvironment) -> None:
    calls = list[str]()
    environment.server.step = calls.append
    await swept(environment)
    assert "before refresh" not in calls, "no grant uses a level"
    await environment.granted()
    environment.server.refreshed = ["SELECT on shop.new was granted"]
    one = Sweep(environment.context)
    assert await swept(environment, one) == []
    assert calls.count("before refresh") == 1
    for open_alerts in ([], ["levels"], []):
        environment.server.refreshed = ["readonly was not made equal: the bot may not"] if calls else []
        assert await swept(environment, one) == open_alerts, "what comes twice is no change that was made"
        if open_alerts:
            calls.clear()


async def test_live_grant_without_its_end_gets_one(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    (task,) = [t for t in await environment.ledger.tasks.all() if t.kind is TaskKind.REVOKE]
    await environment.ledger.database.write(lambda tx: tx.exec_driver_sql(f"DELETE FROM tasks WHERE id = {task.id}"))
    await swept(environment)
    assert f"The ledger had no task to end #{request.id}." in told(environment)
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert environment.server.users == {}


async def test_user_that_cannot_be_ended_is_reported_with_statements(environment: AccessEnvironment) -> None:
    put(environment, ORPHAN, environment.ledger.id)
    environment.server.holds_up = Rejected("no", remedy="GRANT something")
    assert await swept(environment) == ["orphan"]
    (notice,) = environment.messenger.on(ALERTS, AlertNotice)
    assert "could not be ended: shop refuses: no" in notice.what
    assert {"GRANT something", f"BLOCK USER {ORPHAN};"} <= set(notice.steps)
    environment.server.holds_up = None
    assert await swept(environment) == []
    assert environment.server.users == {}


@pytest.fixture
async def two(fleet: HangingServers) -> HangingServers:
    fleet.build()
    fleet.environment.context.files.refresh()
    return fleet


@pytest.mark.parametrize("way", ["hangs", "fails"])
async def test_one_server_never_stops_the_others(
    two: HangingServers, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The far server hangs. The orphan on the near one is ended meanwhile."""
    monkeypatch.setattr(strays, "BATCH_SECONDS", 0.5)
    monkeypatch.setattr(servers, "LOOK_SECONDS", 3.0)
    environment = two.environment
    put(environment, ORPHAN, environment.ledger.id)
    two.server.holds = lambda what: what.startswith("env:FAR")
    two.server.seconds = 20.0 if way == "hangs" else 0.0
    one = Sweep(environment.context)
    for number in range(sweep.SILENT_SWEEPS):
        assert await swept(environment, one) == (["silent"] if number + 1 == sweep.SILENT_SWEEPS else [])
        assert ORPHAN not in environment.server.users
    two.server.holds = lambda _what: False
    two.server.let_go()
    assert await swept(environment, one) == []


async def test_foreign_alert_stays_while_its_server_hangs(two: HangingServers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "LOOK_SECONDS", 1.0)
    put(two.environment, FOREIGN, "another", two.far)
    assert await swept(two.environment) == ["foreign"]
    two.server.holds = lambda what: what.startswith("env:FAR")
    assert await swept(two.environment) == ["foreign"]
    two.server.let_go()


async def test_replicas_take_turns(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    looks = list[str]()
    environment.server.step = lambda name: looks.append(name) if name == "before list" else None
    first, second = Sweep(environment.context), Sweep(environment.context)
    await first.run()
    await second.run()
    assert len(looks) == 1
    environment.clock.at += timedelta(minutes=5)
    await second.run()
    await first.run()
    assert len(looks) == 2
    environment.clock.at -= timedelta(days=1)
    await first.run()
    assert len(looks) == 3, "a clock that was set back stops no sweep"


async def test_removed_database_is_swept_while_grants_are_live(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    put(environment, ORPHAN, environment.ledger.id)
    environment.context.files.config = None
    await Sweep(environment.context).run(is_start=True)
    assert list(environment.server.users) == [request.username]


async def test_failing_verb_of_one_engine_does_not_stop_the_sweep(environment: AccessEnvironment) -> None:
    """An engine from another package may lack a verb."""
    await environment.granted()
    put(environment, ORPHAN, environment.ledger.id)
    environment.server.errors["compare"] = AttributeError("compare_users")
    await swept(environment)
    assert ORPHAN not in environment.server.users
