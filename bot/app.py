"""Composition root: builds everything once, starts it in order, and stops it in reverse order.

The runner starts first. It ends grants even while Slack is down or the configuration is invalid.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from bot.access import log_events
from bot.access.context import Context
from bot.access.files import Files
from bot.access.ports import Person
from bot.engines import Engines
from bot.http import CannotListen, HealthServer
from bot.jobs.registry import JOBS
from bot.jobs.runner import ENDS, Runner
from bot.monitors.configuration import announce_files
from bot.scheduler import build_scheduler
from bot.settings import Settings, SettingsError, check_slack_settings
from bot.slack.connection import RETRY_SECONDS, SocketConnection, TokenRefused, build_bolt_app, web_client
from bot.slack.directory import SlackDirectory
from bot.slack.messenger import SlackMessenger
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError, LedgerInUse, SchemaMismatch
from storage.ledger import Ledger

NO_TOKEN = "xoxb-none"  # noqa: S105 - no token: every call is refused by Slack

ENDS_ONLY = "live grants are ended, nothing is granted"
"""The mode of a bot that cannot grant: it stays up until all grants have ended."""

log = structlog.get_logger(__name__)


class CannotStart(Exception):
    """The bot cannot run with these settings or files. The text says what to do, one line for each problem."""


def build_context(settings: Settings) -> Context:
    """Builds the context of use cases and jobs. Nothing is opened or connected."""
    token = settings.slack_bot_token.get_secret_value() if settings.slack_bot_token else NO_TOKEN
    client = web_client(token, settings.slack_api_url)
    return Context(
        ledger=Ledger(settings.store_url.get_secret_value()),
        files=Files(settings.config),
        directory=SlackDirectory(client),
        messenger=SlackMessenger(client),
        engines=Engines(),
        prefix=settings.user_prefix,
    )


def operator() -> Person:
    """The person who runs the command line, as the audit log shows them: by their operating system user, whatever the environment says.

    Without a user name (some containers): the user's number.
    """
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid{os.getuid()}"
    return Person(id=f"cli:{name}", name=name, is_member=True)


@asynccontextmanager
async def command_line_context(settings: Settings) -> AsyncIterator[Context]:
    """A context for the command line, on a ledger that exists already. Raises SchemaMismatch, LedgerUnavailable."""
    context = build_context(settings)
    try:
        await context.ledger.open(create=False)
        context.files.refresh()
        yield context
    finally:
        context.engines.close()
        await context.ledger.close()


class App:
    """The running bot."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context = build_context(settings)
        self.runner = Runner(self.context, JOBS)
        self.stop = asyncio.Event()
        self._connection: SocketConnection | None = None
        self._reload: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Run until ``stop`` is set. Raises CannotStart, LedgerInUse, SchemaMismatch, SettingsError, CannotListen.

        An error that only prevents grants is raised at once where nothing is left to end. Otherwise the bot first ends what
        is live, and raises the error then.
        """
        ledger = self.context.ledger
        try:
            await self._open()
            if not ledger.acquire_run_lock():
                raise LedgerInUse(
                    "another bot runs on this ledger; stop it first, or use PostgreSQL as store for several"
                )
            await self._prepare()
            await self._serve()
        finally:
            ledger.release_run_lock()
            await ledger.close()

    async def _open(self) -> None:
        """Open the ledger. Without tokens no ledger is created, but an existing one may have grants to end."""
        try:
            check_slack_settings(self.settings)
        except SettingsError:
            with suppress(SchemaMismatch):
                await self.context.ledger.open(create=False)
                if await self._has_ends():
                    return
            raise
        await self.context.ledger.open(create=self.context.ledger.is_sqlite)

    async def _has_ends(self) -> bool:
        """Whether a grant is live, or a task that drops or repairs a user is left."""
        if await self.context.ledger.requests.live_grants():
            return True
        return any(task.kind in ENDS for task in await self.context.ledger.tasks.all())

    async def _may_have_ends(self) -> bool:
        """As ``_has_ends``. A ledger that does not answer now may have some."""
        try:
            return await self._has_ends()
        except LedgerError:
            log.exception("ledger_unavailable")
            await asyncio.sleep(RETRY_SECONDS)
            return True

    async def _prepare(self) -> None:
        context = self.context
        if context.ledger.is_sqlite:
            await context.ledger.tasks.free_leases()
        context.files.refresh()
        if context.files.problems is not None:
            if not await self._has_ends():
                raise CannotStart(str(context.files.problems))
            log.error("configuration_invalid", mode=ENDS_ONLY, problems=str(context.files.problems).splitlines())
        await context.ledger.audit.record(AuditKind.BOT_STARTED, actor="bot", facts={"worker": self.runner.worker})
        await announce_files(context, is_start=True)

    async def _serve(self) -> None:
        self._stop_on_signals()
        health = HealthServer(self.context.ledger, self.unready_reasons)
        scheduler = build_scheduler(self.runner)
        running = asyncio.create_task(self.runner.run(self.stop))
        try:
            await asyncio.gather(self._serve_grants(health, scheduler), running)
        finally:
            self.stop.set()
            if scheduler.running:
                scheduler.shutdown(wait=False)
            await asyncio.gather(running, return_exceptions=True)
            await health.stop()
            await asyncio.to_thread(self.context.engines.close)
        log.info("bot_stopped")

    async def _serve_grants(self, health: HealthServer, scheduler: AsyncIOScheduler) -> None:
        """Start what new grants need: settings, health server, scheduler, Slack. Where that fails, wait until all grants have ended, then raise."""
        try:
            check_slack_settings(self.settings)
            await health.start(self.settings.http_host, self.settings.http_port)
            scheduler.start()
            await self._listen()
        except (SettingsError, CannotListen, TokenRefused) as error:
            reason = CannotStart(str(error)) if isinstance(error, TokenRefused) else error
            if not self.stop.is_set() and await self._may_have_ends():
                log.error("grants_unavailable", mode=ENDS_ONLY, reason=str(error))  # noqa: TRY400 - the reason is enough
                await self._wait_until_all_ended()
            self.stop.set()
            raise reason from None

    async def _listen(self) -> None:
        """Keep the connection to Slack. Raises TokenRefused. Any other failure is tried again: it must not stop the ends."""
        token = self.settings.slack_app_token
        assert token is not None, "checked by check_slack_settings"
        directory = self.context.directory
        assert isinstance(directory, SlackDirectory), "set by build_context"
        self._connection = SocketConnection(
            build_bolt_app(directory.client, self.context),
            token.get_secret_value(),
            on_first_connection=self._on_connected,
        )
        while not self.stop.is_set():
            try:
                await self._connection.run(self.stop)
            except TokenRefused:
                raise
            except Exception:
                log.exception("slack_connection_failed")
                await asyncio.sleep(RETRY_SECONDS)

    def _on_connected(self, workspace: str) -> None:
        if self.context.files.config is not None:
            log_events.bot_ready(self.context.files, workspace=workspace, ledger=self.context.ledger.place)

    async def _wait_until_all_ended(self) -> None:
        while not self.stop.is_set() and await self._may_have_ends():
            await self.context.ledger.wait_for_commit(5, reader="end")

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_files)

    def _reload_files(self) -> None:
        """On SIGHUP: load the files now, changed or not. Without the signal a change is seen within seconds."""
        self.context.files.forget()
        self._reload = asyncio.ensure_future(announce_files(self.context))

    async def unready_reasons(self) -> Mapping[str, str]:
        """The reasons why the bot is not ready, by component. Empty where it is ready."""
        reasons = {}
        try:
            await self.context.ledger.now()
            await self.context.ledger.observations.cursor("feed")
        except LedgerError as error:
            reasons["store"] = str(error)
        if self._connection is None or not self._connection.is_connected:
            reasons["slack"] = "not connected"
        if self.context.files.config is None:
            reasons["configuration"] = "has errors; nothing is granted, live grants are ended"
        elif self.context.files.problems is not None:
            reasons["configuration"] = "changed files have errors; the last good configuration is in force"
        return reasons
