"""The stories of people in these tests. Each is one request that goes its way whatever breaks: people try again until it works."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis
from sqlalchemy import func, select

from storage.records import RequestKind, TaskKind
from storage.schema import requests, tasks
from tests.e2e.messages import buttons
from tests.fake_slack.server import WaitTimeout
from tests.nightly.fleet import LEADS, REQUESTERS, Fleet

PATIENCE = 300.0
"""Longer than a lease, which a killed replica may hold."""
OVER = frozenset({"revoked", "denied", "cancelled", "lapsed", "outdated", "applied"})
_reasons = itertools.count(10_001)


@dataclass
class LedgerView:
    """The requests of the ledger by reason, as of the last look."""

    fleet: Fleet
    by_reason: dict[str, list[Any]] = field(default_factory=dict)
    floor: int = 0
    """Requests with smaller numbers are over."""

    async def watch(self) -> None:
        """Read the requests again and again until cancelled."""
        while True:
            with self.fleet.ledger.connect() as connection:
                rows = connection.execute(
                    select(requests).where(requests.c.id > self.floor).order_by(requests.c.id)
                ).all()
            fresh: dict[str, list[Any]] = {}
            for row in rows:
                fresh.setdefault(row.reason, []).append(row)
            self.by_reason |= fresh
            live = [row.id for row in rows if row.state not in OVER or _is_to_be_reviewed(row)]
            self.floor = min(live) - 1 if live else max((row.id for row in rows), default=self.floor)
            await asyncio.sleep(0.1)

    def unfinished_tasks(self) -> dict[str, int]:
        """How many tasks of each kind are left that end by themselves: all but the reviews of break-glass access."""
        query = select(tasks.c.kind, func.count()).where(tasks.c.kind != TaskKind.REVIEW.value).group_by(tasks.c.kind)
        with self.fleet.ledger.connect() as connection:
            return {str(kind): int(number) for kind, number in connection.execute(query)}

    def of(self, reason: str, kind: str | None = None) -> Any | None:
        """The first request with this reason, or None."""
        return next((row for row in self.by_reason.get(reason, ()) if kind in (None, row.kind)), None)


def _is_to_be_reviewed(row: Any) -> bool:
    return row.kind == RequestKind.BREAK_GLASS and row.reviewed_at is None


@dataclass
class Story:
    """One request. ``session`` is the requester's open session on the server."""

    fleet: Fleet
    view: LedgerView
    kind: str
    database: str
    requester: str
    lead: str
    seconds: int
    reason: str = field(default_factory=lambda: f"why{next(_reasons)}")
    repeats: int = 0
    session: Any = None
    was_delivered: bool = False

    @property
    def row(self) -> Any | None:
        return self.view.of(self.reason)

    @property
    def number(self) -> int:
        assert self.row is not None, "made"
        return int(self.row.id)

    @property
    def state(self) -> str:
        return str(self.row.state) if self.row is not None else "none"

    async def run(self) -> None:
        """Go through the story until the request is over. Raises WaitTimeout."""
        await STORIES[self.kind](self)
        await self.until("it is over", lambda: self.state in OVER)
        await self.withdraw_repeats()

    async def withdraw_repeats(self) -> None:
        """A kill took the answer to the request, so the person made it again. They withdraw what still waits."""
        for row in self.view.by_reason[self.reason][1:]:

            def is_decided(number: int = row.id) -> bool:
                return all(each.state != "pending" for each in self.view.by_reason[self.reason] if each.id == number)

            await self.command(f"cancel {row.id}", is_decided)

    async def until(self, what: str, is_true: Callable[[], bool], seconds: float = PATIENCE) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while not is_true():
            if asyncio.get_running_loop().time() > deadline:
                raise WaitTimeout(f"{self}: {what}")
            await asyncio.sleep(0.1)

    def __str__(self) -> str:
        return f"{self.kind} on {self.database} by {self.requester} ({self.reason}, {self.state})"

    async def act(self, what: str, act: Callable[[], Coroutine[Any, Any, Any]], is_done: Callable[[], bool]) -> None:
        times = await self.fleet.slack.persist(f"{self}: {what}", act, is_done, PATIENCE)
        self.repeats += max(0, times - 1)

    async def command(self, text: str, is_done: Callable[[], bool]) -> None:
        await self.act(text, lambda: self.fleet.slack.command(self.requester, text), is_done)

    # Steps.

    async def request(self, verb: str = "request") -> None:
        words = f"{verb} {self.database} readonly {self.seconds}s {self.reason}"
        await self.command(words, lambda: self.row is not None)

    def card(self, number: int) -> Mapping[str, Any]:
        """A card of the request with buttons, or its newest one. Raises StopIteration."""
        places = sorted(self.fleet.slack.cards[number])
        with_buttons = [place for place in places if self.fleet.slack.labels(*place)]
        return self.fleet.slack.message(*next(iter(with_buttons[::-1] or places[::-1])))

    async def click(self, label: str, number: int) -> None:
        """Click on each card of the request that has the button: a repeat of a card may be dead."""
        for place in sorted(self.fleet.slack.cards[number]):
            if label in self.fleet.slack.labels(*place):
                await self.fleet.slack.click(self.lead, self.fleet.slack.message(*place), label)

    async def approve(self) -> None:
        await self.act("approve", lambda: self.click("Approve", self.number), lambda: self.state != "pending")

    async def use(self) -> None:
        """Wait for the credentials, and hold a session. The grant may end before: then there is none."""
        logins = self.fleet.slack.logins
        await self.until("credentials", lambda: self.number in logins or self.state in OVER)
        self.was_delivered = self.number in logins
        await self.until("it is active", lambda: self.state not in ("none", "pending", "approved"))
        if self.was_delivered and self.state == "active":
            self.session = await asyncio.to_thread(_log_in, self.database, logins[self.number])

    async def renew_password(self) -> None:
        """Click on **New password** until the message has another one, or the grant ends."""
        if not self.was_delivered:
            return
        slack, number = self.fleet.slack, self.number
        before = slack.logins[number]["Password"]

        async def click() -> None:
            for message in slack.dm(self.requester):
                if "New password" in buttons(message) and f"(#{number})" in str(message["text"]):
                    await slack.click(self.requester, message, "New password")

        await self.act("new password", click, lambda: slack.logins[number]["Password"] != before or self.is_ending())

    def is_ending(self) -> bool:
        return self.state in OVER or self.state == "revoking"

    def session_is_dead(self) -> bool:
        """Whether the server has closed the requester's session, or there was none."""
        if self.session is None:
            return True
        try:
            if isinstance(self.session, redis.Redis):
                self.session.ping()
            else:
                self.session.execute("SELECT 1")
        except (redis.RedisError, psycopg.Error, OSError):
            return True
        return False


