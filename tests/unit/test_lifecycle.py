"""The table of moves, judged against the way a request goes as people were told it."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import storage
from storage.conditions import not_locked_down
from storage.lifecycle import TRANSITIONS, resolve, written
from storage.moves import Change, Move, Situation, Why, latest_end, open_stage
from storage.records import Cause, Decision, Kind, Purpose, Request, State, TaskKind, Verdict
from tests.unit.ledgers import HOUR, START, approval, change_for, draft, vote

PENDING, APPROVED, ACTIVE, REVOKING = State.PENDING, State.APPROVED, State.ACTIVE, State.REVOKING

WAYS: dict[Move, tuple[set[State], State | None]] = {
    Move.ASK: (set(), PENDING),
    Move.DECIDE: ({PENDING}, PENDING),
    Move.APPROVE: ({PENDING}, APPROVED),
    Move.APPLY: ({PENDING}, State.APPLIED),
    Move.DENY: ({PENDING}, State.DENIED),
    Move.CANCEL: ({PENDING}, State.CANCELLED),
    Move.LAPSE: ({PENDING}, State.LAPSED),
    Move.OUTDATE: ({PENDING}, State.OUTDATED),
    Move.START: ({APPROVED}, APPROVED),
    Move.ACTIVATE: ({APPROVED}, ACTIVE),
    Move.NOTE: (set(State), None),
    Move.FAIL: ({APPROVED}, REVOKING),
    Move.REVOKE: ({APPROVED, ACTIVE}, REVOKING),
    Move.CONFIRM: ({REVOKING}, State.REVOKED),
}

FOLLOWS: dict[Move, set[TaskKind]] = {
    Move.ASK: {TaskKind.POST_CARD, TaskKind.LAPSE},
    Move.DECIDE: {TaskKind.UPDATE_CARD},
    Move.APPROVE: {TaskKind.REVOKE, TaskKind.PROVISION, TaskKind.UPDATE_CARD},
    Move.APPLY: {TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.DENY: {TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.CANCEL: {TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.LAPSE: {TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.OUTDATE: {TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.START: {TaskKind.REVOKE},
    Move.ACTIVATE: {TaskKind.UPDATE_CARD},
    Move.NOTE: {TaskKind.UPDATE_CARD},
    Move.FAIL: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD, TaskKind.TELL},
    Move.REVOKE: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD},
    Move.CONFIRM: {TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD, TaskKind.TELL},
}


def request(state: State = State.PENDING, *, counts: tuple[int, ...] = (1,), **changes: object) -> Request:
    asked = draft(counts=counts)
    given = {"approved_at": START, "start_before": START + HOUR, "duration": 2 * HOUR, "username": "jit_1_ada_abcd"}
    return Request(
        id=1,
        key="abcdefghijklmnop",
        state=state,
        version=3,
        asked_at=START,
        lapses_at=START + 24 * HOUR,
        **{name: getattr(asked, name) for name in asked.__dataclass_fields__},
        **{**(given if state is not PENDING else {}), **changes},  # type: ignore[arg-type]
    )


def why(
    move: Move,
    r: Request,
    change: Change | None = None,
    *,
    now: datetime = START,
    made: tuple[Decision, ...] = (),
    locked: bool = False,
) -> Why | None:
    situation = Situation(
        now=now, request=r, decisions=made, is_locked_down=locked, change=change or change_for(move, r)
    )
    return next((w for w in (condition(situation) for condition in TRANSITIONS[move].only_if) if w), None)


def test_every_move_leads_where_people_were_told_and_from_nowhere_else() -> None:
    assert {move: (set(t.sources), t.target) for move, t in TRANSITIONS.items()} == WAYS


@pytest.mark.parametrize("move", FOLLOWS)
def test_the_tasks_that_follow_a_move(move: Move) -> None:
    after = request(TRANSITIONS[move].target or ACTIVE)
    plans = [plan for follow in TRANSITIONS[move].then if (plan := follow(after, START))]
    assert {plan.kind for plan in plans} == FOLLOWS[move]
    servers = {TaskKind.REVOKE, TaskKind.PROVISION, TaskKind.CLOSE_CREDENTIALS}
    assert all(plan.lane == ("db:1" if plan.kind in servers else "slack:1") for plan in plans)


def test_the_end_is_planned_before_the_beginning() -> None:
    after = request(APPROVED)
    kinds = [plan.kind for follow in TRANSITIONS[Move.APPROVE].then if (plan := follow(after, START))]
    assert kinds.index(TaskKind.REVOKE) < kinds.index(TaskKind.PROVISION)
    end = next(p for p in (f(after, START) for f in TRANSITIONS[Move.APPROVE].then) if p.kind is TaskKind.REVOKE)
    assert end.due_at == START + HOUR + 2 * HOUR


def test_nothing_leads_out_of_an_end() -> None:
    over = {state for state in State if state.is_over}
    moves = {move for move, t in TRANSITIONS.items() if t.target is not None and over & t.sources}
    assert moves == set()


def test_only_the_server_s_own_word_ends_a_grant() -> None:
    to_revoked = {move for move, t in TRANSITIONS.items() if t.target is State.REVOKED}
    assert to_revoked == {Move.CONFIRM}
    assert why(Move.CONFIRM, request(REVOKING), Change(actor="bot")) is Why.NO_RECEIPT
    assert why(Move.CONFIRM, request(REVOKING), Change(actor="bot", set={"receipt": {}})) is Why.NO_RECEIPT
    assert why(Move.CONFIRM, request(REVOKING)) is None


def test_only_confirm_lets_the_revocation_go() -> None:
    assert {m for m, t in TRANSITIONS.items() if TaskKind.REVOKE in t.clears} == {Move.CONFIRM}


def test_messages_are_written_with_the_move_that_needs_them() -> None:
    found = {move: t.messages for move, t in TRANSITIONS.items() if t.messages}
    assert found == {Move.ASK: (Purpose.CARD,), Move.APPROVE: (Purpose.CREDENTIALS,)}


def test_a_waiting_request_lapses_at_its_moment_and_not_before() -> None:
    at, just_before = START + 24 * HOUR, START + 24 * HOUR - timedelta(microseconds=1)
    for move in (Move.DECIDE, Move.APPROVE, Move.DENY):
        assert why(move, request(), now=just_before) is None
        assert why(move, request(), now=at) is Why.LAPSED
    assert why(Move.LAPSE, request(), now=just_before) is Why.NOT_LAPSED
    assert why(Move.LAPSE, request(), now=at) is None


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
    assert resolve(Move.DECIDE, r, (vote(r, "U1"),)) is Move.DECIDE
    assert resolve(Move.DECIDE, r, (vote(r, "U1"), vote(r, "U2"))) is Move.APPROVE
    extension = replace(r, kind=Kind.EXTENSION)
    assert resolve(Move.DECIDE, extension, (vote(r, "U1"), vote(r, "U2"))) is Move.APPLY


def test_nobody_is_approved_on_the_caller_s_word() -> None:
    r = request(counts=(2,))
    assert why(Move.APPROVE, r, Change(actor="bot")) is Why.STAGES_OPEN
    assert why(Move.APPROVE, r, approval(r, "U1")) is Why.STAGES_OPEN
    assert why(Move.APPROVE, r, approval(r, "U1"), made=(vote(r, "U2"),)) is None


def test_a_vote_for_a_stage_that_is_closed_must_be_judged_again() -> None:
    r = request(counts=(1, 1))
    assert why(Move.DECIDE, r, approval(r, "U2", stage=0), made=(vote(r, "U1"),)) is Why.STAGE_MOVED_ON
    assert why(Move.DECIDE, r, approval(r, "U2", stage=1), made=(vote(r, "U1"),)) is None
    assert why(Move.DECIDE, r, approval(r, "U1", stage=1), made=(vote(r, "U1"),)) is Why.ALREADY_DECIDED


def test_a_lockdown_stops_what_gives_and_nothing_that_takes() -> None:
    stopped = {move for move, t in TRANSITIONS.items() if not_locked_down in t.only_if}
    assert stopped == {Move.APPROVE, Move.APPLY, Move.START, Move.ACTIVATE}
    assert why(Move.START, request(APPROVED), locked=True) is Why.LOCKED_DOWN


def test_the_clock_starts_once_in_time_and_for_one_of_us() -> None:
    given = request(APPROVED)
    assert why(Move.START, given) is None
    assert why(Move.START, given, now=START + HOUR) is Why.TOO_LATE
    assert why(Move.START, request(APPROVED, expires_at=START + HOUR)) is Why.STARTED
    assert why(Move.START, given, Change(actor="bot", requester_is_ours=False)) is Why.NOT_OURS


def test_access_whose_end_has_come_is_never_handed_out() -> None:
    started = request(APPROVED, expires_at=START + HOUR)
    assert why(Move.ACTIVATE, started) is None
    assert why(Move.ACTIVATE, started, now=START + HOUR) is Why.ENDED
    assert why(Move.ACTIVATE, request(APPROVED)) is Why.NOT_STARTED


def test_only_the_clock_is_bound_to_the_time() -> None:
    active = request(ACTIVE, expires_at=START + HOUR)
    clock = Change(actor="clock", cause=Cause.EXPIRED)
    assert why(Move.REVOKE, active, clock) is Why.NOT_ENDED
    assert why(Move.REVOKE, active, clock, now=START + HOUR) is None
    assert why(Move.REVOKE, active, Change(actor="U1", cause=Cause.DONE)) is None
    never = Change(actor="clock", cause=Cause.NOT_STARTED)
    assert latest_end(request(APPROVED)) == START + 3 * HOUR
    assert why(Move.REVOKE, request(APPROVED), never, now=START + 3 * HOUR - timedelta(seconds=1)) is Why.NOT_ENDED
    assert why(Move.REVOKE, request(APPROVED), never, now=START + 3 * HOUR) is None


@pytest.mark.parametrize("move", [m for m in Move if m is not Move.APPLY and m is not Move.ASK])
def test_a_caller_writes_no_column_that_is_the_table_s(move: Move) -> None:
    before = request(APPROVED)
    for column in ("state", "version", "key", "terms", "requester_id", "asked_at", "ended_at"):
        change = replace(change_for(move, before), set={column: "forged"})
        if move is Move.DECIDE:
            assert "forged" not in written(move, before, change, START).values()
        else:
            with pytest.raises(ValueError, match=column):
                written(move, before, change, START)


def test_what_a_vote_brings_for_the_approval_waits_for_the_last_one() -> None:
    before = request(counts=(2,))
    assert written(Move.DECIDE, before, approval(before), START) == {"state": PENDING}
    assert {"username", "target"} <= written(Move.APPROVE, before, approval(before), START).keys()


def test_a_shortened_approval_shortens_the_grant() -> None:
    before = request()
    assert written(Move.APPROVE, before, approval(before), START)["duration"] == 2 * HOUR
    shorter = approval(before, duration=timedelta(minutes=30))
    assert written(Move.APPROVE, before, shorter, START)["duration"] == timedelta(minutes=30)


def test_expires_at_counts_from_the_start_and_not_from_the_approval() -> None:
    later = START + timedelta(minutes=40)
    values = written(Move.START, request(APPROVED), change_for(Move.START, request(APPROVED)), later)
    assert values["expires_at"] == later + 2 * HOUR
    assert values["started_at"] == later


@pytest.mark.parametrize("move", [Move.DENY, Move.CANCEL, Move.LAPSE, Move.OUTDATE])
def test_every_closing_says_who_why_and_when(move: Move) -> None:
    values = written(move, request(), change_for(move, request()), START)
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
    assert [p for p in sources if "storage.tables" in p.read_text() or ".writing(" in p.read_text()] == []


def _writes_requests(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    named = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in ("update", "insert", "delete")]
    return any(isinstance(a, ast.Name) and a.id == "requests" for c in named for a in c.args)
