"""Ends that fall together: begin them in the ledger, block their logins over one connection, and drop those together that have nothing left.

A user that needs more than that is dropped by its own task afterwards.

It is also the probe of a server that did not answer. The users whose end is due are blocked first, since one of them may be what
keeps everybody else out of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog

from adapters.base import (
    Adapter,
    AdapterError,
    Connect,
    Level,
    Removal,
    ServerDown,
    Target,
    UserToDrop,
    WrongServer,
)
from adapters.level_state import LevelState
from bot.access import log_events
from bot.access.context import Context
from bot.access.targets import level_of, state_before, target_of
from bot.engines import AdapterFailed, Share
from bot.jobs.job import LEASE
from bot.jobs.receipts import audit_facts, verified_receipt
from bot.jobs.revoke import MAYBE_DROPPED, cause_by_clock
from storage.claims import Claim, EndsOf
from storage.commands import Command, ConfirmRevocation, RevokeGrant
from storage.records import Request, State

TOGETHER = 100
"""Users that are blocked in one call, and grants whose end begins in one transaction."""
DROPPED_TOGETHER = 50
"""Users that are dropped in one call, and confirmed in one transaction."""
FAILED_GROUPS_AT_MOST = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerAnswer:
    """The answer of a server. ``error`` is why it gave none; ``waiting`` are the numbers of the due ends that were claimed for it."""

    error: ServerDown | None
    waiting: tuple[int, ...]


async def begin_due_ends(context: Context, server: str, on_begun: Callable[[], None] = lambda: None) -> None:
    """Move every grant on this server whose end is due to REVOKING, in groups; ``on_begun`` is called after each.

    Talks to the ledger only, so a server that hangs delays nothing of it.
    """
    requests = context.ledger.requests
    while due := await requests.due_to_end(server=server, limit=TOGETHER):
        ends = [(one.id, RevokeGrant(actor="clock", cause=cause_by_clock(one))) for one in due]
        after = await requests.advance_many(ends)
        if not any(isinstance(one, Request) for one in after):
            return  # each was moved or ended by somebody else; their own tasks look again
        on_begun()


async def begin_and_block(context: Context, server: str, worker: str) -> ServerAnswer:
    """Begin the due ends and block their users at the same time: while the server blocks one group, the ledger begins the next."""
    begun = asyncio.Semaphore(0)
    beginning = asyncio.create_task(begin_due_ends(context, server, begun.release))
    beginning.add_done_callback(lambda _: begun.release())

    async def next_group() -> None:
        if not beginning.done():
            await begun.acquire()

    try:
        return await block_due_users(context, server, worker, untried=True, next_group=next_group)
    finally:
        await beginning


async def _no_wait() -> None:
    return


async def block_due_users(
    context: Context, server: str, worker: str, *, untried: bool, next_group: Callable[[], Awaitable[None]] = _no_wait
) -> ServerAnswer:
    """Block the users of all due ends of this server address, in groups. Stops at the first group that the server does not answer.

    ``untried``: only ends that were never tried. A user that holds a step up is left to its own task. ``next_group`` is awaited before each group.
    """
    tasks, waiting = context.ledger.tasks, list[int]()
    while True:
        await next_group()
        claims = await tasks.claim_ends(worker, LEASE, server=server, limit=TOGETHER, untried=untried)
        if not claims:
            return ServerAnswer(error=None, waiting=tuple(waiting))
        waiting += [one.task.request_id or 0 for one in claims]
        blocked, error = await _block(context, claims)
        await tasks.put_back(claims, blocked=blocked, is_untried=error is not None)
        if error is not None:
            return ServerAnswer(error=error, waiting=tuple(waiting))
        untried = True  # those that were not blocked have been tried now


async def drop_blocked_users(context: Context, server: str, worker: str, left: set[int]) -> None:
    """Drop the blocked users of this server address whose end was never tried, in groups. Stops where the server does not answer several of them.

    ``left`` are the ids of the tasks that a group has left; those of this call are added. Their own first try comes next: it shares no place with
    users that hold up their end.
    """
    tasks, failures = context.ledger.tasks, 0
    while failures < FAILED_GROUPS_AT_MOST and (
        claims := await tasks.claim_ends(
            worker, LEASE, server=server, limit=DROPPED_TOGETHER, ends_of=EndsOf.BLOCKED, untried=True, but=left
        )
    ):
        removals, is_known = dict[int, Removal](), True
        for target, ends in (await _ends_by_target(context, claims)).items():
            try:
                removals |= await _drop(context, target, ends)
            except AdapterError as error:
                is_known = False
                log.warning("group_not_dropped", server=server, error=str(error))
        others = await _confirm(context, claims, removals)
        await tasks.put_back(others, blocked=(), is_untried=is_known, note=None if is_known else {MAYBE_DROPPED: True})
        left |= {one.task.id for one in others}
        failures += not is_known


async def _drop(context: Context, target: Target, ends: Sequence[_End]) -> dict[int, Removal]:
    """Claim number → removal. Raises AdapterError."""
    users = [UserToDrop(username=one.username, level=one.level, before=one.before) for one in ends]
    dropped = await context.engines.call(target, partial(_drop_blocked, users), share=Share.ENDS)
    return {one.claim.number: dropped[one.username] for one in ends if one.username in dropped}


def _drop_blocked(users: Sequence[UserToDrop], adapter: Adapter) -> Mapping[str, Removal]:
    return adapter.drop_blocked_users(users)


async def _confirm(context: Context, claims: Sequence[Claim], removals: Mapping[int, Removal]) -> list[Claim]:
    """Store the receipts of the dropped users. Returns the claims of the others."""
    commands = list[tuple[Claim, Command]]()
    for claim in claims:
        if claim.number in removals:
            receipt = verified_receipt(removals[claim.number])
            commands.append((claim, ConfirmRevocation(actor="bot", receipt=receipt, facts=audit_facts(receipt))))
    confirmed = await context.ledger.requests.finish_many(commands) if commands else ()
    for after in confirmed:
        if isinstance(after, Request):
            log_events.grant_ended(after)
    done = {claim.number for (claim, _), after in zip(commands, confirmed, strict=True) if isinstance(after, Request)}
    return [claim for claim in claims if claim.number not in done]


@dataclass(frozen=True, kw_only=True)
class _End:
    """An end that a group may drop."""

    claim: Claim
    username: str
    level: Level
    before: LevelState | None


async def _ends_by_target(context: Context, claims: Sequence[Claim]) -> Mapping[Target, list[_End]]:
    """The ends that a group may drop: of users that were in use, and that are being ended. What cannot be read is left out.

    A user of which a create with a lost answer may still land is left to its own task, which waits for it.
    """
    found = await context.ledger.requests.get_many([one.task.request_id or 0 for one in claims])
    groups = dict[Target, list[_End]]()
    for claim in claims:
        request = found.get(claim.task.request_id or 0)
        if request is None or request.state is not State.REVOKING:
            continue
        if request.activated_at is None or request.unsettled_until is not None:
            continue
        try:
            target, level = target_of(request), level_of(request)
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError):
            continue
        end = _End(claim=claim, username=str(request.username), level=level, before=state_before(request))
        groups.setdefault(target, []).append(end)
    return groups


async def _block(context: Context, claims: Sequence[Claim]) -> tuple[list[Claim], ServerDown | None]:
    """Block the users of these claims. Returns the claims whose users are blocked, and the error of a server that does not answer."""
    blocked = list[Claim]()
    for target, names in (await _by_target(context, claims)).items():
        try:
            done = await _block_names(context, target, tuple(names))
        except ServerDown as error:
            return blocked, error
        blocked += [claim for name, claim in names.items() if name in done]
    return blocked, None


async def _block_names(context: Context, target: Target, names: tuple[str, ...]) -> frozenset[str]:
    """The names that are blocked. Where the server refuses a group for one of its users, each half is tried. Raises ServerDown."""
    try:
        return await context.engines.call(target, partial(_block_users, names), share=Share.PROBES)
    except AdapterError as error:
        is_down = isinstance(error, ServerDown) and not isinstance(error, AdapterFailed)
        if is_down:
            raise
        if len(names) == 1 or isinstance(error, WrongServer):
            return frozenset()  # each end finds out by its own task, and its alert says what to do
    half = len(names) // 2
    return await _block_names(context, target, names[:half]) | await _block_names(context, target, names[half:])


def _block_users(usernames: Sequence[str], adapter: Adapter) -> frozenset[str]:
    return adapter.block_users(usernames)


async def _by_target(context: Context, claims: Sequence[Claim]) -> Mapping[Target, dict[str, Claim]]:
    """Username → claim, by target. Users of one target are blocked over one connection. A request that cannot be read is left out."""
    found = await context.ledger.requests.get_many([one.task.request_id or 0 for one in claims])
    groups = dict[Target, dict[str, Claim]]()
    for claim in claims:
        request = found.get(claim.task.request_id or 0)
        target = _group_of(request) if request is not None else None
        if request is not None and request.username is not None and target is not None:
            groups.setdefault(target, {})[request.username] = claim
    return groups


def _group_of(request: Request) -> Target | None:
    """The target without what is for people: databases of one server have the same one. None where it cannot be read."""
    try:
        found = target_of(request)
        return replace(found, name=found.admin_url, connect=Connect(database=found.connect.database))
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError):
        return None
