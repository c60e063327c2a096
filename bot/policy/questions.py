"""Questions to the policy, and its answers. Plain values without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from storage.records import Request, RequestKind, Terms

Subject: TypeAlias = Literal["what", "duration", "reason", "ticket", "hours", "limits", "people"]
"""The subject of a refusal. Forms show the refusal at the field of this subject."""


@dataclass(frozen=True, kw_only=True)
class PolicyQuestion:
    """The question whether a person may have a level of a database.

    ``needs_reason``: False where only the rule matters. A missing reason then counts as a suitable one.
    ``at``: when the request is made. Without it, hours are not checked.
    ``grant``: the grant that an extension extends.
    ``is_new``: False when a waiting request is evaluated again. The evaluation then does not check whether enough
    people can decide, because a lack of approvers must never close a request that waits.
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
    """The request may be made, on these terms. ``path`` explains the rules in turn; ``ticket`` was found in the reason."""

    terms: Terms
    path: tuple[str, ...]
    ticket: str | None = None


@dataclass(frozen=True, kw_only=True)
class NotAllowed:
    """The policy refuses. ``reason`` is a sentence for the requester and says what would be allowed instead.

    ``unknown``: the groups whose members are unknown, or that are empty, where this is the cause of the refusal.
    ``whom``: people who can be asked about the refusal.
    """

    reason: str
    path: tuple[str, ...] = ()
    about: Subject = "what"
    unknown: tuple[str, ...] = ()
    rule: str | None = None
    whom: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MissingPart:
    """A part of the question is missing and has no default. The form asks for it, with ``choices`` where there are some."""

    part: Literal["database", "level", "reason"]
    choices: tuple[str, ...] = ()


Evaluation: TypeAlias = Allowed | NotAllowed | MissingPart
