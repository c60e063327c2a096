"""Transitions, queries and messages of the ledger as callers see them, on a SQLite file and on PostgreSQL."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from storage.audit_kinds import AuditKind
from storage.commands import CancelRequest, RenewPassword, RetryProvision, RevokeGrant, TimeOutRequest
from storage.errors import LedgerUnavailable, LimitReached, NoSuchRequest, NotPossible
from storage.ledger import Ledger
from storage.lifecycle import TRANSITIONS
from storage.records import Cause, Purpose, Request, RequestKind, State, TaskKind, UsageCounts, Verdict
from storage.schema import audit_events, audit_texts, lockdowns
from storage.transitions import Obstacle, TaskPlan, Transition
from tests.unit.ledgers import (
    HOUR,
    LEASE,
    RECEIPT,
    START,
    TARGET,
    TurnableClock,
    approve,
    bring,
    command_for,
    draft,
    execute,
    open_ledger,
    terms,
)

ALL = [transition for transition in TRANSITIONS if transition is not Transition.REQUEST]


async def everything(ledger: Ledger, request_id: int) -> tuple[object, ...]:
    """Everything that the ledger stores about a request."""
    return (
        await ledger.requests.get(request_id),
        await ledger.requests.decisions(request_id),
        await ledger.messages.of(request_id),
        await ledger.tasks.all(request_id=request_id),
        await ledger.audit.history(request_id),
    )


async def kinds(ledger: Ledger, request_id: int) -> list[TaskKind]:
    return [task.kind for task in await ledger.tasks.all(request_id=request_id)]


# Every transition from every state.


async def prepared(ledger: Ledger, clock: TurnableClock, transition: Transition, state: State) -> Request:
    """A request in this state, ready to pass all guards of the transition."""
    if transition is Transition.APPROVE_STAGE:
        return (await ledger.requests.submit(draft(counts=(2,))))[0]
    if transition is Transition.APPLY_EXTENSION:
        return (await extension(ledger, clock))[1]
    if transition is Transition.SIGN_OFF:
        return await bring(ledger, clock, state, kind=RequestKind.BREAK_GLASS)
    request = await bring(ledger, clock, state)
    if transition in (Transition.ACTIVATE, Transition.RETRY_PROVISION):
        request = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    if transition is Transition.TIME_OUT:
        clock.turn(24 * HOUR)
    return request


@pytest.mark.parametrize("state", State)
async def test_a_transition_from_another_state_changes_nothing(
    ledger: Ledger, clock: TurnableClock, state: State
) -> None:
    request = await bring(ledger, clock, state)
    before = await everything(ledger, request.id)
    for transition in [t for t in ALL if state not in TRANSITIONS[t].sources]:
        with pytest.raises(NotPossible) as lost:
            await ledger.requests.advance(request.id, command_for(transition, request))
        assert (lost.value.obstacle, lost.value.request) == (Obstacle.STATE, request), transition
    assert await everything(ledger, request.id) == before


@pytest.mark.parametrize(
    ("transition", "state"), [(t, state) for t in ALL for state in State if state in TRANSITIONS[t].sources]
)
async def test_a_transition_commits_with_its_event_tasks_and_version(
    ledger: Ledger, clock: TurnableClock, transition: Transition, state: State
) -> None:
    rule = TRANSITIONS[transition]
    request = await prepared(ledger, clock, transition, state)
    events = await ledger.audit.history(request.id)
    after = await ledger.requests.advance(request.id, command_for(transition, request))
    assert after.state is (rule.target or state)
    assert after.version == request.version + 1
    (event,) = (await ledger.audit.history(request.id))[len(events) :]
    assert event.kind == rule.audit
    assert event.facts["state"] == after.state
    assert event.at == clock()
    planned = {plan.kind for planner in rule.tasks if (plan := planner(after, clock()))}
    assert planned <= set(await kinds(ledger, request.id))
    assert not (set(rule.clears) - planned) & set(await kinds(ledger, request.id))
    assert await ledger.requests.get(request.id) == after


async def test_a_grant_passes_through_its_whole_life(ledger: Ledger, clock: TurnableClock) -> None:
    asked, is_new = await ledger.requests.submit(draft())
    assert is_new
    assert asked.state is State.PENDING
    assert re.fullmatch(r"[a-z0-9]{16}", asked.key)
    assert (asked.requested_at, asked.lapses_at) == (START, START + 24 * HOUR)
    assert asked.terms == draft().terms
    clock.turn(timedelta(minutes=5))
    approved = await approve(ledger, asked)
    assert approved.state is State.APPROVED
    assert (approved.approved_at, approved.start_before) == (clock(), clock() + HOUR)
    assert (approved.username, approved.target) == (f"jit_{asked.id}_ada_{asked.key[:4]}", TARGET)
    revocation = next(t for t in await ledger.tasks.all(request_id=asked.id) if t.kind is TaskKind.REVOKE)
    assert revocation.due_at == clock() + HOUR + 2 * HOUR
    clock.turn(timedelta(minutes=10))
    started = await ledger.requests.advance(asked.id, command_for(Transition.START, asked))
    assert (started.started_at, started.expires_at) == (clock(), clock() + 2 * HOUR)
    assert started.identity == "server-1"
    moved = next(t for t in await ledger.tasks.all(request_id=asked.id) if t.kind is TaskKind.REVOKE)
    assert (moved.id, moved.due_at) == (revocation.id, started.expires_at)
    active = await ledger.requests.advance(asked.id, command_for(Transition.ACTIVATE, asked))
    assert (active.activated_at, active.unsettled_until) == (clock(), None)
    clock.turn(2 * HOUR)
    ending = await ledger.requests.advance(asked.id, RevokeGrant(actor="clock", cause=Cause.EXPIRED))
    assert (ending.ended_because, ending.ended_by, ending.ended_at) == (Cause.EXPIRED, "clock", None)
    ended = await ledger.requests.advance(asked.id, command_for(Transition.CONFIRM, asked))
    assert (ended.state, ended.ended_at) == (State.REVOKED, clock())
    assert ended.receipt == RECEIPT
    assert TaskKind.REVOKE not in await kinds(ledger, asked.id)
    assert [event.kind for event in await ledger.audit.history(asked.id)] == [
        AuditKind.REQUESTED,
        AuditKind.APPROVED,
        AuditKind.STARTED,
        AuditKind.ACTIVATED,
        AuditKind.REVOKING,
        AuditKind.REVOKED,
    ]


# Submitting.


async def test_an_identical_request_is_not_created_twice(ledger: Ledger) -> None:
    first, _ = await ledger.requests.submit(draft())
    again, is_new = await ledger.requests.submit(draft(reason="clicked again"))
    assert (again, is_new) == (first, False)
    for other in (draft(level="write"), draft(person="U2"), draft(database="b"), draft(terms=terms(duration=HOUR))):
        assert (await ledger.requests.submit(other))[1]
    await ledger.requests.advance(first.id, command_for(Transition.CANCEL, first))
    assert (await ledger.requests.submit(draft()))[0].id != first.id


async def test_ids_are_never_reused(ledger: Ledger) -> None:
    """Even if the newest rows were removed: a username contains the id and must not name another request."""
    first, _ = await ledger.requests.submit(draft())
    for table in ("audit_texts", "audit_events", "tasks", "messages", "requests"):
        await execute(ledger, f"DELETE FROM {table}")
    second, _ = await ledger.requests.submit(draft())
    assert second.id > first.id
    assert second.key != first.key


async def test_an_unknown_id_is_no_such_request(ledger: Ledger) -> None:
    for attempt in (ledger.requests.get(99), ledger.requests.advance(99, CancelRequest(actor="U1"))):
        with pytest.raises(NoSuchRequest, match="#99"):
            await attempt


# Deciding.


async def test_a_count_of_two_needs_two_people(ledger: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft(counts=(2,)))
    once = await approve(ledger, request, "U01LEAD")
    assert (once.state, once.username) == (State.PENDING, None)
    with pytest.raises(NotPossible) as lost:
        await approve(ledger, request, "U01LEAD")
    assert lost.value.obstacle is Obstacle.ALREADY_DECIDED
    assert [d.person_id for d in lost.value.decisions] == ["U01LEAD"]
    assert (await ledger.requests.get(request.id)).state is State.PENDING
    twice = await approve(ledger, request, "U02LEAD")
    assert twice.state is State.APPROVED
    assert [d.person_id for d in await ledger.requests.decisions(request.id)] == ["U01LEAD", "U02LEAD"]


async def test_stages_are_completed_one_after_the_other(ledger: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft(counts=(1, 1)))
    with pytest.raises(NotPossible) as lost:
        await approve(ledger, request, "U2", stage=1)
    assert lost.value.obstacle is Obstacle.STAGE_MOVED_ON
    await approve(ledger, request, "U1", stage=0)
    with pytest.raises(NotPossible) as lost:
        await approve(ledger, request, "U3", stage=0)
    assert lost.value.obstacle is Obstacle.STAGE_MOVED_ON
    done = await approve(ledger, request, "U2", stage=1)
    assert done.state is State.APPROVED


async def test_a_shorter_approval_shortens_the_grant(ledger: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft())
    shorter = timedelta(minutes=30, microseconds=1)
    approved = await approve(ledger, request, duration=shorter)
    assert (approved.duration, approved.terms.duration) == (shorter, 2 * HOUR)
    assert (await ledger.requests.decisions(request.id))[0].duration == shorter
    started = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    assert started.expires_at == START + shorter


async def test_a_denial_stores_its_cause_its_note_and_its_decision(ledger: Ledger) -> None:
    request = await ledger.requests.advance(1, command_for(Transition.DENY, (await ledger.requests.submit(draft()))[0]))
    assert (request.ended_because, request.ended_by, request.ended_note) == (Cause.DENIED, "U01LEAD", "not today")
    (decision,) = await ledger.requests.decisions(request.id)
    assert decision.verdict is Verdict.DENY
    assert await kinds(ledger, request.id) == [TaskKind.POST_CARD, TaskKind.UPDATE_CARD, TaskKind.NOTIFY_REQUESTER]


# Lockdowns. Their commands come later; a row is in force already.


async def lock(ledger: Ledger, *, database: str | None = None, person: str | None = None) -> None:
    row = {"database": database, "person_id": person, "locked_by": "U01ADMIN", "at": START}
    await execute(ledger, insert(lockdowns).values(**row))


@pytest.mark.parametrize(("database", "person"), [(None, None), ("orders-prod", None), (None, "U01REQUESTER")])
async def test_a_lockdown_stops_approval_and_start_of_matching_requests(
    ledger: Ledger, database: str | None, person: str | None
) -> None:
    pending, _ = await ledger.requests.submit(draft())
    approved, _ = await ledger.requests.submit(draft(level="write"))
    await approve(ledger, approved)
    await lock(ledger, database=database, person=person)
    for request, transition in ((pending, Transition.APPROVE), (approved, Transition.START)):
        with pytest.raises(NotPossible) as lost:
            await ledger.requests.advance(request.id, command_for(transition, request))
        assert lost.value.obstacle is Obstacle.LOCKED_DOWN
    ending = await ledger.requests.advance(approved.id, RevokeGrant(actor="lockdown", cause=Cause.LOCKDOWN))
    assert ending.state is State.REVOKING


async def test_a_lockdown_of_another_database_or_person_has_no_effect(ledger: Ledger) -> None:
    await lock(ledger, database="another")
    await lock(ledger, person="U99")
    request, _ = await ledger.requests.submit(draft())
    assert (await approve(ledger, request)).state is State.APPROVED


# The audit log.


async def test_personal_text_is_stored_apart_and_can_be_erased(ledger: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft(reason="for my own account 4711"))
    event = await ledger.database.read(lambda tx: tx.execute(select(audit_events)).mappings().one())
    text = await ledger.database.read(lambda tx: tx.execute(select(audit_texts)).mappings().one())
    assert "4711" not in str(dict(event))
    assert text["text"] == "for my own account 4711"
    assert event["text_digest"] == hashlib.sha256(text["salt"] + text["text"].encode()).hexdigest()
    assert (event["sequence"], event["hash"]) == (None, None)
    await execute(ledger, delete(audit_texts))
    (erased,) = await ledger.audit.history(request.id)
    assert erased.text is None


async def test_an_event_without_a_transition_schedules_the_feed(ledger: Ledger) -> None:
    await ledger.audit.record(AuditKind.ALERT, actor="bot", facts={"what": "drop failed"}, text="by hand")
    await ledger.audit.record(AuditKind.ALERT, actor="bot")
    (feed,) = await ledger.tasks.all()
    assert (feed.kind, feed.lock_key, feed.request_id) == (TaskKind.AUDIT_FEED, "message:feed", None)
    first, second = await ledger.audit.events_after(0, limit=10)
    assert (first.facts, first.text, second.facts, second.text) == ({"what": "drop failed"}, "by hand", {}, None)
    assert await ledger.audit.events_after(first.id, limit=10) == (second,)
    assert await ledger.audit.events_after(0, limit=1) == (first,)


async def test_a_cursor_is_stored(ledger: Ledger, replica: Ledger) -> None:
    assert await ledger.observations.cursor("feed") == 0
    await ledger.observations.set_cursor("feed", 7)
    await ledger.observations.set_cursor("feed", 9)
    assert (await replica.observations.cursor("feed"), await replica.observations.cursor("seal")) == (9, 0)


async def test_facts_of_a_command_are_in_its_audit_event(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.ACTIVE)
    after = await ledger.requests.advance(request.id, RenewPassword(actor="U01REQUESTER", facts={"try": 1}))
    assert (after.state, after.version) == (State.ACTIVE, request.version + 1)
    event = (await ledger.audit.history(request.id))[-1]
    assert (event.kind, event.actor, event.facts["try"]) == (AuditKind.PASSWORD_RENEWED, "U01REQUESTER", 1)


async def test_retrying_the_provisioning_leaves_the_expiry(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    started = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    clock.turn(HOUR / 2)
    again = await ledger.requests.advance(request.id, RetryProvision(actor="bot", unsettled_until=START + HOUR))
    assert again == replace(started, version=started.version + 1, unsettled_until=START + HOUR)


# Messages.


async def test_messages_are_written_with_the_transition_and_posted_later(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    card, credentials = await ledger.messages.of(request.id)
    assert (card.purpose, card.channel, card.ts) == (Purpose.CARD, "C01DBACCESS", None)
    assert (credentials.purpose, credentials.channel) == (Purpose.CREDENTIALS, request.requester_id)
    copy = await ledger.messages.add(request.id, Purpose.CARD_COPY, "U01LEAD")
    await ledger.messages.posted(copy.id, channel="D01", ts="1.2", version=2)
    await ledger.messages.rendered(copy.id, 3)
    (found,) = await ledger.messages.of(request.id, Purpose.CARD_COPY)
    assert (found.channel, found.ts, found.version) == ("D01", "1.2", 3)
    await ledger.messages.deleted(copy.id)
    (gone,) = await ledger.messages.of(request.id, Purpose.CARD_COPY)
    assert gone.ts is None
    assert await ledger.messages.of(request.id, Purpose.CARD) == (card,)


# Queries.


async def test_lists_filter_by_state_person_and_database_with_the_newest_first(
    ledger: Ledger, clock: TurnableClock
) -> None:
    found = {
        state: await bring(ledger, clock, state, database=state.name) for state in State if state is not State.APPLIED
    }
    live = [found[s] for s in (State.REVOKING, State.ACTIVE, State.APPROVED)]
    ids = lambda records: [r.id for r in records]  # noqa: E731
    assert ids(await ledger.requests.live_grants()) == sorted(ids(live), reverse=True)
    assert ids(await ledger.requests.pending()) == [found[State.PENDING].id]
    everyone = await ledger.requests.find()
    assert ids(everyone) == sorted(ids(found.values()), reverse=True)
    assert await ledger.requests.find(limit=2) == everyone[:2]
    active = found[State.ACTIVE]
    assert await ledger.requests.live_grants(person_id=active.requester_id) == (active,)
    assert await ledger.requests.find(database="ACTIVE") == (active,)
    assert await ledger.requests.live_grants(database="PENDING") == ()
    assert await ledger.requests.pending(person_id=active.requester_id) == ()


# Time.


async def test_times_come_back_aware_in_utc_with_microseconds(ledger: Ledger, clock: TurnableClock) -> None:
    odd = datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45)))
    clock.time = odd
    request, _ = await ledger.requests.submit(draft())
    again = await ledger.requests.get(request.id)
    assert again.requested_at == odd
    assert again.requested_at.tzinfo is UTC
    (event,) = await ledger.audit.history(request.id)
    assert (event.at, event.at.tzinfo) == (odd, UTC)
    assert all(t.due_at.tzinfo is UTC and t.created_at.tzinfo is UTC for t in await ledger.tasks.all())


async def test_a_time_without_zone_is_refused(ledger: Ledger, clock: TurnableClock) -> None:
    clock.time = START.replace(tzinfo=None)
    with pytest.raises(LedgerUnavailable, match="StatementError"):
        await ledger.requests.submit(draft())


async def test_without_a_test_clock_the_database_gives_the_time(ledger_url: str) -> None:
    ledger = await open_ledger(ledger_url)
    before = datetime.now(UTC)
    now = await ledger.now()
    request, _ = await ledger.requests.submit(draft())
    await ledger.close()
    assert now.tzinfo is not None
    assert abs(now - before) < timedelta(seconds=5)
    assert now <= request.requested_at < now + timedelta(seconds=5)


# Claims and transitions.


async def test_a_transition_under_a_lost_claim_changes_nothing(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    claim = await _claimed(ledger, TaskKind.PROVISION)
    clock.turn(LEASE)
    before = await everything(ledger, request.id)
    for lost_claim in (claim, replace(claim, number=claim.number + 1)):
        with pytest.raises(NotPossible) as lost:
            await ledger.requests.advance(request.id, command_for(Transition.START, request), claim=lost_claim)
        assert lost.value.obstacle is Obstacle.CLAIM_LOST
    assert await everything(ledger, request.id) == before
    retaken = await _claimed(ledger, TaskKind.PROVISION)
    with pytest.raises(NotPossible):
        await ledger.requests.advance(request.id, command_for(Transition.START, request), claim=claim)
    started = await ledger.requests.advance(request.id, command_for(Transition.START, request), claim=retaken)
    assert started.started_at == clock()


async def test_a_claimed_revocation_is_not_cleared(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.REVOKING)
    claim = await _claimed(ledger, TaskKind.REVOKE)
    await ledger.requests.advance(request.id, command_for(Transition.CONFIRM, request))
    await ledger.tasks.check_claim(claim)
    await ledger.tasks.finish(claim)
    assert TaskKind.REVOKE not in await kinds(ledger, request.id)


async def _claimed(ledger: Ledger, kind: TaskKind):
    """Claim and finish tasks until one has this kind."""
    while (claim := await ledger.tasks.claim("worker", LEASE)) is not None:
        if claim.task.kind is kind:
            return claim
        await ledger.tasks.finish(claim)
    raise AssertionError(f"no {kind} is due")


async def test_transitions_of_one_request_leave_all_others_as_they_were(ledger: Ledger, clock: TurnableClock) -> None:
    others = [await bring(ledger, clock, state) for state in State]
    before = [await everything(ledger, other.id) for other in others]
    await bring(ledger, clock, State.REVOKED, database="elsewhere")
    assert [await everything(ledger, other.id) for other in others] == before
    assert len(await ledger.requests.find()) == len(others) + 2, "an applied extension has its grant"


# Extensions: a request that moves the end of another one.


async def extension(ledger: Ledger, clock: TurnableClock, **terms: Any) -> tuple[Request, Request]:
    grant = await bring(ledger, clock, State.ACTIVE)
    more = draft(person=grant.requester_id)
    more = replace(
        more, kind=RequestKind.EXTENSION, parent_id=grant.id, terms=replace(more.terms, duration=HOUR, **terms)
    )
    asked, _ = await ledger.requests.submit(more)
    return grant, asked


async def test_an_applied_extension_moves_the_end_the_revocation_and_the_warning(
    ledger: Ledger, clock: TurnableClock
) -> None:
    grant, asked = await extension(ledger, clock)
    assert grant.expires_at is not None
    applied = await approve(ledger, asked)
    after = await ledger.requests.get(grant.id)
    assert (applied.state, after.state) == (State.APPLIED, State.ACTIVE)
    assert after.expires_at == grant.expires_at + HOUR
    due = {task.kind: task.due_at for task in await ledger.tasks.all(request_id=grant.id)}
    assert due[TaskKind.REVOKE] == after.expires_at
    assert grant.expires_at < due[TaskKind.WARN_BEFORE_END] < after.expires_at
    assert due[TaskKind.MOVE_EXPIRY] == clock()
    assert [e.kind for e in await ledger.audit.history(grant.id)][-1] == AuditKind.EXTENDED


async def test_an_extension_of_an_ended_grant_cannot_be_approved(ledger: Ledger, clock: TurnableClock) -> None:
    grant, asked = await extension(ledger, clock)
    assert asked.lapses_at == grant.expires_at
    await ledger.requests.advance(grant.id, RevokeGrant(actor=grant.requester_id, cause=Cause.DONE))
    with pytest.raises(NotPossible) as lost:
        await approve(ledger, asked)
    assert lost.value.obstacle is Obstacle.GRANT_ENDED
    assert [t.due_at for t in await ledger.tasks.all(request_id=asked.id) if t.kind is TaskKind.TIME_OUT] == [clock()]
    lapsed = await ledger.requests.advance(asked.id, TimeOutRequest(actor="clock"))
    assert lapsed.state is State.LAPSED
    with pytest.raises(NotPossible):
        await ledger.requests.submit(replace(draft(), kind=RequestKind.EXTENSION, parent_id=grant.id))


async def test_an_extension_cannot_exceed_max_total(ledger: Ledger, clock: TurnableClock) -> None:
    grant, asked = await extension(ledger, clock)
    assert grant.expires_at is not None
    assert grant.started_at is not None
    life = grant.expires_at - grant.started_at
    _, late = await extension(ledger, clock, max_total=life + HOUR / 2)
    with pytest.raises(NotPossible) as lost:
        await approve(ledger, late)
    assert lost.value.obstacle is Obstacle.TOO_LONG
    assert (await approve(ledger, asked)).state is State.APPLIED


async def test_submit_counts_the_usage_again_and_may_refuse(ledger: Ledger, clock: TurnableClock) -> None:
    seen: list[UsageCounts] = []
    for number in (1, 2, 3):
        mine = draft(reason=f"reason {number}")
        await ledger.requests.submit(replace(mine, terms=replace(mine.terms, duration=number * HOUR)))
    await bring(ledger, clock, State.ACTIVE)
    with pytest.raises(LimitReached):
        await ledger.requests.submit(draft(database="other"), is_allowed=lambda usage: seen.append(usage) is not None)
    assert seen[0].waiting_of_person == 3
    assert (await ledger.requests.usage("nobody", "orders-prod", now=clock())).live_of_database == 1


async def test_an_event_whose_task_cannot_be_stored_is_not_stored(ledger: Ledger, clock: TurnableClock) -> None:
    plan = TaskPlan(kind=TaskKind.ALERT, lock_key="message:alert:1", due_at=clock(), payload={"since": object()})
    with pytest.raises((LedgerUnavailable, TypeError)):
        await ledger.audit.record(AuditKind.ALERT, actor="bot", facts={"what": "changed"}, plan=plan)
    assert await ledger.audit.events_after(0, limit=100) == ()
