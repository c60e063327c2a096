"""How much longer than usual: ``make soak`` sets ``SOAK``, and random tests take so many times their rounds."""

from __future__ import annotations

import os

SOAK = int(os.environ.get("SOAK", "1"))


def rounds(usual: int) -> int:
    """So many, times ``SOAK``."""
    return usual * SOAK
