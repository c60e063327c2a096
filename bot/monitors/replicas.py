"""The heartbeat of this bot. It says where the configuration is older than that of another replica, or the ledger's file was replaced."""

from __future__ import annotations

import structlog

from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from storage.errors import LedgerError
from storage.replicas import Bot

HEARTBEAT_SECONDS = 60
CAUSE = "older_configuration"
"""The cause of the alert about replicas with an older configuration."""
NAMED_AT_MOST = 5
STEPS = (
    "Give all replicas the same databases.yml and policy.yml. A replica loads changed files within seconds.",
    "To go back to older files: change them on the replicas that have the newer ones, or stop these.",
)

REPLACED_CAUSE = "ledger_replaced"
"""The cause of the alert about a SQLite file that was removed or replaced."""
REPLACED_STEPS = (
    "Put the file back under its name, with its -wal file: mv keeps it, cp does not. The bot goes on with it.",
    "To use another copy of the ledger, stop the bot first.",
)

log = structlog.get_logger(__name__)


class Heartbeat:
    """The heartbeat of one bot. A configuration that is older at two beats raises an alert: a new one reaches all replicas within seconds."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._digest: str | None = None
        self._was_older = False
        self._was_replaced = False

    async def run(self) -> None:
        """Write the row of this bot, look at its configuration, and at the file of the ledger. Raises nothing."""
        try:
            await self._look_at_ledger_file()
            is_older_again = await self._beat() and self._was_older
            self._was_older = self._context.ledger.replicas.is_older
            if is_older_again:
                await self._alert()
        except LedgerError:
            log.exception("ledger_unavailable")
        except Exception:
            log.exception("heartbeat_failed")

    async def on_files_checked(self) -> None:
        """The files were looked at. Where others are in force now, or this bot waits for newer ones, the beat is due at once. Raises nothing."""
        if self._digest == _digest(self._context) and not self._context.ledger.replicas.is_older:
            return
        try:
            await self._beat()
        except LedgerError:
            log.exception("ledger_unavailable")

    async def _beat(self) -> bool:
        replicas, digest = self._context.ledger.replicas, _digest(self._context)
        before = (self._digest, replicas.is_older)
        is_older = await replicas.heartbeat(digest)
        self._digest = digest
        if is_older and before != (digest, True):
            log.error("configuration_older", digest=digest, newest=await replicas.newest_configuration())
        elif before[1] and not is_older:
            log.info("configuration_newest", digest=digest)
        return is_older

    async def _look_at_ledger_file(self) -> None:
        """Say it loudly where the SQLite file was removed or replaced: what this bot writes is lost when it stops."""
        is_replaced, place = self._context.ledger.is_replaced, self._context.ledger.place
        if is_replaced:
            log.error("ledger_replaced", ledger=place)
        if is_replaced and not self._was_replaced:
            what = f"The file of the ledger, {place}, was removed or replaced while the bot runs. What it writes now is lost when it stops."
            await raise_alert(self._context, None, what, cause=REPLACED_CAUSE, steps=REPLACED_STEPS)
        elif self._was_replaced and not is_replaced:
            await resolve_alert(self._context, REPLACED_CAUSE, "The file of the ledger is in its place again.")
        self._was_replaced = is_replaced

    async def _alert(self) -> None:
        older = await older_bots(self._context)
        if older:
            await raise_alert(self._context, None, _sentence(older), cause=CAUSE, steps=STEPS)


def _digest(context: Context) -> str | None:
    return context.files.config.digest if context.files.config else None


async def older_bots(context: Context) -> tuple[Bot, ...]:
    """The running bots whose configuration is older than the newest."""
    newest = await context.ledger.replicas.newest_configuration()
    return tuple(bot for bot in await context.ledger.replicas.live() if bot.digest not in (None, newest))


async def resolve_when_all_have_the_newest(context: Context) -> None:
    """Resolve the alert where every running bot has the newest configuration."""
    if not await older_bots(context):
        await resolve_alert(context, CAUSE, "Every running replica has the newest configuration.")


def _sentence(older: tuple[Bot, ...]) -> str:
    names = ", ".join(f"{bot.worker} ({bot.digest})" for bot in older[:NAMED_AT_MOST])
    more = f" and {len(older) - NAMED_AT_MOST} more" if len(older) > NAMED_AT_MOST else ""
    who = (
        "A replica has an older configuration"
        if len(older) == 1
        else f"{len(older)} replicas have older configurations"
    )
    return f"{who} than another one. Nothing is granted there; grants are ended as ever. Replica and configuration: {names}{more}."
