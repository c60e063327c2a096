"""Answers to a person who asked for something that is not to be had.

The text of an ``AccessError`` is for that person and is shown as it stands; everything else that goes wrong is
logged under a reference, and the person is told the reference.
"""

from __future__ import annotations

from datetime import datetime


class AccessError(Exception):
    """Base; ``str`` of it is a sentence for the person who clicked or typed."""


class NotUnderstood(AccessError):
    """What was typed cannot be read; says what would be right."""

    def __init__(self, typed: str, right: str) -> None:
        super().__init__(f"I did not understand “{typed}”. {right}")
        self.typed = typed


class Refused(AccessError):
    """Understood, and the answer is no. ``about`` is what of the ask it is about: what, duration, reason, ticket, hours, limits or people.

    ``whom``: who can be asked about it, as the policy names them.
    """

    def __init__(self, reason: str, *, about: str = "what", whom: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.about = about
        self.whom = whom


class TooLate(AccessError):
    """Somebody or the clock was faster; says what happened."""

    def __init__(self, happened: str, *, at: datetime | None = None) -> None:
        super().__init__(happened)
        self.at = at


class UnknownRequest(AccessError):
    """There is no such request, or it is not theirs to see: the two look the same."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"There is no request {shown} that you may see.")


class OutOfDate(AccessError):
    """The button belongs to another or an older ledger."""

    def __init__(self) -> None:
        super().__init__("This card is out of date.")
