"""Many live grants: real users with sessions on the target server, and copies of one real grant in the ledger. The bot is stopped meanwhile."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import sql

from adapters.base import Level, Secrets, Target, UserSpec
from adapters.postgresql import PostgreSQL
from adapters.usernames import make_username
from benchmarks.grants import Usable
from benchmarks.prefill import GrantCopy, RealGrant, add_live_grants, new_key, next_number
from benchmarks.sessions import RoleWatch, SessionWatch
from benchmarks.world import CHANNELS, REQUESTERS, World, admin_url
from tests.contract.postgresql.harness import EngineHarness

CREATORS = 4
LONG = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class ManyGrants:
    """Live grants by their number, each with one open session. ``ends`` is in seconds of ``time.time``."""

    ends: dict[int, float]
    sessions: SessionWatch
    users: RoleWatch


@asynccontextmanager
async def many_grants(
    world: World, template: Usable, number: int, *, starts_in: float, apart: float = 0.0
) -> AsyncIterator[ManyGrants]:
    """Live grants that end ``starts_in`` seconds from now, or one after another. The bot runs again when they are yielded."""
    await world.until_idle()
    await world.stop_bot()
    real = RealGrant.read(world.ledger.engine, template.waiting.number)
    copies = make_copies(world, real, number)
    password = await create_users(world.harness, real, copies)
    logins = {copy.number: {**template.login, "Username": copy.username, "Password": password} for copy in copies}
    async with SessionWatch() as sessions, RoleWatch(world, {c.number: c.username for c in copies}) as users:
        await sessions.open(logins)
        ends = store_copies(world, real, copies, starts_in=starts_in, apart=apart)
        set_expiry_on_server(world.harness, copies, ends)
        await world.start_bot()
        yield ManyGrants(
            ends={c.number: at.timestamp() for c, at in zip(copies, ends, strict=True)}, sessions=sessions, users=users
        )


def store_copies(
    world: World, real: RealGrant, copies: Sequence[GrantCopy], *, starts_in: float, apart: float
) -> list[datetime]:
    """Put the copies into the ledger. Returns the end of each."""
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=starts_in)
    ends = [first + timedelta(seconds=n * apart) for n in range(len(copies))]
    add_live_grants(
        world.ledger.engine, real, [replace(copy, expires_at=at) for copy, at in zip(copies, ends, strict=True)]
    )
    return ends


def make_copies(world: World, real: RealGrant, number: int) -> list[GrantCopy]:
    """Copies for many people, each with messages of its own in Slack."""
    first = next_number(world.ledger.engine)
    return [_copy(world, first + n, real.request["expires_at"]) for n in range(number)]


def _copy(world: World, number: int, expires_at: datetime) -> GrantCopy:
    requester, channel, key = REQUESTERS[number % len(REQUESTERS)], CHANNELS[number % len(CHANNELS)], new_key()
    card = world.slack.post_as_bot(channel, f"Access request #{number}")
    direct = world.slack.workspace.dm_of(requester)
    credentials = world.slack.post_as_bot(direct, f"Your access is ready (#{number})")
    return GrantCopy(
        number=number, key=key, username=make_username(world.prefix, request_id=number, who=requester, key=key),
        requester_id=requester, expires_at=expires_at,
        places={"card": (channel, card), "credentials": (direct, credentials)},
    )  # fmt: skip


async def create_users(harness: EngineHarness, real: RealGrant, copies: Sequence[GrantCopy]) -> str:
    """Create the users as the bot does, by the adapter. Returns their password."""
    password, level = secrets.token_urlsafe(24).replace("-", "x"), Level(name="readonly", roles=("shop_reader",))
    target = replace(Target.from_json(real.request["target"]), identity=None)
    adapter = PostgreSQL(target, Secrets(admin_url=admin_url(harness)))
    gate = asyncio.Semaphore(CREATORS)

    async def create(copy: GrantCopy) -> None:
        spec = UserSpec(
            username=copy.username, password=password, level=level, remaining=LONG, request_id=copy.number
        )  # fmt: skip
        async with gate:
            await asyncio.to_thread(adapter.create_user, spec)

    await asyncio.gather(*(create(copy) for copy in copies))
    return password


def set_expiry_on_server(harness: EngineHarness, copies: Sequence[GrantCopy], ends: Sequence[datetime]) -> None:
    """The server knows the same end as the ledger."""
    statement = sql.SQL("ALTER ROLE {} VALID UNTIL {}")
    with harness.superuser("postgres") as connection, connection.transaction():
        for copy, at in zip(copies, ends, strict=True):
            parts: tuple[Any, ...] = (sql.Identifier(copy.username), sql.Literal(at.isoformat()))
            connection.execute(statement.format(*parts))
