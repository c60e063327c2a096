"""Ends that fall together are blocked together, and a server that does not answer is probed by one task."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import update

from adapters.base import AdapterError, Rejected, ServerDown
from bot.access import request_access, use_case_types
from bot.jobs import end_together, probes
from bot.jobs.pools import BLOCKED_PLACES, MANY_ENDS, SERVER_PLACES, places_for
from storage.audit_kinds import AuditKind
from storage.pools import SLACK, Slot
from storage.records import Priority, Request, State, TaskKind
from storage.schema import requests, tasks
from tests.access.environment import ADA, HOUR, LEAD, SECOND, AccessEnvironment
from tests.access.hanging import HangingServers, at_once, expect
from tests.access.steps import alerts
from tests.open_faults import require

SHOP = "postgresql env:SHOP_ADMIN_URL"


def names_of(grants: list[Request]) -> set[str]:
    return {str(one.username) for one in grants}


async def states_of(environment: AccessEnvironment, grants: list[Request]) -> set[State]:
    return {(await environment.now(one)).state for one in grants}


async def test_all_users_are_blocked_while_the_first_drops_hang(fleet: HangingServers) -> None:
    """Forty grants end in the same second, and every drop hangs. All logins are blocked and all sessions ended meanwhile."""
    fleet.build()
    environment = fleet.environment
    grants = await fleet.granted("shop", 40)
    for one in grants:
        user = environment.server.users[str(one.username)]
        require(environment.server.login(str(one.username), user.password), "it logs in")
    hung = set[str]()
    original = fleet.server.reach

    def reach(what: str) -> None:
        if what in names_of(grants):
            hung.add(what)
        original(what)

    fleet.server.reach = reach  # type: ignore[method-assign]
    drops = fleet.server.holds = lambda what: what in names_of(grants) and what in hung
    assert drops
    environment.clock.at += HOUR
    places = SERVER_PLACES[Priority.SAFETY][0] + BLOCKED_PLACES
    async with fleet.running():
        await expect("the drops hang", lambda: at_once(lambda: fleet.server.inside >= places))
        await expect("no session is left", lambda: at_once(lambda: len(environment.server.sessions) <= len(hung)))
        assert await states_of(environment, grants) == {State.REVOKING}
        assert len(environment.server.blocked) >= len(grants) - places
        assert fleet.server.inside == places, "nothing was released meanwhile"


async def test_users_that_do_not_yield_delay_nobody_else(fleet: HangingServers) -> None:
    """Twelve users hold up their own end, in the group and in their drops. The others end meanwhile, and are receipted."""
    fleet.build()
    environment = fleet.environment
    hostile = await fleet.granted("shop", 12)
    good = await fleet.granted("shop", 20, minutes=31)
    fleet.server.holds = names_of(hostile).__contains__
    environment.clock.at += HOUR
    async with fleet.running():
        for one in good:
            await expect("the end of a good grant", lambda one=one: fleet.is_over(one))
        assert fleet.server.inside > 0, "the hostile drops hang all the time"
    assert await states_of(environment, hostile) == {State.REVOKING}


async def test_group_ends_nothing_that_was_extended(environment: AccessEnvironment) -> None:
    """A grant whose end is not due is neither claimed nor blocked, whatever else ends on its server."""
    live = await environment.granted()
    await end_together.begin_due_ends(environment.context, SHOP)
    answer = await end_together.block_due_users(environment.context, SHOP, "worker", untried=True)
    assert answer.waiting == ()
    assert (await environment.now(live)).state is State.ACTIVE
    assert environment.server.blocked == set()


async def test_group_leaves_its_tasks_to_be_run(environment: AccessEnvironment) -> None:
    """After the group, each user is dropped by its own task, as a first try. Who did not yield counts as tried."""
    first, second = await environment.granted(), await environment.granted(LEAD, SECOND)
    environment.server.unyielding = {str(second.username)}
    environment.clock.at += 2 * HOUR
    await end_together.begin_due_ends(environment.context, SHOP)
    answer = await end_together.block_due_users(environment.context, SHOP, "worker", untried=True)
    assert set(answer.waiting) == {first.id, second.id}
    found = {t.request_id: t for t in await environment.ledger.tasks.all() if t.kind is TaskKind.REVOKE}
    assert found[first.id].blocked_at is not None
    assert found[first.id].attempts == 0
    assert found[second.id].blocked_at is None
    assert found[second.id].attempts == 1
    environment.server.unyielding = set()
    await environment.drain()
    assert await states_of(environment, [first, second]) == {State.REVOKED}


async def test_group_leaves_out_a_request_that_cannot_be_read(environment: AccessEnvironment) -> None:
    first, second = await environment.granted(), await environment.granted(LEAD, SECOND)
    damaged = update(requests).where(requests.c.id == first.id).values(target={"broken": True})
    await environment.ledger.database.write(lambda tx: tx.execute(damaged))
    environment.clock.at += 2 * HOUR
    answer = await end_together.block_due_users(environment.context, SHOP, "worker", untried=True)
    assert answer.error is None
    assert str(second.username) in environment.server.blocked


# Servers that do not answer.


async def test_dead_server_is_probed_by_one_task_and_alerted_once(fleet: HangingServers) -> None:
    """Thirty ends wait in the ledger, unclaimed. One alert says how many; it is resolved when the server answers again."""
    fleet.build()
    environment = fleet.environment
    dead = await fleet.granted("far0", 30)
    fleet.far.is_up = False
    environment.clock.at += HOUR
    environment.clock.run()  # the first tries are put back, and become due again
    async with fleet.running():
        await expect("the server is closed", lambda: at_once(lambda: bool(environment.runner.probes.closed)))
        await expect("the alert", lambda: at_once(lambda: bool(alerts(environment))))
        await expect("all are ending", lambda: is_state(environment, dead, State.REVOKING))
        (told,) = alerts(environment)
        assert "far0 does not answer" in told
        assert "ends wait for it" in told
        fleet.far.is_up = True
        for one in dead:
            await expect("the end of a grant on it", lambda one=one: fleet.is_over(one))
        await expect("it is resolved", lambda: no_open_alert(environment))
    assert not environment.runner.probes.closed


async def is_state(environment: AccessEnvironment, grants: list[Request], state: State) -> bool:
    return await states_of(environment, grants) == {state}


async def no_open_alert(environment: AccessEnvironment) -> bool:
    return not await environment.ledger.alerts.open(prefix="server:")


async def test_answer_that_says_no_closes_nothing(fleet: HangingServers) -> None:
    """A step that is refused, or blocked, is an answer: the tasks of the server go on."""
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop")
    errors: list[AdapterError] = [Rejected("no right")]
    environment.server.errors = {"identity": errors[0], "block": errors[0]}
    task = next(t for t in await environment.ledger.tasks.all() if t.kind is TaskKind.REVOKE)
    await environment.runner.probes.suspect(task)
    await expect("the probe is over", lambda: at_once(lambda: not environment.runner.probes._watches))
    assert not environment.runner.probes.closed
    assert (await environment.now(good)).state is State.ACTIVE


async def test_grant_on_a_dead_server_is_given_up_in_time(fleet: HangingServers) -> None:
    """The server is closed because of others. Provisioning still tells the requester, and gives up when its time is over."""
    fleet.build()
    environment = fleet.environment
    await fleet.granted("far0", 3)
    fleet.far.is_up = False
    environment.clock.at += HOUR
    async with fleet.running():
        await expect("the server is closed", lambda: at_once(lambda: bool(environment.runner.probes.closed)))
        asked = use_case_types.RequestInput(database="far0", level="readonly", duration=HOUR, reason="a refund waits")
        person = await environment.person(ADA)
        wanted = (await request_access.request_access(environment.context, person, asked)).request
        await expect("it is tried", lambda: was_tried(environment, wanted))
        environment.clock.at += timedelta(hours=2)
        environment.runner.wake()
        await expect("it failed", lambda: is_state(environment, [wanted], State.REVOKED))


async def was_tried(environment: AccessEnvironment, request: Request) -> bool:
    found = await environment.ledger.tasks.all(request_id=request.id)
    return any(t.kind is TaskKind.PROVISION and t.attempts > 0 for t in found)


def test_pause_between_probes_is_bounded() -> None:
    assert all(probes._pause(n) <= probes.BACKOFF_MAX_SECONDS * 1.25 for n in (1, 2, 5, 50, 5000))


async def test_unreadable_task_is_set_aside_and_its_end_planned_again(fleet: HangingServers) -> None:
    """The row of a revocation cannot be read: it is set aside with an alert, and the grant ends all the same."""
    fleet.build()
    environment = fleet.environment
    (grant,) = await fleet.granted("shop")
    of_end = tasks.update().where(tasks.c.kind == TaskKind.REVOKE).values(kind="no such kind")
    await environment.ledger.database.write(lambda tx: tx.execute(of_end))
    environment.clock.at += 2 * HOUR
    async with fleet.running():
        await expect("it ends", lambda: is_state(environment, [grant], State.REVOKED))
        await expect("the alert", lambda: at_once(lambda: bool(alerts(environment))))
    assert any("cannot be read" in told for told in alerts(environment))


async def test_fault_of_a_block_closes_no_server(fleet: HangingServers) -> None:
    """The block fails, by a fault of the adapter or without an answer. The server can be connected to, so each end is tried."""
    fleet.build()
    environment = fleet.environment
    for error in (ValueError("a name that the adapter cannot handle"), ServerDown("no answer to a block")):
        grants = await fleet.granted("shop", 12)
        environment.server.errors = {"block": error}
        environment.clock.at += HOUR
        async with fleet.running():
            for one in grants:
                await expect("its end", lambda one=one: fleet.is_over(one))
            assert not environment.runner.probes.closed
        environment.server.errors = {}
        fleet.server.gate.clear()


async def test_cards_make_way_for_many_ends(fleet: HangingServers) -> None:
    """While many ends run, cards and notifications have one place each, so that ends have the processor. They still come."""
    fleet.build()
    environment = fleet.environment
    grants = await fleet.granted("shop", 20)
    fleet.server.holds = names_of(grants).__contains__
    environment.clock.at += HOUR
    card = Slot(pool=SLACK, priority=Priority.DECISION, is_retry=False)
    async with fleet.running():
        await expect("many ends run", lambda: at_once(lambda: fleet.server.inside >= MANY_ENDS))
        assert environment.runner.places.room(card) <= 1
        await expect("no card is left", lambda: no_task(environment, TaskKind.UPDATE_CARD))
    assert environment.runner.places.room(card) == places_for(card)


async def no_task(environment: AccessEnvironment, kind: TaskKind) -> bool:
    return all(task.kind is not kind for task in await environment.ledger.tasks.all())


# Drops in groups.


async def blocked_grants(environment: AccessEnvironment) -> list[Request]:
    """Two grants whose end has come and whose users are blocked."""
    environment.server.drops_together = True
    grants = [await environment.granted(), await environment.granted(LEAD, SECOND)]
    environment.clock.at += 2 * HOUR
    await end_together.begin_due_ends(environment.context, SHOP)
    await end_together.block_due_users(environment.context, SHOP, "worker", untried=True)
    return grants


async def ends_left(environment: AccessEnvironment) -> dict[int | None, int]:
    """Request → tries, of the revocations that are left."""
    return {t.request_id: t.attempts for t in await environment.ledger.tasks.all() if t.kind is TaskKind.REVOKE}


async def test_blocked_users_are_dropped_and_receipted_together(environment: AccessEnvironment) -> None:
    grants = await blocked_grants(environment)
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    assert environment.server.users == {}
    for grant in grants:
        after = await environment.now(grant)
        assert after.state is State.REVOKED
        assert after.receipt is not None
        assert after.receipt.read_back_at is not None
        assert [one.kind for one in await environment.ledger.audit.history(grant.id)][-1] == AuditKind.REVOKED
    assert await ends_left(environment) == {}
    await environment.drain()
    assert alerts(environment) == []


async def test_a_user_that_the_group_left_is_dropped_by_its_own_task(environment: AccessEnvironment) -> None:
    first, second = await blocked_grants(environment)
    environment.server.sessions[99] = str(second.username)
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    assert await ends_left(environment) == {second.id: 0}
    assert (await environment.now(first)).state is State.REVOKED
    await environment.drain()
    assert await states_of(environment, [first, second]) == {State.REVOKED}


async def test_a_grant_that_is_not_being_ended_is_not_dropped(environment: AccessEnvironment) -> None:
    """Its end was moved after its user was blocked: the own task sees it."""
    environment.server.drops_together = True
    grant = await environment.granted()
    environment.clock.at += 2 * HOUR
    await end_together.block_due_users(environment.context, SHOP, "worker", untried=True)
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    assert (await environment.now(grant)).state is State.ACTIVE
    assert str(grant.username) in environment.server.users


async def test_a_user_that_somebody_dropped_is_an_alert_after_the_group_too(environment: AccessEnvironment) -> None:
    grants = await blocked_grants(environment)
    environment.server.users.clear()
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    await environment.drain()
    assert await states_of(environment, grants) == {State.REVOKED}
    assert len([one for one in alerts(environment) if "was already gone" in one]) == len(grants)


async def test_a_lost_answer_of_the_group_is_no_drop_by_somebody_else(environment: AccessEnvironment) -> None:
    grants = await blocked_grants(environment)

    def lose_the_answer(name: str) -> None:
        if name == "after drop_blocked":
            raise ServerDown("the answer was lost", is_ambiguous=True)

    environment.server.step = lose_the_answer
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    require(environment.server.users == {}, "the drop has run")
    assert await ends_left(environment) == {one.id: 1 for one in grants}
    await environment.drain()
    assert await states_of(environment, grants) == {State.REVOKED}
    assert not [one for one in alerts(environment) if "was already gone" in one]


async def test_a_user_that_a_late_create_may_bring_back_is_left_to_its_own_task(environment: AccessEnvironment) -> None:
    first, second = await blocked_grants(environment)
    until = environment.clock.at + HOUR
    unsettled = update(requests).where(requests.c.id == second.id).values(unsettled_until=until)
    await environment.ledger.database.write(lambda tx: tx.execute(unsettled))
    await end_together.drop_blocked_users(environment.context, SHOP, "worker", set())
    assert (await environment.now(first)).state is State.REVOKED
    await environment.drain()
    assert (await environment.now(second)).state is State.REVOKING
    environment.clock.at = until
    await environment.drain()
    assert (await environment.now(second)).state is State.REVOKED
