"""The three kinds of things a check says."""

from __future__ import annotations

from adapters.base import Finding


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """No grant can be given, or ended, as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """More is open than should be."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)
