"""The number of statements that the ledger runs for each step. More of them make every step slower, so a change must be meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from storage.ledger import Ledger
from storage.records import RequestKind, State, TaskKind
from storage.transitions import Transition
from tests.unit.ledgers import LEASE, START, TurnableClock, bring, command_for, draft
from tests.unit.test_ledger_claims import many
from tests.unit.test_ledger_tasks import add, plan

TRANSITIONS: dict[Transition, tuple[State, int]] = {
    Transition.APPROVE_STAGE: (State.PENDING, 9),
    Transition.APPROVE: (State.PENDING, 17),
    Transition.DENY: (State.PENDING, 12),
    Transition.CANCEL: (State.PENDING, 10),
    Transition.TIME_OUT: (State.PENDING, 10),
    Transition.OUTDATE: (State.PENDING, 10),
    Transition.START: (State.APPROVED, 7),
    Transition.ACTIVATE: (State.APPROVED, 9),
    Transition.RENEW_PASSWORD: (State.ACTIVE, 4),
    Transition.REPAIR: (State.ACTIVE, 6),
    Transition.FAIL: (State.APPROVED, 11),
    Transition.REVOKE: (State.ACTIVE, 10),
    Transition.CONFIRM: (State.REVOKING, 8),
}
"""Transition → the state of the request before, and the largest number of statements, BEGIN and COMMIT not counted."""

SUBMIT_MAX, DUPLICATE_MAX, CLAIM_MAX, MANY_EACH_MAX = 16, 2, 5, 13
PER_CALL = {"renew": 1, "check_claim": 0, "hold": 3, "let_go": 2, "reschedule": 1, "finish": 1}


@pytest.fixture
def ledger_url(tmp_path: Path) -> str:
    """The counts are those of SQLite. PostgreSQL has a few more, which read the clock and take locks."""
    return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"


@contextmanager
def counted(ledger: Ledger) -> Iterator[list[str]]:
    """The statements that run inside the block."""
    found = list[str]()

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        if not statement.startswith("BEGIN"):
            found.append(statement)

    event.listen(ledger.database.engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(ledger.database.engine, "before_cursor_execute", note)


async def test_the_count_counts(ledger: Ledger) -> None:
    with counted(ledger) as found:
        await ledger.requests.get_many([1])
        await ledger.observations.set_cursor("feed", 1)
    assert [statement.split()[0] for statement in found] == ["SELECT", "UPDATE", "INSERT"]


@pytest.mark.parametrize("transition", TRANSITIONS)
async def test_a_transition_runs_few_statements(
    ledger: Ledger, clock: TurnableClock, transition: Transition, record_property: Any
) -> None:
    state, most = TRANSITIONS[transition]
    counts = (2,) if transition is Transition.APPROVE_STAGE else (1,)
    request, _ = await ledger.requests.submit(draft(counts=counts))
    if state is not State.PENDING:
        request = await bring(ledger, clock, state)
    if transition is Transition.ACTIVATE:
        request = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    if transition is Transition.TIME_OUT:
        clock.time = request.lapses_at
    with counted(ledger) as found:
        await ledger.requests.advance(request.id, command_for(transition, request))
    record_property("statements", len(found))
    assert len(found) <= most, found


@pytest.mark.parametrize("kind", [RequestKind.ACCESS, RequestKind.BREAK_GLASS])
async def test_a_new_request_runs_few_statements(ledger: Ledger, kind: RequestKind, record_property: Any) -> None:
    with counted(ledger) as found:
        await ledger.requests.submit(draft(kind=kind))
    record_property("statements", len(found))
    assert len(found) <= SUBMIT_MAX, found
    with counted(ledger) as found:
        await ledger.requests.submit(draft(kind=kind))
    assert len(found) <= DUPLICATE_MAX, found


async def test_a_claim_runs_as_many_statements_for_many_tasks_as_for_one(ledger: Ledger, record_property: Any) -> None:
    counts = []
    for how_many in (0, 1, 30):
        await add(ledger, *(plan(f"{how_many}:{n}", kind=TaskKind.UPDATE_CARD) for n in range(how_many)))
        with counted(ledger) as found:
            due = await ledger.tasks.claim_due("worker", LEASE, room=many)
        assert len(due.claims) == how_many
        counts.append(len(found))
        assert len(found) <= CLAIM_MAX, found
    record_property("statements", counts)
    assert counts[1] == counts[2]


async def test_each_step_of_a_claimed_task_runs_few_statements(ledger: Ledger) -> None:
    await add(ledger, plan())
    claim = await ledger.tasks.claim("worker", LEASE)
    assert claim is not None
    calls = {
        "renew": ledger.tasks.renew(claim, LEASE),
        "check_claim": ledger.tasks.check_claim(claim),
        "hold": ledger.tasks.hold(claim, "user:7"),
        "let_go": ledger.tasks.let_go(claim),
        "reschedule": ledger.tasks.reschedule(claim, due_at=START),
    }
    for name, call in calls.items():
        with counted(ledger) as found:
            await call
        assert len(found) <= PER_CALL[name], (name, found)
    again = await ledger.tasks.claim("worker", LEASE)
    assert again is not None
    with counted(ledger) as found:
        await ledger.tasks.finish(again)
    assert len(found) <= PER_CALL["finish"], found


async def test_many_transitions_at_once_run_few_statements_each(
    ledger: Ledger, clock: TurnableClock, record_property: Any
) -> None:
    grants = [await bring(ledger, clock, State.ACTIVE, database=f"db-{n}") for n in range(10)]
    with counted(ledger) as found:
        await ledger.requests.advance_many([(one.id, command_for(Transition.REVOKE, one)) for one in grants])
    record_property("statements", len(found) / len(grants))
    assert len(found) <= MANY_EACH_MAX * len(grants), len(found)


async def test_a_claim_reads_no_table_as_a_whole(ledger: Ledger) -> None:
    """Neither among many finished requests nor among many waiting tasks. The plan does not depend on the speed of the machine."""
    with counted(ledger) as found:
        await ledger.tasks.claim_due("worker", LEASE, closed={"a server"})
        await ledger.tasks.claim_ends("worker", LEASE, server="a server", limit=9, untried=True)
    queries = [statement for statement in found if statement.startswith("SELECT")]
    assert len(queries) >= 3

    def plans(tx: Any) -> list[str]:
        steps = []
        for query in queries:
            rows = tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", ("2026-11-23",) * query.count("?"))
            steps += [row[3] for row in rows]
        return steps

    steps = await ledger.database.read(plans)
    assert [step for step in steps if step.startswith("SCAN") and "INDEX" not in step and "CONSTANT" not in step] == []
    of_other_tasks = [step for step in steps if re.match(r"(SEARCH|SCAN) tasks_\d", step)]
    assert of_other_tasks
    assert [step for step in of_other_tasks if not re.search(r"\((lock_key|held_key)=\?", step)] == []
