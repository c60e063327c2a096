"""A fault, and the means to make one: a part of the stand-in replaced while it is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.rights import Resource

Break = Callable[[], None]
Around = Callable[[Call, Run], Awaitable[Reply]]


@dataclasses.dataclass(frozen=True)
class Fault:
    """``case`` is the number of the case that has to notice it."""

    case: int
    name: str
    apply: Break


FAULTS: dict[str, Fault] = {}


def breaks(case: int) -> Callable[[Break], Break]:
    def add(apply: Break) -> Break:
        name = apply.__name__
        assert name not in FAULTS, name
        FAULTS[name] = Fault(case, name, apply)
        return apply

    return add


def replace(owner: object, name: str, by: object) -> None:
    """What of ``owner`` is called ``name``, which must be there."""
    assert hasattr(owner, name), name
    setattr(owner, name, by)


def around(name: str, run: Around) -> None:
    """Put a wrong command before the right one, which it may use."""
    right = COMMANDS[name]

    async def wrong(call: Call) -> Reply:
        return await run(call, right.run)

    COMMANDS[name] = dataclasses.replace(right, run=wrong)


def reply_of(name: str, change: Callable[[Call, Reply], object]) -> None:
    """Change what a command answers."""

    async def changed(call: Call, run: Run) -> Reply:
        reply = await run(call)
        change(call, reply)
        return reply

    around(name, changed)


def forgiving(name: str, code: int, reply: Reply | None = None) -> None:
    """Say yes where the right command refuses by this code."""

    async def yes(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure as failure:
            if failure.code != code:
                raise
            return dict(reply or {})

    around(name, yes)


def other_code(name: str, code: int, wrong: errors.Failure) -> None:
    """Refuse otherwise than the right command does."""

    async def refuse(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure as failure:
            raise (wrong if failure.code == code else failure) from None

    around(name, refuse)


def right_not_asked(*not_asked: str) -> None:
    right = Call.need

    def need(call: Call, resource: Resource, *actions: str) -> None:
        if actions != not_asked:
            right(call, resource, *actions)

    replace(Call, "need", need)


def privileges_of_the_login() -> None:
    """What a login may do is looked up when it logs in and never again."""
    right = Connection.refresh

    def refresh(connection: Connection) -> None:
        if connection.user is None or not connection.privileges:
            right(connection)

    replace(Connection, "refresh", refresh)


def nothing(*_: Any, **__: Any) -> None:
    return None
