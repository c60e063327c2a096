"""Open connections of the bot to the nodes, and the one connection that is held for each node.

A held connection still works where a new one is refused (``maxclients``) or waits for long commands, so an end uses it first. One is held
for each address and account. It is lent to one thread at a time, and no thread ever waits for the connection of another node.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from adapters.redis.nodes import Node

Key: TypeAlias = tuple[str, int, str]
HELD_AT_MOST = 100
"""Held connections of one process. The oldest is closed when there are more."""


class Sighting(NamedTuple):
    """A user that this process has seen with the mark of ``ledger``, on the node with the random mark ``server``."""

    ledger: str
    server: str
    username: str


sightings = set[Sighting]()
"""Users whose marks need no further look before their end. A drop removes its user."""


@dataclass(eq=False)
class Link:
    """An open connection.

    ``owed`` counts answers that the server has not sent yet. They are read before any later answer, so a connection stays usable after a
    time-out: the next use goes on waiting where the last one stopped. ``server`` is the node's mark, once it was read on this
    connection. ``is_wanted`` is set where the connection is to be held after its use.
    """

    driver: Any
    owed: int = 0
    server: str | None = None
    is_wanted: bool = False

    def send(self, commands: Sequence[Sequence[str]]) -> None:
        """Send the commands in one packet. The server runs them without a command of another client in between.

        Raises ConnectionError where the connection is closed: the driver would connect again, and not log in.
        """
        if not self.driver.is_connected:
            raise NoConnection("the connection is closed")
        if len(commands) == 1:
            self.driver.send_command(*commands[0], check_health=False)
        else:
            packets = self.driver.pack_commands(commands)
            self.driver.send_packed_command([b"".join(packets)], check_health=False)
        self.owed += len(commands)

    def read(self, count: int, seconds: float) -> list[Any]:
        """The last ``count`` answers; an error of a command is returned, not raised. ``seconds`` is the limit for each answer.

        Raises TimeoutError of the driver, after which the connection is still usable, and ConnectionError, for example for a refused login.
        """
        found = list[Any]()
        while self.owed:
            try:
                answer = self.driver.read_response(timeout=seconds, disconnect_on_error=False)
            except ResponseError as error:
                answer = error
            self.owed -= 1
            found.append(answer)
        return found[-count:] if count else []

    def read_login(self, seconds: float) -> None:
        """Read the answer to ``AUTH``. Raises AuthenticationError for a refused login, and ResponseError for any other refusal."""
        (answer,) = self.read(1, seconds)
        if isinstance(answer, ResponseError):
            raise answer

    @property
    def is_alive(self) -> bool:
        """Whether the connection may still work. An idle connection has nothing to read, unless the server has closed it."""
        try:
            return bool(self.driver.is_connected) and (self.owed > 0 or not self.driver.can_read(0))
        except (RedisError, OSError):
            return False

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self.driver.disconnect()


class HeldLinks:
    """The held connections of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._links: dict[Key, tuple[Node, Link]] = {}
        self._lent = Counter[Key]()

    def take(self, node: Node, *, wait_seconds: float = 0) -> Link | None:
        """The held connection of the node, or None. Waits while another thread has it. The caller gives it back with ``give_back``."""
        key, until = _key(node), time.monotonic() + wait_seconds
        while True:
            with self._changed:
                self._changed.wait_for(lambda: key in self._links or not self._lent[key], until - time.monotonic())
                found = self._links.pop(key, None)
                self._lent[key] += found is not None
            if found is None:
                return None
            if found[0] == node and found[1].is_alive:
                return found[1]
            self.give_back(node, None)
            found[1].close()

    def give_back(self, node: Node, link: Link | None) -> None:
        """End a ``take``. None is given back where the connection was lost."""
        key = _key(node)
        with self._changed:
            self._lent[key] = max(0, self._lent[key] - 1)
            self._changed.notify_all()
        if link is not None:
            self.hold(node, link)

    def hold(self, node: Node, link: Link) -> None:
        """Hold this connection from now on, instead of the one that was held. A connection that owes answers replaces none that owes fewer."""
        key = _key(node)
        with self._changed:
            _, before = self._links.pop(key, (node, None))
            better, other = (link, before) if before is None or link.owed <= before.owed else (before, link)
            self._links[key] = (node, better)
            dropped = [other, *(self._links.pop(first)[1] for first in list(self._links)[:-HELD_AT_MOST])]
            self._changed.notify_all()
        for one in dropped:
            if one is not None:
                one.close()

    def clear(self) -> None:
        """Close all held connections, as a restart of the bot does."""
        with self._changed:
            links = [link for _, link in self._links.values()]
            self._links.clear()
        for link in links:
            link.close()


held_links = HeldLinks()


def _key(node: Node) -> Key:
    return node.host, node.port, node.user
