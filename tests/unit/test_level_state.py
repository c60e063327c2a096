"""The state of a level is bounded however many facts there are and whatever they are called, and no difference is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import permutations

import pytest

from adapters.level_state import (
    FACT_LENGTH,
    FACTS_AT_MOST,
    KINDS_AT_MOST,
    NAMED_AT_MOST,
    OTHER,
    SENTENCE_LENGTH,
    LevelState,
)

HOSTILE = (
    "", " ", "#5 abc", "#", "a\nb", "\n3 0123456789abcdef", "\x00", "\ud800", "\u202egnp.exe", "<!channel>", "'; DROP TABLE x; --",
    "x" * 100_000, "é" * 300, "💥" * 200,
)  # fmt: skip


def state(*facts: str, kind: str = "members") -> LevelState:
    return LevelState.of((kind, fact) for fact in facts)


def numbered(count: int, word: str = "fact") -> tuple[str, ...]:
    return tuple(f"{word} {number:07}" for number in range(count))


def stored(one: LevelState) -> LevelState:
    return LevelState.from_json(json.loads(json.dumps(one.to_json())))


def test_the_order_and_repeats_of_facts_do_not_matter() -> None:
    states = [state(*facts, facts[0]) for facts in permutations(("ada", "lea", "tom"))]
    assert all(one == states[0] for one in states)
    assert states[0].differences(states[-1]) == ()


def test_a_difference_names_what_is_new_and_what_is_gone() -> None:
    found = state("ada", "lea").differences(state("lea", "tom"))
    assert found == ("Changed while the grant was live: members: new tom; gone ada.",)


def test_a_kind_that_is_new_or_gone_is_a_difference() -> None:
    one, nothing = state("ada"), LevelState()
    assert nothing.differences(one) == ("Changed while the grant was live: members: new ada.",)
    assert one.differences(nothing) == ("Changed while the grant was live: members: gone ada.",)
    assert nothing.differences(nothing) == ()


def test_each_kind_has_a_sentence() -> None:
    later = LevelState.of([("members", "ada"), ("default privileges", "SELECT to ada")])
    assert [sentence.split(": ")[1] for sentence in LevelState().differences(later)] == [
        "default privileges",
        "members",
    ]


def test_a_difference_names_few_facts_and_the_number_of_the_others() -> None:
    (sentence,) = LevelState().differences(state(*numbered(50)))
    assert sentence.count("fact 00") == NAMED_AT_MOST
    assert sentence.endswith(f"and {50 - NAMED_AT_MOST} more.")


@pytest.mark.parametrize("fact", HOSTILE)
@pytest.mark.parametrize("other", ["#5 abc", "plain"])
def test_a_hostile_fact_is_a_difference_and_printable(fact: str, other: str) -> None:
    before = state(other)
    (sentence,) = before.differences(state(other, fact))[:1] if fact != other else ("-",)
    assert sentence.isprintable()
    assert len(sentence) <= SENTENCE_LENGTH
    sentence.encode()


@pytest.mark.parametrize("fact", HOSTILE)
def test_a_hostile_fact_is_stored_and_read_again(fact: str) -> None:
    for one in (state(fact), state(fact, *numbered(500)), LevelState.of([(fact, fact)])):
        assert stored(one) == one
        assert one.differences(stored(one)) == ()
        json.dumps(one.to_json(), ensure_ascii=False).encode()


def test_facts_that_differ_behind_the_shown_start_differ() -> None:
    long = "x" * FACT_LENGTH
    assert state(long + "a").differences(state(long + "b")) != ()


def test_facts_with_the_separator_in_them_do_not_look_like_others() -> None:
    first, second = (*numbered(500), "y\nz"), (*numbered(500), "y", "z")
    assert state(*first).differences(state(*second)) != ()


@pytest.mark.parametrize("count", [FACTS_AT_MOST, FACTS_AT_MOST + 1, 50_000])
def test_one_changed_fact_among_many_is_a_difference(count: int) -> None:
    facts = numbered(count)
    assert state(*facts).differences(state(*facts)) == ()
    for changed in ((*facts, "new"), facts[1:], (*facts[1:], "new")):
        (sentence,) = stored(state(*facts)).differences(state(*changed))
        assert sentence.startswith("Changed while the grant was live: members")


def test_many_facts_do_not_hide_the_new_ones() -> None:
    """An ended user who makes very many things still has some of them named."""
    (sentence,) = state("ada", "lea").differences(state("ada", "lea", *numbered(10_000, "evil")))
    assert "2 before and 10002 after: new evil 0000000" in sentence


def test_what_a_bounded_list_lacks_is_not_called_gone() -> None:
    many = numbered(1000)
    (sentence,) = state(*many[900:]).differences(state(*many))
    assert "gone" not in sentence
    (sentence,) = state(*many).differences(state(*many[900:]))
    assert "new" not in sentence
    assert "1000 before and 100 after" in sentence


def test_the_size_of_a_state_is_bounded() -> None:
    facts = ((f"kind {kind}", f"{number} {'x' * 1000}") for kind in range(100) for number in range(1000))
    one = LevelState.of(facts)
    assert len(one.kinds) == KINDS_AT_MOST + 1
    assert len(json.dumps(one.to_json())) < 400_000
    assert len(LevelState().differences(one)) == KINDS_AT_MOST + 1


def test_facts_of_a_kind_beyond_the_bound_still_differ() -> None:
    def kinds(fact: str) -> Iterable[tuple[str, str]]:
        return ((f"kind {number:03}", fact if number == 99 else "same") for number in range(100))

    (sentence,) = LevelState.of(kinds("one")).differences(LevelState.of(kinds("two")))
    assert OTHER in sentence
    assert "kind 099: two" in sentence


@pytest.mark.parametrize("value", [None, 1, "members", ["members"], {"members": "ada"}, {"members": None}])
def test_another_shape_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a level's state"):
        LevelState.from_json(value)
