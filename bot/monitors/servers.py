"""Check the servers for the cards: what each of them ends by itself, and what of each level may outlive a grant. Drop leftovers.

The servers are queried at the same time: none of them delays or stops the look at another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import structlog

from adapters.base import AdapterError, Target
from bot.access.context import Context
from bot.access.descriptions import shorten
from bot.access.server_errors import describe_server_error
from bot.access.targets import configured_levels, unique_servers
from bot.engines import Share

DROPPED_SHOWN = 20
SENTENCE_MAX = 300
LOOK_SECONDS = 200.0
"""The longest look at one server. Every adapter has time limits; this limit is for one that fails to keep them."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


async def on_server(
    server: Target, look: Awaitable[T], failed: dict[str, str], *, seconds: float | None = None
) -> T | None:
    """The result of a look at one server. None where it fails or takes too long: the reason is put into ``failed``.

    It may take ``seconds``, or ``LOOK_SECONDS`` where that is None.

    Engines may come from other packages, and one server must not stop the look at the others. So every exception ends here.
    """
    limit = LOOK_SECONDS if seconds is None else seconds
    try:
        return await asyncio.wait_for(look, limit)
    except TimeoutError:
        failed[server.name] = f"{server.name} gave no answer within {limit:.0f} s"
    except AdapterError as error:
        failed[server.name] = describe_server_error(server.name, error)
    except Exception as error:
        log.exception("server_look_failed", database=server.name)
        failed[server.name] = f"the look failed: {type(error).__name__}"
    return None


async def drop_leftovers(context: Context, servers: Sequence[Target]) -> tuple[str, ...]:
    """Drop what nobody needs any more on each server, such as left-behind roles that own nothing. Raises nothing.

    Returns a sentence for each thing that was dropped, at most ``DROPPED_SHOWN``, and the number of the others. A failure is logged.
    """
    failed = dict[str, str]()
    found = await asyncio.gather(*(on_server(server, _drop_leftovers(context, server), failed) for server in servers))
    for name, reason in failed.items():
        log.warning("leftovers_not_dropped", database=name, error=reason)
    sentences = [
        shorten(f"{server.name}: {sentence}", SENTENCE_MAX)
        for server, dropped in zip(servers, found, strict=True)
        for sentence in dropped or ()
    ]
    further = len(sentences) - DROPPED_SHOWN
    return (*sentences[:DROPPED_SHOWN], *([f"and {further} more"] if further > 0 else []))


async def _drop_leftovers(context: Context, server: Target) -> list[str]:
    return list(await context.engines.call(server, lambda adapter: adapter.drop_leftovers(), share=Share.SWEEP))


async def measure_servers(context: Context) -> None:
    """Measure for the cards what each server ends by itself and what of each level may outlive a grant; then drop leftovers there.

    A database whose server does not answer keeps its last result.
    """
    failed = dict[str, str]()
    measured = configured_levels(context)
    found = await asyncio.gather(
        *(on_server(one, context.engines.measure(one, levels, share=Share.SWEEP), failed) for one, levels in measured)
    )
    for (one, _), health in zip(measured, found, strict=True):
        if health is None:
            log.warning("server_check_failed", database=one.name, error=failed[one.name])
        else:
            log.info("server_checked", database=one.name, version=health.version, enforced=health.enforced.value)
    answered = unique_servers(one for one, _ in measured if one.name not in failed)
    for sentence in await drop_leftovers(context, answered):
        log.info("leftover_dropped", what=sentence)
