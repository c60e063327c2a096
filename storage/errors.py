"""What the ledger refuses, and why."""

from __future__ import annotations

from storage.records import Decision, Request
from storage.transitions import Obstacle, Transition


class LedgerError(Exception):
    """Base of what the ledger raises."""


class NotPossible(LedgerError):
    """A transition lost a race, or a guard refused it; ``request`` and ``decisions`` are what is true instead."""

    def __init__(
        self, transition: Transition, obstacle: Obstacle, request: Request, decisions: tuple[Decision, ...] = ()
    ) -> None:
        super().__init__(f"#{request.id}: {transition} is not possible: {obstacle} (it is {request.state})")
        self.transition = transition
        self.obstacle = obstacle
        self.request = request
        self.decisions = decisions


class LimitReached(LedgerError):
    """What was counted with the ask itself is more than it was judged with: judge again."""


class ClaimLost(LedgerError):
    """The lease ran out and another worker has the task, or it is finished."""


class NoSuchRequest(LedgerError):
    """No row has this number."""

    def __init__(self, request_id: int) -> None:
        super().__init__(f"there is no request #{request_id}")
        self.request_id = request_id


class SchemaMissing(LedgerError):
    """The store has no ledger yet, or an older one; ``store upgrade`` makes it."""


class StoreBusy(LedgerError):
    """Another bot runs on this SQLite file."""


class StoreUnavailable(LedgerError):
    """The store does not answer; only the kind of the error is named, since URLs and parameters may be secret."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the ledger's store does not answer ({kind})")
