"""The sweep compares users on servers with the ledger: orphans, foreign users, missing users, and grants that begin or end meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from adapters.base import Enforced
from bot.access import decide
from bot.doctor import _database as examine_database
from bot.monitors import servers, stray_ends, strays
from bot.monitors.strays import StrayKind
from storage.audit_kinds import AuditKind
from storage.figures import Grants
from tests.access.environment import LEAD, AccessEnvironment
from tests.access.fake_engine import User

ORPHAN, FOREIGN, UNMARKED = "jit_77_orphan_aaaa", "jit_78_foreign_bbbb", "jit_79_nobody_cccc"


def put(environment: AccessEnvironment, username: str, ledger: str | None) -> None:
    environment.server.users[username] = User("pw", ledger, 77, (), environment.clock() + timedelta(hours=1))


async def kinds(environment: AccessEnvironment) -> dict[str, StrayKind]:
    return {stray.username: stray.kind for stray in (await strays.find_strays(environment.context)).strays}


async def test_sweep_finds_each_kind_of_stray(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    put(environment, ORPHAN, environment.ledger.id)
    put(environment, FOREIGN, "another")
    put(environment, UNMARKED, None)
    assert await kinds(environment) == {
        ORPHAN: StrayKind.ORPHAN,
        FOREIGN: StrayKind.FOREIGN,
        UNMARKED: StrayKind.FOREIGN,
    }
    assert request.username is not None
    del environment.server.users[request.username]
    found = await strays.find_strays(environment.context)
    missing = next(stray for stray in found.strays if stray.kind is StrayKind.MISSING)
    assert (missing.username, missing.request_id) == (request.username, request.id)
    assert (found.servers, found.users) == (1, 3)


async def test_sweep_ends_only_orphans_of_this_ledger(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    put(environment, ORPHAN, environment.ledger.id)
    put(environment, FOREIGN, "another")
    found = {stray.kind: stray for stray in (await strays.find_strays(environment.context)).strays}
    session = environment.server.login(ORPHAN, "pw")
    receipt = await stray_ends.end_stray(environment.context, found[StrayKind.ORPHAN], actor="cli:ops")
    assert receipt.sessions_ended == 1
    assert session not in environment.server.sessions
    assert set(environment.server.users) == {FOREIGN}
    with pytest.raises(AssertionError):
        await stray_ends.end_stray(environment.context, found[StrayKind.FOREIGN], actor="cli:ops")
    events = await environment.ledger.audit.events_after(0, limit=100)
    swept = [event for event in events if event.kind == AuditKind.SWEPT]
    assert [(event.actor, event.facts["username"]) for event in swept] == [("cli:ops", ORPHAN)]


async def test_approved_grant_without_its_user_is_no_stray(environment: AccessEnvironment) -> None:
    """Its user may be created at any moment and is not missing before that."""
    await decide.approve(environment.context, await environment.person(LEAD), await environment.ask())
    assert await kinds(environment) == {}
    (live,) = await environment.ledger.requests.live_grants()
    put(environment, str(live.username), environment.ledger.id)
    assert await kinds(environment) == {}


async def test_grant_that_ends_during_the_sweep_is_no_stray(environment: AccessEnvironment) -> None:
    """The ledger is read before the servers and after them."""
    request = await environment.granted()
    figures = environment.ledger.figures
    before = figures.grants

    async def then_gone(**which: Any) -> Grants:
        """The second read finds no live grant."""
        figures.grants = nothing  # type: ignore[method-assign]
        return await before(**which)

    async def nothing(**_which: Any) -> Grants:
        return Grants(live=(), ended=())

    figures.grants = then_gone  # type: ignore[method-assign]
    assert request.username in environment.server.users
    assert await kinds(environment) == {}


async def test_sweep_reports_a_server_without_an_answer(environment: AccessEnvironment) -> None:
    await environment.granted()
    environment.server.is_up = False
    found = await strays.find_strays(environment.context)
    assert found.strays == ()
    assert list(found.unanswered) == ["shop"]


async def test_sweep_checks_a_removed_database_with_live_grants(environment: AccessEnvironment) -> None:
    """Its live grant holds the frozen target."""
    await environment.granted()
    put(environment, ORPHAN, environment.ledger.id)
    config = environment.context.files.config
    assert config is not None
    environment.context.files.config = None
    try:
        assert await kinds(environment) == {ORPHAN: StrayKind.ORPHAN}
    finally:
        environment.context.files.config = config


async def test_cards_show_what_the_server_enforces(environment: AccessEnvironment) -> None:
    """Before the first measurement, the card shows what such a server enforces without any setup."""
    request = await environment.granted()
    target = request.target
    assert target is not None
    engines = environment.context.engines
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.LOGIN
    environment.server.enforced = Enforced.SESSIONS
    await servers.measure_servers(environment.context)
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.SESSIONS
    assert engines.enforces(target["engine"], "env:ANOTHER") is Enforced.LOGIN
    environment.server.is_up = False
    await servers.measure_servers(environment.context)
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.SESSIONS, "the last measured result"


async def test_sweep_drops_leftovers_after_its_look(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    calls: list[str] = []
    environment.server.step = calls.append
    environment.server.leftovers = [f"dbaccess_left_{number}" for number in range(50)]
    assert (await strays.find_strays(environment.context)).dropped == ()
    found = await strays.find_strays(environment.context, drops_leftovers=True)
    assert calls[-2:] == ["before list", "before drop_leftovers"]
    assert found.dropped[0] == "shop: dbaccess_left_0 was dropped"
    assert (len(found.dropped), found.dropped[-1]) == (21, "and 30 more")


async def test_leftovers_that_cannot_be_dropped_stop_nothing(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.errors["drop_leftovers"] = KeyError("a fault")
    found = await strays.find_strays(environment.context, drops_leftovers=True)
    assert (found.users, found.dropped, found.unanswered) == (1, (), {})
    await servers.measure_servers(environment.context)
    environment.server.errors.clear()
    environment.server.leftovers = ["dbaccess_left_1"]
    await servers.measure_servers(environment.context)
    assert environment.server.leftovers == []
    assert request.username in environment.server.users


async def test_doctor_drops_leftovers_before_its_check(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    calls: list[str] = []
    environment.server.step = calls.append
    environment.server.leftovers = ["dbaccess_left_1"]
    findings = await examine_database(environment.context, "shop")
    assert calls == ["before drop_leftovers", "before check"]
    assert "leftovers: shop: dbaccess_left_1 was dropped" in [finding.what for finding in findings]
    environment.server.errors["drop_leftovers"] = KeyError("a fault")
    assert [finding.what for finding in await examine_database(environment.context, "shop") if not finding.is_ok] == []
