"""The table of transitions matches the state machine that the documents describe."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import storage
from storage.commands import ApproveStage, Command, ConfirmRevocation, RevokeGrant
from storage.guards import not_locked_down
from storage.interpreter import column_values
from storage.lifecycle import TRANSITIONS
from storage.records import (
    Cause,
    Decision,
    Purpose,
    Receipt,
    ReceiptOutcome,
    Request,
    RequestKind,
    State,
    TaskKind,
    Verdict,
)
from storage.transitions import GuardInput, Obstacle, Related, Transition, latest_end, open_stage
from tests.unit.ledgers import HOUR, START, approval, command_for, draft, vote

PENDING, APPROVED, ACTIVE, REVOKING = State.PENDING, State.APPROVED, State.ACTIVE, State.REVOKING

PATHS: dict[Transition, tuple[set[State], State | None]] = {
    Transition.REQUEST: (set(), PENDING),
    Transition.APPROVE_STAGE: ({PENDING}, PENDING),
    Transition.APPROVE: ({PENDING}, APPROVED),
    Transition.APPLY_EXTENSION: ({PENDING}, State.APPLIED),
    Transition.EXTEND: ({ACTIVE}, ACTIVE),
    Transition.DENY: ({PENDING}, State.DENIED),
    Transition.CANCEL: ({PENDING}, State.CANCELLED),
    Transition.TIME_OUT: ({PENDING}, State.LAPSED),
    Transition.OUTDATE: ({PENDING}, State.OUTDATED),
    Transition.ESCALATE: ({PENDING}, None),
    Transition.START: ({APPROVED}, APPROVED),
    Transition.RETRY_PROVISION: ({APPROVED}, APPROVED),
    Transition.ACTIVATE: ({APPROVED}, ACTIVE),
    Transition.RENEW_PASSWORD: ({ACTIVE}, ACTIVE),
    Transition.SHOW_PASSWORD: ({ACTIVE}, ACTIVE),
    Transition.SIGN_OFF: ({APPROVED, ACTIVE, REVOKING, State.REVOKED}, None),
    Transition.REPAIR: (set(State), None),
    Transition.FAIL: ({APPROVED}, REVOKING),
    Transition.REVOKE: ({APPROVED, ACTIVE}, REVOKING),
    Transition.CONFIRM: ({REVOKING}, State.REVOKED),
}

CLOSED = {TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER}
TASKS: dict[Transition, set[TaskKind]] = {
    Transition.REQUEST: {TaskKind.POST_CARD, TaskKind.TIME_OUT},
    Transition.APPROVE_STAGE: {TaskKind.UPDATE_CARD},
    Transition.APPROVE: {TaskKind.REVOKE, TaskKind.PROVISION, TaskKind.UPDATE_CARD},
    Transition.APPLY_EXTENSION: CLOSED,
    Transition.EXTEND: {TaskKind.REVOKE, TaskKind.WARN_BEFORE_END, TaskKind.MOVE_EXPIRY, TaskKind.UPDATE_CARD},
    Transition.DENY: CLOSED,
    Transition.CANCEL: CLOSED,
    Transition.TIME_OUT: CLOSED,
    Transition.OUTDATE: CLOSED,
    Transition.ESCALATE: {TaskKind.UPDATE_CARD},
    Transition.START: {TaskKind.REVOKE},
    Transition.RETRY_PROVISION: set(),
    Transition.ACTIVATE: {TaskKind.UPDATE_CARD, TaskKind.WARN_BEFORE_END},
    Transition.RENEW_PASSWORD: set(),
    Transition.SHOW_PASSWORD: set(),
    Transition.SIGN_OFF: {TaskKind.UPDATE_CARD},
    Transition.REPAIR: {TaskKind.UPDATE_CARD},
    Transition.FAIL: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, *CLOSED},
    Transition.REVOKE: {TaskKind.REVOKE, TaskKind.CLOSE_CREDENTIALS, TaskKind.UPDATE_CARD},
    Transition.CONFIRM: {TaskKind.CLOSE_CREDENTIALS, *CLOSED},
}
NEED_EXPIRY = (Transition.EXTEND, Transition.ACTIVATE)
CLOCK = RevokeGrant(actor="clock", cause=Cause.EXPIRED)


def request(state: State = State.PENDING, *, counts: tuple[int, ...] = (1,), **changes: object) -> Request:
    drafted = draft(counts=counts)
    approved = {"approved_at": START, "start_before": START + HOUR, "duration": 2 * HOUR, "username": "jit_1_ada_abcd"}
    return Request(
        id=1,
        key="abcdefghijklmnop",
        state=state,
        version=3,
        requested_at=START,
        lapses_at=START + 24 * HOUR,
        **{name: getattr(drafted, name) for name in drafted.__dataclass_fields__}
        | (approved if state is not PENDING else {})
        | changes,  # type: ignore[arg-type]
    )


def obstacle(
    command: Command, r: Request, *, now: datetime = START, made: tuple[Decision, ...] = (), locked: bool = False
) -> Obstacle | None:
    """The first obstacle that the guards find."""
    guard_input = GuardInput(now=now, request=r, decisions=made, is_locked_down=locked, command=command)
    return next((o for o in (guard(guard_input) for guard in TRANSITIONS[command.transition].guards) if o), None)


def usual_obstacle(transition: Transition, r: Request, **more: Any) -> Obstacle | None:
    """The first obstacle to a valid command."""
    return obstacle(command_for(transition, r), r, **more)


def commands(base: type[Command] = Command) -> set[type[Command]]:
    return {
        found for sub in base.__subclasses__() for found in ({sub} if hasattr(sub, "transition") else commands(sub))
    }


def test_transitions_have_the_documented_sources_and_targets() -> None:
    assert {transition: (set(rule.sources), rule.target) for transition, rule in TRANSITIONS.items()} == PATHS


def test_each_transition_has_one_command() -> None:
    assert sorted(command.transition for command in commands()) == sorted(Transition)


@pytest.mark.parametrize("transition", TASKS)
def test_a_transition_plans_its_tasks_with_their_lock_keys(transition: Transition) -> None:
    rule = TRANSITIONS[transition]
    after = request(rule.target or ACTIVE, expires_at=START + HOUR if transition in NEED_EXPIRY else None)
    plans = [plan for planner in rule.tasks if (plan := planner(after, START))]
    assert {plan.kind for plan in plans} == TASKS[transition]
    of_user = dict.fromkeys((TaskKind.REVOKE, TaskKind.MOVE_EXPIRY), "user:1")
    of_credentials = dict.fromkeys((TaskKind.PROVISION, TaskKind.CLOSE_CREDENTIALS), "message:1:credentials")
    lock_keys = {**of_user, **of_credentials}
    assert all(plan.lock_key == lock_keys.get(plan.kind, "message:1") for plan in plans)


def test_a_request_without_approvers_has_a_task_that_grants_it() -> None:
    """``post_card`` posts the card and grants nothing."""
    asked = request(counts=())
    granting = {TaskKind.AUTO_APPROVE, TaskKind.GRANT_BREAK_GLASS}
    for kind, granted in (
        (RequestKind.ACCESS, TaskKind.AUTO_APPROVE),
        (RequestKind.BREAK_GLASS, TaskKind.GRANT_BREAK_GLASS),
    ):
        plans = [plan for f in TRANSITIONS[Transition.REQUEST].tasks if (plan := f(replace(asked, kind=kind), START))]
        assert {plan.kind for plan in plans} & granting == {granted}


def test_the_revocation_is_planned_before_the_provisioning() -> None:
    after = request(APPROVED)
    kinds = [plan.kind for planner in TRANSITIONS[Transition.APPROVE].tasks if (plan := planner(after, START))]
    assert kinds.index(TaskKind.REVOKE) < kinds.index(TaskKind.PROVISION)
    end = next(p for p in (f(after, START) for f in TRANSITIONS[Transition.APPROVE].tasks) if p.kind is TaskKind.REVOKE)
    assert end.due_at == START + HOUR + 2 * HOUR


def test_no_transition_leads_out_of_a_final_state() -> None:
    final = {state for state in State if state.is_over}
    assert {t for t, rule in TRANSITIONS.items() if rule.target is not None and final & rule.sources} == set()


def test_only_confirm_leads_to_revoked() -> None:
    assert {t for t, rule in TRANSITIONS.items() if rule.target is State.REVOKED} == {Transition.CONFIRM}


@pytest.mark.parametrize(
    ("receipt", "found"),
    [
        (Receipt(outcome=ReceiptOutcome.VERIFIED, read_back_at=START), None),
        (Receipt(outcome=ReceiptOutcome.VERIFIED), Obstacle.NO_RECEIPT),
        (Receipt(outcome=ReceiptOutcome.NOTHING_CREATED), Obstacle.NO_RECEIPT),
        (Receipt(outcome=ReceiptOutcome.DECLARED_GONE, reason="burnt down"), None),
        (Receipt(outcome=ReceiptOutcome.DECLARED_GONE), Obstacle.NO_RECEIPT),
    ],
)
def test_an_activated_grant_is_revoked_only_with_a_complete_receipt(receipt: Receipt, found: Obstacle | None) -> None:
    started = request(REVOKING, started_at=START, activated_at=START)
    assert obstacle(ConfirmRevocation(actor="bot", receipt=receipt), started) is found


def test_a_grant_that_was_never_active_is_revoked_without_a_read_back() -> None:
    nothing = ConfirmRevocation(actor="bot", receipt=Receipt(outcome=ReceiptOutcome.NOTHING_CREATED))
    assert obstacle(nothing, request(REVOKING)) is None


def test_only_confirm_clears_the_revocation() -> None:
    assert {t for t, rule in TRANSITIONS.items() if TaskKind.REVOKE in rule.clears} == {Transition.CONFIRM}


def test_messages_are_written_with_the_transition_that_needs_them() -> None:
    found = {transition: rule.messages for transition, rule in TRANSITIONS.items() if rule.messages}
    assert found == {Transition.REQUEST: (Purpose.CARD,), Transition.APPROVE: (Purpose.CREDENTIALS,)}


def test_cascades_to_related_requests_are_in_the_table() -> None:
    found = {
        transition: [c.related for c in rule.cascades] for transition, rule in TRANSITIONS.items() if rule.cascades
    }
    assert found == {
        Transition.APPLY_EXTENSION: [Related.PARENT],
        Transition.FAIL: [Related.WAITING_EXTENSIONS],
        Transition.REVOKE: [Related.WAITING_EXTENSIONS],
    }


def test_a_pending_request_times_out_exactly_at_lapses_at() -> None:
    at, just_before = START + 24 * HOUR, START + 24 * HOUR - timedelta(microseconds=1)
    for transition in (Transition.APPROVE, Transition.DENY):
        assert usual_obstacle(transition, request(), now=just_before) is None
        assert usual_obstacle(transition, request(), now=at) is Obstacle.TIMED_OUT
    assert usual_obstacle(Transition.APPROVE_STAGE, request(counts=(2,)), now=at) is Obstacle.TIMED_OUT
    assert usual_obstacle(Transition.TIME_OUT, request(), now=just_before) is Obstacle.NOT_TIMED_OUT
    assert usual_obstacle(Transition.TIME_OUT, request(), now=at) is None


def test_quorum_counts_distinct_people_stage_by_stage() -> None:
    r = request(counts=(2, 1))
    assert open_stage(r, ()) == 0
    assert open_stage(r, (vote(r, "U1"),)) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U1"))) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2"))) == 1
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2", verdict=Verdict.DENY))) == 0
    assert open_stage(r, (vote(r, "U1"), vote(r, "U2"), vote(r, "U3", stage=1))) is None


def test_an_approval_command_of_the_wrong_kind_is_refused() -> None:
    r = request(counts=(2,))
    last = command_for(Transition.APPROVE, r)
    assert obstacle(last, r) is Obstacle.STAGES_OPEN
    assert obstacle(last, r, made=(vote(r, "U2"),)) is None
    assert obstacle(ApproveStage(actor="U1", decision=vote(r, "U1")), r) is None
    assert (
        obstacle(ApproveStage(actor="U1", decision=vote(r, "U1")), r, made=(vote(r, "U2"),)) is Obstacle.STAGES_COMPLETE
    )
    assert obstacle(replace(last, decision=None), r) is Obstacle.STAGES_OPEN


def test_only_an_extension_can_be_applied() -> None:
    extension = request(kind=RequestKind.EXTENSION)
    assert usual_obstacle(Transition.APPROVE, extension) is Obstacle.WRONG_KIND
    assert usual_obstacle(Transition.APPLY_EXTENSION, request()) is Obstacle.WRONG_KIND


def test_a_decision_for_a_closed_stage_is_refused() -> None:
    r = request(counts=(1, 1))
    first = (vote(r, "U1"),)
    assert obstacle(approval(r, "U2", stage=0, made=first), r, made=first) is Obstacle.STAGE_MOVED_ON
    assert obstacle(approval(r, "U2", stage=1, made=first), r, made=first) is None
    assert obstacle(approval(r, "U1", stage=1, made=first), r, made=first) is Obstacle.ALREADY_DECIDED


def test_a_lockdown_stops_transitions_that_give_access_and_no_others() -> None:
    stopped = {transition for transition, rule in TRANSITIONS.items() if not_locked_down in rule.guards}
    assert stopped == {Transition.APPROVE, Transition.APPLY_EXTENSION, Transition.START, Transition.ACTIVATE}
    assert usual_obstacle(Transition.START, request(APPROVED), locked=True) is Obstacle.LOCKED_DOWN


def test_a_grant_starts_once_in_time_and_for_a_member() -> None:
    approved = request(APPROVED)
    assert usual_obstacle(Transition.START, approved) is None
    assert usual_obstacle(Transition.START, approved, now=START + HOUR) is Obstacle.TOO_LATE
    assert usual_obstacle(Transition.START, request(APPROVED, expires_at=START + HOUR)) is Obstacle.STARTED
    left = replace(command_for(Transition.START, approved), requester_is_member=False)
    assert obstacle(left, approved) is Obstacle.NOT_A_MEMBER


def test_access_is_not_delivered_after_its_end() -> None:
    started = request(APPROVED, expires_at=START + HOUR)
    assert usual_obstacle(Transition.ACTIVATE, started) is None
    assert usual_obstacle(Transition.ACTIVATE, request(APPROVED)) is Obstacle.NOT_STARTED
    assert usual_obstacle(Transition.RETRY_PROVISION, request(APPROVED)) is Obstacle.NOT_STARTED
    for transition in (Transition.ACTIVATE, Transition.RENEW_PASSWORD, Transition.SHOW_PASSWORD):
        assert usual_obstacle(transition, started, now=START + HOUR) is Obstacle.ENDED


def test_the_clock_ends_a_grant_only_at_its_end_and_a_person_at_any_time() -> None:
    active = request(ACTIVE, expires_at=START + HOUR)
    assert obstacle(CLOCK, active) is Obstacle.NOT_ENDED
    assert obstacle(CLOCK, active, now=START + HOUR) is None
    assert obstacle(RevokeGrant(actor="U1", cause=Cause.DONE), active) is None
    never = RevokeGrant(actor="clock", cause=Cause.NOT_STARTED)
    assert latest_end(request(APPROVED)) == START + 3 * HOUR
    assert obstacle(never, request(APPROVED), now=START + 3 * HOUR - timedelta(seconds=1)) is Obstacle.NOT_ENDED
    assert obstacle(never, request(APPROVED), now=START + 3 * HOUR) is None


def test_only_break_glass_access_is_signed_off_and_only_once() -> None:
    break_glass = request(ACTIVE, kind=RequestKind.BREAK_GLASS)
    assert usual_obstacle(Transition.SIGN_OFF, break_glass) is None
    assert usual_obstacle(Transition.SIGN_OFF, request(ACTIVE)) is Obstacle.WRONG_KIND
    assert usual_obstacle(Transition.SIGN_OFF, replace(break_glass, reviewed_at=START)) is Obstacle.REVIEWED


@pytest.mark.parametrize("transition", [t for t in Transition if t is not Transition.REQUEST])
def test_no_transition_writes_a_frozen_column(transition: Transition) -> None:
    before = request(ACTIVE, expires_at=START + HOUR)
    columns = column_values(before, command_for(transition, before), START).keys()
    frozen = {
        "id",
        "key",
        "kind",
        "version",
        "team_id",
        "requester_id",
        "database",
        "level",
        "reason",
        "terms",
        "requested_at",
    }
    assert not columns & frozen
    assert "expires_at" not in columns or transition in (Transition.START, Transition.EXTEND)


def test_user_and_target_are_frozen_with_the_last_approval() -> None:
    before = request()
    assert {"username", "target", "server"} <= column_values(before, approval(before), START).keys()
    assert column_values(request(counts=(2,)), command_for(Transition.APPROVE_STAGE, before), START) == {
        "state": PENDING
    }


def test_a_shortened_approval_shortens_the_grant() -> None:
    before = request()
    assert column_values(before, approval(before), START)["duration"] == 2 * HOUR
    shorter = approval(before, duration=timedelta(minutes=30))
    assert column_values(before, shorter, START)["duration"] == timedelta(minutes=30)


def test_expires_at_counts_from_the_start_and_not_from_the_approval() -> None:
    later = START + timedelta(minutes=40)
    values = column_values(request(APPROVED), command_for(Transition.START, request(APPROVED)), later)
    assert values["expires_at"] == later + 2 * HOUR
    assert values["started_at"] == later


@pytest.mark.parametrize("transition", [Transition.DENY, Transition.CANCEL, Transition.TIME_OUT, Transition.OUTDATE])
def test_every_closing_stores_who_why_and_when(transition: Transition) -> None:
    values = column_values(request(), command_for(transition, request()), START)
    assert values["ended_at"] == START
    assert values["ended_because"] is not None
    assert values["ended_by"]


def test_only_advance_and_submit_write_a_request() -> None:
    """The source has exactly one update and one insert of ``requests``, apart from migrations. Retention removes what is over."""
    root = Path(storage.__file__).parent.parent
    sources = [p for package in ("storage", "bot", "adapters") for p in (root / package).rglob("*.py")]
    found = [(p.relative_to(root).as_posix(), name) for p in sources for name in _writes_of_requests(p.read_text())]
    assert [p for p in sources if re.search(r"(?i)(update|into|delete from)\s+requests\b", p.read_text())] == []
    found = [one for one in found if not one[0].startswith("storage/migrations/versions/")]
    writes = [
        ("storage/interpreter.py", "update"),
        ("storage/requests.py", "insert"),
        ("storage/retention.py", "delete"),
    ]
    assert sorted(found) == writes


@pytest.mark.parametrize(
    "statement",
    ["x = update(requests)", "def f(): delete(requests).where()", "requests.insert()", "a = sa.insert(requests)"],
)
def test_the_search_finds_every_kind_of_write(statement: str) -> None:
    assert len(_writes_of_requests(statement)) == 1


def test_nothing_outside_storage_uses_its_tables() -> None:
    root = Path(storage.__file__).parent.parent
    sources = [p for package in ("bot", "adapters") for p in (root / package).rglob("*.py")]
    assert sources
    reaches_in = re.compile(r"storage\.schema|database\.(write|read|read_all|engine)\b")
    assert [p for p in sources if reaches_in.search(p.read_text())] == []


def _writes_of_requests(source: str) -> list[str]:
    """``insert(requests)`` or ``requests.insert()``, anywhere in a module: the names of the calls."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [(getattr(call.func, "id", getattr(call.func, "attr", "")), call) for call in calls]
    return [
        name
        for name, call in named
        if name in ("update", "insert", "delete")
        and any(
            isinstance(one, ast.Name) and one.id == "requests"
            for one in (*call.args, getattr(call.func, "value", None))
        )
    ]
