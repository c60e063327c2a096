"""Composition root: builds everything once, starts it in order, and stops it in reverse order within a deadline.

The health server starts first, so that it can say what the bot waits for. Then the runner: it ends grants even while Slack is down or the configuration is invalid.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version as installed_version
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from slack_sdk.web.async_client import AsyncWebClient

from bot.access import log_events
from bot.access.context import Context
from bot.access.files import Files
from bot.access.ports import Person
from bot.access.server_side import enforced_by_servers
from bot.engines import Engines
from bot.health import Health
from bot.http import CannotListen, HealthServer
from bot.jobs.registry import JOBS
from bot.jobs.runner import ENDS, Runner
from bot.monitors.configuration import announce_files
from bot.monitors.new_ledger import reason_against_new_ledger
from bot.scheduler import add_checks_for_grants, build_scheduler
from bot.settings import Settings, SettingsError, check_slack_settings
from bot.slack.connection import (
    RETRY_SECONDS,
    SocketConnection,
    TokenRefused,
    build_bolt_app,
    shared_connections,
    web_client,
)
from bot.slack.directory import SlackDirectory
from bot.slack.messenger import SlackMessenger
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError, LedgerInUse, LedgerUnavailable, SchemaMismatch
from storage.ledger import Ledger

NO_TOKEN = "xoxb-none"  # noqa: S105 - no token: every call is refused by Slack

ENDS_ONLY = "live grants are ended, nothing is granted"
"""The mode of a bot that cannot grant: it stays up until all grants have ended."""

STOP_SECONDS = 25.0
"""From the signal to the end of the process. Container platforms kill it after 30 seconds."""
CLOSE_SECONDS = 5.0
"""The last part of it: running jobs have the time before, closing connections has this."""
NAMED_AT_MOST = 20
STEP_SECONDS = 2.0
"""The longest time for one step of the close."""

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
    """The running bot. ``is_cut_off``: it stopped while a call was still running, so the process must not wait for its threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.context = build_context(settings)
        self.runner = Runner(self.context, JOBS)
        self.stop = asyncio.Event()
        self.is_cut_off = False
        self._connection: SocketConnection | None = None
        self._reload: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Run until ``stop`` is set. Raises CannotStart, LedgerInUse, SchemaMismatch, LedgerUnavailable, SettingsError, CannotListen.

        An error that only prevents grants is raised at once where nothing is left to end. Otherwise the bot first ends what
        is live, and raises the error then.
        """
        ledger = self.context.ledger
        self._stop_on_signals()
        health = Health(self.context, self.runner, self._is_connected)
        server = HealthServer(health.unready_reasons, health.metrics)
        try:
            cannot_listen = await self._start_server(server, health)
            if await self._open():
                if not ledger.acquire_run_lock():
                    raise LedgerInUse(
                        "another bot runs on this ledger; stop it first, or use PostgreSQL as store for several"
                    )
                await self._prepare(health)
                async with shared_connections(self._client):
                    await self._serve(cannot_listen)
        finally:
            await self._within_limit(health.writes.stop())
            await self._within_limit(asyncio.gather(server.stop(), self._leave()))
            ledger.release_run_lock()
            await self._within_limit(ledger.close())
        log.info("bot_stopped")

    async def _start_server(self, server: HealthServer, health: Health) -> CannotListen | None:
        """Start the health server. Returns why it cannot be started: that must not stop the ends."""
        health.is_starting = True
        try:
            await server.start(self.settings.http_host, self.settings.http_port)
        except CannotListen as error:
            return error
        return None

    async def _open(self) -> bool:
        """Open the ledger; a server that does not answer is tried again. False where the bot is stopped before it answers.

        Without tokens no ledger is created, but an existing one may have grants to end.
        """
        try:
            check_slack_settings(self.settings)
        except SettingsError:
            with suppress(SchemaMismatch):
                await self.context.ledger.open(create=False)
                if await self._has_ends():
                    return True
            raise
        if self.context.ledger.is_sqlite:
            if not await self.context.ledger.database.has_ledger():
                await self._check_may_create()
            await self.context.ledger.open(create=True)
            return True
        return await self._until_done(lambda: self.context.ledger.open(create=False))

    async def _check_may_create(self) -> None:
        """Raises CannotStart where servers have, or may have, users of a lost ledger: a new one would never end them."""
        if (reason := await reason_against_new_ledger(self.context)) is not None:
            raise CannotStart(reason)

    async def _until_done(self, step: Callable[[], Awaitable[Any]]) -> bool:
        """Try until the ledger answers. False where the bot is stopped before."""
        while not self.stop.is_set():
            try:
                await step()
            except LedgerUnavailable as error:
                log.error("ledger_unavailable", reason=str(error), next_try_seconds=RETRY_SECONDS)  # noqa: TRY400
                await _pause(self.stop, RETRY_SECONDS)
            else:
                return True
        return False

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

    async def _prepare(self, health: Health) -> None:
        """Load the configuration, and record the start. While the ledger cannot be written, this is tried again: nothing can be ended before."""
        context = self.context
        context.files.refresh()
        if context.files.problems is not None:
            if not await self._has_ends():
                raise CannotStart(str(context.files.problems))
            health.had_errors_at_start = True
            log.error("configuration_invalid", mode=ENDS_ONLY, problems=str(context.files.problems).splitlines())
        await self._until_done(self._record_start)
        health.is_starting = False

    async def _record_start(self) -> None:
        ledger = self.context.ledger
        ledger.listen()
        if ledger.is_sqlite:
            await ledger.tasks.free_leases()
        ledger.replicas.join(self.runner.worker, installed_version("dbaccess"))
        await self._say_if_pooled()
        if (recovery := await ledger.recovery.current()) is not None:
            log.error("recovery_mode", since=recovery.since.isoformat(), reason=recovery.reason)
        await ledger.audit.record(AuditKind.BOT_STARTED, actor="bot", facts={"worker": self.runner.worker})
        await announce_files(self.context, is_start=True)

    async def _say_if_pooled(self) -> None:
        """Log that a pooler is in front of the ledger. The look needs a connection of its own; without one the bot starts all the same."""
        with suppress(LedgerError):
            if await self.context.ledger.is_behind_pooler():
                log_events.ledger_behind_pooler()

    async def _serve(self, cannot_listen: CannotListen | None) -> None:
        """Run until ``stop`` is set, then wait for the running jobs until the deadline."""
        scheduler = build_scheduler(self.context, self.runner.probes)
        scheduler.start()
        serving = {
            asyncio.create_task(self.runner.run(self.stop)),
            asyncio.create_task(self._serve_grants(cannot_listen, scheduler)),
        }
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({*serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
            self.stop.set()
            await self._finish(serving)
        finally:
            for task in (*serving, stopped):
                task.cancel()
            scheduler.shutdown(wait=False)

    async def _finish(self, serving: set[asyncio.Task[None]]) -> None:
        """Wait for the running jobs until the deadline, say what stays live, and close the connections to the servers. Raises the error of the start."""
        done, late = await asyncio.wait(serving, timeout=STOP_SECONDS - CLOSE_SECONDS)
        for task in late:
            task.cancel()
        if late:
            self.is_cut_off = True
            log.error("jobs_cut_off", seconds=STOP_SECONDS - CLOSE_SECONDS)
            await asyncio.wait(late, timeout=0.5)
        await self._within_limit(self._say_what_stays())
        if not await asyncio.to_thread(self.context.engines.close_within, 0.0 if late else STEP_SECONDS):
            self.is_cut_off = True
        for task in done:
            task.result()

    async def _within_limit(self, step: Awaitable[Any]) -> None:
        """Run one step of the close. One that takes too long is left behind: the process must end."""
        task = asyncio.ensure_future(step)
        await asyncio.wait({task}, timeout=STEP_SECONDS)
        if not task.done():
            task.cancel()
            self.is_cut_off = True
        elif (error := task.exception()) is not None:
            log.error("close_failed", error=type(error).__name__)

    async def _leave(self) -> None:
        """Tell the other replicas that this bot stopped. Without an answer of the ledger they notice it within minutes."""
        with suppress(LedgerError):
            await self.context.ledger.replicas.leave()

    async def _say_what_stays(self) -> None:
        """Log how many grants stay live, and what ends them until the next start."""
        try:
            live = await self.context.ledger.requests.live_grants()
        except LedgerError as error:
            log.error("grants_unknown", reason=str(error))  # noqa: TRY400 - the reason is enough
            return
        if live:
            enforced = enforced_by_servers(self.context, live) or "nothing was created on a server yet"
            log.warning(
                "grants_stay_live",
                grants=len(live),
                enforced=enforced,
                requests=[one.id for one in live[:NAMED_AT_MOST]],
            )

    async def _serve_grants(self, cannot_listen: CannotListen | None, scheduler: AsyncIOScheduler) -> None:
        """Start what new grants need: settings, health server, checks, Slack. Where that fails, wait until all grants have ended, then raise."""
        try:
            check_slack_settings(self.settings)
            if cannot_listen is not None:
                raise cannot_listen
            add_checks_for_grants(scheduler, self.context)
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
        self._connection = SocketConnection(
            build_bolt_app(self._client, self.context),
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
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_files)

    def _on_stop_signal(self, number: int) -> None:
        """The first signal stops within the deadline, a second one at once. Tasks that were running are done again at the next start."""
        if self.stop.is_set():
            log.error("bot_stopped_at_once", signal=number)
            os._exit(128 + number)
        log.info("bot_stopping", signal=number, within_seconds=STOP_SECONDS)
        self.stop.set()

    def _reload_files(self) -> None:
        """On SIGHUP: load the files now, changed or not. Without the signal a change is seen within seconds."""
        self.context.files.forget()
        self._reload = asyncio.ensure_future(announce_files(self.context))

    @property
    def _client(self) -> AsyncWebClient:
        directory = self.context.directory
        assert isinstance(directory, SlackDirectory), "set by build_context"
        return directory.client

    def _is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
