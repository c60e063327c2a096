"""The ledger fails at one transaction after the other and then works again. No access is left without its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import pytest

from bot.access import request_access
from storage.errors import LedgerError, LedgerUnavailable
from storage.ledger import Ledger
from storage.records import Request, State
from tests.access.environment import ADA, HOUR, AccessEnvironment
from tests.soak import IS_SOAK

STRIDE = 1 if IS_SOAK else 4
"""`make soak` fails each transaction, `make test` every fourth."""


@contextmanager
def away_at(ledger: Ledger, number: int) -> Iterator[list[int]]:
    """Make the transaction with this number fail. The list counts the transactions."""
    write, begun = ledger.database.write, [0]

    async def counted(work: Any, **how: Any) -> Any:
        begun[0] += 1
        if begun[0] == number:
            raise LedgerUnavailable("away")
        return await write(work, **how)

    ledger.database.write = counted  # type: ignore[method-assign]
    try:
        yield begun
    finally:
        del ledger.database.write  # type: ignore[method-assign]


async def live_through(environment: AccessEnvironment, request: Request, number: int) -> int:
    """Run from the request to the live grant. Returns the number of transactions."""
    with away_at(environment.ledger, number) as begun:
        with suppress(LedgerError):
            await environment.approve(request)
        for _ in range(3):
            with suppress(LedgerError):
                await environment.drain()
    return begun[0]


async def ends(environment: AccessEnvironment, request: Request) -> None:
    """End the grant, in whatever state it is."""
    await environment.turn(minutes=4)  # leases run out
    if (await environment.now(request)).state is State.PENDING:
        await request_access.cancel(environment.context, await environment.person(ADA), request.id)
        return
    environment.clock.at += 2 * HOUR
    await environment.turn(minutes=4)
    assert (await environment.now(request)).state is State.REVOKED


@pytest.mark.timeout(900)
async def test_ledger_failure_at_each_transaction_leaves_no_access(environment: AccessEnvironment) -> None:
    for number in count(1, STRIDE):
        request = await environment.ask(reason=f"looking at number {number}", duration=HOUR + HOUR * number / 3600)
        begun = await live_through(environment, request, number)
        await ends(environment, request)
        assert environment.server.users == {}, number
        if begun < number:
            break
    assert number > 15, "each transaction of a run was reached"
