"""An admin URL that leads through a connection pooler, which refuses startup options or drops them silently."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from adapters.base import AdapterError, Rejected, Secrets, ServerDown
from adapters.postgresql import PostgreSQL
from tests.conftest import had
from tests.contract.postgresql.attacks import succeeds
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, readonly, writer
from tests.contract.postgresql.test_locked_role import prepare_itself
from tests.open_faults import require
from tests.servers import pgbouncer
from tests.servers.pgbouncer import PgBouncer

DROPS_OPTIONS = "ignore_startup_parameters = options"
MODES = ("session", "transaction")
PINNED = {"search_path": '"$user", public', "statement_timeout": "0", "lock_timeout": "0"}
"""Settings that the bot relies on, each with the server's value without it."""
PLANTED = """
CREATE FUNCTION public.starts_with(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
  IF current_user <> '{planter}' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{made}') THEN
    CREATE ROLE {made} LOGIN CREATEROLE;
  END IF;
  RETURN pg_catalog.starts_with($1::text, $2);
END $$
"""
"""For an argument of type name this function matches better than the server's own, which takes text."""


@pytest.fixture
def pooled(own_harness: EngineHarness) -> Iterator[Callable[..., PgBouncer]]:
    """Starts poolers in front of the harness's server that know its bot."""
    running = list[Iterator[PgBouncer]]()

    def start(mode: str, extra: str = "") -> PgBouncer:
        users = {own_harness.bot: BOT_PASSWORD}
        running.append(had(lambda: pgbouncer.start(own_harness.server, mode, users=users, extra=extra)))
        return next(running[-1])

    yield start
    for one in running:
        next(one, None)


def through(pooler: PgBouncer, harness: EngineHarness, **changes: object) -> PostgreSQL:
    url = pooler.url(harness.bot, BOT_PASSWORD, harness.database)
    return PostgreSQL(harness.target(**changes), Secrets(admin_url=url))


def refusal(adapter: PostgreSQL) -> AdapterError | None:
    try:
        adapter.check([readonly()])
    except AdapterError as error:
        return error
    return None


def seen_by(adapter: PostgreSQL, setting: str) -> str:
    with adapter.server.session() as connection:
        row = connection.execute("SELECT current_setting(%s)", (setting,)).fetchone()
    assert row is not None
    return str(row[0])


def is_reported(adapter: PostgreSQL) -> bool:
    """Whether ``check`` refuses the server or finds a problem that stops grants."""
    try:
        return bool(adapter.check([readonly()]).problems)
    except Rejected:
        return True


@pytest.mark.parametrize("mode", MODES)
def test_a_pooler_that_refuses_options_is_reported(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer], mode: str
) -> None:
    """No grant is made through it, and check says what to put into the admin URL instead."""
    adapter, spec = through(pooled(mode), own_harness), own_harness.spec(readonly())
    (problem,) = adapter.check([readonly()]).problems
    assert "pooler" in problem.what
    assert problem.remedy
    with pytest.raises(Rejected, match="pooler"):
        adapter.create_user(spec)
    assert not own_harness.role_exists(spec.username)


@pytest.mark.parametrize("extra", ["", DROPS_OPTIONS], ids=["refuses options", "drops options"])
def test_a_user_is_ended_through_a_pooler_in_transaction_mode(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer], extra: str
) -> None:
    """Each transaction may run on another connection to the server. The end sets what it depends on in each."""
    spec, straight = own_harness.spec(writer()), own_harness.adapter()
    straight.create_user(spec)
    session = own_harness.login(spec)
    session.execute("CREATE TABLE shop.mine (id int)")
    session.execute("BEGIN")
    session.execute(f"ALTER ROLE {spec.username} PASSWORD 'x'".encode())
    moved = through(pooled("transaction", extra), own_harness, identity=straight.identity())
    removal = moved.drop_user(spec.username, spec.level)
    assert removal.sessions_ended == 1
    assert removal.left_behind == ("shop.mine (table)",)
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert not own_harness.role_exists(spec.username)


