"""The facts of an evaluation: current group members and current usage. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bot.policy.model import ANYONE, PERSON
from storage.records import Stage, UsageCounts

Membership = Literal["in", "out", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """``members``: group or e-mail address → Slack ids. A name that is not in it has unknown members and grants nothing.

    ``usage`` is None where limits are not checked: at a click, and in explanations for another file.
    ``is_offline``: only the files are evaluated. Unknown members of a group then count as unknown people, not as an error.
    """

    members: Mapping[str, frozenset[str]] = field(default_factory=dict)
    usage: UsageCounts | None = None
    is_offline: bool = False
    _names: dict[str, frozenset[str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def matches(self, name: str, person_id: str) -> Membership:
        """Return whether a name in the policy stands for this person."""
        if name in (ANYONE, person_id):
            return "in"
        if PERSON.fullmatch(name):
            return "out"
        if name not in self.members:
            return "unknown"
        return "in" if person_id in self.members[name] else "out"

    def membership(self, listed: Iterable[str], person_id: str) -> Membership:
        """Return whether this person is listed. ``unknown`` where no name matches and one has unknown members."""
        found = {self.matches(name, person_id) for name in listed}
        return "in" if "in" in found else "unknown" if "unknown" in found else "out"

    def expand(self, listed: Iterable[str]) -> frozenset[str]:
        """Everybody who is certainly among those listed. A person in two groups is one person."""
        found: set[str] = set()
        for name in listed:
            found |= {name} if PERSON.fullmatch(name) else self.members.get(name, frozenset())
        return frozenset(found)

    def unknown(self, listed: Iterable[str]) -> tuple[str, ...]:
        """The names whose members are unknown."""
        return self.without_members(n for n in listed if n != ANYONE and not PERSON.fullmatch(n))

    def without_members(self, directory_names: Iterable[str]) -> tuple[str, ...]:
        """The same, where every name is a group or an e-mail address."""
        members = self.members
        return tuple([name for name in directory_names if name not in members])

    def names_of(self, person_id: str) -> frozenset[str]:
        """Every name by which the policy may name this person. Computed once, so that matching a rule is one set operation."""
        found = self._names.get(person_id)
        if found is None:
            found = frozenset([person_id, *[name for name, people in self.members.items() if person_id in people]])
            self._names[person_id] = found
        return found


NO_FACTS = Facts()
"""Without a directory: only people who are named by their id are known."""


def can_complete(stages: Sequence[Collection[str]], counts: Sequence[int]) -> bool:
    """Return whether enough different people exist for all stages together. Nobody decides twice.

    This is a matching of places to people (Kuhn's algorithm): each stage has ``count`` places, each person takes one.
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


def possible_approvers(
    facts: Facts, stages: Sequence[Stage], *, but: str, also: Iterable[str] = ()
) -> list[frozenset[str]]:
    """For each stage, the people who may decide it today. ``also`` may decide every stage; ``but`` (the requester) none."""
    more = facts.expand(also)
    return [(facts.expand(stage.approvers) | more) - {but} for stage in stages]
