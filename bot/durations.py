"""Durations as people write them: ``45s``, ``30m``, ``2h``, ``1d``, ``1h30m``; from 10 seconds on. Moments, in ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

SHORTEST = timedelta(seconds=10)
LONGEST = timedelta(days=366)
YEARS = range(1971, 3000)
LOOKS_LIKE = "A duration looks like 30m, 2h or 1h30m."
UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
PATTERN = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Raises ValueError with what would be right. Units at most once, in the order d h m s."""
    found = PATTERN.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ValueError(LOOKS_LIKE)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not SHORTEST <= length <= LONGEST:
        raise ValueError(f"A duration is from 10s to 366d. {LOOKS_LIKE}")
    return length


def parse_moment(text: str, *, needs_zone: bool) -> datetime:
    """With a zone; where it may lack one it is this machine's. Raises ValueError with what would be right.

    The years leave room for every zone and duration: a calendar that ends cannot be counted on.
    """
    zone = " with its zone" if needs_zone else ""
    right = f'a time{zone} is needed, such as "2026-11-23T10:00:00+01:00", from {YEARS.start} to {YEARS.stop - 1}'
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(right) from None
    if found.year not in YEARS or (needs_zone and found.tzinfo is None):
        raise ValueError(right)
    return found if found.tzinfo is not None else found.astimezone()


def format_duration(length: timedelta) -> str:
    """``2 h``, ``1 h 30 min``, ``45 s``: the two largest units that are not zero."""
    return " ".join(_parts(length)[:2]) or "0 s"


def exact_duration(length: timedelta) -> str:
    """All units, down to the second, where two lengths are compared."""
    return " ".join(_parts(length)) or "0 s"


def _parts(length: timedelta) -> list[str]:
    seconds, parts = int(length.total_seconds()), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {unit}")
    return parts


def short_duration(length: timedelta) -> str:
    """As it is typed: ``1h30m``."""
    seconds = int(length.total_seconds())
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        text += f"{number}{unit}" if number else ""
    return text or "0s"
