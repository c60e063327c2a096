"""Composition root: builds everything once, starts it in order, stops it in the opposite one.

What must not wait for anything else starts first: the runner ends grants also while Slack is away and while the
files are broken.
"""

from __future__ import annotations

import asyncio
import getpass
import os
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
from bot.settings import Settings, SettingsError, needed_for_slack
from bot.slack.connection import RETRY_SECONDS, Connection, SlackRefused, bolt, web_client
from bot.slack.directory import SlackDirectory
from bot.slack.messenger import SlackMessenger
from storage.audit_log import AuditKind
from storage.errors import LedgerError, SchemaMissing, StoreBusy
from storage.ledger import Ledger

NO_TOKEN = "xoxb-none"  # noqa: S105 - no token: every call is refused by Slack
STILL_LIVE = "the configuration has mistakes and grants live: staying up to end them, granting nothing"
CANNOT_GRANT = "nothing can be granted and grants live: staying up to end them"

log = structlog.get_logger(__name__)


class CannotStart(Exception):
    """The bot cannot run as it is set up; the text says what to do, a line each."""


def build_context(settings: Settings) -> Context:
    """Everything the verbs need; opens nothing."""
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
    """Whoever runs the command line, as the audit shows them; a user without a name (some containers) by number."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid{os.getuid()}"
    return Person(id=f"cli:{name}", name=name, is_member=True)


@asynccontextmanager
async def command_line_context(settings: Settings) -> AsyncIterator[Context]:
    """The verbs for the command line, on a ledger that exists. Raises SchemaMissing, StoreUnavailable."""
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
        self._connection: Connection | None = None
        self._reading: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Until told to stop. Raises CannotStart, StoreBusy, SchemaMissing, SettingsError, CannotListen.

        Whatever keeps the bot from granting is raised at once where nothing is live; else when nothing is any more.
        """
        ledger = self.context.ledger
        try:
            await self._open()
            if not ledger.take_sole_run():
                raise StoreBusy(
                    "another bot runs on this ledger; stop it first, or use PostgreSQL as store for several"
                )
            await self._prepare()
            await self._serve()
        finally:
            ledger.release_sole_run()
            await ledger.close()

    async def _open(self) -> None:
        """Without tokens no ledger is made; one that is there may have grants to be ended."""
        try:
            needed_for_slack(self.settings)
        except SettingsError:
            with suppress(SchemaMissing):
                await self.context.ledger.open(create=False)
                if await self._has_ends():
                    return
            raise
        await self.context.ledger.open(create=self.context.ledger.is_sqlite)

    async def _has_ends(self) -> bool:
        """Something is live, or what a lost claim may have left on a server is still to be taken away."""
        if await self.context.ledger.live_grants():
            return True
        return any(task.kind in ENDS for task in await self.context.ledger.tasks())

    async def _may_have_ends(self) -> bool:
        """A ledger that does not answer at this moment may have some."""
        try:
            return await self._has_ends()
        except LedgerError:
            log.exception("the ledger does not answer")
            await asyncio.sleep(RETRY_SECONDS)
            return True

    async def _prepare(self) -> None:
        context = self.context
        if context.ledger.is_sqlite:
            await context.ledger.free_leases()
        context.files.refresh()
        if context.files.problems is not None:
            if not await self._has_ends():
                raise CannotStart(str(context.files.problems))
            log.error(STILL_LIVE, problems=str(context.files.problems).splitlines())
        await context.ledger.record(AuditKind.BOT_STARTED, actor="bot", facts={"worker": self.runner.worker})
        await announce_files(context, is_start=True)

    async def _serve(self) -> None:
        self._stop_on_signals()
        health = HealthServer(self.context.ledger, self.unready_reasons)
        scheduler = build_scheduler(self.runner)
        running = asyncio.create_task(self.runner.run(self.stop))
        try:
            await asyncio.gather(self._granting(health, scheduler), running)
        finally:
            self.stop.set()
            if scheduler.running:
                scheduler.shutdown(wait=False)
            await asyncio.gather(running, return_exceptions=True)
            await health.stop()
            await asyncio.to_thread(self.context.engines.close)
        log.info("stopped")

    async def _granting(self, health: HealthServer, scheduler: AsyncIOScheduler) -> None:
        """All that new grants need. Without it the runner, which is at work already, ends those that live; then this raises."""
        try:
            needed_for_slack(self.settings)
            await health.start(self.settings.http_host, self.settings.http_port)
            scheduler.start()
            await self._listen()
        except (SettingsError, CannotListen, SlackRefused) as no:
            reason = CannotStart(str(no)) if isinstance(no, SlackRefused) else no
            if not self.stop.is_set() and await self._may_have_ends():
                log.error(CANNOT_GRANT, why=str(no))  # noqa: TRY400 - the words say it all
                await self._until_nothing_lives()
            self.stop.set()
            raise reason from None

    async def _listen(self) -> None:
        """The connection to Slack, for ever. Raises SlackRefused; any other failure of it must not stop the ends."""
        token = self.settings.slack_app_token
        assert token is not None, "checked by needed_for_slack"
        directory = self.context.directory
        assert isinstance(directory, SlackDirectory), "built above"
        self._connection = Connection(
            bolt(directory.client, self.context), token.get_secret_value(), on_first=self._on_connected
        )
        while not self.stop.is_set():
            try:
                await self._connection.run(self.stop)
            except SlackRefused:
                raise
            except Exception:
                log.exception("the connection to Slack failed; it is built anew")
                await asyncio.sleep(RETRY_SECONDS)

    def _on_connected(self, workspace: str) -> None:
        if self.context.files.config is not None:
            log_events.bot_ready(self.context.files, workspace=workspace, ledger=self.context.ledger.place)

    async def _until_nothing_lives(self) -> None:
        while not self.stop.is_set() and await self._may_have_ends():
            await self.context.ledger.changed(5, reader="end")

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._read_again)

    def _read_again(self) -> None:
        """SIGHUP: read the files now, whether they changed or not; without it a change is seen within seconds."""
        self.context.files.forget()
        self._reading = asyncio.ensure_future(announce_files(self.context))

    async def unready_reasons(self) -> Mapping[str, str]:
        """What keeps the bot from its work, by name."""
        wrong = {}
        try:
            await self.context.ledger.now()
            await self.context.ledger.cursor("feed")
        except LedgerError as error:
            wrong["store"] = str(error)
        if self._connection is None or not self._connection.is_well:
            wrong["slack"] = "not connected"
        if self.context.files.config is None:
            wrong["configuration"] = "has mistakes; nothing is granted, live grants are ended"
        elif self.context.files.problems is not None:
            wrong["configuration"] = "changed files have mistakes; the last good ones are in force"
        return wrong
