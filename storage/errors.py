"""Errors of the ledger. None of their texts holds a secret."""

from __future__ import annotations

from storage.records import Decision, Request
from storage.transitions import Obstacle, Transition


class LedgerError(Exception):
    """Base of all errors of the ledger."""


class NotPossible(LedgerError):
    """A transition lost a race, or a guard refused it. ``request`` and ``decisions`` are the current ones."""

    def __init__(
        self, transition: Transition, obstacle: Obstacle, request: Request, decisions: tuple[Decision, ...] = ()
    ) -> None:
        super().__init__(f"#{request.id}: {transition} is not possible: {obstacle} (it is {request.state})")
        self.transition = transition
        self.obstacle = obstacle
        self.request = request
        self.decisions = decisions


class LimitReached(LedgerError):
    """The usage changed after the evaluation, and a limit may be reached now: evaluate again."""


class LockedDown(LedgerError):
    """A lockdown in force matches the request."""

    def __init__(self) -> None:
        super().__init__("a lockdown is in force")


class ConfigurationOlder(LedgerError):
    """The request was evaluated under a configuration that is not the newest."""

    def __init__(self) -> None:
        super().__init__("a newer configuration is in force")


class InRecovery(LedgerError):
    """The ledger is in recovery mode: nothing is granted."""

    def __init__(self) -> None:
        super().__init__("the ledger is in recovery mode")


class ClaimLost(LedgerError):
    """The lease expired and another worker has the task, or the task is finished."""


class KeyTaken(LedgerError):
    """Another task has the lock key."""


class NoSuchRequest(LedgerError):
    """No request has this number."""

    def __init__(self, request_id: int) -> None:
        super().__init__(f"there is no request #{request_id}")
        self.request_id = request_id


class Unreadable(LedgerError):
    """The row of this request cannot be read."""

    def __init__(self, request_id: int) -> None:
        super().__init__(f"#{request_id} cannot be read")
        self.request_id = request_id


class SchemaMismatch(LedgerError):
    """The database has no ledger, an older one (``dbaccess store upgrade`` solves both), or a newer one."""


class LedgerInUse(LedgerError):
    """Another bot runs on this SQLite file."""


class LedgerUnavailable(LedgerError):
    """The ledger's database does not answer. Only the type of the error is shown, since URLs and parameters may be secret."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"the ledger's database does not answer ({kind})")


class LedgerReplaced(LedgerUnavailable):
    """The SQLite file was removed or replaced while the bot runs. Only connections that are open already reach the ledger."""

    def __init__(self) -> None:
        super().__init__("its file was removed or replaced; stop the bot, put the file back, start the bot")
