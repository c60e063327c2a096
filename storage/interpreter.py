"""Interprets ``lifecycle.TRANSITIONS`` inside a transaction: obstacle, write, everything that follows.

``RequestRepository`` opens the transaction and locks the rows. A function here that finds the request changed
raises NotPossible, and the whole transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from storage import serialization
from storage.audit_log import append_event
from storage.commands import Command, DecisionCommand, EndCommand
from storage.errors import NotPossible
from storage.lifecycle import TRANSITIONS
from storage.messages import insert_messages
from storage.records import Request, RequestKind, State
from storage.schema import decisions, requests
from storage.task_queue import clear_tasks, schedule_task
from storage.transitions import GuardInput, Obstacle, Related, TaskPlanner

WAITING_EXTENSIONS = select(requests).where(
    requests.c.parent_id == bindparam("grant"), requests.c.state == State.PENDING.value
)


def find_obstacle(guard_input: GuardInput) -> Obstacle | None:
    """The first obstacle to the transition of the command. None if it is possible."""
    rule = TRANSITIONS[guard_input.command.transition]
    if guard_input.request.state not in rule.sources:
        return Obstacle.STATE
    return next((found for found in (guard(guard_input) for guard in rule.guards) if found is not None), None)


def column_values(before: Request, command: Command, now: datetime) -> dict[str, Any]:
    """The column values that the transition writes, without ``version``. Pure."""
    rule = TRANSITIONS[command.transition]
    values: dict[str, Any] = {} if rule.target is None else {"state": rule.target}
    for write in rule.writes:
        values |= write(before, command, now)
    return values


def apply(tx: Connection, before: Request, command: Command, now: datetime) -> Request:
    """Write the decision and the request. Returns the request afterwards. Raises NotPossible if its version changed."""
    if isinstance(command, DecisionCommand) and command.decision is not None:
        tx.execute(insert(decisions).values(**asdict(command.decision)))
    return _update_request(tx, before, command, serialization.columns(column_values(before, command, now)))


def _update_request(tx: Connection, before: Request, command: Command, values: Mapping[str, Any]) -> Request:
    parameters = {**values, "version": before.version + 1, "was_id": before.id, "was_version": before.version}
    row = tx.execute(_update_statement(tuple(values)), parameters).mappings().first()
    if row is None:
        raise NotPossible(command.transition, Obstacle.STATE, before)
    return serialization.request(row)


@cache
def _update_statement(columns: tuple[str, ...]) -> ReturningUpdate[Any]:
    """Compare and set these columns. Built once for each transition: building a statement costs more than running it."""
    same = (requests.c.id == bindparam("was_id"), requests.c.version == bindparam("was_version"))
    values = {name: bindparam(name, type_=requests.c[name].type) for name in (*columns, "version")}
    return update(requests).where(*same).values(values).returning(requests)


def follow_up(tx: Connection, after: Request, command: Command, now: datetime) -> None:
    """Write what commits with the transition: audit event, messages, and the tasks that it clears and plans."""
    rule = TRANSITIONS[command.transition]
    facts = {**_facts(after, command), **command.facts}
    append_event(tx, rule.audit, actor=command.actor, request_id=after.id, facts=facts, text=command.text, now=now)
    insert_messages(tx, after, rule.messages)
    clear_tasks(tx, after.id, rule.clears)
    _schedule(tx, after, rule.tasks, now)


def _schedule(tx: Connection, request: Request, planners: Iterable[TaskPlanner], now: datetime) -> None:
    for plan in (planner(request, now) for planner in planners):
        if plan is not None:
            schedule_task(tx, plan, request_id=request.id, now=now)


def cascade(tx: Connection, after: Request, command: Command, parent: Request | None, now: datetime) -> None:
    """Apply the cascades of the transition to related requests.

    The rows of these requests are locked already. Their guards were checked together with those of this request.
    """
    for one in TRANSITIONS[command.transition].cascades:
        for related in _related(tx, one.related, after, parent):
            if one.command is not None:
                caused = one.command(after, command)
                changed = apply(tx, related, caused, now)
                follow_up(tx, changed, caused, now)
            _schedule(tx, related, one.tasks, now)


def _related(tx: Connection, related: Related, request: Request, parent: Request | None) -> tuple[Request, ...]:
    if related is Related.PARENT:
        return (parent,) if parent is not None else ()
    rows = tx.execute(WAITING_EXTENSIONS, {"grant": request.id}).mappings()
    return tuple(serialization.request(row) for row in rows)


def _facts(after: Request, command: Command) -> dict[str, Any]:
    facts: dict[str, Any] = {"state": after.state, "database": after.database, "level": after.level}
    if after.kind is not RequestKind.ACCESS:
        facts["kind"] = after.kind
    if isinstance(command, DecisionCommand) and command.decision is not None:
        facts |= {"verdict": command.decision.verdict, "stage": command.decision.stage}
    if after.username is not None:
        facts["username"] = after.username
    if after.expires_at is not None:
        facts["expires_at"] = after.expires_at.isoformat()
    if isinstance(command, EndCommand):
        facts["cause"] = command.cause
    facts["duration_seconds"] = after.effective_duration.total_seconds()
    facts["policy"] = after.terms.policy_digest
    return facts