def _log_in(database: str, login: Mapping[str, str]) -> Any:
    """A session that never connects again, or None where the grant ended meanwhile."""
    try:
        if database == "shop":
            return psycopg.connect(
                host=login["Host"], port=int(login["Port"]), dbname=login["Database"], user=login["Username"],
                password=login["Password"], autocommit=True, connect_timeout=30,
            )  # fmt: skip
        client = redis.Redis(
            host=login["Host"], port=int(login["Port"]), username=login["Username"], password=login["Password"],
            retry=None, single_connection_client=True, socket_keepalive=True, driver_info=None, protocol=2,
        )  # fmt: skip
        client.ping()
    except (OSError, psycopg.Error, redis.RedisError):
        return None
    return client


async def approved(story: Story) -> None:
    await story.request()
    await story.approve()
    await story.use()


async def automatic(story: Story) -> None:
    await story.request()
    await story.use()


async def break_glass(story: Story) -> None:
    await story.request("breakglass")
    await story.use()
    await story.until("it is over", lambda: story.state in OVER)
    await story.act(
        "sign off", lambda: story.click("Sign off", story.number),
        lambda: story.row is not None and story.row.reviewed_at is not None,
    )  # fmt: skip


async def extended(story: Story) -> None:
    await approved(story)
    more = f"{story.reason}0more"
    if story.state != "active":
        return
    await story.command(
        f"extend {story.number} 10s {more}", lambda: story.view.of(more) is not None or story.is_ending()
    )
    if (found := story.view.of(more)) is not None:
        number = int(found.id)
        await story.act(
            "approve more time", lambda: story.click("Approve", number),
            lambda: story.view.of(more).state in OVER or story.is_ending(),  # type: ignore[union-attr]
        )  # fmt: skip


async def done(story: Story) -> None:
    await approved(story)
    await story.command(f"done {story.number}", story.is_ending)


async def revoked(story: Story) -> None:
    await approved(story)
    await story.renew_password()
    await story.act("revoke", lambda: story.click("Revoke", story.number), story.is_ending)


async def denied(story: Story) -> None:
    await story.request()

    async def deny() -> None:
        known = story.fleet.slack.form(story.lead)
        await story.click("Deny", story.number)
        form = await story.fleet.slack.wait(
            "the form", lambda: (new := story.fleet.slack.form(story.lead)) != known and new, 3.0
        )
        await story.fleet.slack.submit(story.lead, form, why="not today")

    await story.act("deny", deny, lambda: story.state in OVER)


async def cancelled(story: Story) -> None:
    await story.request()
    await story.command(f"cancel {story.number}", lambda: story.state in OVER)


STORIES: Mapping[str, Callable[[Story], Coroutine[Any, Any, None]]] = {
    "approved": approved, "automatic": automatic, "break-glass": break_glass, "extended": extended, "done": done,
    "revoked": revoked, "denied": denied, "cancelled": cancelled,
}  # fmt: skip

CLICKED = [person for number, person in enumerate(REQUESTERS) if number % 4]
BY_ITSELF = [person for number, person in enumerate(REQUESTERS) if not number % 4]


class Cast:
    """Gives each story people of its own."""

    def __init__(self) -> None:
        self._clicked, self._automatic, self._leads = (
            itertools.cycle(CLICKED),
            itertools.cycle(BY_ITSELF),
            itertools.cycle(LEADS),
        )

    def story(self, fleet: Fleet, view: LedgerView, kind: str, database: str, seconds: int) -> Story:
        requester = next(self._automatic if kind == "automatic" else self._clicked)
        return Story(fleet, view, kind, database, requester, next(self._leads), seconds)
