"""Targets and levels: those frozen in a request, and those of the configured databases."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import structlog

from adapters.base import Level, Target
from adapters.level_state import LevelState
from bot.access.context import Context, ServerKey
from bot.databases import level, target
from storage.records import Request

log = structlog.get_logger(__name__)


def target_of(request: Request) -> Target:
    """The target as it was frozen at the approval. Its identity, frozen at START, is checked at every connection."""
    assert request.target is not None, "an approved request has its target"
    return replace(Target.from_json(request.target), identity=request.identity)


def level_of(request: Request) -> Level:
    """The access level as it was frozen at the submission."""
    return Level.from_json(request.terms.level)


def state_before(request: Request) -> LevelState | None:
    """The state of the level before the grant, as START stored it. None for a request of an older version, or if it cannot be read.

    The end of a grant needs it only for the notes of the receipt, so it raises nothing.
    """
    if request.level_state is None:
        return None
    try:
        return LevelState.from_json(json.loads(request.level_state))
    except (ValueError, RecursionError) as error:
        log.warning("level_state_unreadable", request=request.id, error=type(error).__name__)
        return None


def server_key(target: Target) -> ServerKey:
    """What all databases of one server have in common: engine, address, admin role and schema of dbaccess."""
    return (target.engine, target.admin_url, target.admin_role, target.ops_schema)


def unique_servers(targets: Iterable[Target]) -> list[Target]:
    """One target for each server: the first of those with the same engine, address, admin role and schema of dbaccess."""
    found: dict[ServerKey, Target] = {}
    for one in targets:
        found.setdefault(server_key(one), one)
    return list(found.values())


def unknown_servers(context: Context) -> dict[str, str]:
    """Why the servers of the configuration are not known, as text without a full stop. Empty where a configuration is in force."""
    problems = context.files.problems
    if context.files.config is not None or problems is None:
        return {}
    return {"the configuration": f"the configuration has errors, so its servers are not known ({problems.problems[0]})"}


def configured_targets(context: Context) -> list[Target]:
    """The targets of all databases in the configuration in force."""
    return [one for one, _ in configured_levels(context)]


def configured_levels(context: Context) -> list[tuple[Target, list[Level]]]:
    """The targets of all databases in the configuration in force, each with its levels."""
    config = context.files.config
    return [
        (
            target(name, entry, prefix=context.prefix, ledger=context.ledger.id),
            [level(known, entry) for known in entry.levels],
        )
        for name, entry in (config.databases if config else {}).items()
    ]
