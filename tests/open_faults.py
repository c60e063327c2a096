"""Known faults that are still open. Each has a test that fails today, marked with the label of its kind.

Such a test is a strict expected failure: it turns red when the fault is mended, and then its mark is taken off. Only an
``AssertionError`` counts as the fault. Whatever else goes wrong on the way (a server that does not start, a step of the
set-up that is refused) is an ordinary failure, so that no test stands in the list for a reason of its own.
"""

from __future__ import annotations

import pytest


class NotSetUp(Exception):
    """A step that the fault needs did not work: the test says nothing about the fault."""


def open_fault(label: str, what: str) -> pytest.MarkDecorator:
    """Mark a test of a fault that is still open. ``label`` is the fault's kind and number (A2, R7, U5); ``what`` says what happens today."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"{label}: {what}")


def require(condition: object, what: str) -> None:
    """A step of the set-up. Raises NotSetUp where it did not work; ``what`` says what should be true."""
    if not condition:
        raise NotSetUp(what)
