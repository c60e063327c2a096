"""The ledger: dbaccess's own database. It opens the database and holds its parts: requests, tasks, audit log and more.

Only ``requests`` changes a request (``advance``, ``advance_many``, ``submit``).
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select

from storage.alerts import AlertRepository
from storage.audit_log import AuditLog
from storage.database import Clock, Database
from storage.figures import Figures
from storage.keys import random_key
from storage.lockdowns import LockdownRepository
from storage.messages import MessageRepository
from storage.observations import Observations
from storage.recovery import RecoveryRepository
from storage.replicas import Replicas
from storage.requests import RequestRepository
from storage.retention import Retention
from storage.schema import meta
from storage.task_queue import TaskQueue

LEDGER_ID_LENGTH = 12


class Ledger:
    """The one object that callers use. Its constructor does no I/O: call ``open`` before use and ``close`` after it.

    ``id`` names this ledger in the mark of every user that it creates on a server.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.database = Database(url, clock=clock)
        self.requests = RequestRepository(self.database)
        self.tasks = TaskQueue(self.database)
        self.audit = AuditLog(self.database)
        self.messages = MessageRepository(self.database)
        self.alerts = AlertRepository(self.database)
        self.lockdowns = LockdownRepository(self.database, self.requests, self.alerts)
        self.recovery = RecoveryRepository(self.database, self.alerts)
        self.observations = Observations(self.database)
        self.figures = Figures(self.database)
        self.replicas = Replicas(self.database)
        self.retention = Retention(self.database)
        self.id = ""

    @property
    def is_sqlite(self) -> bool:
        """The ledger is a file of this machine: one bot runs on it."""
        return self.database.is_sqlite

    @property
    def place(self) -> str:
        """The location of the ledger, as text for people."""
        return self.database.place

    async def open(self, *, create: bool) -> None:
        """Check the schema; with ``create``, create or upgrade it first. Raises SchemaMismatch, LedgerUnavailable."""
        if create:
            await self.upgrade()
        await self.database.check_schema()
        self.id = self.requests.ledger_id = await self.database.read(_ledger_id)

    async def upgrade(self) -> None:
        """Create the tables or bring them up to date. A new ledger gets its id. Raises SchemaMismatch if it is newer."""
        await self.database.migrate(_ensure_id)

    async def close(self) -> None:
        """Finish the running transactions and close every connection."""
        await self.database.close()

    async def is_behind_pooler(self) -> bool:
        """Whether a connection pooler is in front of PostgreSQL: commits of other processes are polled for then. Raises LedgerUnavailable."""
        return await self.database.is_behind_pooler()

    async def now(self) -> datetime:
        """The time that decides everything, in aware UTC. On PostgreSQL the server's, so that all replicas share one clock."""
        return await self.database.now()

    async def check_writable(self) -> None:
        """Raises LedgerUnavailable where nothing can be written now. Waits for no other transaction of this process."""
        await self.database.check_writable()

    def acquire_run_lock(self, *, is_to_be_made: bool = False) -> bool:
        """Take the right to run a bot. False if another process has it. ``is_to_be_made``: also where there is no ledger yet.

        On SQLite these are locks of the operating system (``storage.run_lock``). PostgreSQL takes any number of bots: True.
        """
        return self.database.run_lock is None or self.database.run_lock.acquire(is_to_be_made=is_to_be_made)

    def release_run_lock(self) -> None:
        """Release the run lock. The operating system also releases it when the process ends."""
        if self.database.run_lock is not None:
            self.database.run_lock.release()

    @property
    def is_replaced(self) -> bool:
        """Whether the file of the ledger was removed or replaced since the run lock was taken."""
        return self.database.is_replaced

    def listen(self) -> None:
        """Begin to listen for commits, without waiting. On PostgreSQL the claims of this process are freed soon after its end from then on."""
        self.database.commit_listener.start()

    async def wait_for_commit(self, seconds: float, *, reader: str = "runner") -> bool:
        """Wait for a commit of any process. True as soon as there was one since this reader's last call.

        False after ``seconds`` without a commit.
        """
        return await self.database.commit_listener.wait_for_commit(seconds, reader)


def _ledger_id(tx: Connection) -> str:
    return str(tx.execute(select(meta.c.value).where(meta.c.name == "ledger")).scalar_one_or_none() or "")


def _ensure_id(tx: Connection) -> None:
    if not _ledger_id(tx):
        tx.execute(insert(meta).values(name="ledger", value=random_key(LEDGER_ID_LENGTH)))
