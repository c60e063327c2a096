"""The context of a job (``JobContext``), its request for a retry (``Retry``), and the times of retries and alerts."""

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

ALERT_AT_TRY = 3
ALERT_EVERY_TRIES = 20
BACKOFF_MAX_SECONDS = 60.0

END_CHECK_SECONDS = 0.5
"""How often a job checks whether the end of its grant is due, while it waits for Slack."""

T = TypeVar("T")


class Retry(Exception):
    """The task is not done: put it back until ``at``, or for the usual back-off where that is None.

    ``is_untried``: the task only ran too early. Its next run counts as its first try, so it uses no slot of the retries.
    """

    def __init__(self, reason: str, *, at: datetime | None = None, is_untried: bool = False) -> None:
        super().__init__(reason)
        self.at = at
        self.is_untried = is_untried


@dataclass
class JobContext:
    """One run of one task, under a lease that the runner renews while the job runs."""

    context: Context
    claim: Claim

    @property
    def payload(self) -> Json:
        """The payload of the task. It never holds a secret."""
        return self.claim.task.payload

    @property
    def tries(self) -> int:
        """The number of times that this task has run, this run included."""
        return self.claim.task.attempts

    async def request(self) -> Request:
        """The request as it is now. Every job reads it first, and does nothing where the state has moved on. Raises NoSuchRequest."""
        assert self.claim.task.request_id is not None, "this kind of task belongs to a request"
        return await self.context.ledger.request(self.claim.task.request_id)

    async def check_claim(self) -> None:
        """Call this before every step outside the ledger. Raises ClaimLost where another worker has the task."""
        await self.context.ledger.check_claim(self.claim)

    async def advance(self, request: Request, command: Command) -> Request:
        """``Ledger.advance`` under this claim. Raises NotPossible; its obstacle is CLAIM_LOST where another worker has the task."""
        return await self.context.ledger.advance(request.id, command, claim=self.claim)

    async def unless_ending(self, call: Coroutine[Any, Any, T]) -> T:
        """Await a call to Slack, and give it up as soon as the end of the grant is due. Raises Retry then.

        The revocation has the same lock key: without this it would wait for as long as Slack takes.
        """
        calling = asyncio.ensure_future(call)
        try:
            while not calling.done():
                await asyncio.wait({calling}, timeout=await self._seconds_to_next_check())
            return calling.result()
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def _seconds_to_next_check(self) -> float:
        """Seconds until the next check whether the end is due. Raises Retry where it is due now."""
        ledger, request_id = self.context.ledger, self.claim.task.request_id
        assert request_id is not None, "a task under the lock key of a grant belongs to a request"
        left = await ledger.time_until_due(TaskKind.REVOKE, request_id)
        if left is not None and left.total_seconds() <= 0:
            raise Retry("the end of the grant is due", at=await ledger.now())
        return END_CHECK_SECONDS if left is None else min(END_CHECK_SECONDS, left.total_seconds())


Job: TypeAlias = Callable[[Context, JobContext], Awaitable[None]]
"""Carries out a task. Any error puts the task back for a retry."""


def backoff(tries: int) -> timedelta:
    """The pause after that many tries: 1, 2, 4 … 60 seconds, each up to a quarter longer, so that retries spread out."""
    seconds = min(BACKOFF_MAX_SECONDS, 2.0 ** min(tries - 1, 10))
    return timedelta(seconds=seconds * (1 + random.random() / 4))  # noqa: S311 - no secret


def is_alert_due(tries: int) -> bool:
    """Whether the failed end of a grant raises an alert at this try: at the third, then at every twentieth (about three an hour)."""
    return tries == ALERT_AT_TRY or (tries > ALERT_AT_TRY and tries % ALERT_EVERY_TRIES == 0)
