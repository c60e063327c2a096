"""Recovery mode: what it refuses, what it lets through, what counts as evidence, and how the numbers go on. On both stores."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, delete, select

from storage.alerts import AlertDraft
from storage.audit_kinds import AuditKind
from storage.commands import CancelRequest, FailGrant, RevokeGrant
from storage.errors import InRecovery, NotPossible
from storage.keys import CHECK_LENGTH, KEY_LENGTH, is_key_of, random_key, request_key
from storage.ledger import Ledger
from storage.lifecycle import TRANSITIONS
from storage.numbers import known_number, last_number, raise_numbers
from storage.records import Cause, State
from storage.recovery import CAUSE, EVIDENCE_AT_MOST, MarkedUser, RecoveryReason
from storage.schema import audit_events, audit_texts, decisions, messages, requests, tasks
from storage.transitions import Obstacle, Transition
from tests.unit.ledgers import TurnableClock, approve, bring, command_for, draft

DRAFT = AlertDraft(cause=CAUSE, what="The ledger is in recovery mode.")


async def enter(ledger: Ledger, *evidence: str) -> bool:
    return await ledger.recovery.enter(RecoveryReason.UNKNOWN_USER, evidence or ("jit_99_x_abcd is unknown",), DRAFT)


async def resume(ledger: Ledger, found: int = 0) -> bool:
    return await ledger.recovery.resume("cli:ops", found=found, resolution="It is over.") is not None


async def obstacle(ledger: Ledger, transition: Transition, number: int) -> Obstacle:
    request = await ledger.requests.get(number)
    with pytest.raises(NotPossible) as lost:
        await ledger.requests.advance(number, command_for(transition, request))
    return lost.value.obstacle


async def test_recovery_mode_refuses_each_transition_that_grants(ledger: Ledger, clock: TurnableClock) -> None:
    pending, _ = await ledger.requests.submit(draft())
    approved = await approve(ledger, (await ledger.requests.submit(draft(level="write")))[0])
    await enter(ledger)
    with pytest.raises(InRecovery):
        await ledger.requests.submit(draft(level="third"))
    assert await obstacle(ledger, Transition.APPROVE, pending.id) is Obstacle.IN_RECOVERY
    assert await obstacle(ledger, Transition.START, approved.id) is Obstacle.IN_RECOVERY
    await resume(ledger)
    started = await ledger.requests.advance(approved.id, command_for(Transition.START, approved))
    await enter(ledger)
    assert await obstacle(ledger, Transition.RETRY_PROVISION, started.id) is Obstacle.IN_RECOVERY
    assert await obstacle(ledger, Transition.ACTIVATE, started.id) is Obstacle.IN_RECOVERY


async def test_recovery_mode_refuses_no_end(ledger: Ledger, clock: TurnableClock) -> None:
    cancelled, denied = [(await ledger.requests.submit(draft(level=level)))[0] for level in ("one", "two")]
    failed = await approve(ledger, (await ledger.requests.submit(draft(level="three")))[0])
    active = await bring(ledger, clock, State.ACTIVE)
    await enter(ledger)
    await ledger.requests.advance(cancelled.id, CancelRequest(actor="U01REQUESTER"))
    await ledger.requests.advance(denied.id, command_for(Transition.DENY, denied))
    assert (await ledger.requests.advance(failed.id, FailGrant(actor="bot"))).state is State.REVOKING
    ending = await ledger.requests.advance(active.id, RevokeGrant(actor="U01ADMIN", cause=Cause.REVOKED))
    ended = await ledger.requests.advance(active.id, command_for(Transition.CONFIRM, ending))
    assert ended.state is State.REVOKED


def test_only_transitions_that_grant_are_refused() -> None:
    refused = {
        name for name, rule in TRANSITIONS.items() if any(one.__name__ == "not_in_recovery" for one in rule.guards)
    }
    assert refused == {
        Transition.APPROVE,
        Transition.APPLY_EXTENSION,
        Transition.START,
        Transition.RETRY_PROVISION,
        Transition.ACTIVATE,
    }


async def test_entering_twice_is_one_recovery_with_one_alert_and_one_event(ledger: Ledger, replica: Ledger) -> None:
    assert await enter(ledger, *(f"user {number} is unknown" for number in range(50)))
    assert not await enter(replica, "another")
    found = await replica.recovery.current()
    assert found is not None
    assert (found.reason, len(found.evidence), found.evidence[0]) == (
        RecoveryReason.UNKNOWN_USER,
        EVIDENCE_AT_MOST,
        "user 0 is unknown",
    )
    assert [alert.what for alert in await ledger.alerts.open(prefix=CAUSE)] == [DRAFT.what]
    assert await resume(replica)
    assert not await resume(ledger), "it has ended"
    assert await ledger.recovery.current() is None
    assert await ledger.alerts.open(prefix=CAUSE) == ()
    kinds = [event.kind for event in await ledger.audit.events_after(0, limit=100)]
    assert kinds.count(AuditKind.RECOVERY_ENTERED) == kinds.count(AuditKind.RECOVERY_ENDED) == 1


# Numbers.


async def test_numbers_never_go_back_after_rows_were_removed(ledger: Ledger) -> None:
    for level in ("one", "two", "three"):
        await ledger.requests.submit(draft(level=level))
    await remove_requests(ledger)
    assert await ledger.database.read(last_number) == 3
    assert await ledger.database.read(known_number) == 3, "a removed request is explained"


async def remove_requests(ledger: Ledger, above: int = 0) -> None:
    """Remove the rows, as retention does, or as a failover that lost the newest transactions."""

    def work(tx: Connection) -> None:
        events = select(audit_events.c.id).where(audit_events.c.request_id > above)
        tx.execute(delete(audit_texts).where(audit_texts.c.event_id.in_(events)))
        for table in (tasks, messages, decisions, audit_events):
            tx.execute(delete(table).where(table.c.request_id > above))
        tx.execute(delete(requests).where(requests.c.id > above))

    await ledger.database.write(work)


async def test_numbers_are_raised_and_never_lowered(ledger: Ledger) -> None:
    assert await ledger.database.read(last_number) == 0
    for number, last in ((1000, 1000), (7, 1000)):
        await ledger.database.write(lambda tx, number=number: raise_numbers(tx, number))
        assert await ledger.database.read(last_number) == last
    assert (await ledger.requests.submit(draft()))[0].id == 1001


async def test_after_the_return_to_normal_numbers_are_above_every_user(ledger: Ledger) -> None:
    await ledger.requests.submit(draft())
    await enter(ledger)
    await resume(ledger, found=500)
    assert (await ledger.requests.submit(draft(level="write")))[0].id == 501
    left = MarkedUser(username="jit_499_x_abcd", request_id=499)
    assert await ledger.recovery.unexplained([left]) == (), "it was there at the return to normal"


# Evidence: users.


async def test_user_of_a_started_grant_is_explained(ledger: Ledger, clock: TurnableClock) -> None:
    active = await bring(ledger, clock, State.ACTIVE)
    assert await ledger.recovery.unexplained([user_of(active.id, str(active.username))]) == ()
    assert await ledger.recovery.unexplained([]) == ()


def user_of(number: int, username: str = "jit_1_x_abcd") -> MarkedUser:
    return MarkedUser(username=username, request_id=number)


async def test_user_with_a_higher_number_is_evidence(ledger: Ledger, clock: TurnableClock) -> None:
    active = await bring(ledger, clock, State.ACTIVE)
    higher = user_of(active.id + 1)
    assert await ledger.recovery.unexplained([user_of(active.id, str(active.username)), higher]) == (higher,)


async def test_user_of_a_grant_that_never_started_is_evidence(ledger: Ledger) -> None:
    """The copy is older than the approval, or than the start."""
    pending = (await ledger.requests.submit(draft()))[0]
    assert await ledger.recovery.unexplained([user_of(pending.id)]) == (user_of(pending.id),)
    approved = await approve(ledger, pending)
    found = user_of(approved.id, str(approved.username))
    assert await ledger.recovery.unexplained([found]) == (found,)
    await enter(ledger)
    await resume(ledger)
    assert await ledger.recovery.unexplained([found]) == (), "an operator knows of it"


async def test_user_with_another_name_than_its_number_had_is_evidence(ledger: Ledger, clock: TurnableClock) -> None:
    """The number was given twice."""
    active = await bring(ledger, clock, State.ACTIVE)
    found = user_of(active.id, "jit_1_another_zzzz")
    assert await ledger.recovery.unexplained([found]) == (found,)


async def test_user_of_a_request_that_retention_removed_is_no_evidence(ledger: Ledger) -> None:
    for level in ("one", "two"):
        await ledger.requests.submit(draft(level=level))
    await remove_requests(ledger)
    assert await ledger.recovery.unexplained([user_of(1), user_of(2)]) == ()


async def test_failover_that_lost_the_newest_requests_is_found(ledger: Ledger, clock: TurnableClock) -> None:
    """On PostgreSQL the sequence of the new server is ahead by up to 32 numbers, so it alone would hide the loss."""
    if ledger.is_sqlite:
        pytest.skip("a file has no failover")
    await bring(ledger, clock, State.ACTIVE)
    lost = await bring(ledger, clock, State.ACTIVE)
    await remove_requests(ledger, above=lost.id - 1)
    found = user_of(lost.id, str(lost.username))
    assert await ledger.recovery.unexplained([found]) == (found,)


# Evidence: clicks.


def test_key_shows_its_ledger() -> None:
    key = request_key("ledgerone")
    assert (len(key), is_key_of(key, "ledgerone"), is_key_of(key, "ledgertwo")) == (KEY_LENGTH, True, False)
    assert set(key) <= set(random_key(10_000)), "the alphabet is the same"
    assert len({request_key("ledgerone")[:-CHECK_LENGTH] for _ in range(100)}) == 100
    old = [random_key() for _ in range(1000)]
    assert sum(is_key_of(one, "ledgerone") for one in old) <= 1, "an old key is no evidence"
    assert not is_key_of("", "ledgerone")
    assert not is_key_of(key[1:], "ledgerone")


async def test_click_on_a_lost_request_is_evidence(ledger: Ledger) -> None:
    request = (await ledger.requests.submit(draft()))[0]
    key = request_key(ledger.id)

    async def is_lost(number: int, key: str) -> bool:
        return await ledger.recovery.is_lost_request(number, key, ledger=ledger.id)

    assert not await is_lost(request.id, request.key)
    assert await is_lost(request.id + 1, key), "a higher number"
    assert await is_lost(request.id, key), "the number was given again"
    assert not await is_lost(request.id + 1, random_key(12) + "0000"), "an old card, or one of another ledger"
    assert not await is_lost(request.id + 1, request_key("another"))
    await enter(ledger)
    await resume(ledger, found=50)
    assert not await is_lost(request.id + 1, key), "an operator knows of it"
    assert await is_lost(51, key)


async def test_new_requests_have_keys_of_their_ledger(ledger: Ledger) -> None:
    request = (await ledger.requests.submit(draft()))[0]
    assert is_key_of(request.key, ledger.id)
    assert request.token == f"{request.id}.{request.key}"
    stored = await ledger.database.read(lambda tx: tx.execute(select(requests.c.key)).scalar_one())
    assert stored == request.key


async def test_number_of_an_unknown_user_is_not_given_again_after_the_user_was_ended(ledger: Ledger) -> None:
    """The operator ends what is left and then returns to normal: the servers show the number no more."""
    first, _ = await ledger.requests.submit(draft())
    await enter(ledger)
    for number in (first.id + 7, first.id + 3):
        await ledger.recovery.enter(RecoveryReason.UNKNOWN_USER, ("jit_8_x_abcd is unknown",), DRAFT, number=number)
    await resume(ledger)
    assert (await ledger.requests.submit(draft(level="write")))[0].id == first.id + 8
