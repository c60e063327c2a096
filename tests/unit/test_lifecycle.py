"""The table of moves, judged against the way a request goes as people were told it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import storage
from storage.guards import not_locked_down
from storage.lifecycle import TRANSITIONS, resolve, written
from storage.records import Cause, Decision, Purpose, Request, RequestKind, State, TaskKind, Verdict
from storage.transitions import GuardInput, Obstacle, Transition, TransitionInput, latest_end, open_stage
from tests.unit.ledgers import HOUR, START, approval, draft, input_for, vote

PENDING, APPROVED, ACTIVE, REVOKING = State.PENDING, State.APPROVED, State.ACTIVE, State.REVOKING

WAYS: dict[Transition, tuple[set[State], State | None]] = {
    Transition.ASK: (set(), PENDING),
    Transition.DECIDE: ({PENDING}, PENDING),
    Transition.APPROVE: ({PENDING}, APPROVED),
    Transition.APPLY: ({PENDING}, State.APPLIED),
    Transition.DENY: ({PENDING}, State.DENIED),
    Transition.CANCEL: ({PENDING}, State.CANCELLED),
    Transition.LAPSE: ({PENDING}, State.LAPSED),
    Transition.OUTDATE: ({PENDING}, State.OUTDATED),
    Transition.START: ({APPROVED}, APPROVED),
    Transition.ACTIVATE: ({APPROVED}, ACTIVE),
    Transition.NOTE: (set(State), None),
    Transition.FAIL: ({APPROVED}, REVOKING),
    Transition.REVOKE: ({APPROVED, ACTIVE}, REVOKING),
    Transition.CONFIRM: ({REVOKING}, State.REVOKED),
}

FOLLOWS: dict[Transition, set[TaskKind]] = {
    Transition.ASK: {TaskKind.POST_CARD, TaskKind.LAPSE},
    Transition.DECIDE: {TaskKind.UPDATE_CARD},
    Transition.APPROVE: {TaskKind.REVOKE, TaskKind.PROVISION, TaskKind.UPDATE_CARD},
    Transition.APPLY: {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.DENY: {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.CANCEL: {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.LAPSE: {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.OUTDATE: {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.START: {TaskKind.REVOKE},
    Transition.ACTIVATE: {TaskKind.UPDATE_CARD},
    Transition.NOTE: {TaskKind.UPDATE_CARD},
    Transition.FAIL: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
    Transition.REVOKE: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD},
    Transition.CONFIRM: {TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER},
}


def request(state: State = State.PENDING, *, counts: tuple[int, ...] = (1,), **changes: object) -> Request:
    asked = draft(counts=counts)
    given = {"approved_at": START, "start_before": START + HOUR, "duration": 2 * HOUR, "username": "jit_1_ada_abcd"}
    return Request(
        id=1,
        key="abcdefghijklmnop",
        state=state,
        version=3,
        requested_at=START,
        lapses_at=START + 24 * HOUR,
        **{name: getattr(asked, name) for name in asked.__dataclass_fields__},
        **{**(given if state is not PENDING else {}), **changes},  # type: ignore[arg-type]
    )


def why(
    move: Transition,
    r: Request,
    change: TransitionInput | None = None,
    *,
    now: datetime = START,
    made: tuple[Decision, ...] = (),
    locked: bool = False,
) -> Obstacle | None:
    situation = GuardInput(
        now=now, request=r, decisions=made, is_locked_down=locked, change=change or input_for(move, r)
    )
    return next((w for w in (condition(situation) for condition in TRANSITIONS[move].only_if) if w), None)


def test_every_move_leads_where_people_were_told_and_from_nowhere_else() -> None:
    assert {move: (set(t.sources), t.target) for move, t in TRANSITIONS.items()} == WAYS


@pytest.mark.parametrize("move", FOLLOWS)
def test_the_tasks_that_follow_a_move(move: Transition) -> None:
    after = request(TRANSITIONS[move].target or ACTIVE)
    plans = [plan for follow in TRANSITIONS[move].then if (plan := follow(after, START))]
    assert {plan.kind for plan in plans} == FOLLOWS[move]
    servers = {TaskKind.REVOKE, TaskKind.PROVISION, TaskKind.CLOSE_CREDENTIALS}
    assert all(plan.lock_key == ("db:1" if plan.kind in servers else "slack:1") for plan in plans)


def test_the_end_is_planned_before_the_beginning() -> None:
    after = request(APPROVED)
    kinds = [plan.kind for follow in TRANSITIONS[Transition.APPROVE].then if (plan := follow(after, START))]
    assert kinds.index(TaskKind.REVOKE) < kinds.index(TaskKind.PROVISION)
    end = next(p for p in (f(after, START) for f in TRANSITIONS[Transition.APPROVE].then) if p.kind is TaskKind.REVOKE)
    assert end.due_at == START + HOUR + 2 * HOUR


def test_nothing_leads_out_of_an_end() -> None:
    over = {state for state in State if state.is_over}
    moves = {move for move, t in TRANSITIONS.items() if t.target is not None and over & t.sources}
    assert moves == set()


def test_only_the_server_s_own_word_ends_a_grant() -> None:
    to_revoked = {move for move, t in TRANSITIONS.items() if t.target is State.REVOKED}
    assert to_revoked == {Transition.CONFIRM}
    assert why(Transition.CONFIRM, request(REVOKING), TransitionInput(actor="bot")) is Obstacle.NO_RECEIPT
    assert (
        why(Transition.CONFIRM, request(REVOKING), TransitionInput(actor="bot", set={"receipt": {}}))
        is Obstacle.NO_RECEIPT
    )
    assert why(Transition.CONFIRM, request(REVOKING)) is None


def test_only_confirm_lets_the_revocation_go() -> None:
    assert {m for m, t in TRANSITIONS.items() if TaskKind.REVOKE in t.clears} == {Transition.CONFIRM}


def test_messages_are_written_with_the_move_that_needs_them() -> None:
    found = {move: t.messages for move, t in TRANSITIONS.items() if t.messages}
    assert found == {Transition.ASK: (Purpose.CARD,), Transition.APPROVE: (Purpose.CREDENTIALS,)}


def test_a_waiting_request_lapses_at_its_moment_and_not_before() -> None:
    at, just_before = START + 24 * HOUR, START + 24 * HOUR - timedelta(microseconds=1)
    for move in (Transition.DECIDE, Transition.APPROVE, Transition.DENY):
        assert why(move, request(), now=just_before) is None
        assert why(move, request(), now=at) is Obstacle.LAPSED
    assert why(Transition.LAPSE, request(), now=just_before) is Obstacle.NOT_LAPSED
    assert why(Transition.LAPSE, request(), now=at) is None


def test_quorum_counts_distinct_people_stage_by_stage() -> None:
    r = request(counts=(2, 1))
    assert open_stage(r, ()) == 0
    assert open_stage(r, (vote(r, "U1"),)) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U1"))) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2"))) == 1
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2", verdict=Verdict.DENY))) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2"), vote(r, "U3", stage=1))) is None


def test_the_last_vote_makes_an_approval_of_a_decision() -> None:
    r = request(counts=(2,))
    assert resolve(Transition.DECIDE, r, (vote(r, "U1"),)) is Transition.DECIDE
    assert resolve(Transition.DECIDE, r, (vote(r, "U1"), vote(r, "U2"))) is Transition.APPROVE
    extension = replace(r, kind=RequestKind.EXTENSION)
    assert resolve(Transition.DECIDE, extension, (vote(r, "U1"), vote(r, "U2"))) is Transition.APPLY


def test_nobody_is_approved_on_the_caller_s_word() -> None:
    r = request(counts=(2,))
    assert why(Transition.APPROVE, r, TransitionInput(actor="bot")) is Obstacle.STAGES_OPEN
    assert why(Transition.APPROVE, r, approval(r, "U1")) is Obstacle.STAGES_OPEN
    assert why(Transition.APPROVE, r, approval(r, "U1"), made=(vote(r, "U2"),)) is None


def test_a_vote_for_a_stage_that_is_closed_must_be_judged_again() -> None:
    r = request(counts=(1, 1))
    assert why(Transition.DECIDE, r, approval(r, "U2", stage=0), made=(vote(r, "U1"),)) is Obstacle.STAGE_MOVED_ON
    assert why(Transition.DECIDE, r, approval(r, "U2", stage=1), made=(vote(r, "U1"),)) is None
    assert why(Transition.DECIDE, r, approval(r, "U1", stage=1), made=(vote(r, "U1"),)) is Obstacle.ALREADY_DECIDED


def test_a_lockdown_stops_what_gives_and_nothing_that_takes() -> None:
    stopped = {move for move, t in TRANSITIONS.items() if not_locked_down in t.only_if}
    assert stopped == {Transition.APPROVE, Transition.APPLY, Transition.START, Transition.ACTIVATE}
    assert why(Transition.START, request(APPROVED), locked=True) is Obstacle.LOCKED_DOWN


def test_the_clock_starts_once_in_time_and_for_one_of_us() -> None:
    given = request(APPROVED)
    assert why(Transition.START, given) is None
    assert why(Transition.START, given, now=START + HOUR) is Obstacle.TOO_LATE
    assert why(Transition.START, request(APPROVED, expires_at=START + HOUR)) is Obstacle.STARTED
    assert (
        why(Transition.START, given, TransitionInput(actor="bot", requester_is_member=False)) is Obstacle.NOT_A_MEMBER
    )


def test_access_whose_end_has_come_is_never_handed_out() -> None:
    started = request(APPROVED, expires_at=START + HOUR)
    assert why(Transition.ACTIVATE, started) is None
    assert why(Transition.ACTIVATE, started, now=START + HOUR) is Obstacle.ENDED
    assert why(Transition.ACTIVATE, request(APPROVED)) is Obstacle.NOT_STARTED


def test_only_the_clock_is_bound_to_the_time() -> None:
    active = request(ACTIVE, expires_at=START + HOUR)
    clock = TransitionInput(actor="clock", cause=Cause.EXPIRED)
    assert why(Transition.REVOKE, active, clock) is Obstacle.NOT_ENDED
    assert why(Transition.REVOKE, active, clock, now=START + HOUR) is None
    assert why(Transition.REVOKE, active, TransitionInput(actor="U1", cause=Cause.DONE)) is None
    never = TransitionInput(actor="clock", cause=Cause.NOT_STARTED)
    assert latest_end(request(APPROVED)) == START + 3 * HOUR
    assert (
        why(Transition.REVOKE, request(APPROVED), never, now=START + 3 * HOUR - timedelta(seconds=1))
        is Obstacle.NOT_ENDED
    )
    assert why(Transition.REVOKE, request(APPROVED), never, now=START + 3 * HOUR) is None


@pytest.mark.parametrize("move", [m for m in Transition if m is not Transition.APPLY and m is not Transition.ASK])
def test_a_caller_writes_no_column_that_is_the_table_s(move: Transition) -> None:
    before = request(APPROVED)
    for column in ("state", "version", "key", "terms", "requester_id", "requested_at", "ended_at"):
        change = replace(input_for(move, before), set={column: "forged"})
        if move is Transition.DECIDE:
            assert "forged" not in written(move, before, change, START).values()
        else:
            with pytest.raises(ValueError, match=column):
                written(move, before, change, START)


def test_what_a_vote_brings_for_the_approval_waits_for_the_last_one() -> None:
    before = request(counts=(2,))
    assert written(Transition.DECIDE, before, approval(before), START) == {"state": PENDING}
    assert {"username", "target"} <= written(Transition.APPROVE, before, approval(before), START).keys()


def test_a_shortened_approval_shortens_the_grant() -> None:
    before = request()
    assert written(Transition.APPROVE, before, approval(before), START)["duration"] == 2 * HOUR
    shorter = approval(before, duration=timedelta(minutes=30))
    assert written(Transition.APPROVE, before, shorter, START)["duration"] == timedelta(minutes=30)


def test_expires_at_counts_from_the_start_and_not_from_the_approval() -> None:
    later = START + timedelta(minutes=40)
    values = written(Transition.START, request(APPROVED), input_for(Transition.START, request(APPROVED)), later)
    assert values["expires_at"] == later + 2 * HOUR
    assert values["started_at"] == later


@pytest.mark.parametrize("move", [Transition.DENY, Transition.CANCEL, Transition.LAPSE, Transition.OUTDATE])
def test_every_closing_says_who_why_and_when(move: Transition) -> None:
    values = written(move, request(), input_for(move, request()), START)
    assert values["ended_at"] == START
    assert values["ended_because"] is not None
    assert values["ended_by"]


def test_nothing_but_advance_and_ask_writes_a_request() -> None:
    """Read from the source: in all of the product one update and one insert of ``requests``, both in the ledger."""
    root = Path(storage.__file__).parent.parent
    sources = [p for room in ("storage", "bot", "adapters") for p in (root / room).rglob("*.py")]
    found = [
        (path.relative_to(root).as_posix(), node.name)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _writes_requests(node)
    ]
    assert [p for p in sources if re.search(r"(?i)(update|into|delete from)\s+requests\b", p.read_text())] == []
    assert sorted(found) == [("storage/ledger.py", "_insert_request"), ("storage/ledger.py", "_write")]


def test_nothing_outside_storage_reaches_its_tables() -> None:
    root = Path(storage.__file__).parent.parent
    sources = [p for room in ("bot", "adapters") for p in (root / room).rglob("*.py")]
    assert sources
    assert [p for p in sources if "storage.schema" in p.read_text() or ".writing(" in p.read_text()] == []


def _writes_requests(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    named = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("update", "insert", "delete")]
    return any(isinstance(a, ast.Name) and a.id == "requests" for c in named for a in c.args)
