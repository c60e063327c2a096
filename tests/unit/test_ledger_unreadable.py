"""A row that cannot be read is set aside by itself. It stops no other task, no list and no end."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from storage.commands import RevokeGrant
from storage.ledger import Ledger
from storage.records import Cause, Request, State, TaskKind
from storage.schema import tasks
from tests.unit.ledgers import HOUR, LEASE, START, TurnableClock, bring, execute
from tests.unit.test_ledger_claims import SERVER, many
from tests.unit.test_ledger_tasks import add, plan

BROKEN = {
    "payload that is no JSON": "payload = '{\"state\": '",
    "payload that is no object": "payload = '[1]'",
    "unknown kind": "kind = 'of another version'",
    "unknown priority": "priority = 7",
    "due time that is no time": "due_at = 'tomorrow'",
    "due time that is a number": "due_at = 17",
    "creation time that is no time": "created_at = 'yesterday'",
    "lease that is no time": "lease_until = 'later', claim = 1, worker = 'gone'",
}
ONLY_SQLITE = {"payload that is no JSON", *(name for name in BROKEN if "time" in name)}
"""PostgreSQL refuses such values by their type."""


async def break_task(ledger: Ledger, how: str, where: str) -> None:
    """Break the tasks for which ``where`` holds. Skips the test where the database does not store such a value."""
    if not ledger.is_sqlite and (how in ONLY_SQLITE):
        pytest.skip("PostgreSQL does not store it")
    await execute(ledger, f"UPDATE tasks SET {BROKEN[how]} WHERE {where}")


async def run_all(ledger: Ledger) -> tuple[list[str], list[int | None]]:
    """Claim and finish everything that is due. Returns the lock keys, and the requests of the tasks that were set aside."""
    ran, aside = list[str](), list[int | None]()
    for _ in range(20):
        due = await ledger.tasks.claim_due("worker", LEASE, room=many)
        aside += [one.request_id for one in due.set_aside]
        for claim in due.claims:
            ran.append(claim.task.lock_key)
            await ledger.tasks.finish(claim)
        if not due.claims and not due.set_aside:
            return ran, aside
    raise AssertionError("there is always another task")


@pytest.mark.parametrize("how", BROKEN)
async def test_a_task_that_cannot_be_read_is_set_aside_and_stops_no_other(ledger: Ledger, how: str) -> None:
    keys = [f"message:{n}" for n in range(5)]
    await add(ledger, *(plan(key, kind=TaskKind.UPDATE_CARD) for key in keys), plan("later", due_at=START + HOUR))
    await break_task(ledger, how, "lock_key IN ('message:1', 'message:3')")
    ran, aside = await run_all(ledger)
    assert sorted(ran) == ["message:0", "message:2", "message:4"]
    assert aside == [None, None]
    assert [task.lock_key for task in await ledger.tasks.all()] == ["later"]
    assert await ledger.tasks.next_due() == START + HOUR
    await add(ledger, plan("message:1", kind=TaskKind.UPDATE_CARD))
    assert await run_all(ledger) == (["message:1"], []), "what is set aside takes no lock key"


@pytest.mark.parametrize("how", BROKEN)
async def test_lists_leave_out_what_cannot_be_read(ledger: Ledger, clock: TurnableClock, how: str) -> None:
    grants = [await bring(ledger, clock, State.ACTIVE, database=f"db-{n}") for n in range(2)]
    clock.turn(2 * HOUR)
    await break_task(ledger, how, f"kind = 'revoke' AND request_id = {grants[0].id}")
    assert [task.request_id for task in await ledger.tasks.due_ends(SERVER)] == [grants[1].id]
    listed = [task.request_id for task in await ledger.tasks.all() if task.kind is TaskKind.REVOKE]
    assert listed == [grants[1].id]
    ends = await ledger.tasks.claim_ends("worker", LEASE, server=SERVER, limit=9, untried=False)
    assert [claim.task.request_id for claim in ends] == [grants[1].id]
    await ledger.tasks.put_back(ends, blocked=(), is_untried=True)
    _, aside = await run_all(ledger)
    assert aside == [grants[0].id], "claim_ends leaves it to claim_due, which reports it"


@pytest.mark.parametrize("how", BROKEN)
async def test_the_end_of_a_task_that_was_set_aside_is_planned_again(
    ledger: Ledger, clock: TurnableClock, how: str
) -> None:
    grant = await bring(ledger, clock, State.ACTIVE)
    await break_task(ledger, how, f"kind = 'revoke' AND request_id = {grant.id}")
    clock.turn(2 * HOUR)
    _, aside = await run_all(ledger)
    assert aside == [grant.id]
    assert await ledger.tasks.plan_missing_ends() == (grant.id,)
    ran, aside = await run_all(ledger)
    assert (ran, aside) == ([f"user:{grant.id}"], [])


async def test_an_end_that_is_moved_leaves_the_row_that_was_set_aside(ledger: Ledger, clock: TurnableClock) -> None:
    grant = await bring(ledger, clock, State.ACTIVE)
    await execute(ledger, update(tasks).where(tasks.c.kind == TaskKind.REVOKE).values(set_aside="broken"))
    await ledger.requests.advance(grant.id, RevokeGrant(actor="U1", cause=Cause.DONE))
    (end,) = [task for task in await ledger.tasks.all(request_id=grant.id) if task.kind is TaskKind.REVOKE]
    assert end.due_at == clock()


@pytest.mark.parametrize(
    "how", ["terms = '{\"rule\": '", "terms = '[]'", "state = 'unheard of'", "receipt = '{\"outcome\": 1}'"]
)
async def test_a_request_that_cannot_be_read_stops_no_other(ledger: Ledger, clock: TurnableClock, how: str) -> None:
    if not ledger.is_sqlite and how.endswith("\": '"):
        pytest.skip("PostgreSQL does not store it")
    grants = [await bring(ledger, clock, State.ACTIVE, database=f"db-{n}") for n in range(3)]
    clock.turn(2 * HOUR)
    await execute(ledger, f"UPDATE requests SET {how} WHERE id = {grants[1].id}")
    readable = [grants[0].id, grants[2].id]
    assert sorted(await ledger.requests.get_many([grant.id for grant in grants])) == readable
    assert [one.id for one in await ledger.requests.due_to_end(server=SERVER, limit=9)] == readable
    ending = RevokeGrant(actor="clock", cause=Cause.EXPIRED)
    ended = await ledger.requests.advance_many([(grant.id, ending) for grant in grants])
    assert [one.id for one in ended if isinstance(one, Request)] == readable
