"""What the servers themselves end, without the bot, as sentences for alerts and for the stop of the bot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from adapters.base import Enforced
from bot.access.context import Context
from bot.access.descriptions import count
from storage.records import Request

SENTENCES: dict[Enforced, str] = {
    Enforced.NOTHING: "nothing ends by itself",
    Enforced.LOGIN: "new logins are refused after the end, open sessions stay",
    Enforced.SESSIONS: "logins and sessions end by themselves",
}


def enforced_by_servers(context: Context, grants: Iterable[Request]) -> str:
    """By engine, how many of these grants there are and what their servers end by themselves. Empty without a started grant."""
    found = Counter[tuple[str, Enforced]]()
    for request in grants:
        target = request.target or {}
        engine = str(target.get("engine", ""))
        if engine and request.started_at is not None:
            enforced = context.engines.enforces(engine, str(target.get("admin_url")))
            found[context.engines.label(engine), enforced] += 1
    return "; ".join(
        f"{count(number, 'grant')} on {label}: {SENTENCES[enforced]}"
        for (label, enforced), number in sorted(found.items())
    )
