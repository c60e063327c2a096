"""Whatever is sent, the stand-in answers by a code of the real server's: it never stumbles over a field it did not look at."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from bson.binary import Binary
from pymongo.errors import OperationFailure

from tests.contract.mongodb_wire.harness import APP, serving
from tests.contract.mongodb_wire.raw import RawConnection
from tests.servers.mongodb import commands
from tests.servers.mongodb.call import ACCEPTED, COMMANDS
from tests.servers.mongodb.text import type_name

assert commands.__all__
TRIES = 2000
NOT_SENT = {"logout", "dropDatabase", "dropAllUsersFromDatabase", "configureFailPoint"}
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**40, 1.5, "", "x", "admin.x", "$a", b"x", Binary(bytes(16), 4), [], [1], ["x"], [{}], [None],
    {}, {"a": 1}, {"user": "x", "db": "y"}, {"user": 1, "db": 2}, {"$gt": 1}, [{"role": "read", "db": "app"}],
    [{"resource": {"db": "", "collection": ""}, "actions": ["find"]}], [{"resource": {}, "actions": ["find"]}],
    [{"q": {}, "u": {"$set": {"a": 1}}}], [{"q": {}, "limit": 1}],
]  # fmt: skip
INTERNAL_ERROR = 1


def _value(dice: random.Random, kind: str) -> Any:
    """Mostly of the right type: a wrong one is refused before anybody looks further."""
    fitting = [value for value in VALUES if type_name(value) in ACCEPTED.get(kind, ())]
    return dice.choice(fitting if fitting and dice.random() < 0.95 else VALUES)


def _body(dice: random.Random) -> dict[str, Any]:
    known = COMMANDS[dice.choice(sorted(set(COMMANDS) - NOT_SENT))]
    body = {known.name: dice.choice([*VALUES, "things", "x", "x"])}
    for name, kind in known.fields.items():
        if name in known.required or dice.random() < 0.3:
            body[name] = _value(dice, kind)
    return body


def test_nothing_makes_it_stumble() -> None:
    dice = random.Random(4)
    codes: Counter[int] = Counter()
    with serving() as made, RawConnection(made.host, made.port) as root:
        root.log_in(*made.root, "admin")
        root.command(APP, insert="things", documents=[{"a": number} for number in range(3)])
        for _ in range(TRIES):
            body = _body(dice)
            try:
                root.command(dice.choice(["admin", APP]), **body)
            except OperationFailure as error:
                codes[error.code or 0] += 1
        wrong = [line[-300:] for line in made.log_text().splitlines() if "The stand-in is wrong" in line]
    assert wrong == []
    assert codes[INTERNAL_ERROR] == 0
    assert len(codes) > 15, "only a few kinds of refusals: the commands are not well chosen"
