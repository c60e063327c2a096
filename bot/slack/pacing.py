"""The times at which a message may be sent to Slack. Nothing here talks to Slack or waits; ``bot.slack.messenger`` asks before each call.

Slack's limits (docs.slack.dev, rate limits): ``chat.postMessage`` one a second in each channel, ``chat.update`` about 50 a minute for
the whole workspace, with short bursts above that. After a 429 the method must not be called before Retry-After has passed, and no
other method is affected.

Each message whose turn has not come gets a turn: the next free time of its channel or of its method. The caller comes back then, so
a thousand waiting messages cost one look each, not one each second. A turn that is not used within ``TURN_LIFE`` is given up.

Who can trip these limits, and who else waits then:

- A person who makes 300 requests fills the channel of the cards, and the direct messages of approvers outside it. Later cards and
  reminders *there* wait, a second each. Other channels do not. Urgent messages (``Urgency``: alerts, credential messages, break-glass
  cards) go before everything that waits in their channel.
- The cards of these requests also need ``chat.update``. They may use only half of what Slack allows. Alerts, filling credential
  messages and taking passwords out of them wait for nothing but an answer of Slack (429): each second there delays a login or an alert.
- A person with 300 grants at once can make Slack refuse updates. Everybody waits then for as long as Slack says.
- A 429 for one channel closes that channel for posts. A 429 for ``chat.update`` closes it for everybody, since Slack refuses everybody
  then; new posts, also of alerts, go on. Afterwards there is no burst, so the first minute does not trip it again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from time import monotonic

POST_SECONDS = 1.0
UPDATES_PER_MINUTE = 50
TURN_LIFE = 60.0
"""Seconds after which a turn that nobody used is given up: its caller has stopped."""
LATE_AT_MOST = 0.5
"""A post that comes this much after its turn does not move the turn of the next one. Slack tolerates short bursts."""
GIVEN_MAX = 1000
"""More turns than this: those that nobody used are looked for and given up."""
CHANNELS_MAX = 2000
"""Channels that are remembered. More than that: those that are free are forgotten."""


class Urgency(StrEnum):
    """The purpose of a message, as far as it decides who goes first."""

    ALERT = "alert"
    CREDENTIALS = "credentials"
    CLOSING = "closing"
    OTHER = "other"


SHARE_OF_OTHERS = 0.5
"""The part of the updates of a minute that messages which are not urgent may use. A burst may have as many again."""
URGENT_BURST = 5.0
"""Urgent posts that one channel takes at once after a pause. Slack tolerates short bursts."""


@dataclass
class Turns:
    """Turns with at least ``interval`` seconds from one to the next; ``burst`` of them may be used at once after a pause."""

    interval: float
    burst: float = 1.0
    next_at: float = float("-inf")
    given: dict[Hashable, float] = field(default_factory=dict)

    def take(self, key: Hashable, now: float, *, earliest: float = float("-inf")) -> float:
        """The time of the turn of ``key``. Where it has come, it is used up. ``earliest``: a turn before that is exchanged for a later one."""
        turn = self.given.pop(key, None)
        if turn is None or turn < max(earliest, now - TURN_LIFE):
            turn = max(self.next_at, earliest, now - (self.burst - 1) * self.interval)
            self.next_at = turn + self.interval
        if turn > now:
            self._give(key, turn, now)
        return turn

    def _give(self, key: Hashable, turn: float, now: float) -> None:
        if len(self.given) >= GIVEN_MAX:
            self.drop_unused(now)
        self.given[key] = turn

    def begin_again(self, at: float) -> None:
        """No burst, and no new turn before this time. Turns that were given stay."""
        self.next_at = max(self.next_at, at)

    def drop_unused(self, now: float) -> None:
        """Give up the turns whose callers did not come."""
        self.given = {key: at for key, at in self.given.items() if at >= now - TURN_LIFE}


class ChannelPacing:
    """The posts in one channel. Urgent ones have turns of their own, and the others make way for them."""

    def __init__(self) -> None:
        self._urgent = Turns(POST_SECONDS, burst=URGENT_BURST)
        self._others = Turns(POST_SECONDS)
        self._free_at = self._closed_until = float("-inf")

    def wait(self, key: Hashable, now: float, *, is_urgent: bool) -> float:
        """Seconds until this message may be posted, and 0 where it may be posted now. One that is not urgent comes a second after the last."""
        turns = self._urgent if is_urgent else self._others
        turn = turns.take(key, now, earliest=self._closed_until if is_urgent else self._free_at)
        if turn > now:
            return turn - now
        self._free_at = (now if is_urgent else max(turn, now - LATE_AT_MOST)) + POST_SECONDS
        return 0.0

    def close_until(self, at: float) -> None:
        """Slack takes no post here before this time."""
        self._closed_until = max(self._closed_until, at)
        self._free_at = max(self._free_at, at)
        self._urgent.begin_again(at)
        self._others.begin_again(at)

    def is_idle(self, now: float) -> bool:
        """Whether nothing has to be remembered about this channel."""
        for turns in (self._urgent, self._others):
            turns.drop_unused(now)
        return self._free_at <= now and not self._urgent.given and not self._others.given


class Pacing:
    """The turns of all messages of one workspace. ``clock`` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = monotonic, *, updates_per_minute: int = UPDATES_PER_MINUTE) -> None:
        self._clock = clock
        self._channels: dict[str, ChannelPacing] = {}
        allowed = SHARE_OF_OTHERS * updates_per_minute
        self._updates = Turns(60.0 / allowed, burst=2 * allowed)
        self._updates_closed_until = float("-inf")

    def wait_to_post(self, channel: str, key: Hashable, urgency: Urgency) -> float:
        """Seconds until this message may be posted, and 0 where it may be posted now: then its turn is used. ``key`` identifies the message."""
        return self._channel(channel).wait(key, self._clock(), is_urgent=urgency is not Urgency.OTHER)

    def wait_to_update(self, key: Hashable, urgency: Urgency) -> float:
        """As ``wait_to_post``, for the update of a message."""
        now = self._clock()
        if now < self._updates_closed_until:
            return self._updates_closed_until - now
        return 0.0 if urgency is not Urgency.OTHER else max(0.0, self._updates.take(key, now) - now)

    def on_posts_refused(self, channel: str, seconds: float) -> None:
        """Slack answered 429 to a post in this channel."""
        self._channel(channel).close_until(self._clock() + seconds)

    def on_updates_refused(self, seconds: float) -> None:
        """Slack answered 429 to an update."""
        self._updates_closed_until = max(self._updates_closed_until, self._clock() + seconds)
        self._updates.begin_again(self._updates_closed_until)

    def _channel(self, channel: str) -> ChannelPacing:
        if channel not in self._channels:
            now = self._clock()
            if len(self._channels) >= CHANNELS_MAX:
                self._channels = {name: one for name, one in self._channels.items() if not one.is_idle(now)}
            self._channels[channel] = ChannelPacing()
        return self._channels[channel]
