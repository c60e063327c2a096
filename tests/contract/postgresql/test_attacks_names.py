"""Names and settings that the server allows: databases.yml can name each, and each sent or printed statement works with it."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from adapters.base import Level, PrivilegeGrant, Rejected
from tests.contract.postgresql.harness import EngineHarness, build, readonly
from tests.open_faults import open_fault, require
from tests.servers.postgresql import PostgresServer, psql

DATABASES = ("orders-prod", "Orders Prod", 'Ünï"x', "a%b", "order?x=1&y", "o'clock", "a/b#c")
NEEDS_QUOTES = """
CREATE SCHEMA "Shop-EU";
CREATE SCHEMA "order";
CREATE SCHEMA "my.schema";
CREATE TABLE "Shop-EU"."Orders" (id int);
CREATE TABLE "Shop-EU"."Line.Items" (id int);
CREATE TABLE "order"."user" (id int);
CREATE TABLE "order"."quo""ted" (id int);
CREATE TABLE "my.schema"."Line.Items" (id int);
"""
SCHEMAS = ("Shop-EU", "order", "my.schema")
_built: dict[tuple[str, bool], EngineHarness] = {}


def odd_harness(server: PostgresServer, *, given: bool) -> EngineHarness:
    """One harness for each server. ``given``: the bot may grant all objects with an odd name. Otherwise it may only use their schemas."""
    key = (str(server.folder), given)
    if key not in _built:
        _built[key] = build(server)
        make_odd_schemas(_built[key], given=given)
    return _built[key]


@pytest.fixture
def odd(postgresql: PostgresServer) -> EngineHarness:
    return odd_harness(postgresql, given=True)


@pytest.fixture
def bare(postgresql: PostgresServer) -> EngineHarness:
    return odd_harness(postgresql, given=False)


def names_level(*on: str) -> Level:
    return Level(name="names", grants=(PrivilegeGrant(on=on, privileges=("SELECT",)),))


def make_odd_schemas(harness: EngineHarness, *, given: bool) -> None:
    option, holder = sql.SQL("WITH GRANT OPTION" if given else ""), sql.Identifier(harness.owner or harness.bot)
    with harness.superuser() as c:
        c.execute(NEEDS_QUOTES)
        for schema in map(sql.Identifier, SCHEMAS):
            c.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {} WITH GRANT OPTION").format(schema, holder))
            c.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO shop_reader").format(schema))
            c.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA {} TO {} {}").format(schema, holder, option))


def complaint_about(harness: EngineHarness, statement: str | None) -> str | None:
    """The server's syntax error for a printed statement, run by an administrator, or None."""
    try:
        with harness.superuser() as c:
            c.execute(str(statement).encode())
    except psycopg.errors.SyntaxError as error:
        return str(error)
    return None


def readable(harness: EngineHarness, level: Level) -> set[tuple[str, str]] | Rejected:
    """Schema and name of each table that a user of the level may read, or the refusal. The user is ended afterwards."""
    adapter, spec = harness.adapter(), harness.spec(level)
    query = (
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY(%s) AND c.relkind = 'r' AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')"
    )
    try:
        adapter.create_user(spec)
        with harness.login(spec) as c:
            return {(str(schema), str(table)) for schema, table in c.execute(query, (list(SCHEMAS),)).fetchall()}
    except Rejected as rejected:
        return rejected
    finally:
        adapter.drop_user(spec.username, level)


def search_path_of(harness: EngineHarness, value: str) -> tuple[str, list[str]]:
    """The search_path of a user with that setting, and the schemas that the server finds for it."""
    level = replace(readonly(), settings={"search_path": value})
    adapter, spec = harness.adapter(), harness.spec(level)
    adapter.create_user(spec)
    with harness.login(spec) as c:
        row = c.execute("SELECT current_setting('search_path'), current_schemas(false)::text[]").fetchone()
    adapter.drop_user(spec.username, level)
    assert row is not None
    return str(row[0]), list(row[1])  # type: ignore[call-overload]


@pytest.mark.parametrize("value", ["shop", "shop, public", "shop,public"])
def test_a_search_path_of_plain_names_is_set(odd: EngineHarness, value: str) -> None:
    said, found = search_path_of(odd, value)
    assert said.replace(" ", "") == value.replace(" ", "")
    assert found == [word.strip() for word in value.split(",")]


@pytest.mark.parametrize(
    ("value", "finds"),
    [
        ('"$user", public', ["public"]),
        ('shop, "$user", public', ["shop", "public"]),
        ('"Shop-EU", shop', ["Shop-EU", "shop"]),
    ],
)
@open_fault("U6", "a quoted name in a search_path is quoted once more: the schema is not found")
def test_a_search_path_with_quoted_names_is_set(odd: EngineHarness, value: str, finds: list[str]) -> None:
    assert search_path_of(odd, value) == (value, finds)


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ("Shop-EU.Orders", {("Shop-EU", "Orders")}),
        ("Shop-EU.*", {("Shop-EU", "Orders"), ("Shop-EU", "Line.Items")}),
        ("order.user", {("order", "user")}),
        ('order.quo"ted', {("order", 'quo"ted')}),
    ],
)
def test_grants_on_tables_whose_names_need_quotes(odd: EngineHarness, on: str, expected: set[tuple[str, str]]) -> None:
    assert readable(odd, names_level(on)) == expected


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        ('"my.schema"."Line.Items"', {("my.schema", "Line.Items")}),
        ('"my.schema".*', {("my.schema", "Line.Items")}),
        ('"Shop-EU"."Line.Items"', {("Shop-EU", "Line.Items")}),
        ('"order"."quo""ted"', {("order", 'quo"ted')}),
        ('order."user"', {("order", "user")}),
    ],
)
@open_fault("U6", "a quoted name in grants is read with its quotes, and a schema with a dot cannot be named at all")
def test_grants_accept_quoted_names(odd: EngineHarness, on: str, expected: set[tuple[str, str]]) -> None:
    assert readable(odd, names_level(on)) == expected


