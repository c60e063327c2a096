"""What use cases take and return, as data. Pure: ``bot.slack.render`` draws it without touching the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from adapters.base import Endpoint
from bot.policy.catalog import CatalogEntry
from storage.records import AuditEvent, Decision, Request, RequestKind


@dataclass(frozen=True, kw_only=True)
class RequestInput:
    """An ask as it was typed, or as the form had it; what is None was left out."""

    database: str | None = None
    level: str | None = None
    duration: timedelta | None = None
    reason: str | None = None
    kind: RequestKind = RequestKind.ACCESS


@dataclass(frozen=True, kw_only=True)
class RequestOutcome:
    """``is_new`` is False where the same ask was waiting already: its number is the answer.

    ``not_yet``: why what needs nobody's approval was stored and not approved.
    """

    request: Request
    is_new: bool
    not_yet: str | None = None


class FormNeeded(Exception):
    """Something was left out that only the form can ask for; ``typed`` fills it in. ``grant``: what more time is asked for."""

    def __init__(
        self,
        typed: RequestInput,
        catalog_entries: tuple[CatalogEntry, ...],
        missing: str,
        *,
        grant: Request | None = None,
    ) -> None:
        super().__init__(f"{missing} is missing")
        self.typed = typed
        self.catalog_entries = catalog_entries
        self.missing = missing
        self.grant = grant


@dataclass(frozen=True, kw_only=True)
class StatusView:
    """One request as ``status`` shows it. ``sessions`` is None where the server was not asked or did not answer in time."""

    request: Request
    decisions: tuple[Decision, ...]
    events: tuple[AuditEvent, ...]
    sessions: int | None


@dataclass(frozen=True, kw_only=True)
class ShownPassword:
    """A password on its way to the one person it is for. Lives for one call; ``times`` counts how often one was shown."""

    request: Request
    endpoint: Endpoint
    times: int
    password: str = field(repr=False)
