"""Random answers of database servers: between a real server and an adapter, the rows are changed before the adapter reads them.

What is checked: each call gives a result or an ``AdapterError`` that holds no secret, within its time limits; never another exception.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from unittest import mock

import psycopg
from redis.connection import AbstractConnection

from adapters.base import Adapter, AdapterError, Level
from adapters.harness import everything_on
from adapters.mongodb.connection import MongoDBConnection
from adapters.mysql.connection import MySQLConnection

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 2**31, 2**63, 10**40, 1.5, float("nan"), Decimal("NaN"), "", "x", "x" * 10_000, "\x00", "\ud800",
    "0", "-1", "9" * 100, "9.9.9-MariaDB", "18.4", b"", b"\xff\xfe\x00", b"x" * 5000, [], [None], [b"\xff"], {}, {"": None}, {"x": [1]},
    datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC), timedelta(days=999999), "dbaccess ledger=x request=99999999999999999999",
    "jit_1_ada_abcd", "jit_99999999999999999999_x_abcd", "infinity", "GRANT ALL ON *.* TO `x`@`%`", "~*", "user x on #0 ~* +@all",
)  # fmt: skip


class Server(Protocol):
    """The part of an engine's harness that is needed."""

    admin_secrets: tuple[str, ...]
    reading: Level
    narrow: Level

    def adapter(self) -> Adapter: ...


def readers(harness: Server, usernames: Sequence[str]) -> Mapping[str, Callable[[Adapter], object]]:
    """The verbs that read, on two levels and these users."""
    levels = [harness.reading, harness.narrow]
    return {
        "check": lambda adapter: adapter.check(levels),
        "identity": lambda adapter: adapter.identity(),
        "level_state": lambda adapter: adapter.level_state(harness.reading),
        "list_users": lambda adapter: adapter.list_users(),
        "activity": lambda adapter: adapter.activity(usernames),
        "compare_users": lambda adapter: adapter.compare_users(dict.fromkeys(usernames, harness.narrow)),
    }


@dataclass
class Answers:
    """Changes about one answer in ``one_in``. ``changed`` counts them."""

    chance: random.Random
    one_in: int = 4
    changed: int = 0

    def change(self, answer: Any) -> Any:
        """The answer, or a changed copy of it."""
        if self.chance.randrange(self.one_in):
            return answer
        self.changed += 1
        return self._mutated(answer)

    def _mutated(self, value: Any) -> Any:
        inner = isinstance(value, list | tuple | dict) and len(value) > 0 and self.chance.random() < 0.85
        if not inner:
            return self.chance.choice(ODD)
        if isinstance(value, dict):
            return self._mutated_object(value)
        items, place, kind = list(value), self.chance.randrange(len(value)), self.chance.random()
        if kind < 0.7:
            items[place] = self._mutated(items[place])
        elif kind < 0.8:
            items.insert(place, self.chance.choice(ODD))
        elif kind < 0.9:
            del items[place]
        else:
            items.append(items[place])
        return type(value)(items) if type(value) in (list, tuple) else items

    def _mutated_object(self, value: dict[Any, Any]) -> dict[Any, Any]:
        found, key = dict(value), self.chance.choice(list(value))
        if self.chance.random() < 0.2:
            del found[key]
        else:
            found[key] = self._mutated(found[key])
        return found


@contextmanager
def changed(answers: Answers) -> Iterator[None]:
    """While open, every adapter reads changed answers."""
    with ExitStack() as stack:
        for holder, name in (
            (psycopg.Cursor, "fetchall"),
            (psycopg.Cursor, "fetchone"),
            (MySQLConnection, "run"),
            (MongoDBConnection, "run"),
            (AbstractConnection, "read_response"),
        ):
            stack.enter_context(mock.patch.object(holder, name, _changing(getattr(holder, name), answers)))
        yield


def _changing(original: Callable[..., Any], answers: Answers) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        return answers.change(original(*arguments, **named))

    return call


@dataclass
class Outcomes:
    """``faults`` are exceptions that are no AdapterError, and secrets in errors. ``counts`` has what the calls led to."""

    faults: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


def fuzz(harness: Server, usernames: Sequence[str], rounds: int, chance: random.Random) -> Outcomes:
    """Call random verbs of new adapters so many times."""
    outcomes, verbs = Outcomes(), readers(harness, usernames)
    for _ in range(rounds):
        name = chance.choice(list(verbs))
        answers = Answers(chance)
        with changed(answers):
            _call(harness, name, verbs[name], outcomes)
        outcomes.counts["answers changed"] += answers.changed
    return outcomes


def _call(harness: Server, name: str, verb: Callable[[Adapter], object], outcomes: Outcomes) -> None:
    try:
        verb(harness.adapter())
    except AdapterError as error:
        outcomes.counts[f"{name}: {type(error).__name__}"] += 1
        if any(secret in everything_on(error) for secret in harness.admin_secrets):
            outcomes.faults[f"{name}: a secret in {type(error).__name__}"] += 1
    except Exception as error:  # noqa: BLE001 - that there is none is what is tested
        last = error.__traceback__
        assert last is not None, "it was raised"
        while last.tb_next is not None:
            last = last.tb_next
        where = f"{last.tb_frame.f_code.co_filename.rpartition('/')[2]}:{last.tb_lineno}"
        outcomes.faults[f"{name}: {type(error).__name__} {str(error)[:80]} at {where}"] += 1
    else:
        outcomes.counts[f"{name}: result"] += 1
