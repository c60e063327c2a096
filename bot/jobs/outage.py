"""An outage of the ledger. No alert can be stored while it lasts: the log and ``/readyz`` say so, and an alert follows when it is over."""

from __future__ import annotations

from datetime import timedelta
from time import monotonic

from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.durations import format_duration

ALERT_SECONDS = 30.0
"""A shorter outage is only logged."""
CAUSE = "ledger"


class LedgerOutage:
    """Remembers since when the ledger fails."""

    def __init__(self) -> None:
        self._since: float | None = None

    def begins(self) -> None:
        """A transaction failed."""
        self._since = monotonic() if self._since is None else self._since

    async def ends(self, context: Context) -> None:
        """A transaction succeeded. Raises LedgerError where the alert cannot be stored: then the outage goes on."""
        if self._since is None:
            return
        context.compared.clear()  # the ledger may have come back without its newest transactions
        seconds = monotonic() - self._since
        if seconds >= ALERT_SECONDS:
            length = format_duration(timedelta(seconds=seconds))
            what = f"The ledger could not be written for {length}. Nothing was granted or ended by dbaccess in that time; it goes on now."
            await raise_alert(context, None, what, cause=CAUSE, is_event=True)
        self._since = None
