"""Errors that answer a person: the request, click or command cannot be done.

The text of an ``AccessError`` is shown to that person as it is. Every other error is logged under a reference, and the
person sees only the reference.
"""

from __future__ import annotations


class AccessError(Exception):
    """Base class. Its text is one or more sentences for the person who clicked or typed."""


class NotUnderstood(AccessError):
    """The text that was ``wanted`` cannot be parsed. ``right`` says what would be accepted."""

    def __init__(self, wanted: str, right: str) -> None:
        super().__init__(f"I did not understand “{wanted}”. {right}")
        self.wanted = wanted


class Refused(AccessError):
    """The answer is no.

    ``about`` names the part of the request that is refused: what, duration, reason, ticket, hours, limits or people.
    ``whom`` lists who can be asked about it, as the policy names them.
    """

    def __init__(self, reason: str, *, about: str = "what", whom: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.about = about
        self.whom = whom


class TooLate(AccessError):
    """Another person, or a time limit, was first. The text says what happened."""


class UnknownRequest(AccessError):
    """The request does not exist, or this person may not see it. Both cases have the same text on purpose."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"There is no request {shown} that you may see.")


class OutOfDate(AccessError):
    """The button belongs to another ledger, or to an earlier state of this one."""

    def __init__(self) -> None:
        super().__init__("This card is out of date.")


class LostRequest(AccessError):
    """The card is of a request that this ledger made and lost: it is not the newest state of it."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"#{number} is not in the ledger of dbaccess any more: its newest part was lost. If its access is still open, ask an administrator to end it."
        )
