"""What judging is given besides the question: who is in which group now, and how much there is already. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot.policy.model import ANYONE, PERSON
from storage.records import Stage, UsageCounts

Membership = Literal["in", "out", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """``members``: group or e-mail address → Slack ids. A name that is not in it got no answer, and no answer means no.

    ``tally`` is None where limits are not judged (at a click, in explanations for somebody else's file).
    ``is_offline``: the files alone are judged; a group nobody told then counts as people unknown, not as trouble.
    """

    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    tally: UsageCounts | None = None
    is_offline: bool = False
    _meaning: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def means(self, name: str, person_id: str) -> Membership:
        """Whether a name of the policy means this person."""
        if name in (ANYONE, person_id):
            return "in"
        if PERSON.fullmatch(name):
            return "out"
        if name not in self.members:
            return "unknown"
        return "in" if person_id in self.members[name] else "out"

    def names(self, listed: Iterable[str], person_id: str) -> Membership:
        """Is this person among those listed? ``unknown`` only where no name says yes and one gives no answer."""
        found = {self.means(name, person_id) for name in listed}
        return "in" if "in" in found else "unknown" if "unknown" in found else "out"

    def people(self, listed: Iterable[str]) -> frozenset[str]:
        """Everybody who is certainly meant; a person in two groups is one person."""
        found: set[str] = set()
        for name in listed:
            found |= {name} if PERSON.fullmatch(name) else self.members.get(name, frozenset())
        return frozenset(found)

    def unknown(self, listed: Iterable[str]) -> tuple[str, ...]:
        """Names that got no answer."""
        return self.silent(n for n in listed if n != ANYONE and not PERSON.fullmatch(n))

    def silent(self, looked_up: Iterable[str]) -> tuple[str, ...]:
        """The same, of names that only the directory knows."""
        members = self.members
        return tuple([name for name in looked_up if name not in members])


NOTHING_KNOWN = Facts()
"""Where nobody asked the directory: only people named by their id are known."""


def names_of(facts: Facts, person_id: str) -> frozenset[str]:
    """Every name by which the policy may mean this person, so that asking a rule is one set operation. Found once."""
    found = facts._meaning.get(person_id)  # noqa: SLF001 - its own memory, of the same module
    if found is None:
        found = frozenset([person_id, *[name for name, people in facts.members.items() if person_id in people]])
        facts._meaning[person_id] = found  # noqa: SLF001
    return found


def can_complete(stages: Sequence[Collection[str]], counts: Sequence[int]) -> bool:
    """Whether there are enough different people for all stages together, where nobody decides twice.

    A matching of places to people (Kuhn): each stage has ``count`` places, each person takes one.
    """
    places = [people for people, count in zip(stages, counts, strict=True) for _ in range(count)]
    taken: dict[str, int] = {}

    def seated(place: int, tried: set[str]) -> bool:
        for person in places[place]:
            if person not in tried:
                tried.add(person)
                if person not in taken or seated(taken[person], tried):
                    taken[person] = place
                    return True
        return False

    return all(seated(place, set()) for place in range(len(places)))


def who_may_decide(
    facts: Facts, stages: Sequence[Stage], *, but: str, also: Iterable[str] = ()
) -> list[frozenset[str]]:
    """For each stage the people who may decide it today, but for the requester; ``also`` are those it was escalated to."""
    more = facts.people(also)
    return [(facts.people(stage.approvers) | more) - {but} for stage in stages]
