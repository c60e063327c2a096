"""Look again at the configuration files: a change is on the record, and mistakes in it raise an alert."""

from __future__ import annotations

from bot.access import log_events
from bot.access.alerts import raise_alert
from bot.access.context import Context
from storage.audit_log import AuditKind

SHOWN_PROBLEMS = 10


async def announce_files(context: Context, *, is_start: bool = False) -> None:
    """Put a changed configuration on the record, and a broken one before those who look after it."""
    files = context.files
    files.refresh()
    if not files.is_unannounced:
        return
    files.is_unannounced = False
    if not is_start:
        log_events.configuration_reloaded(files)
    if files.problems is not None:
        await context.ledger.record(
            AuditKind.POLICY_REFUSED, actor="files", facts={"problems": len(files.problems.problems)}
        )
        await raise_alert(
            context,
            None,
            "The changed configuration has mistakes and is not in force.",
            steps=_first(str(files.problems)),
        )
    elif files.config is not None:
        await context.ledger.record(AuditKind.POLICY_LOADED, actor="files", facts={"digest": files.config.digest})


def _first(problems: str) -> tuple[str, ...]:
    lines = problems.splitlines()
    return (
        *lines[:SHOWN_PROBLEMS],
        *([f"… and {len(lines) - SHOWN_PROBLEMS} more"] if len(lines) > SHOWN_PROBLEMS else []),
    )