@pytest.mark.parametrize("on", ["Shop-EU.Orders", "Shop-EU.*"])
def test_remedies_run_with_names_that_need_quotes(bare: EngineHarness, on: str) -> None:
    assert_remedies_work(bare, names_level(on))


@pytest.mark.parametrize("on", ["order.user", 'order.quo"ted'])
@open_fault("U6", "a schema named by a reserved word is printed without quotes: a syntax error")
def test_remedies_run_with_reserved_words(bare: EngineHarness, on: str) -> None:
    assert_remedies_work(bare, names_level(on))


def assert_remedies_work(harness: EngineHarness, level: Level) -> None:
    """Each printed remedy runs unchanged, and then ``check`` finds no problem."""
    found = harness.adapter().check([level]).problems
    require(found, "something is missing")
    assert [complaint_about(harness, finding.remedy) for finding in found] == [None] * len(found)
    assert harness.adapter().check([level]).problems == ()


def assert_role_serves(harness: EngineHarness, role: str) -> None:
    """Run the printed remedies for a new role until ``check`` finds no problem. Then create and end a user of the level."""
    level = Level(name="odd", roles=(role,))
    require(not harness.role_exists(role), "there is no such role yet")
    for _ in range(3):  # first the missing role, then its missing privileges
        found = harness.adapter().check([level]).problems
        assert [complaint_about(harness, finding.remedy) for finding in found] == [None] * len(found)
    assert harness.adapter().check([level]).problems == ()
    with harness.superuser() as c:
        c.execute(
            sql.SQL("GRANT USAGE ON SCHEMA shop TO {0}; GRANT SELECT ON shop.customers TO {0}").format(
                sql.Identifier(role)
            )
        )
    adapter, spec = harness.adapter(), harness.spec(level)
    adapter.create_user(spec)
    with harness.login(spec) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
    assert adapter.drop_user(spec.username, level).notes == ()
    assert not harness.role_exists(spec.username)


@pytest.mark.parametrize("role", ["Shop Readers", "shop-readers", 'quo"ted', "Lesér", "50%", "a.b"])
def test_a_level_role_whose_name_needs_quotes_works(odd: EngineHarness, role: str) -> None:
    assert_role_serves(odd, f"{role} {odd.bot}")


@open_fault("U6", "a role named by a reserved word is printed without quotes: a syntax error")
def test_a_level_role_named_by_a_reserved_word_works(odd: EngineHarness) -> None:
    try:
        assert_role_serves(odd, "analyze")
    finally:
        with odd.superuser() as c:
            if odd.role_exists("analyze"):
                c.execute('DROP OWNED BY "analyze"; DROP ROLE "analyze"')


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_whose_name_needs_quotes_works(odd: EngineHarness, name: str) -> None:
    """From the setup to the revocation. The pasted command runs unchanged."""
    name = f"{name} {odd.bot}"
    level = Level(name="readonly", roles=("shop_reader",), database=name)
    with odd.superuser() as c:
        c.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        c.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
        c.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO shop_reader").format(sql.Identifier(name)))
    adapter, spec = odd.adapter(), odd.spec(level)
    try:
        adapter.create_user(spec)
        command = adapter.endpoint(level).paste(spec.username, spec.password)
        arguments = [str(psql()), *shlex.split(command)[1:], "-XAtc", "SELECT current_database()"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.strip() == name, done.stderr
        adapter.drop_user(spec.username, level)
        assert not odd.role_exists(spec.username)
    finally:
        with odd.superuser() as c:
            c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def closed_database(harness: EngineHarness, name: str) -> Iterator[str]:
    """Yields the remedy for a database that the bot may not connect to."""
    named = sql.Identifier(name)
    with harness.superuser() as c:
        c.execute(sql.SQL("CREATE DATABASE {}").format(named))
        c.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(named))
        level = Level(name="odd", grants=(PrivilegeGrant(on=("public",), privileges=("USAGE",)),), database=name)
        found = [finding for finding in harness.adapter().check([level]).problems if "be examined" in finding.what]
        require(found, "check reports that it cannot examine the database")
        try:
            yield str(found[0].remedy)
        finally:
            c.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(named))


@pytest.mark.parametrize("name", ["orders-prod", "Orders Prod", "order"])
def test_the_remedy_for_a_closed_database_runs(odd: EngineHarness, name: str) -> None:
    with closed_database(odd, f"{name} {odd.bot}") as remedy:
        assert complaint_about(odd, remedy) is None


@open_fault("U6", "a double quote in a database's name is not escaped: a syntax error")
def test_the_remedy_for_a_database_with_a_quote_in_its_name_runs(odd: EngineHarness) -> None:
    with closed_database(odd, f'Ord"ers {odd.bot}') as remedy:
        assert complaint_about(odd, remedy) is None
