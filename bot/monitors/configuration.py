"""Check the configuration files for changes. A change is recorded; errors in it raise an alert."""

from __future__ import annotations

from bot.access import log_events
from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError

PROBLEMS_SHOWN = 10
CAUSE = "configuration"
"""The cause of the alert about a configuration with errors."""


async def announce_files(context: Context, *, is_start: bool = False) -> None:
    """Record a changed configuration, and raise an alert where it is invalid. ``is_start``: no log event, the bot logs its start."""
    files = context.files
    files.refresh()
    if not files.is_unannounced:
        return
    files.is_unannounced = False
    try:
        await _announce(context)
    except LedgerError:
        files.is_unannounced = True
        raise
    if not is_start:
        log_events.configuration_reloaded(files)


async def _announce(context: Context) -> None:
    files = context.files
    if files.problems is not None:
        await context.ledger.audit.record(
            AuditKind.POLICY_REFUSED, actor="files", facts={"problems": len(files.problems.problems)}
        )
        await raise_alert(
            context,
            None,
            "The changed configuration has errors and is not in force.",
            cause=CAUSE,
            steps=_problem_lines(str(files.problems)),
        )
    elif files.config is not None:
        await context.ledger.audit.record(AuditKind.POLICY_LOADED, actor="files", facts={"digest": files.config.digest})
        await resolve_alert(context, CAUSE, "The configuration has no errors and is in force.")


def _problem_lines(problems: str) -> tuple[str, ...]:
    lines = problems.splitlines()
    return (
        *lines[:PROBLEMS_SHOWN],
        *([f"… and {len(lines) - PROBLEMS_SHOWN} more"] if len(lines) > PROBLEMS_SHOWN else []),
    )
