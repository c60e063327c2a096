"""The length of random tests. ``make soak`` sets ``SOAK``: random tests do ``SOAK`` times their usual rounds, and ``soak_only``
tests run as well.
"""

from __future__ import annotations

import os

import pytest

SOAK = int(os.environ.get("SOAK", "1"))
IS_SOAK = "SOAK" in os.environ

soak_only = pytest.mark.soak
"""A test that takes minutes. ``make test`` leaves it out, ``make soak`` runs it."""


def rounds(usual: int) -> int:
    """The usual number of rounds, times ``SOAK``."""
    return usual * SOAK
