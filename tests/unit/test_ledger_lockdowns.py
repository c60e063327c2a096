"""Lockdowns in the ledger, on SQLite and PostgreSQL: one at a time, and no two transactions that wait for each other."""

from __future__ import annotations

import asyncio

from storage.commands import RevokeGrant
from storage.errors import NotPossible
from storage.ledger import Ledger
from storage.records import Cause, Lockdown, Request, State
from tests.unit.ledgers import approve, draft

EVERYTHING = {"database": None, "person_id": None, "person_name": None}
GRANTS = 40


async def lock(ledger: Ledger, by: str = "U01ADMIN") -> tuple[Lockdown, bool]:
    return await ledger.lockdowns.lock_down(**EVERYTHING, by=by, by_name="ada")


async def approved(ledger: Ledger, count: int) -> list[Request]:
    made = [(await ledger.requests.submit(draft(level=f"level-{n}")))[0] for n in range(count)]
    return [await approve(ledger, one) for one in made]


async def test_two_admins_who_lock_at_once_make_one_lockdown(ledger: Ledger, replica: Ledger) -> None:
    found = await asyncio.gather(*(lock(one, f"U0{n}") for n in range(4) for one in (ledger, replica)))
    assert sum(is_new for _, is_new in found) == 1
    assert len({one.id for one, _ in found}) == 1


async def test_ends_of_a_lockdown_and_other_ends_do_not_wait_for_each_other(ledger: Ledger, replica: Ledger) -> None:
    """People end the same grants on another replica, the newest first, while a lockdown ends them in chunks."""
    grants = await approved(ledger, GRANTS)
    found, _ = await lock(ledger)

    async def revoke(request: Request) -> object:
        return await replica.requests.advance(request.id, RevokeGrant(actor="U01LEAD", cause=Cause.REVOKED))

    async def end() -> int:
        chunks = [await ledger.lockdowns.end_grants(found.id, after=after, limit=20) for after in range(0, GRANTS, 20)]
        return sum(one.ended for one in chunks)

    ended, *others = await asyncio.gather(end(), *(revoke(one) for one in reversed(grants)), return_exceptions=True)
    assert {type(one).__name__ for one in others} <= {"NotPossible", "Request"}
    assert ended == sum(isinstance(one, NotPossible) for one in others)
    states = {one.state for one in (await ledger.requests.get_many([one.id for one in grants])).values()}
    assert states == {State.REVOKING}


async def test_unlock_while_other_transitions_look_at_the_lockdowns(ledger: Ledger, replica: Ledger) -> None:
    """Approvals elsewhere hold the rows of all lockdowns for reading, and then write their audit event."""
    one, _ = await ledger.lockdowns.lock_down(
        database="other", person_id=None, person_name=None, by="U01ADMIN", by_name="ada"
    )
    two, _ = await ledger.lockdowns.lock_down(
        database="third", person_id=None, person_name=None, by="U01ADMIN", by_name="ada"
    )
    made = [(await ledger.requests.submit(draft(level=f"level-{n}")))[0] for n in range(GRANTS)]
    lifted, *others = await asyncio.gather(
        ledger.lockdowns.unlock({one.id: None, two.id: None}, by="U02ADMIN", by_name="tom"),
        *(approve(replica, request) for request in made),
    )
    assert {found.unlocked_by_name for found in lifted} == {"tom"}
    assert {request.state for request in others} == {State.APPROVED}
    assert await ledger.lockdowns.unlock({one.id: None}, by="U03ADMIN", by_name="eve") == ()


async def test_a_lifted_lockdown_ends_nothing_more(ledger: Ledger) -> None:
    found, _ = await lock(ledger)
    await ledger.lockdowns.unlock({found.id: None}, by="U02ADMIN", by_name="tom")
    await approved(ledger, 1)
    assert (await ledger.lockdowns.end_grants(found.id, after=0, limit=10)).last is None
