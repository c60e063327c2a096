"""The state of an access level on a server, to compare it before and after a grant.

A user of a level may be able to change what outlives it: default privileges and objects of the level's roles, their members, grants that
they gave. So the adapter describes them before the user is created and again after it is dropped, and the receipt names each difference.

Names on a server come from its users. So facts are made printable and short, and the state is bounded however many facts there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

KINDS_AT_MOST = 20
"""Kinds of facts. The facts of further kinds are put together in one kind, OTHER."""
OTHER = "other facts"
FACTS_AT_MOST = 100
"""Facts of one kind that are stored one by one. A kind with more begins with a digest: their number and a hash of all of them."""
FACT_LENGTH = 120
NAMED_AT_MOST = 5
"""Facts of one kind that a difference names."""
SENTENCE_LENGTH = 300
"""The longest sentence of a difference, in characters: a receipt cuts longer ones."""
DIGEST = "\n"
"""Begins a digest. A fact is printable, so that it never begins with it."""


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
            kinds.setdefault(_shortened(kind), set()).add(_shortened(fact))
        for kind in sorted(kinds.keys() - {OTHER})[KINDS_AT_MOST:]:
            kinds.setdefault(OTHER, set()).update(_shortened(f"{kind}: {fact}") for fact in kinds.pop(kind))
        return cls(kinds={kind: _bounded(sorted(found)) for kind, found in sorted(kinds.items())})

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The state that ``to_json`` wrote. Raises ValueError for another shape."""
        if not isinstance(value, Mapping) or not all(isinstance(facts, list) for facts in value.values()):
            raise ValueError("a level's state maps kinds to lists of facts")
        return cls(kinds={str(kind): tuple(map(str, facts)) for kind, facts in value.items()})

    def to_json(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return {kind: list(facts) for kind, facts in self.kinds.items()}

    def differences(self, later: LevelState) -> tuple[str, ...]:
        """One sentence for each kind that differs in ``later``, of at most SENTENCE_LENGTH characters."""
        both = sorted({*self.kinds, *later.kinds})
        found = (_difference(kind, self.kinds.get(kind, ()), later.kinds.get(kind, ())) for kind in both)
        return tuple(sentence for sentence in found if sentence is not None)


def _shortened(fact: str) -> str:
    """The fact in printable characters; where it is long, its start and a hash."""
    if not fact.isprintable():
        fact = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in fact)
    return fact if len(fact) <= FACT_LENGTH else f"{fact[:FACT_LENGTH]}… [{_hash([fact])}]"


def _bounded(facts: Sequence[str]) -> tuple[str, ...]:
    return tuple(facts) if len(facts) <= FACTS_AT_MOST else (_digest(facts), *facts[:FACTS_AT_MOST])


def _digest(facts: Sequence[str]) -> str:
    """The number and the hash of all facts, also of those of a kind that is bounded."""
    return facts[0] if facts and facts[0].startswith(DIGEST) else f"{DIGEST}{len(facts)} {_hash(facts)}"


def _hash(facts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _difference(kind: str, before: Sequence[str], after: Sequence[str]) -> str | None:
    if _digest(before) == _digest(after):
        return None
    start = f"Changed while the grant was live: {kind}"
    known, seen = _listed(before), _listed(after)
    if len(known) == len(before) and len(seen) == len(after):
        parts = {"new": set(seen) - set(known), "gone": set(known) - set(seen)}
    else:  # what is missing in a bounded list may still be there
        start = f"{start}, {_count(before)} before and {_count(after)} after"
        parts = {"new": set(seen) - set(known) if len(known) == len(before) else set()}
    parts = {word: facts for word, facts in parts.items() if facts}
    room = (SENTENCE_LENGTH - len(start)) // max(1, len(parts)) - len(": gone and 1000000 more; ")
    named = "; ".join(f"{word} {_named(sorted(facts, key=_counts_last), room)}" for word, facts in parts.items())
    return f"{start}: {named}." if named else f"{start}."


def _listed(facts: Sequence[str]) -> Sequence[str]:
    return facts[1:] if facts and facts[0].startswith(DIGEST) else facts


def _count(facts: Sequence[str]) -> int:
    return int(_digest(facts).removeprefix(DIGEST).split(" ")[0])


def _counts_last(fact: str) -> tuple[bool, str]:
    """Names tell more than counts, such as ``300 tables``."""
    return fact[:1].isdigit(), fact


def _named(facts: Sequence[str], room: int) -> str:
    """As many facts as have room, but at least the start of one."""
    named = [facts[0] if len(facts[0]) <= room else f"{facts[0][: room - 1]}…"]
    for fact in facts[1:NAMED_AT_MOST]:
        if sum(map(len, named)) + 2 * len(named) + len(fact) > room:
            break
        named.append(fact)
    further = f" and {len(facts) - len(named)} more" if len(facts) > len(named) else ""
    return ", ".join(named) + further