@pytest.mark.parametrize("mode", MODES)
def test_users_are_blocked_through_a_pooler(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer], mode: str
) -> None:
    specs, straight = [own_harness.spec(readonly()) for _ in range(3)], own_harness.adapter()
    for spec in specs:
        straight.create_user(spec)
    locked = specs[1]
    prepare_itself(own_harness, locked)
    sessions = [own_harness.login(spec) for spec in specs]
    moved = through(pooled(mode), own_harness, identity=straight.identity())
    names = [spec.username for spec in specs]
    assert moved.block_users(names) == set(names) - {locked.username}
    for session in sessions:
        assert not succeeds(session)
    for spec in specs:
        straight.drop_user(spec.username, spec.level)


@pytest.mark.parametrize("mode", MODES)
def test_settings_that_a_pooler_drops_are_set_or_reported(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer], mode: str
) -> None:
    straight, adapter = own_harness.adapter(), through(pooled(mode, DROPS_OPTIONS), own_harness)
    wanted = {setting: seen_by(straight, setting) for setting in PINNED}
    require(all(seen != PINNED[setting] for setting, seen in wanted.items()), "a straight connection has its own")
    assert is_reported(adapter) or {setting: seen_by(adapter, setting) for setting in PINNED} == wanted


def test_a_users_function_never_runs_as_the_bot_through_a_pooler(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer]
) -> None:
    """Everybody may create in ``public``, as in each database that was upgraded from version 14 or older."""
    adapter, spec, made = own_harness.adapter(), own_harness.spec(writer()), f"made_by_{own_harness.bot}"
    with own_harness.superuser() as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    adapter.create_user(spec)
    with own_harness.login(spec) as c:
        c.execute(PLANTED.format(planter=spec.username, made=made).encode())
    adapter.list_users()
    require(not own_harness.role_exists(made), "on a straight connection the server's own function runs")
    with suppress(AdapterError):
        through(pooled("session", DROPS_OPTIONS), own_harness).list_users()
    is_made = own_harness.role_exists(made)
    with own_harness.superuser() as c:
        c.execute(sql.SQL("DROP FUNCTION public.starts_with; DROP ROLE IF EXISTS {}").format(sql.Identifier(made)))
    adapter.drop_user(spec.username, spec.level)
    assert not is_made


@pytest.mark.parametrize("mode", MODES)
def test_a_session_through_a_pooler_is_ended(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer], mode: str
) -> None:
    """The pooler has a connection of its own to the server as that user, and another one to the person."""
    pooler, adapter, spec = pooled(mode), own_harness.adapter(), own_harness.spec(readonly())
    adapter.create_user(spec)
    url = pooler.url(spec.username, spec.password, own_harness.database)
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as session:
        assert session.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        assert adapter.drop_user(spec.username, spec.level).sessions_ended == 1
        with pytest.raises(psycopg.Error):
            session.execute("SELECT count(*) FROM shop.customers")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=10)


def test_a_user_is_ended_through_a_pooler(own_harness: EngineHarness, pooled: Callable[..., PgBouncer]) -> None:
    """Somebody pointed the admin URL at a pooler while the grant was live. A check may refuse the next grant, but never this revocation."""
    spec = own_harness.spec(readonly())
    straight = own_harness.adapter()
    straight.create_user(spec)
    session = own_harness.login(spec)
    moved = through(pooled("session", DROPS_OPTIONS), own_harness, identity=straight.identity())
    assert moved.drop_user(spec.username, spec.level).sessions_ended == 1
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert not own_harness.role_exists(spec.username)


def test_a_stopped_pooler_is_a_server_that_is_down(
    own_harness: EngineHarness, pooled: Callable[..., PgBouncer]
) -> None:
    """A refusal by the pooler is final. A missing answer is not."""
    pooler = pooled("session")
    pooler.stop()
    assert isinstance(refusal(through(pooler, own_harness)), ServerDown)
