"""The ends that servers enforce by themselves, and the statements for an administrator. For late ends, the clock and the stop of the bot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

import structlog

from adapters.base import Enforced
from bot.access.context import Context
from bot.access.descriptions import count, time_mark
from bot.access.targets import target_of
from storage.records import Request

log = structlog.get_logger(__name__)

SENTENCES: dict[Enforced, str] = {
    Enforced.NOTHING: "nothing ends by itself",
    Enforced.LOGIN: "new logins are refused after the end, open sessions stay",
    Enforced.SESSIONS: "logins and sessions end by themselves",
}


def describe_enforced(context: Context, request: Request, *, now: datetime, blocked_at: datetime | None = None) -> str:
    """What is already safe for a grant whose end is late. ``blocked_at``: when dbaccess blocked its login, where it did.

    The server enforces the expiry that START wrote, so an end that was brought forward is enforced later.
    """
    label, enforced = _enforced(context, request)
    if blocked_at is not None:
        return (
            f"Its login is blocked and its sessions are ended since {time_mark(blocked_at)}. Its user is still there."
        )
    if enforced is Enforced.NOTHING or request.expires_at is None:
        return f"{label} enforces nothing by itself here: the user may still work."
    when = (
        f"since {time_mark(request.expires_at)}"
        if request.expires_at <= now
        else f"from {time_mark(request.expires_at)} on"
    )
    if enforced is Enforced.SESSIONS:
        return f"New logins and open sessions are ended by {label} itself {when}."
    return f"New logins are refused by {label} {when}. Open sessions may still work."


def describe_enforced_for_all(context: Context, requests: Sequence[Request]) -> str | None:
    """As ``describe_enforced``, for the users of one server whose end has come. None without users."""
    if not requests:
        return None
    label, enforced = _enforced(context, requests[0])
    match enforced:
        case Enforced.LOGIN:
            return f"New logins of these users are refused by {label} after their end. Open sessions may still work."
        case Enforced.SESSIONS:
            return f"Logins and sessions of these users are ended by {label} itself after their end."
        case _:
            return f"{label} enforces nothing by itself here: these users may still work."


def _enforced(context: Context, request: Request) -> tuple[str, Enforced]:
    target = target_of(request)
    return context.engines.label(target.engine), context.engines.enforces(target.engine, target.admin_url)


def statements_by_hand(context: Context, request: Request) -> tuple[str, ...]:
    """The statements that end the user of a grant without dbaccess. Empty where its engine or its target cannot be read. Raises nothing.

    Opens no connection. The statements hold no secret: they name the user, not the way in.
    """
    if request.username is None or request.target is None:
        return ()
    try:
        return tuple(context.engines.open(target_of(request)).end_by_hand(request.username))
    except Exception as error:  # noqa: BLE001 - engines may come from other packages, and the alert is raised without them
        log.warning("statements_unavailable", request=request.id, error=type(error).__name__)
        return ()


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
