"""Several databases behind one server: one address, and each level in its own database."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from adapters.base import Connect, Level, LoginRefused, PrivilegeGrant, Secrets
from adapters.postgresql import PostgreSQL
from adapters.postgresql.level.grants import managed_role
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build, readonly, support
from tests.servers.postgresql import PostgresServer, psql

STOCK = """
CREATE SCHEMA stock;
CREATE TABLE stock.parts (id int);
INSERT INTO stock.parts SELECT generate_series(1, 7);
GRANT USAGE ON SCHEMA stock TO {holder} WITH GRANT OPTION;
GRANT SELECT ON stock.parts TO {holder} WITH GRANT OPTION;
GRANT USAGE, CREATE ON SCHEMA stock TO {role};
GRANT SELECT ON stock.parts TO {role};
GRANT CONNECT ON DATABASE {other} TO {role};
"""


@pytest.fixture
def two(postgresql: PostgresServer) -> EngineHarness:
    """A harness with the shop, and a second database with a stock and a role of its own."""
    harness = build(postgresql)
    with harness.superuser(harness.other) as c:
        names = {
            "holder": sql.Identifier(harness.owner or harness.bot),
            "role": sql.Identifier(clerk(harness)),
            "other": sql.Identifier(harness.other),
        }
        c.execute(sql.SQL("CREATE ROLE {role} NOLOGIN; GRANT {role} TO {holder} WITH ADMIN OPTION").format(**names))
        c.execute(sql.SQL(STOCK).format(**names))
    return harness


def clerk(harness: EngineHarness) -> str:
    return f"clerk_{harness.bot}"


def by_role(harness: EngineHarness) -> Level:
    return Level(name="stock", roles=(clerk(harness),), database=harness.other)


def by_grants(harness: EngineHarness) -> Level:
    grants = (PrivilegeGrant(on=("stock.parts",), privileges=("SELECT",)),)
    return Level(name="parts", grants=grants, database=harness.other)


def roles_of_ledger(harness: EngineHarness) -> list[str]:
    """The present users and managed roles of this ledger."""
    with harness.superuser() as c:
        query = "SELECT rolname FROM pg_roles WHERE starts_with(shobj_description(oid, 'pg_authid'), %s)"
        return [str(name) for (name,) in c.execute(query, (f"dbaccess ledger={harness.ledger} ",)).fetchall()]


@pytest.mark.parametrize("make", [by_role, by_grants])
def test_each_level_opens_only_its_own_database(two: EngineHarness, make: Callable[[EngineHarness], Level]) -> None:
    adapter, there, here = two.adapter(), two.spec(make(two)), two.spec(readonly())
    for spec in (there, here):
        adapter.create_user(spec)
        adapter.login(spec.username, spec.password, spec.level).close()
    with two.login(there, two.other) as c:
        assert c.execute("SELECT count(*) FROM stock.parts").fetchone() == (7,)
    with two.login(here) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
    for spec, closed in ((there, two.database), (here, two.other)):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            two.login(spec, closed)
    for spec in (there, here):
        assert not adapter.drop_user(spec.username, spec.level).notes
        with pytest.raises(LoginRefused):
            adapter.login(spec.username, spec.password, spec.level)
    assert roles_of_ledger(two) == []


def test_endpoints_have_one_address_and_each_levels_database(two: EngineHarness) -> None:
    adapter = two.adapter(connect=Connect(host="db.internal", port=6432))
    endpoints = [adapter.endpoint(level) for level in (readonly(), by_role(two))]
    assert {(e.host, e.port) for e in endpoints} == {("db.internal", 6432)}
    assert [e.database for e in endpoints] == [two.database, two.other]
    assert f":6432/{two.other}?" in endpoints[1].command
    moved = two.adapter(connect=Connect(database=two.other))
    assert [moved.endpoint(level).database for level in (readonly(), replace(readonly(), database=two.database))] == [
        two.other,
        two.database,
    ]


def test_the_connect_database_may_differ_from_the_admin_urls(two: EngineHarness) -> None:
    """The admin URL names one database, and ``connect.database`` the one with the level's objects."""
    adapter = two.adapter(connect=Connect(database=two.other))
    level = replace(by_grants(two), database=None)
    spec = two.spec(level)
    assert adapter.check([level]).problems == ()
    adapter.create_user(spec)
    with two.login(spec, two.other) as c:
        assert c.execute("SELECT count(*) FROM stock.parts").fetchone() == (7,)
    adapter.drop_user(spec.username, level)
    assert roles_of_ledger(two) == []


