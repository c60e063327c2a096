"""Raise and resolve alerts. One cause has one alert, from the moment it is noticed until it is over (``storage.alerts``)."""

from __future__ import annotations

from datetime import datetime

from bot.access.context import Context
from bot.access.descriptions import describe_proof, shorten
from storage.alerts import AlertDraft
from storage.records import Request

WHAT_MAX = 1000
STEP_MAX = 1000
STEPS_MAX = 12
STATEMENT_MAX, STATEMENTS_MAX = 1500, 24
"""The bounds of an alert: characters of ``what``, of each step and of each statement, and their numbers. Slack refuses longer messages."""


async def raise_alert(
    context: Context,
    request: Request | None,
    what: str,
    *,
    cause: str,
    tries: int = 0,
    steps: tuple[str, ...] = (),
    statements: tuple[str, ...] = (),
    enforced: str | None = None,
    since: datetime | None = None,
    next_try_at: datetime | None = None,
    is_event: bool = False,
) -> None:
    """Raise an alert, or change the open one of the same cause. A task sends or edits its message.

    The parameters are those of ``AlertDraft``. None of them holds a secret: adapters remove secrets from their errors. Longer texts are cut.
    """
    draft = draft_alert(
        what,
        cause=cause,
        tries=tries,
        steps=steps,
        statements=statements,
        enforced=enforced,
        since=since,
        next_try_at=next_try_at,
        request_id=request.id if request else None,
        is_event=is_event,
    )
    await context.ledger.alerts.raise_alert(draft)


def draft_alert(
    what: str,
    *,
    cause: str,
    tries: int = 0,
    steps: tuple[str, ...] = (),
    statements: tuple[str, ...] = (),
    enforced: str | None = None,
    since: datetime | None = None,
    next_try_at: datetime | None = None,
    request_id: int | None = None,
    is_event: bool = False,
) -> AlertDraft:
    """An alert with its texts cut to their bounds, for a transaction that writes more than the alert. A statement that is too long is left out: nobody may paste a part of one."""
    return AlertDraft(
        cause=cause,
        what=shorten(what, WHAT_MAX),
        enforced=shorten(enforced, WHAT_MAX) if enforced else None,
        steps=tuple(shorten(step, STEP_MAX) for step in steps[:STEPS_MAX]),
        statements=tuple(one for one in statements if len(one) <= STATEMENT_MAX)[:STATEMENTS_MAX],
        tries=tries,
        since=since,
        next_try_at=next_try_at,
        request_id=request_id,
        is_event=is_event,
    )


def end_cause(request_id: int) -> str:
    """The cause of the alert about an end that fails."""
    return f"end:{request_id}"


async def resolve_end_alert(context: Context, request: Request) -> None:
    """The grant has ended: its alert says how. Does nothing where there is none."""
    what = f"#{request.id} ended, {describe_proof(request.receipt)}." if request.receipt else f"#{request.id} ended."
    await resolve_alert(context, end_cause(request.id), what)


async def resolve_alert(context: Context, cause: str, resolution: str) -> None:
    """The problem is over. Its message is edited and says so. Does nothing where there is no open alert of this cause."""
    await context.ledger.alerts.resolve(cause, shorten(resolution, WHAT_MAX))
