"""The servers behind the databases: each is asked once, however many databases it has."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from adapters.base import AdapterError, Target
from bot.access.context import Context
from bot.databases import target

log = structlog.get_logger(__name__)


def one_each(targets: Iterable[Target]) -> list[Target]:
    """One target of each server: the first of those that share engine, address and where their users are kept."""
    found: dict[tuple[str, str, str | None, str], Target] = {}
    for one in targets:
        found.setdefault((one.engine, one.admin_url, one.admin_role, one.ops_schema), one)
    return list(found.values())


def configured(context: Context) -> list[Target]:
    """The targets of all databases in force."""
    config = context.files.config
    return [
        target(name, entry, prefix=context.prefix, ledger=context.ledger.id)
        for name, entry in (config.databases if config else {}).items()
    ]


async def measure(context: Context) -> None:
    """What each server really ends by itself, for the cards. One that does not answer keeps what was last measured."""
    for one in one_each(configured(context)):
        try:
            health = await context.engines.measure(one)
        except AdapterError as error:
            log.warning("a server could not be looked at", database=one.name, error=str(error))
        else:
            log.info(
                "a server was looked at", database=one.name, version=health.version, enforced=health.enforced.value
            )