def test_objects_in_both_databases_stay_with_the_renamed_role(two: EngineHarness) -> None:
    level = replace(by_role(two), roles=(clerk(two), "shop_writer"))
    spec, adapter = two.spec(level), two.adapter()
    adapter.create_user(spec)
    here, there = two.login(spec), two.login(spec, two.other)
    here.execute("CREATE TABLE shop.left_here (id int)")
    there.execute("CREATE TABLE stock.left_there (id int)")
    there.execute("CREATE FUNCTION stock.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    there.execute("BEGIN; CREATE TABLE stock.prepared (id int)")
    there.execute(f"PREPARE TRANSACTION '{spec.username}'".encode())
    removal = adapter.drop_user(spec.username, level)
    assert removal.sessions_ended == 2
    assert set(removal.left_behind) == {"shop.left_here (table)", "stock.left_there (table)", "stock.f() (function)"}
    for database, table in ((two.database, "shop.left_here"), (two.other, "stock.left_there")):
        with two.superuser(database) as c:
            owner = c.execute("SELECT relowner::regrole::text FROM pg_class WHERE oid = %s::regclass", (table,))
            assert owner.fetchone() == (removal.left_with,)
            assert c.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
    for connection in (here, there):
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
    assert roles_of_ledger(two) == []


def test_two_entries_for_one_server_have_separate_managed_roles(two: EngineHarness) -> None:
    """Two databases have the same level name and grants. The users of each entry read only their own, and neither entry revokes the other's."""
    with two.superuser(two.other) as c:
        holder = two.owner or two.bot
        c.execute("CREATE SCHEMA shop; CREATE TABLE shop.customers (id int)")
        c.execute(f"GRANT USAGE ON SCHEMA shop TO {holder} WITH GRANT OPTION".encode())
        c.execute(f"GRANT SELECT ON shop.customers TO {holder} WITH GRANT OPTION".encode())
    second_url = Secrets(admin_url=two.server.url(two.bot, BOT_PASSWORD, two.other))
    first, second = two.adapter(), PostgreSQL(replace(two.target(), name="second"), second_url)
    here, there = two.spec(support()), two.spec(support())
    assert managed_role(first.target, support()) != managed_role(second.target, support())
    first.create_user(here)
    second.create_user(there)
    first.drop_user(here.username, here.level)
    with two.login(there, two.other) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        two.login(there)
    second.drop_user(there.username, there.level)
    assert roles_of_ledger(two) == []


def test_parallel_grants_in_both_databases(two: EngineHarness) -> None:
    levels = [readonly(), support(), by_role(two), by_grants(two)]
    specs, adapter = [two.spec(levels[n % 4]) for n in range(16)], two.adapter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(adapter.create_user, specs))
        list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert roles_of_ledger(two) == []


def test_check_examines_each_levels_database(two: EngineHarness) -> None:
    adapter, levels = two.adapter(), [readonly(), by_role(two), by_grants(two)]
    assert adapter.check(levels).problems == ()
    names = {"other": sql.Identifier(two.other), "role": sql.Identifier(clerk(two)), "bot": sql.Identifier(two.bot)}
    with two.superuser(two.other) as c:
        c.execute(sql.SQL("REVOKE CONNECT ON DATABASE {other} FROM {role}").format(**names))
        c.execute("ALTER TABLE stock.parts RENAME TO pieces")
    said = [problem.what for problem in adapter.check(levels).problems]
    assert said == [
        f"level stock: {clerk(two)} may not connect to {two.other}",
        f"level parts: there is no table stock.parts in {two.other}",
    ]
    closed = two.spec(readonly())
    with two.superuser() as c:
        c.execute(
            sql.SQL("REVOKE ALL ON DATABASE {other} FROM {owner} CASCADE").format(
                other=names["other"], owner=sql.Identifier(two.owner or two.bot)
            )
        )
    problems = adapter.check(levels).problems
    assert [f'GRANT CONNECT ON DATABASE "{two.other}"' in str(problem.remedy) for problem in problems] == [True, True]
    adapter.create_user(closed)
    assert not adapter.drop_user(closed.username, closed.level).notes, "one database that is closed spoils no other"


@pytest.mark.parametrize("make", [by_role, by_grants])
def test_a_user_of_a_dropped_database_is_ended(two: EngineHarness, make: Callable[[EngineHarness], Level]) -> None:
    spec, adapter = two.spec(make(two)), two.adapter()
    adapter.create_user(spec)
    with two.superuser() as c:
        c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(two.other)))
    removal = adapter.drop_user(spec.username, spec.level)
    assert (removal.was_absent, removal.notes) == (False, ())
    assert roles_of_ledger(two) == []


def test_the_pasted_command_opens_the_levels_database(two: EngineHarness) -> None:
    spec, adapter = two.spec(by_grants(two)), two.adapter()
    adapter.create_user(spec)
    command = adapter.endpoint(spec.level).paste(spec.username, spec.password)
    arguments = [
        str(psql()),
        *shlex.split(command)[1:],
        "-XAtc",
        "SELECT current_database(), count(*) FROM stock.parts",
    ]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == f"{two.other}|7"
    adapter.drop_user(spec.username, spec.level)
