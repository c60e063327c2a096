"""Random input of every kind, by seed: nothing unexpected, nobody changes anything without the right to, every answer is in words."""

from __future__ import annotations

import pytest

from tests.nightly.fuzz import KINDS
from tests.soak import rounds

INPUTS = {"slack": 250, "commands": 400, "files": 150, "answers": 240}
SEED = 1


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_random_input_is_answered_in_words(kind: str) -> None:
    faults, counts = KINDS[kind](rounds(INPUTS[kind]), SEED)
    assert not faults, faults[:5]
    assert sum(counts.values()) >= rounds(INPUTS[kind]) / 2, "they were really tried"
