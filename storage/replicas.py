"""The running bots of a ledger, and the order in which configurations came into force.

Each bot writes its row every minute. On PostgreSQL a bot grants only while its configuration is the newest one. The newest is the last one
that a bot loaded which had the newest before, or one that no bot ever had. An older one becomes the newest again where no running bot has
a newer one: a deployment that was rolled back. On SQLite one bot runs, and its configuration is always the newest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select, update

from storage.database import Database, advisory_lock_key
from storage.schema import bots, configurations

LIVE_WITHIN = timedelta(seconds=150)
"""A bot that wrote its row within this time counts as running. It writes every minute."""
FORGOTTEN_AFTER = timedelta(minutes=10)
"""The row of a bot that was killed is removed after this time."""
FORGETS_EVERY = 10
"""At its start and every so many beats a bot removes such rows."""

NEWEST = select(configurations.c.digest).order_by(configurations.c.id.desc()).limit(1)
TIME_AND_NEWEST = select(func.clock_timestamp(), NEWEST.scalar_subquery())


@dataclass(frozen=True, kw_only=True)
class Bot:
    """A running bot. ``digest`` is of the configuration that it has loaded; None where it has none without errors."""

    worker: str
    version: str
    started_at: datetime
    seen_at: datetime
    digest: str | None


class Replicas:
    """The running bots. ``join`` names the one of this process; without it this process is no bot and writes nothing here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._worker: str | None = None
        self._version = ""
        self._beats = 0
        self.is_older = False
        """Whether the configuration of this bot was older than the newest at the last look."""

    def join(self, worker: str, version: str) -> None:
        """Make this process a bot. The next heartbeat writes its row."""
        self._worker, self._version = worker, version

    async def heartbeat(self, digest: str | None) -> bool:
        """Write the row of this bot, with the digest of its configuration, and forget bots that were killed. Returns ``is_older``."""
        if self._worker is None:
            return False
        self.is_older = await self._database.write(lambda tx: self._beat(tx, digest), announce=False)
        return self.is_older

    async def leave(self) -> None:
        """Remove the row of this bot: it stops."""
        mine = delete(bots).where(bots.c.worker == self._worker)
        if self._worker is not None:
            await self._database.write(lambda tx: tx.execute(mine), announce=False)

    async def live(self, within: timedelta = LIVE_WITHIN) -> tuple[Bot, ...]:
        """The bots that run now, the oldest first."""

        def read(tx: Connection) -> tuple[Bot, ...]:
            is_live = bots.c.seen_at > self._database.now_in(tx) - within
            query = select(bots).where(is_live).order_by(bots.c.started_at, bots.c.worker)
            return tuple(Bot(**row) for row in tx.execute(query).mappings())

        return await self._database.read(read)

    async def newest_configuration(self) -> str | None:
        """The digest of the newest configuration; None where no bot has loaded one."""
        return await self._database.read(newest_in)

    async def has_newest(self, digest: str) -> bool:
        """Whether this bot may grant under this configuration. One that was just loaded gets its place in the order first."""
        if self._database.is_sqlite or await self.newest_configuration() in (None, digest):
            return True
        return self._worker is not None and not await self.heartbeat(digest)

    def _beat(self, tx: Connection, digest: str | None) -> bool:
        now = self._database.now_in(tx)
        beat = update(bots).where(bots.c.worker == self._worker).values(seen_at=now)
        found = tx.execute(beat.returning(bots.c.digest, NEWEST.scalar_subquery())).first()
        before, newest = found if found is not None else (None, newest_in(tx))
        is_older = digest not in (None, newest) and self._is_older(tx, digest, before, now)
        if found is None:
            row = {"worker": self._worker, "version": self._version, "started_at": now, "seen_at": now}
            tx.execute(insert(bots).values(digest=digest, **row))
        elif digest != before:
            tx.execute(update(bots).where(bots.c.worker == self._worker).values(digest=digest))
        if self._beats % FORGETS_EVERY == 0:
            is_gone = bots.c.seen_at < now - FORGOTTEN_AFTER
            tx.execute(delete(bots).where(bots.c.worker != self._worker if self._database.is_sqlite else is_gone))
        self._beats += 1
        return is_older

    def _is_older(self, tx: Connection, digest: str | None, before: str | None, now: datetime) -> bool:
        """Whether the configuration is older than the newest. If it is not, it becomes the newest. ``before``: what this bot had loaded."""
        if not self._database.is_sqlite:
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("configurations"),))
        newest = newest_in(tx)
        if newest == digest:
            return False
        if newest not in (None, before) and self._is_behind(tx, digest, newest, now):
            return True
        tx.execute(insert(configurations).values(digest=digest, at=now, worker=self._worker))
        return False

    def _is_behind(self, tx: Connection, digest: str | None, newest: str | None, now: datetime) -> bool:
        """Whether some bot had this configuration before, and another running bot has the newest."""
        if self._database.is_sqlite:
            return False
        if tx.execute(select(configurations.c.id).where(configurations.c.digest == digest).limit(1)).first() is None:
            return False
        has_newest = (bots.c.digest == newest, bots.c.seen_at > now - LIVE_WITHIN, bots.c.worker != self._worker)
        return tx.execute(select(bots.c.worker).where(*has_newest).limit(1)).first() is not None


def newest_in(tx: Connection) -> str | None:
    """The digest of the newest configuration, inside a transaction."""
    digest: str | None = tx.execute(NEWEST).scalar_one_or_none()
    return digest


def time_and_newest(database: Database, tx: Connection) -> tuple[datetime, str | None]:
    """The ledger's time, and the digest of the newest configuration, in one statement. On SQLite the digest is None: one bot runs."""
    if database.is_sqlite:
        return database.now_in(tx), None
    if (known := database.local_now()) is not None:
        return known, newest_in(tx)
    at, digest = tx.execute(TIME_AND_NEWEST).one()
    return at.astimezone(UTC), digest
