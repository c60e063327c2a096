"""One spare connection for each server, held open so that an end gets in where a new connection is refused.

Anybody can fill a server's connections with logins that stay half open, without a password. Only ends use the spare, one at a time.
It is the one connection that lasts between calls. It is opened after a grant and at each sweep.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pymysql

from adapters.mysql.connection import Address

WAIT_SECONDS = 5.0
"""An end waits so long for another end that uses the spare."""

LONGEST_IDLE = 31_536_000
"""``wait_timeout`` at its largest, in seconds."""

Driver: TypeAlias = "pymysql.Connection[Any]"


@dataclass
class _Spare:
    lock: threading.Lock = field(default_factory=threading.Lock)
    driver: Driver | None = None

    def is_alive(self) -> bool:
        """Whether it answers. Drops it otherwise."""
        try:
            if self.driver is not None:
                self.driver.ping(reconnect=False)
        except (pymysql.MySQLError, OSError):
            self.driver = None
        return self.driver is not None


_spares: dict[Address, _Spare] = {}
_lock = threading.Lock()


def keep(address: Address, connect: Callable[[], Driver]) -> None:
    """Open the spare where there is none that answers. Errors are ignored: the caller's own work is done."""
    spare = _of(address)
    if not spare.lock.acquire(blocking=False):
        return
    try:
        with suppress(Exception):
            if not spare.is_alive():
                spare.driver = connect()
                _stay(spare.driver)
    finally:
        spare.lock.release()


def take(address: Address) -> Driver | None:
    """The spare, if there is one that answers. Whoever has it gives it back."""
    spare = _of(address)
    if not spare.lock.acquire(timeout=WAIT_SECONDS):
        return None
    if spare.is_alive():
        return spare.driver
    spare.lock.release()
    return None


def give_back(address: Address) -> None:
    """Let other ends use the spare again."""
    spare = _of(address)
    try:
        if spare.driver is not None:
            _stay(spare.driver)
    except (pymysql.MySQLError, OSError):
        spare.driver = None
    finally:
        spare.lock.release()


def _of(address: Address) -> _Spare:
    with _lock:
        return _spares.setdefault(address, _Spare())


def _stay(driver: Driver) -> None:
    with driver.cursor() as cursor:
        cursor.execute(f"SET SESSION wait_timeout = {LONGEST_IDLE}")
