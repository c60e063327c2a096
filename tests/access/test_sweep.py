"""Users on the servers against the ledger: who is an orphan, who is somebody else's, whose user is gone, and what begins or ends meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest

from adapters.base import Enforced
from bot.access import decide, servers, sweep
from bot.access.sweep import Kind
from storage.audit_log import AuditKind
from storage.records import Request
from tests.access.fake_engine import User
from tests.access.house import LEAD, House

ORPHAN, FOREIGN, UNMARKED = "jit_77_orphan_aaaa", "jit_78_foreign_bbbb", "jit_79_nobody_cccc"


def put(house: House, username: str, ledger: str | None) -> None:
    house.server.users[username] = User("pw", ledger, 77, (), house.clock() + timedelta(hours=1))


async def strays(house: House) -> dict[str, Kind]:
    return {stray.username: stray.kind for stray in (await sweep.look(house.context)).strays}


async def test_what_stands_on_one_side_only(house: House) -> None:
    request = await house.granted()
    put(house, ORPHAN, house.ledger.id)
    put(house, FOREIGN, "another")
    put(house, UNMARKED, None)
    assert await strays(house) == {ORPHAN: Kind.ORPHAN, FOREIGN: Kind.FOREIGN, UNMARKED: Kind.FOREIGN}
    assert request.username is not None
    del house.server.users[request.username]
    found = await sweep.look(house.context)
    missing = next(stray for stray in found.strays if stray.kind is Kind.MISSING)
    assert (missing.username, missing.request_id) == (request.username, request.id)
    assert (found.servers, found.users) == (1, 3)


async def test_only_orphans_of_our_own_are_ended(house: House) -> None:
    house.context.in_force()
    put(house, ORPHAN, house.ledger.id)
    put(house, FOREIGN, "another")
    found = {stray.kind: stray for stray in (await sweep.look(house.context)).strays}
    session = house.server.login(ORPHAN, "pw")
    receipt = await sweep.end(house.context, found[Kind.ORPHAN], actor="cli:ops")
    assert receipt.sessions_ended == 1
    assert session not in house.server.sessions
    assert set(house.server.users) == {FOREIGN}
    with pytest.raises(AssertionError):
        await sweep.end(house.context, found[Kind.FOREIGN], actor="cli:ops")
    events = await house.ledger.events_after(0, limit=100)
    swept = [event for event in events if event.kind == AuditKind.SWEPT]
    assert [(event.actor, event.facts["username"]) for event in swept] == [("cli:ops", ORPHAN)]


async def test_what_is_approved_is_no_stray(house: House) -> None:
    """Its user may be made at any moment, and is not missed before."""
    await decide.approve(house.context, await house.person(LEAD), await house.ask())
    assert await strays(house) == {}
    (live,) = await house.ledger.live_grants()
    put(house, str(live.username), house.ledger.id)
    assert await strays(house) == {}


async def test_what_ends_while_it_looks_is_no_stray(house: House) -> None:
    """The ledger is read before the servers and after them."""
    request = await house.granted()
    before = house.ledger.live_grants

    async def then_gone() -> tuple[Request, ...]:
        """The second look finds nothing live any more."""
        house.ledger.live_grants = nothing  # type: ignore[method-assign]
        return await before()

    async def nothing() -> tuple[Request, ...]:
        return ()

    house.ledger.live_grants = then_gone  # type: ignore[method-assign]
    assert request.username in house.server.users
    assert await strays(house) == {}


async def test_a_server_that_does_not_answer_is_said_and_nothing_is_concluded(house: House) -> None:
    await house.granted()
    house.server.is_up = False
    found = await sweep.look(house.context)
    assert found.strays == ()
    assert list(found.unanswered) == ["shop"]


async def test_a_database_that_was_taken_out_is_still_looked_at(house: House) -> None:
    """By the target that is frozen in its live grant."""
    await house.granted()
    put(house, ORPHAN, house.ledger.id)
    config = house.context.files.config
    assert config is not None
    house.context.files.config = None
    try:
        assert await strays(house) == {ORPHAN: Kind.ORPHAN}
    finally:
        house.context.files.config = config


async def test_cards_promise_what_was_measured(house: House) -> None:
    """Before it was measured: what such a server does without any set-up."""
    request = await house.granted()
    target = request.target
    assert target is not None
    engines = house.context.engines
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.LOGIN
    house.server.enforced = Enforced.SESSIONS
    await servers.measure(house.context)
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.SESSIONS
    assert engines.enforces(target["engine"], "env:ANOTHER") is Enforced.LOGIN
    house.server.is_up = False
    await servers.measure(house.context)
    assert engines.enforces(target["engine"], target["admin_url"]) is Enforced.SESSIONS, "the last that was measured"
