"""Parse and format durations (``45s``, ``30m``, ``2h``, ``1d``, ``1h30m``; 10 seconds to 366 days) and ISO 8601 times."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

SHORTEST = timedelta(seconds=10)
LONGEST = timedelta(days=366)
ALLOWED_YEARS = range(1971, 3000)
DURATION_HINT = "A duration looks like 30m, 2h or 1h30m."
UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
PATTERN = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s)?", re.ASCII)


def parse_duration(text: str, *, shortest: timedelta = SHORTEST, longest: timedelta = LONGEST) -> timedelta:
    """Parse a duration. Each unit at most once, in the order d h m s. The ValueError says what is accepted."""
    found = PATTERN.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ValueError(DURATION_HINT)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not shortest <= length <= longest:
        limits = f"from {short_duration(shortest)} to {short_duration(longest)}"
        raise ValueError(f"A duration is {limits}. {DURATION_HINT}")
    return length


def parse_moment(text: str, *, needs_zone: bool) -> datetime:
    """Parse a time with its zone. Where the zone may be missing, this machine's zone is used. The ValueError says what is accepted.

    The allowed years leave room for every zone and duration: arithmetic at the end of the calendar would overflow.
    """
    zone = " with its zone" if needs_zone else ""
    hint = f'a time{zone} is needed, such as "2026-11-23T10:00:00+01:00", from {ALLOWED_YEARS.start} to {ALLOWED_YEARS.stop - 1}'
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(hint) from None
    if found.year not in ALLOWED_YEARS or (needs_zone and found.tzinfo is None):
        raise ValueError(hint)
    return found if found.tzinfo is not None else found.astimezone()


def format_duration(length: timedelta) -> str:
    """Format for people, with the two largest units that are not zero: ``2 h``, ``1 h 30 min``, ``45 s``."""
    return " ".join(_parts(length)[:2]) or "0 s"


def exact_duration(length: timedelta) -> str:
    """Format with all units. For messages that compare two durations."""
    return " ".join(_parts(length)) or "0 s"


def _parts(length: timedelta) -> list[str]:
    seconds, parts = int(length.total_seconds()), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number} {unit}")
    return parts


def short_duration(length: timedelta) -> str:
    """Format as people type it: ``1h30m``."""
    seconds = int(length.total_seconds())
    text = ""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, seconds = divmod(seconds, size)
        text += f"{number}{unit}" if number else ""
    return text or "0s"
