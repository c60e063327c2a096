"""Random changes of data, by seed: missing keys, wrong types, huge and odd values."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 10**30, 1.5, float("nan"), "", " ", "x", "*", "~", "\x00", "\ud800", "\u202e", "\u200b",
    "é", "\U0001f600", "a\nb", "\t", "x" * 5000, "<@U0ADMIN>", "<!channel>", "&lt;@U0ADMIN&gt;", "<https://x|y>", "`", "*_~>",
    "'; DROP TABLE requests; --", "${jndi:ldap://x}", "{0}", "%s", "../../etc/passwd", "1.", ".", "1.aaaa", "99.aaaa", "٤٢",
    "9" * 400, "1e5", "0x10", "-1", "9999d", "0s", "1h", [], [[]], {}, [None], [{}], {"": ""}, {"id": None}, {"value": {}},
    {"text": 1}, [1, "2"], "U0ADMIN", "U0NOBODY", "C0CARDS", "shop", "2026-01-01", b"\xff\xfe".decode("latin-1"),
)  # fmt: skip
KEYS = ("x", "", "id", "user", "value", "text", "type", "__class__", "1", "é")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to every part of the data."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from paths(part, (*path, key))


def mutated(whole: Any, chance: random.Random, odd: Sequence[Any] = ODD, keys: Sequence[str] = KEYS) -> Any:
    """A copy with one to three changes: a value replaced, removed or added."""
    whole = copy.deepcopy(whole)
    for _ in range(chance.randint(1, 3)):
        found = list(paths(whole))
        if not found:
            return whole
        *way, last = chance.choice(found)
        place: Any = whole
        for key in way:
            place = place[key]
        _change(place, last, chance, odd, keys)
    return whole


def _change(place: Any, key: Any, chance: random.Random, odd: Sequence[Any], keys: Sequence[str]) -> None:
    kind, value = chance.random(), copy.deepcopy(chance.choice(odd))
    if kind < 0.6:
        place[key] = value
    elif isinstance(place, list):
        place.append(value)
    elif kind < 0.75:
        del place[key]
    else:
        place[chance.choice(keys)] = value
