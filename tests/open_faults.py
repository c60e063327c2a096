"""Marks for the tests of known faults that are still open.

Such a test is a strict expected failure: it fails the run when the fault is repaired, and then its mark is removed. Only an
``AssertionError`` counts as the fault. Any other error (a server that does not start, a step of the set-up that is refused) is an
ordinary failure, so that no test is in the list for another reason.
"""

from __future__ import annotations

import pytest


class NotSetUp(Exception):
    """A step of the set-up did not work, so the test says nothing about the fault."""


def open_fault(label: str, what: str) -> pytest.MarkDecorator:
    """Mark the test of an open fault. ``label`` is the fault's kind and number (A2, R7, U5); ``what`` says what happens today."""
    return pytest.mark.xfail(strict=True, raises=AssertionError, reason=f"{label}: {what}")


def require(condition: object, what: str) -> None:
    """Check a step of the set-up. Raises NotSetUp with ``what``, the expectation, if it did not work."""
    if not condition:
        raise NotSetUp(what)
