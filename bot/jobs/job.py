"""The context of a job (``JobContext``), its request for a retry (``Retry``), and the times of retries and alerts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from bot.access.context import Context
from bot.access.ports import Delayed
from storage.claims import Claim
from storage.commands import Command
from storage.errors import KeyTaken
from storage.records import Json, Request, State

LEASE = timedelta(seconds=90)
"""Longer than every adapter time limit: a worker loses its claim only when it has stopped."""

ALERT_AT_TRY = 3
"""A task that fails raises its alert at this try. An end changes it at every later one."""
BACKOFF_MAX_SECONDS = 60.0
POSTED = "posted"
"""The key of a payload that lists the places that have their message."""
KEY_TAKEN_PAUSE = timedelta(milliseconds=300)


class Retry(Exception):
    """The task is not done: put it back until ``at``, or for the usual back-off where that is None.

    ``is_untried``: the task only ran too early. This run does not count, so an end that was never tried uses no slot of the retries.
    ``is_server_down``: its server gave no usable answer, so the runner probes the server.
    """

    def __init__(
        self, reason: str, *, at: datetime | None = None, is_untried: bool = False, is_server_down: bool = False
    ) -> None:
        super().__init__(reason)
        self.at = at
        self.is_untried = is_untried
        self.is_server_down = is_server_down


@dataclass
class JobContext:
    """One run of one task, under a lease that the runner renews while the job runs. ``is_finished``: a transition removed the task already."""

    context: Context
    claim: Claim
    is_finished: bool = False

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
        return await self.context.ledger.requests.get(self.claim.task.request_id)

    async def check_claim(self) -> None:
        """Call this before every step outside the ledger. Raises ClaimLost where another worker has the task."""
        await self.context.ledger.tasks.check_claim(self.claim)

    async def advance(
        self, request: Request, command: Command, *, is_last: bool = False, holds: str | None = None
    ) -> Request:
        """``RequestRepository.advance`` under this claim. ``is_last``: the task is done with it. ``holds``: it takes this lock key, until ``let_go``.

        Raises NotPossible; its obstacle is CLAIM_LOST where another worker has the task. Raises Retry where another task has the lock key.
        """
        requests = self.context.ledger.requests
        try:
            after = await requests.advance(request.id, command, claim=self.claim, finishes=is_last, holds=holds)
        except KeyTaken:
            raise await self._wait_for_key() from None
        self.is_finished = self.is_finished or is_last
        return after

    async def post_to_each(self, places: Iterable[str], post: Callable[[str], Awaitable[None]]) -> None:
        """Post to each of these places once, also over several runs of the task. Raises Delayed, after all others, where one has to wait.

        The payload notes the places that have their message, so that one busy channel neither holds up the others nor gives them
        the message twice.
        """
        posted, delay = set[str](self.payload.get(POSTED, ())), None
        for place in places:
            if place not in posted:
                await self.check_claim()
                try:
                    await post(place)
                except Delayed as error:
                    delay = error if delay is None or _pause_of(error) < _pause_of(delay) else delay
                else:
                    posted.add(place)
        if delay is not None:
            await self.context.ledger.tasks.note(self.claim, {**self.payload, POSTED: sorted(posted)})
            raise delay
        if POSTED in self.payload:  # the task may come again for the next message
            await self.context.ledger.tasks.note(self.claim, {k: v for k, v in self.payload.items() if k != POSTED})

    @property
    def is_resumed(self) -> bool:
        """An earlier run has posted to some of the places."""
        return POSTED in self.payload

    @asynccontextmanager
    async def holding(self, lock_key: str) -> AsyncIterator[None]:
        """Hold a second lock key inside the block. Raises Retry where another task has it.

        A job that also talks to Slack takes the lock key of the user this way, only for its steps on the server: Slack then never
        holds up the end of the user.
        """
        tasks = self.context.ledger.tasks
        try:
            await tasks.hold(self.claim, lock_key)
        except KeyTaken:
            raise await self._wait_for_key() from None
        try:
            yield
        finally:
            await tasks.let_go(self.claim)

    async def let_go(self) -> State | None:
        """Give back the lock key that ``advance`` took. Returns the state of the request."""
        state = await self.context.ledger.tasks.let_go(self.claim)
        return None if state is None else State(state)

    async def _wait_for_key(self) -> Retry:
        at = await self.context.ledger.now() + KEY_TAKEN_PAUSE
        return Retry("another task has the user", at=at, is_untried=True)


def _pause_of(error: Delayed) -> float:
    return float("inf") if error.retry_after is None else error.retry_after


Job: TypeAlias = Callable[[Context, JobContext], Awaitable[None]]
"""Carries out a task. Any error puts the task back for a retry."""


def backoff(tries: int) -> timedelta:
    """The pause after that many tries: 1, 2, 4 … 60 seconds, each up to a quarter longer, so that retries spread out."""
    seconds = min(BACKOFF_MAX_SECONDS, 2.0 ** min(tries - 1, 10))
    return timedelta(seconds=seconds * (1 + random.random() / 4))  # noqa: S311 - no secret
