"""Look for users of a lost ledger before a new one is created. A new ledger would never end them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from adapters.base import ManagedUser, Target
from bot.access.context import Context
from bot.access.recovery import marked_users
from bot.access.targets import configured_targets, unique_servers
from bot.monitors.server_views import list_users
from bot.monitors.servers import on_server

NAMED_AT_MOST = 5
LOOK_SECONDS = 20.0
"""The longest look at one server. Nothing is ended meanwhile: there is no ledger yet."""
BEGIN_NEW = "To begin a new ledger all the same: dbaccess store upgrade --new"


async def reason_against_new_ledger(context: Context) -> str | None:
    """Why no ledger is created: a server has managed users with our prefix, or did not answer. None where nothing is in the way.

    Without a valid configuration no server is known, and nothing is in the way.
    """
    context.files.refresh()
    found, unanswered = await list_all_users(context)
    users = [f"{user.username} on the server of {server.name}" for server, some in found.items() for user in some]
    if users:
        return (
            f"There is no ledger at {context.ledger.place}, but servers have users that a ledger made: {_listed(users)}. A new ledger would never end them. "
            f"If there is a copy of it: dbaccess store restore FILE. {BEGIN_NEW}"
        )
    if unanswered:
        return (
            f"There is no ledger at {context.ledger.place}, and it is not known whether a lost one has users there: {_listed(sorted(unanswered.values()))}. "
            f"Start again when they answer. {BEGIN_NEW}"
        )
    return None


async def list_all_users(context: Context) -> tuple[dict[Target, tuple[ManagedUser, ...]], dict[str, str]]:
    """The managed users of each configured server; and by name of a database, why its server was not looked at."""
    servers = unique_servers(configured_targets(context))
    unanswered = dict[str, str]()
    looks = await asyncio.gather(
        *(on_server(one, list_users(context, one), unanswered, seconds=LOOK_SECONDS) for one in servers)
    )
    return {one: users for one, users in zip(servers, looks, strict=True) if users is not None}, unanswered


def highest_number(found: dict[Target, tuple[ManagedUser, ...]], ledger: str) -> int:
    """The highest number of a user of this ledger; 0 without one. Trials of ``doctor`` do not count."""
    users = [user for some in found.values() for user in some]
    return max((one.request_id for one in marked_users(users, ledger=ledger)), default=0)


def _listed(names: Sequence[str]) -> str:
    further = len(names) - NAMED_AT_MOST
    return "; ".join(names[:NAMED_AT_MOST]) + (f"; and {further} more" if further > 0 else "")
