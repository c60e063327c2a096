"""The admin password of a server is rotated while a grant is live: the end works with the new one, without a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from psycopg import sql

from adapters.postgresql import PostgreSQL
from bot.engines import Engines
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from storage.records import State
from tests.access.environment import AccessEnvironment
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build
from tests.servers.postgresql import PostgresServer


@pytest.fixture
async def environment(tmp_path: Path) -> AsyncIterator[AccessEnvironment]:
    found = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()


def write_secret(folder: Path, server: PostgresServer, harness: EngineHarness, password: str) -> Path:
    secret = folder / "admin_url"
    secret.write_text(server.url(harness.bot, password, harness.database))
    return secret


def users(harness: EngineHarness) -> list[str]:
    with harness.superuser("postgres") as connection:
        rows = connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'jit\\_%\\_ada\\_%'").fetchall()
    return [str(row[0]) for row in rows]


async def test_end_works_after_the_admin_password_was_rotated(
    environment: AccessEnvironment, postgresql15: PostgresServer, tmp_path: Path
) -> None:
    harness = build(postgresql15)
    secret = write_secret(tmp_path, postgresql15, harness, BOT_PASSWORD)
    environment.databases["databases"]["shop"] |= {
        "admin_url": f"file:{secret}",
        "admin_role": harness.owner,
        "levels": {"readonly": {"roles": ["shop_reader"]}},
    }
    environment.write()
    engines = Engines({"postgresql": PostgreSQL})
    environment.context = type(environment.context)(**{**vars(environment.context), "engines": engines})
    environment.engines, environment.runner = engines, Runner(environment.context, JOBS)
    request = await environment.granted()
    assert request.username in users(harness)
    rotate = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(harness.bot), "rotated-9f2")
    with harness.superuser("postgres") as connection:
        connection.execute(rotate)
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", (harness.bot,))
    try:
        await environment.turn(hours=1, minutes=1)
        assert (await environment.now(request)).state is State.REVOKING, "the former password is refused"
        write_secret(tmp_path, postgresql15, harness, "rotated-9f2")
        await environment.turn(minutes=2)
        assert (await environment.now(request)).state is State.REVOKED
        assert request.username not in users(harness)
    finally:
        with harness.superuser("postgres") as connection:
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(harness.bot), BOT_PASSWORD))
