"""The three kinds of things a check says."""

from __future__ import annotations

from adapters.base import Finding


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, mend: str | None = None) -> Finding:
    """No grant can be given, or ended, as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, mend=mend)


def warning(what: str, mend: str | None = None) -> Finding:
    """More is open than should be."""
    return Finding(is_ok=False, is_fatal=False, what=what, mend=mend)
