"""Watches the temporary users on the servers from outside: when each was seen last."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg
import redis as redis_driver

from tests.nightly.fleet import Fleet

LOOK_SECONDS = 0.05


class UserWatch:
    """A thread that looks at all users. ``last_seen`` is in seconds of ``time.time``, of the beginning of the look."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.last_seen: dict[str, float] = {}
        self.first_seen: dict[str, float] = {}
        self._now: frozenset[str] = frozenset()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="user-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(30)

    def is_there(self, name: str) -> bool:
        """Whether the user was there at the last look."""
        return name in self._now

    def _look(self) -> None:
        fleet = self._fleet
        query = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)"
        with fleet.shop.superuser("postgres") as connection, fleet.servers.redis.connect() as client:
            while not self._is_over.wait(LOOK_SECONDS):
                now = time.time()
                with suppress(psycopg.Error, redis_driver.RedisError):
                    names = {str(row[0]) for row in connection.execute(query, (fleet.prefix,)).fetchall()}
                    names |= {name for name in client.execute_command("ACL", "USERS") if name.startswith(fleet.prefix)}
                    self._now = frozenset(names)
                    for name in names:
                        self.first_seen.setdefault(name, now)
                        self.last_seen[name] = now
