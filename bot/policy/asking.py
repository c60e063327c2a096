"""A question to the policy, and the answers there are. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from storage.records import Request, RequestKind, Terms

About: TypeAlias = Literal["what", "duration", "reason", "ticket", "hours", "limits", "people"]


@dataclass(frozen=True, kw_only=True)
class PolicyQuestion:
    """A question to the policy.

    ``needs_reason`` is False where only the rule is wanted: an ask without a reason then has a fitting one. Without ``at`` no hours are judged. ``grant`` is what an extension is about. ``is_new`` is False at a
    click: whether enough people can decide is looked at when somebody asks, and never closes what waits.
    """

    person_id: str
    database: str | None
    level: str | None = None
    duration: timedelta | None = None
    reason: str | None = None
    kind: RequestKind = RequestKind.ACCESS
    at: datetime | None = None
    needs_reason: bool = True
    grant: Request | None = None
    is_new: bool = True


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The ask may be put to its approvers, on these terms. ``ticket`` is what was found in the reason."""

    terms: Terms
    path: tuple[str, ...]
    ticket: str | None = None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """``reason`` is a sentence for the asker that says what would be allowed instead.

    ``unknown``: groups that gave no answer or have nobody in them, where that is why. ``whom``: who can be asked about it.
    """

    reason: str
    path: tuple[str, ...] = ()
    about: About = "what"
    unknown: tuple[str, ...] = ()
    rule: str | None = None
    whom: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something was left out that nothing else decides: the form asks for it, among ``choices`` where there are some."""

    what: Literal["database", "level", "reason"]
    choices: tuple[str, ...] = ()


Answer: TypeAlias = Allowed | Refused | Missing
