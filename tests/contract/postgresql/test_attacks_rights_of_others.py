"""Rights that others granted to a temporary user, and databases that are gone: the revocation succeeds, or names a remedy that works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from adapters.base import Rejected, Secrets, UserSpec
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, acting_writer, readonly, support, writer

OWN_THINGS = {
    "a trusted extension": ("CREATE EXTENSION plpgsql",),
    "ranges, statistics, collations and publications": (
        "CREATE SCHEMA mine",
        "CREATE TABLE mine.t (id serial PRIMARY KEY, a int, b int)",
        "CREATE STATISTICS mine.st ON a, b FROM mine.t",
        "CREATE PUBLICATION pub FOR TABLE mine.t",
        "CREATE TYPE mine.r AS RANGE (subtype = int4)",
        'CREATE COLLATION mine.c FROM "C"',
        "SELECT lo_create(0)",
    ),
    "settings of its own": (
        "ALTER ROLE {user} IN DATABASE {database} SET work_mem = '8MB'",
        "ALTER ROLE {user} SET statement_timeout = 0",
    ),
    "a table of its level's role, given to itself": (
        "SET ROLE shop_writer",
        "CREATE TABLE shop.helper (id int)",
        "GRANT SELECT ON shop.helper TO {user}",
    ),
    "default privileges of its level's role, for itself": (
        "SET ROLE shop_writer",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO {user}",
    ),
    "a row policy of its level's role, for itself": (
        "SET ROLE shop_writer",
        "CREATE TABLE shop.guarded (id int)",
        "ALTER TABLE shop.guarded ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON shop.guarded TO {user} USING (true)",
    ),
    "a schema of its level's role, given to itself": (
        "SET ROLE shop_writer",
        "CREATE SCHEMA team",
        "GRANT USAGE, CREATE ON SCHEMA team TO {user}",
        "RESET ROLE",
        "CREATE TABLE team.x (id int)",
    ),
}
GIVEN_BY_HAND = {
    "a table": "GRANT SELECT, INSERT ON shop.orders TO {user}",
    "a column": "GRANT UPDATE (customer) ON shop.orders TO {user}",
    "roles in both directions": "GRANT pg_read_all_data TO {user}; GRANT {user} TO shop_writer",
}
GIVEN_ON_THE_SERVER = {
    "another database": "GRANT CONNECT ON DATABASE {other} TO {user}",
    "a parameter": "GRANT SET ON PARAMETER log_statement TO {user}",
}


@pytest.fixture
def spent(own_harness: EngineHarness) -> Iterator[EngineHarness]:
    """A harness whose databases are dropped afterwards, because objects in them belong to roles that other harnesses of the server share."""
    yield own_harness
    with own_harness.superuser("postgres") as c:
        for name in (own_harness.database, own_harness.other, renamed(own_harness)):
            c.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def renamed(harness: EngineHarness) -> str:
    return f"{harness.database}_old"


@contextmanager
def granted(harness: EngineHarness, spec: UserSpec) -> Iterator[psycopg.Connection[Any]]:
    """Yields a session of the user, which is dead at the end."""
    harness.adapter().create_user(spec)
    with closing(harness.login(spec)) as session:
        yield session
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def as_superuser(harness: EngineHarness, statement: str, spec: UserSpec) -> None:
    names = {"user": spec.username, "database": harness.database, "other": harness.other}
    with harness.superuser() as c:
        c.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))  # type: ignore[arg-type]


def expect_end(harness: EngineHarness, adapter: PostgreSQL, spec: UserSpec) -> None:
    """The user is ended at once, or after an administrator has run the remedy in the database that it names."""
    try:
        adapter.drop_user(spec.username, spec.level)
    except Rejected as rejected:
        run_remedy(harness, str(rejected.remedy))
        adapter.drop_user(spec.username, spec.level)
    assert not harness.role_exists(spec.username)


def run_remedy(harness: EngineHarness, remedy: str) -> None:
    """Run a remedy of the form ``as a superuser, in DATABASE: STATEMENTS``, or statements alone."""
    place = re.fullmatch(r"as a superuser, in (.*?): (.*)", remedy)
    where, statements = (place[1], place[2]) if place else (harness.database, remedy)
    with harness.superuser() as c:
        names = [str(name) for (name,) in c.execute("SELECT datname FROM pg_database").fetchall()]
    assert where in names, "there is such a database"
    with harness.superuser(where) as c:
        c.execute(statements.encode())


@pytest.mark.parametrize("what", OWN_THINGS)
def test_a_user_is_ended_with_what_it_created_or_granted_to_itself(spent: EngineHarness, what: str) -> None:
    spec = spent.spec(acting_writer())
    as_superuser(spent, "GRANT CREATE ON DATABASE {database} TO shop_writer; DROP EXTENSION plpgsql", spec)
    with granted(spent, spec) as session:
        for statement in OWN_THINGS[what]:
            text = statement.format(user=spec.username, database=spent.database)
            session.execute(text.encode())
        expect_end(spent, spent.adapter(), spec)


def test_a_user_is_ended_with_its_foreign_servers(spent: EngineHarness) -> None:
    spec = spent.spec(writer())
    as_superuser(spent, "CREATE FOREIGN DATA WRAPPER {database}", spec)
    as_superuser(spent, "GRANT USAGE ON FOREIGN DATA WRAPPER {database} TO shop_writer", spec)
    with granted(spent, spec) as session:
        session.execute(f"CREATE SERVER elsewhere FOREIGN DATA WRAPPER {spent.database}".encode())
        session.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere")
        session.execute("CREATE FOREIGN TABLE shop.far (id int) SERVER elsewhere")
        expect_end(spent, spent.adapter(), spec)


@pytest.mark.parametrize("what", GIVEN_BY_HAND)
def test_a_user_is_ended_with_rights_from_an_administrator_in_the_database(spent: EngineHarness, what: str) -> None:
    spec = spent.spec(readonly())
    with granted(spent, spec):
        as_superuser(spent, GIVEN_BY_HAND[what], spec)
        expect_end(spent, spent.adapter(), spec)


@pytest.mark.parametrize("what", GIVEN_ON_THE_SERVER)
def test_a_user_is_ended_with_rights_from_an_administrator_on_the_server(spent: EngineHarness, what: str) -> None:
    spec = spent.spec(readonly())
    with granted(spent, spec):
        as_superuser(spent, GIVEN_ON_THE_SERVER[what], spec)
        expect_end(spent, spent.adapter(), spec)


@pytest.fixture
def closed(spent: EngineHarness) -> UserSpec:
    """A user with a table in another database, which is closed to everybody afterwards."""
    spec = spent.spec(writer())
    as_superuser(spent, "GRANT CONNECT, CREATE ON DATABASE {other} TO shop_writer", spec)
    spent.adapter().create_user(spec)
    with spent.login(spec, database=spent.other) as session:
        session.execute("CREATE SCHEMA mine; CREATE TABLE mine.t (id int)")
    as_superuser(spent, "ALTER DATABASE {other} ALLOW_CONNECTIONS false", spec)
    return spec


def refusal(harness: EngineHarness, spec: UserSpec) -> Rejected | None:
    try:
        harness.adapter().drop_user(spec.username, spec.level)
    except Rejected as rejected:
        return rejected
    return None


def test_a_user_with_objects_in_a_closed_database_is_ended(spent: EngineHarness, closed: UserSpec) -> None:
    rejected = refusal(spent, closed)
    if rejected is not None:
        assert "own login" not in rejected.what, "nothing is wrong with the login"
        run_remedy(spent, str(rejected.remedy))
        assert refusal(spent, closed) is None
    assert not spent.role_exists(closed.username)


def test_a_user_with_objects_in_a_dropped_database_is_ended(spent: EngineHarness, closed: UserSpec) -> None:
    with spent.superuser() as c:
        c.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(spent.other)))
    spent.adapter().drop_user(closed.username, closed.level)
    assert not spent.role_exists(closed.username)


def elsewhere(harness: EngineHarness) -> PostgreSQL:
    """The same bot with an admin URL that names another database of the server."""
    return PostgreSQL(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, BOT_PASSWORD, harness.other)))


@pytest.mark.parametrize(
    "how", ["DROP DATABASE {database} WITH (FORCE)", "ALTER DATABASE {database} RENAME TO {renamed}"]
)
def test_a_user_is_ended_after_the_levels_database_is_gone(spent: EngineHarness, how: str) -> None:
    spec = spent.spec(replace(support(), database=spent.database))
    adapter = elsewhere(spent)
    adapter.create_user(spec)
    names = {"database": sql.Identifier(spent.database), "renamed": sql.Identifier(renamed(spent))}
    with spent.superuser("postgres") as c:
        c.execute(sql.SQL(how).format(**names))  # type: ignore[arg-type]
        adapter.drop_user(spec.username, spec.level)
        assert c.execute("SELECT FROM pg_roles WHERE rolname = %s", (spec.username,)).fetchone() is None


def test_a_user_is_ended_after_the_database_of_the_admin_url_is_gone(spent: EngineHarness) -> None:
    """The revocation uses another database of the server. ``check`` says so."""
    spec, adapter = spent.spec(support()), spent.adapter()
    adapter.create_user(spec)
    with spent.superuser("postgres") as c:
        c.execute(sql.SQL("GRANT CONNECT ON DATABASE postgres TO {}").format(sql.Identifier(spent.bot)))
        c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(spent.database)))
        adapter.drop_user(spec.username, spec.level)
        assert any(spent.database in finding.what for finding in adapter.check().problems)
        assert c.execute("SELECT FROM pg_roles WHERE rolname = %s", (spec.username,)).fetchone() is None


def test_printed_remedies_are_really_run(spent: EngineHarness) -> None:
    with pytest.raises(psycopg.errors.SyntaxError):
        run_remedy(spent, f"as a superuser, in {spent.database}: no such statement;")
    with pytest.raises(AssertionError):
        run_remedy(spent, "as a superuser, in the server itself: SELECT 1;")
