"""What a job is given, how it says that it must be tried again, and when."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar

from bot.access.context import Context
from storage.commands import Command
from storage.records import Json, Request, TaskKind
from storage.task_queue import Claim

ALERT_AT = 3
ALERT_EVERY = 20
BACKOFF_CAP = 60.0

LOOK_SECONDS = 0.5
"""How often it is asked whether the end of a grant is due, while Slack does not answer."""

T = TypeVar("T")


class Retry(Exception):
    """Not done yet: put the task back until ``at``, or for the usual back-off where None.

    ``is_untried``: it only came too early. Its next run is its first try, and waits behind nobody's retries.
    """

    def __init__(self, why: str, *, at: datetime | None = None, is_untried: bool = False) -> None:
        super().__init__(why)
        self.at = at
        self.is_untried = is_untried


@dataclass
class JobContext:
    """One run of one task, under a lease that the runner renews while the effect lives."""

    context: Context
    claim: Claim

    @property
    def payload(self) -> Json:
        """What the task row holds; never a secret."""
        return self.claim.task.payload

    @property
    def tries(self) -> int:
        """How often this task was begun, this time included."""
        return self.claim.task.attempts

    async def request(self) -> Request:
        """The request as it is now. Every effect reads it first: where the state is past it, it is done."""
        assert self.claim.task.request_id is not None, "this kind of task belongs to a request"
        return await self.context.ledger.request(self.claim.task.request_id)

    async def hold(self) -> None:
        """To be called before every step outside. Raises ClaimLost where another worker has the task."""
        await self.context.ledger.check_claim(self.claim)

    async def advance(self, request: Request, command: Command) -> Request:
        """``Ledger.advance`` under this claim. Raises NotPossible."""
        return await self.context.ledger.advance(request.id, command, claim=self.claim)

    async def unless_ending(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call to Slack in the lock key of a grant, and give it up as soon as the grant's end is due. Raises Retry then.

        The revocation runs in the same lock key: without this it would wait for as long as Slack takes.
        """
        calling = asyncio.ensure_future(call)
        try:
            while not calling.done():
                await asyncio.wait({calling}, timeout=await self._next_look())
            return calling.result()
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def _next_look(self) -> float:
        """In how many seconds to ask again whether the end is due. Raises Retry where it is."""
        ledger, request_id = self.context.ledger, self.claim.task.request_id
        assert request_id is not None, "the lock key of a grant"
        left = await ledger.time_until_due(TaskKind.REVOKE, request_id)
        if left is not None and left.total_seconds() <= 0:
            raise Retry("the end of the grant is due", at=await ledger.now())
        return LOOK_SECONDS if left is None else min(LOOK_SECONDS, left.total_seconds())


Job: TypeAlias = Callable[[Context, JobContext], Awaitable[None]]


def backoff(tries: int) -> timedelta:
    """1, 2, 4 … 60 seconds, each up to a quarter longer, so that many do not come back at once."""
    seconds = min(BACKOFF_CAP, 2.0 ** min(tries - 1, 10))
    return timedelta(seconds=seconds * (1 + random.random() / 4))  # noqa: S311 - spread, not secrecy


def is_alert_due(tries: int) -> bool:
    """At the third failed try of an end, then at every twentieth: with the back-off's cap about three an hour."""
    return tries == ALERT_AT or (tries > ALERT_AT and tries % ALERT_EVERY == 0)
