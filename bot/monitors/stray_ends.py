"""Act on a difference between a server and the ledger: end a user, or set a moved end back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from adapters.base import Level, Removal
from bot.access.context import Context
from bot.access.targets import level_of
from bot.engines import Share
from bot.monitors.strays import Stray, StrayKind
from storage import task_plans
from storage.audit_kinds import AuditKind
from storage.records import State


async def end_stray(context: Context, stray: Stray, *, actor: str, adopts: bool = False) -> Removal:
    """Drop an orphan, or end the sessions that an ended grant left. ``actor`` is for the audit log. Raises AdapterError.

    ``adopts``: an operator named the ledger of a foreign user as lost, so it is ended too, under the mark of that ledger.
    """
    assert is_to_end(stray) or (adopts and stray.ledger), "a foreign user is never touched"
    level = await _level(context, stray)
    target = replace(stray.target, ledger=stray.ledger) if adopts and stray.ledger else stray.target
    removal = await context.engines.call(
        target, lambda adapter: adapter.drop_user(stray.username, level), share=Share.SWEEP
    )
    facts: dict[str, object] = {"database": stray.target.name, "username": stray.username}
    facts |= {"sessions_ended": removal.sessions_ended, **({"adopted_from": stray.ledger} if adopts else {})}
    await context.ledger.audit.record(AuditKind.SWEPT, actor=actor, facts=facts)
    return removal


async def _level(context: Context, stray: Stray) -> Level:
    """The level of the grant that the user had, where the ledger still has it."""
    found = await context.ledger.requests.get_many([stray.request_id or 0])
    request = found.get(stray.request_id or 0)
    try:
        return level_of(request) if request and request.username == stray.username else Level(name="sweep")
    except (KeyError, TypeError, ValueError, AttributeError):
        return Level(name="sweep")


def is_to_end(stray: Stray, *, in_recovery: bool = False) -> bool:
    """Whether the sweep ends what it found. In recovery mode only what the ledger knows to have ended: others may be live grants."""
    if stray.kind is StrayKind.ORPHAN:
        return stray.has_ended or stray.is_trial or not in_recovery
    return stray.kind is StrayKind.LINGERING


async def plan_set_back(context: Context, stray: Stray) -> bool:
    """Plan the task that sets the end on the server to that of the ledger. Returns whether it is one that is later there."""
    assert stray.kind is StrayKind.MOVED, "the others have no end to set back"
    ledger, request_id = context.ledger, stray.request_id or 0
    if stray.moved_by < timedelta(0) or (request := await ledger.requests.get(request_id)).state is not State.ACTIVE:
        return False
    await ledger.tasks.add(task_plans.move_expiry(request, await ledger.now()), request_id=request_id)
    return True
