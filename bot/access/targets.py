"""Where the user of a grant is: server and level as they were frozen, and the servers of all databases in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from adapters.base import Level, Target
from bot.access.context import Context
from bot.databases import target
from storage.records import Request


def target_of(request: Request) -> Target:
    """The server as it was frozen; with the identity it had at the start every connection is checked."""
    assert request.target is not None, "an approved request has its target"
    return replace(Target.from_json(request.target), identity=request.identity)


def level_of(request: Request) -> Level:
    """The level as it was on the card."""
    return Level.from_json(request.terms.level)


def unique_servers(targets: Iterable[Target]) -> list[Target]:
    """One target of each server: the first of those that share engine, address and where their users are kept."""
    found: dict[tuple[str, str, str | None, str], Target] = {}
    for one in targets:
        found.setdefault((one.engine, one.admin_url, one.admin_role, one.ops_schema), one)
    return list(found.values())


def configured_targets(context: Context) -> list[Target]:
    """The targets of all databases in force."""
    config = context.files.config
    return [
        target(name, entry, prefix=context.prefix, ledger=context.ledger.id)
        for name, entry in (config.databases if config else {}).items()
    ]
