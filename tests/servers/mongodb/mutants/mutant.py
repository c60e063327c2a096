"""The definition of a mutant, and the means to build one: they replace parts of the stand-in while it is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.rights import Resource

Apply = Callable[[], None]
Around = Callable[[Call, Run], Awaitable[Reply]]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """``case`` is the number of the case that must notice it."""

    case: int
    name: str
    apply: Apply


MUTANTS: dict[str, Mutant] = {}


def breaks(case: int) -> Callable[[Apply], Apply]:
    def add(apply: Apply) -> Apply:
        name = apply.__name__
        assert name not in MUTANTS, name
        MUTANTS[name] = Mutant(case, name, apply)
        return apply

    return add


def replace(owner: object, name: str, by: object) -> None:
    """Replaces an attribute, which must exist."""
    assert hasattr(owner, name), name
    setattr(owner, name, by)


def around(name: str, run: Around) -> None:
    """Puts a wrong command in front of the right one, which it may call."""
    right = COMMANDS[name]

    async def wrong(call: Call) -> Reply:
        return await run(call, right.run)

    COMMANDS[name] = dataclasses.replace(right, run=wrong)


def reply_of(name: str, change: Callable[[Call, Reply], object]) -> None:
    """Changes the reply of a command."""

    async def changed(call: Call, run: Run) -> Reply:
        reply = await run(call)
        change(call, reply)
        return reply

    around(name, changed)


def accepts(name: str, code: int, reply: Reply | None = None) -> None:
    """The command succeeds where the right one refuses with this code."""

    async def accept(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure as failure:
            if failure.code != code:
                raise
            return dict(reply or {})

    around(name, accept)


def other_code(name: str, code: int, wrong: errors.Failure) -> None:
    """The command refuses with another error than the right one."""

    async def refuse(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure as failure:
            raise (wrong if failure.code == code else failure) from None

    around(name, refuse)


def ignores_right(*ignored: str) -> None:
    right = Call.need

    def need(call: Call, resource: Resource, *actions: str) -> None:
        if actions != ignored:
            right(call, resource, *actions)

    replace(Call, "need", need)


def nothing(*_: Any, **__: Any) -> None:
    return None
