"""The places in a runner: how many tasks run at a time, for each target server and for Slack.

Ends of grants and alerts have places of their own everywhere. First tries and retries have separate places, too, so that ends that
fail again and again never take the place of a new end. So have ends whose users are blocked already: users that hold up their own end
never take the place of those that yielded. A pool that hangs fills its own places only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from storage.pools import ALERTS, LOCKDOWNS, SLACK, Slot
from storage.records import Priority

SLACK_PLACES: Mapping[Priority, tuple[int, int]] = {
    Priority.SAFETY: (2, 1),
    Priority.GRANT: (3, 1),
    Priority.DECISION: (4, 2),
    Priority.BACKGROUND: (2, 1),
}
SERVER_PLACES: Mapping[Priority, tuple[int, int]] = {
    Priority.SAFETY: (3, 3),
    Priority.GRANT: (3, 1),
}
"""Priority → (how many first tries, how many retries) run at a time. For a server, at one address.

The places of an address are no more than its threads (``bot.engines.WORKERS``), so that no claimed task waits in memory.
"""

BLOCKED_PLACES = 4
"""Ends of users that are blocked already, at one address."""
ALERT_PLACES = (8, 4)
"""Of alerts, and as many of lockdowns."""

ADDRESSES_AT_ONCE = 2
"""A server that is reached at several addresses has the places of this many. An address that hangs can therefore not take all of them."""


def places_for(slot: Slot) -> int:
    """The number of tasks that may run at a time in slots of this kind."""
    if slot.pool in (ALERTS, LOCKDOWNS):
        return ALERT_PLACES[slot.is_retry]
    if slot.pool == SLACK:
        return SLACK_PLACES[slot.priority][slot.is_retry]
    places = BLOCKED_PLACES if slot.is_blocked else SERVER_PLACES[slot.priority][slot.is_retry]
    return places if slot.server is not None else places * ADDRESSES_AT_ONCE


MANY_ENDS = 5
"""With so many ends running, cards and notifications have one place each: they need the same processor, and ends go first."""


class Places:
    """The places that are taken now."""

    def __init__(self) -> None:
        self._taken: Counter[Slot] = Counter()
        self._ends = 0

    def take(self, slot: Slot) -> None:
        """A task begins to run in this slot."""
        self._taken.update(_counted(slot))
        self._ends += _is_end(slot)

    def free(self, slot: Slot) -> None:
        """The task has stopped."""
        self._taken.subtract(_counted(slot))
        self._ends -= _is_end(slot)
        for one in _counted(slot):
            if self._taken[one] <= 0:
                del self._taken[one]

    def room(self, slot: Slot) -> int:
        """How many more tasks may run in slots of this kind."""
        makes_way = slot.pool == SLACK and slot.priority > Priority.GRANT and self._ends >= MANY_ENDS
        return (1 if makes_way else places_for(slot)) - self._taken[slot]

    def full(self) -> list[Slot]:
        """The kinds of slots of which none is free."""
        return [slot for slot in self._taken if self.room(slot) <= 0]

    def taken(self) -> Mapping[Slot, int]:
        """The number of running tasks in each pool, for the metrics."""
        return {slot: count for slot, count in self._taken.items() if slot.server is None}


def _is_end(slot: Slot) -> bool:
    """Whether a task in this slot ends a grant on its server."""
    return slot.server is not None and slot.priority is Priority.SAFETY


def _counted(slot: Slot) -> set[Slot]:
    """A task counts for its address and for its whole pool."""
    return {slot, replace(slot, server=None)}
