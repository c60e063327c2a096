"""The names of temporary users, and text without secrets. For adapters and their callers alike."""

from __future__ import annotations

import re

USERNAME_MAX = 32
"""The longest username, in characters. The limit of MySQL applies to every engine."""


def username_pattern(prefix: str) -> re.Pattern[str]:
    """The names that dbaccess makes: ``<prefix><request>_<who>_<4 of the key>``, at most 32 characters of ``[a-z0-9_]``.

    A matching name alone does not show that dbaccess made the user; only the mark does.
    """
    return re.compile(rf"(?=.{{1,{USERNAME_MAX}}}\Z){re.escape(prefix)}[1-9][0-9]*_[a-z0-9][a-z0-9_]*_[a-z0-9]{{4}}")


def make_username(prefix: str, *, request_id: int, who: str, key: str) -> str:
    """A username that an administrator can trace to its request.

    ``who`` is any display name. The function puts it in lower case, replaces all characters except ``[a-z0-9]`` by ``_``, and shortens it.
    ``key`` is the request's random key. The username contains its first four characters.
    """
    tail = key[:4]
    person = re.sub(r"[^a-z0-9]+", "_", who.lower()).strip("_") or "user"
    room = USERNAME_MAX - len(f"{prefix}{request_id}__{tail}")
    return f"{prefix}{request_id}_{person[:room].strip('_') or 'u'}_{tail}"


def scrub(text: str, *secrets: str) -> str:
    """``text`` with each of ``secrets``, and the password in each URL, replaced by ``…``."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    return re.sub(r"(://[^\s:/@]*:)[^\s@]*@", r"\1…@", text)
