"""Check the servers: what each of them ends by itself, and whether its users match the ledger.

The sweep finds managed users without a live grant, and live grants without their user. Each server is queried once,
however many databases it has. The servers are queried at the same time: none of them delays or stops the look at another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import structlog

from adapters.base import AdapterError, Level, ManagedUser, Removal, Target
from bot.access.context import Context
from bot.access.descriptions import shorten
from bot.access.server_errors import describe_server_error
from bot.access.targets import configured_levels, configured_targets, unique_servers
from bot.engines import Share
from storage.audit_kinds import AuditKind
from storage.records import Request, State

DROPPED_SHOWN = 20
SENTENCE_MAX = 300
LOOK_SECONDS = 300.0
"""The longest look at one server. Every adapter has time limits; this limit is for one that fails to keep them."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class StrayKind(StrEnum):
    """The difference between a user on a server and the ledger."""

    ORPHAN = "orphan"
    MISSING = "missing"
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True)
class Stray:
    """A managed user without a live grant, a foreign user, or a live grant without its user.

    ``ledger`` is the ledger that the user's mark names; None without a mark.
    """

    kind: StrayKind
    target: Target
    username: str
    request_id: int | None
    ledger: str | None

    @property
    def what(self) -> str:
        """The difference as a sentence."""
        if self.kind is StrayKind.ORPHAN:
            return f"{self.username} is on the server of {self.target.name} and no live grant has it"
        if self.kind is StrayKind.MISSING:
            return f"{self.username} of live grant #{self.request_id} is not on the server of {self.target.name}"
        whose = f"of ledger {self.ledger}" if self.ledger else "without a mark"
        return f"{self.username} on the server of {self.target.name} is {whose}: a foreign user, not touched"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep. ``unanswered``: by name of the database, why its server was not checked.

    ``dropped``: sentences about leftovers of ended users that were dropped.
    """

    servers: int
    users: int
    strays: tuple[Stray, ...]
    unanswered: Mapping[str, str]
    dropped: tuple[str, ...] = ()


async def find_strays(context: Context, *, drops_leftovers: bool = False) -> SweepResult:
    """Compare the users of all servers with the ledger. The ledger is read before and after, so a grant that begins or ends meanwhile is no stray.

    ``drops_leftovers``: afterwards drop what ended users left and nobody needs, on the servers that answered.
    """
    before = await context.ledger.requests.live_grants()
    unanswered = dict[str, str]()
    frozen = _frozen_targets(before, unanswered)
    servers = unique_servers([*configured_targets(context), *frozen])
    looks = await asyncio.gather(*(_on_server(server, _list_users(context, server), unanswered) for server in servers))
    listed = {server: users for server, users in zip(servers, looks, strict=True) if users is not None}
    after = await context.ledger.requests.live_grants()
    known = {request.username for request in (*before, *after)}
    strays = [
        _stray(server, user, context.ledger.id)
        for server, users in listed.items()
        for user in users
        if user.username not in known
    ]
    strays += _missing(listed, before, after)
    users = sum(map(len, listed.values()))
    dropped = await drop_leftovers(context, list(listed)) if drops_leftovers else ()
    return SweepResult(servers=len(servers), users=users, strays=tuple(strays), unanswered=unanswered, dropped=dropped)


async def _on_server(server: Target, look: Awaitable[T], failed: dict[str, str]) -> T | None:
    """The result of a look at one server. None where it fails or takes too long: the reason is put into ``failed``.

    Engines may come from other packages, and one server must not stop the look at the others. So every exception ends here.
    """
    try:
        return await asyncio.wait_for(look, LOOK_SECONDS)
    except TimeoutError:
        failed[server.name] = f"no answer within {LOOK_SECONDS:.0f} s"
    except AdapterError as error:
        failed[server.name] = describe_server_error(server.name, error)
    except Exception as error:
        log.exception("server_look_failed", database=server.name)
        failed[server.name] = f"the look failed: {type(error).__name__}"
    return None


async def _list_users(context: Context, server: Target) -> list[ManagedUser]:
    return list(await context.engines.call(server, lambda adapter: adapter.list_users()))


def _frozen_targets(grants: Iterable[Request], failed: dict[str, str]) -> list[Target]:
    """The targets of live grants. One that cannot be read is reported and does not stop the others."""
    found = []
    for request in grants:
        try:
            found += [Target.from_json(request.target)] if request.target else []
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            failed[request.database] = f"the target of #{request.id} cannot be read ({type(error).__name__})"
    return found


def _stray(server: Target, user: ManagedUser, ledger: str) -> Stray:
    kind = StrayKind.ORPHAN if user.ledger == ledger else StrayKind.FOREIGN
    return Stray(kind=kind, target=server, username=user.username, request_id=user.request_id, ledger=user.ledger)


def _missing(
    listed: Mapping[Target, list[ManagedUser]], before: tuple[Request, ...], after: tuple[Request, ...]
) -> list[Stray]:
    """Grants that were ACTIVE before and after, whose server answered and does not have their user."""
    active = {request.id for request in before if request.state is State.ACTIVE}
    found = []
    for request in after:
        if request.id not in active or request.state is not State.ACTIVE or not request.target or not request.username:
            continue
        own = next(iter(_frozen_targets([request], {})), None)
        server = next((s for s in listed if own is not None and len(unique_servers([s, own])) == 1), None)
        if (
            own is not None
            and server is not None
            and request.username not in {user.username for user in listed[server]}
        ):
            found.append(
                Stray(kind=StrayKind.MISSING, target=own, username=request.username, request_id=request.id, ledger=None)
            )
    return found


async def drop_leftovers(context: Context, servers: Sequence[Target]) -> tuple[str, ...]:
    """Drop what nobody needs any more on each server, such as left-behind roles that own nothing. Raises nothing.

    Returns a sentence for each thing that was dropped, at most ``DROPPED_SHOWN``, and the number of the others. A failure is logged.
    """
    failed = dict[str, str]()
    found = await asyncio.gather(*(_on_server(server, _drop_leftovers(context, server), failed) for server in servers))
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
    return list(await context.engines.call(server, lambda adapter: adapter.drop_leftovers()))


async def measure_servers(context: Context) -> None:
    """Measure for the cards what each server ends by itself and what of each level may outlive a grant; then drop leftovers there.

    A database whose server does not answer keeps its last result.
    """
    failed = dict[str, str]()
    measured = configured_levels(context)
    found = await asyncio.gather(
        *(_on_server(one, context.engines.measure(one, levels), failed) for one, levels in measured)
    )
    for (one, _), health in zip(measured, found, strict=True):
        if health is None:
            log.warning("server_check_failed", database=one.name, error=failed[one.name])
        else:
            log.info("server_checked", database=one.name, version=health.version, enforced=health.enforced.value)
    answered = unique_servers(one for one, _ in measured if one.name not in failed)
    for sentence in await drop_leftovers(context, answered):
        log.info("leftover_dropped", what=sentence)


async def end_stray(context: Context, stray: Stray, *, actor: str) -> Removal:
    """Drop an orphan: a managed user of this ledger without a live grant. ``actor`` is for the audit log. Raises AdapterError."""
    assert stray.kind is StrayKind.ORPHAN, "a foreign user is never touched"
    removal = await context.engines.call(
        stray.target, lambda adapter: adapter.drop_user(stray.username, Level(name="sweep")), share=Share.ENDS
    )
    facts = {"database": stray.target.name, "username": stray.username, "sessions_ended": removal.sessions_ended}
    await context.ledger.audit.record(AuditKind.SWEPT, actor=actor, facts=facts)
    return removal
