"""What an effect is given, and how it says that it must be tried again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from bot.access.context import Context
from storage.moves import Change, Move
from storage.records import Claim, Json, Request


class Again(Exception):
    """Not done yet: put the task back until ``at``, or for the usual back-off where None."""

    def __init__(self, why: str, *, at: datetime | None = None) -> None:
        super().__init__(why)
        self.at = at


@dataclass
class Work:
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

    async def advance(self, request: Request, move: Move, change: Change) -> Request:
        """``Ledger.advance`` under this claim. Raises NotPossible."""
        return await self.context.ledger.advance(request.id, move, change, claim=self.claim)


Effect: TypeAlias = Callable[[Context, Work], Awaitable[None]]
