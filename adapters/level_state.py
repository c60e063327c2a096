"""The state of an access level on a server, to compare it before and after a grant.

A user of a level may be able to change what outlives it: default privileges and objects of the level's roles, their members, grants that
they gave. So the adapter describes them before the user is created and again after it is dropped, and the receipt names each difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

FACTS_AT_MOST = 200
"""Facts of one kind that are stored one by one. A kind with more is stored as their number and a digest."""
FACT_LENGTH = 120
NAMED_AT_MOST = 5
"""Facts of one kind that a difference names."""


@dataclass(frozen=True, kw_only=True)
class LevelState:
    """Facts by their kind, for example ``default privileges`` → ``orders_owner: SELECT on tables to friend``.

    A kind is plural and in lower case, as the receipt names it. The number of facts is bounded, so that the state fits into a row of the ledger.
    """

    kinds: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Iterable[tuple[str, str]]) -> Self:
        """The state for pairs of kind and fact."""
        kinds = dict[str, set[str]]()
        for kind, fact in facts:
            kinds.setdefault(kind, set()).add(_shortened(fact))
        return cls(kinds={kind: _folded(sorted(found)) for kind, found in sorted(kinds.items())})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The state that ``to_json`` wrote. Raises TypeError or AttributeError for another shape."""
        return cls(kinds={str(kind): tuple(map(str, facts)) for kind, facts in value.items()})

    def to_json(self) -> dict[str, list[str]]:
        """A value that JSON can hold."""
        return {kind: list(facts) for kind, facts in self.kinds.items()}

    def differences(self, later: LevelState) -> tuple[str, ...]:
        """One sentence for each kind that differs in ``later``. Each sentence names at most NAMED_AT_MOST facts."""
        both = sorted({*self.kinds, *later.kinds})
        found = (_difference(kind, self.kinds.get(kind, ()), later.kinds.get(kind, ())) for kind in both)
        return tuple(sentence for sentence in found if sentence is not None)


def _shortened(fact: str) -> str:
    """The fact itself, or its start and a digest where it is long."""
    if len(fact) <= FACT_LENGTH:
        return fact
    return f"{fact[:FACT_LENGTH]}… [{hashlib.sha256(fact.encode(errors='replace')).hexdigest()[:8]}]"


def _folded(facts: Sequence[str]) -> tuple[str, ...]:
    if len(facts) <= FACTS_AT_MOST:
        return tuple(facts)
    digest = hashlib.sha256("\n".join(facts).encode(errors="replace")).hexdigest()
    return (f"#{len(facts)} {digest[:16]}",)


def _difference(kind: str, before: Sequence[str], after: Sequence[str]) -> str | None:
    if tuple(before) == tuple(after):
        return None
    if any(facts[:1] and facts[0].startswith("#") for facts in (before, after)):
        return f"Changed while the grant was live: {kind}, {_count(before)} before and {_count(after)} after."
    added, removed = _named(set(after) - set(before)), _named(set(before) - set(after))
    parts = [f"new {added}" if added else "", f"gone {removed}" if removed else ""]
    return f"Changed while the grant was live: {kind}: {'; '.join(part for part in parts if part)}."


def _count(facts: Sequence[str]) -> str:
    return facts[0].removeprefix("#").split(" ")[0] if facts and facts[0].startswith("#") else str(len(facts))


def _named(facts: Iterable[str]) -> str:
    listed = sorted(facts)
    further = f" and {len(listed) - NAMED_AT_MOST} more" if len(listed) > NAMED_AT_MOST else ""
    return ", ".join(listed[:NAMED_AT_MOST]) + further
