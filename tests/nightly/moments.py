"""The moments at which a bot is killed, seen from outside: a call of Slack, a message of a protocol, a task in the ledger, a time.

A kill before a call means that nothing of it has happened. A kill after it means that it was carried out and the bot never learns that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from storage.records import TaskKind
from storage.schema import tasks
from tests.nightly.fleet import Bot, Fleet

LOOK_SECONDS = 0.002
"""How often the tasks in the ledger are looked at."""


@dataclass(frozen=True)
class Moment:
    """``where``: slack, shop, cache, ledger, task, or time. ``what``: a method, bytes of a statement, a kind of task. ``is_after``: as in this module."""

    where: str
    what: str
    is_after: bool = False
    skipped: int = 0
    """How often it passes before the kill."""

    def __str__(self) -> str:
        return f"{'after' if self.is_after else 'before'} {self.where} {self.what}"


SLACK_CALLS = (
    "chat.postMessage",
    "chat.update",
    "users.info",
    "views.open",
)
SHOP = ("CREATE ROLE", "GRANT", "VALID UNTIL", "NOLOGIN", "pg_terminate_backend", "REVOKE", "DROP ROLE", "COMMIT")
CACHE = ("SETUSER", "GETUSER", "KILL", "DELUSER", "SAVE")
LEDGER = (
    "INSERT INTO requests",
    "UPDATE requests",
    "INSERT INTO tasks",
    "DELETE FROM tasks",
    "UPDATE tasks",
    "UPDATE messages",
    "COMMIT",
)
QUIET_TASKS = {
    TaskKind.REVIEW,
    TaskKind.ESCALATE,
    TaskKind.REMIND,
    TaskKind.TIME_OUT,
    TaskKind.LOCKDOWN,
    TaskKind.AUDIT_FEED,
}
"""These do not run in the stories, or only now and then."""


def moments(*, ledger: str) -> list[Moment]:
    """Every kind of moment, once."""
    parts = [("slack", SLACK_CALLS), ("shop", SHOP), ("cache", CACHE)]
    parts += [("ledger", LEDGER)] if ledger == "postgresql" else []
    parts += [("task", tuple(kind.value for kind in TaskKind if kind not in QUIET_TASKS))]
    found = [Moment(where, what, is_after) for where, names in parts for what in names for is_after in (False, True)]
    return [*found, *(Moment("time", "random") for _ in range(len(found) // 4))]


class Killer:
    """Waits for one moment, and kills the bot that reached it."""

    def __init__(self, fleet: Fleet, moment: Moment, chance: random.Random) -> None:
        self.fleet, self.moment, self.chance = fleet, moment, chance
        self.left = moment.skipped
        self.reached: asyncio.Future[Bot] = asyncio.get_running_loop().create_future()
        self._waits_for_answer: set[int] = set()

    async def wait(self, seconds: float) -> tuple[Bot, bool]:
        """The killed bot, and whether the moment came. After ``seconds`` a bot is killed anyway."""
        links, moment = self.fleet.links, self.moment
        if moment.where == "slack":
            self.fleet.slack.hook = self._on_call
        elif moment.where in links:
            links[moment.where].watch = self._on_bytes
        looks = asyncio.create_task(self._look()) if moment.where == "task" else None
        try:
            limit = self.chance.uniform(0.0, 4.0) if moment.where == "time" else seconds
            return await asyncio.wait_for(asyncio.shield(self.reached), limit), True
        except TimeoutError:
            return self._kill(None), moment.where == "time"
        finally:
            self.fleet.slack.hook = None
            for link in links.values():
                link.watch = None
            if looks is not None:
                looks.cancel()

    def _kill(self, bot: Bot | None) -> Bot:
        """Kill this bot, or one of those that run."""
        running = [each for each in self.fleet.bots if each.is_running]
        found = bot or self.chance.choice(running)
        found.kill()
        if not self.reached.done():
            self.reached.set_result(found)
        return found

    def _is_it(self) -> bool:
        self.left -= 1
        return self.left < 0 and not self.reached.done()

    def _on_call(self, port: int, method: str, was_carried_out: bool) -> None:
        if method == self.moment.what and was_carried_out == self.moment.is_after and self._is_it():
            self._kill(self.fleet.owner(port))

    def _on_bytes(self, port: int, to_server: bool, data: bytes) -> bool:
        if self.reached.done():
            return True
        if to_server and self.moment.what.encode() in data and (bot := self.fleet.owner(port)) and self._is_it():
            if not self.moment.is_after:
                self._kill(bot)
                return False
            self._waits_for_answer.add(port)
        elif not to_server and port in self._waits_for_answer:
            self._kill(self.fleet.owner(port))
            return False
        return True

    async def _look(self) -> None:
        """Kill when a task of the kind is claimed, or when a claimed one is gone."""
        query = select(tasks.c.id, tasks.c.worker).where(tasks.c.kind == self.moment.what, tasks.c.claim.is_not(None))
        claimed: dict[int, str] = {}
        with self.fleet.ledger.connect() as connection:
            while not self.reached.done():
                now = {int(row.id): str(row.worker) for row in connection.execute(query)}
                connection.rollback()
                hit = set(claimed) - set(now) if self.moment.is_after else set(now) - set(claimed)
                if hit and self._is_it():
                    worker = (claimed | now)[hit.pop()]
                    self._kill(self._bot_of(worker))
                claimed = now
                await asyncio.sleep(LOOK_SECONDS)

    def _bot_of(self, worker: str) -> Bot | None:
        return next(
            (
                bot
                for bot in self.fleet.bots
                if bot.is_running and bot.number == self.fleet.workers.get(worker.partition("+")[0])
            ),
            None,
        )


def shuffled(found: list[Moment], chance: random.Random) -> Iterator[Moment]:
    """All moments in random order, again and again. Later times let some pass first."""
    skipped = 0
    while True:
        for moment in chance.sample(found, len(found)):
            yield Moment(moment.where, moment.what, moment.is_after, skipped=chance.randint(0, skipped))
        skipped += 2
