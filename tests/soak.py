"""How much longer than usual: ``make soak`` sets ``SOAK``. Random tests take so many times their rounds, and ``soak_only`` tests run."""

from __future__ import annotations

import os

import pytest

SOAK = int(os.environ.get("SOAK", "1"))
IS_SOAK = "SOAK" in os.environ

soak_only = pytest.mark.soak
"""A test that takes minutes. ``make test`` leaves it out, ``make soak`` runs it."""


def rounds(usual: int) -> int:
    """So many, times ``SOAK``."""
    return usual * SOAK
