"""The data that use cases take and return. Pure: ``bot.slack.render`` renders it without the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from adapters.base import Endpoint
from bot.policy.catalog import CatalogEntry
from storage.records import AuditEvent, Decision, Lockdown, Request, RequestKind


@dataclass(frozen=True, kw_only=True)
class RequestInput:
    """A request as it was typed or filled into the form. None where something was left out."""

    database: str | None = None
    level: str | None = None
    duration: timedelta | None = None
    reason: str | None = None
    kind: RequestKind = RequestKind.ACCESS


@dataclass(frozen=True, kw_only=True)
class RequestOutcome:
    """The submitted request. ``is_new`` is False where the same request was pending already.

    ``not_yet``: why a request that needs no approval was stored and not approved.
    """

    request: Request
    is_new: bool
    not_yet: str | None = None


class FormNeeded(Exception):
    """Something is missing, and a form asks for it. ``wanted`` fills the form in; ``grant`` is the grant to be extended."""

    def __init__(
        self,
        wanted: RequestInput,
        catalog_entries: tuple[CatalogEntry, ...],
        missing: str,
        *,
        grant: Request | None = None,
    ) -> None:
        super().__init__(f"{missing} is missing")
        self.wanted = wanted
        self.catalog_entries = catalog_entries
        self.missing = missing
        self.grant = grant


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """A request as ``status`` shows it. ``sessions`` is None where the server was not asked or did not answer in time.

    ``trouble`` is why a grant that is ending has not ended yet.
    """

    request: Request
    decisions: tuple[Decision, ...]
    events: tuple[AuditEvent, ...]
    sessions: int | None
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockdownScope:
    """One database, or one person; everything where both are None."""

    database: str | None = None
    person_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class LockdownOutcome:
    """A lockdown in force. ``is_new`` is False where it was in force already. ``ended``: the grants whose end began now."""

    lockdown: Lockdown
    is_new: bool
    ended: int


@dataclass(frozen=True, kw_only=True)
class UnlockOutcome:
    """The lockdowns that were lifted, and those that this person may not lift."""

    lifted: tuple[Lockdown, ...]
    refused: tuple[Lockdown, ...]


@dataclass(frozen=True, kw_only=True)
class ShownPassword:
    """A password to be shown once, to its requester. It is never stored. ``times`` counts how often one was shown, this time included."""

    request: Request
    endpoint: Endpoint
    times: int
    password: str = field(repr=False)
