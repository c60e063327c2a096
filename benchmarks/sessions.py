"""Watches sessions and users on the target server: when the last session is dead, and when the last user is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import psycopg

from benchmarks.grants import log_in
from benchmarks.world import World

LOGINS_AT_ONCE = 8
LOOK_SECONDS = 0.02


class SessionWatch:
    """One open session for each user. ``died_at`` is when the server closed it, in seconds of ``time.time``."""

    def __init__(self) -> None:
        self.died_at: dict[int, float] = {}
        self._connections: dict[int, psycopg.AsyncConnection[Any]] = {}

    async def open(self, logins: Mapping[int, dict[str, str]]) -> None:
        """Log in as each user, by the number of its request."""
        gate = asyncio.Semaphore(LOGINS_AT_ONCE)

        async def one(number: int, login: dict[str, str]) -> None:
            async with gate:
                connection = await log_in(login)
            self._connections[number] = connection
            asyncio.get_running_loop().add_reader(connection.fileno(), self._on_closed, number)

        await asyncio.gather(*(one(number, login) for number, login in logins.items()))

    def _on_closed(self, number: int) -> None:
        """An idle session hears from the server only that it is closed."""
        self.died_at.setdefault(number, time.time())
        asyncio.get_running_loop().remove_reader(self._connections[number].fileno())

    @property
    def all_dead(self) -> bool:
        return len(self.died_at) == len(self._connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, connection in self._connections.items():
            if number not in self.died_at:
                asyncio.get_running_loop().remove_reader(connection.fileno())
            with suppress(psycopg.Error):
                await connection.close()


class RoleWatch:
    """Looks at the temporary users every 20 ms, in the background. Times are of ``time.time``."""

    def __init__(self, world: World, usernames: Mapping[int, str]) -> None:
        self._world = world
        self._numbers = {username: number for number, username in usernames.items()}
        self.gone_at: dict[int, float] = {}
        self.blocked_at: dict[int, float] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def all_gone(self) -> bool:
        return len(self.gone_at) == len(self._numbers)

    @property
    def all_blocked(self) -> bool:
        """Nobody can log in as one of the users."""
        return len(self.blocked_at) == len(self._numbers)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None, "entered"
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _look(self) -> None:
        """A role that is gone, or may not log in, is noted at the time before the look."""
        url = self._world.server.superuser_url("postgres")
        query = "SELECT rolname, rolcanlogin FROM pg_roles WHERE starts_with(rolname, %s)"
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while True:
                rows: list[tuple[str, bool]] = await (await connection.execute(query, (self._world.prefix,))).fetchall()
                now, can_log_in = time.time(), dict(rows)
                for username, number in self._numbers.items():
                    if not can_log_in.get(username):
                        self.blocked_at.setdefault(number, now)
                    if username not in can_log_in:
                        self.gone_at.setdefault(number, now)
                await asyncio.sleep(LOOK_SECONDS)
