"""Levels in everyday use: growing schemas, extensions, closed schemas, programs with many connections, password checks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from psycopg import sql

from adapters.base import Level, PrivilegeGrant, Rejected, UserSpec
from bot.access.password import make_password
from tests.conftest import had
from tests.contract.postgresql.harness import EngineHarness, build, readonly
from tests.open_faults import open_fault, require
from tests.servers import postgresql as servers

WHOLE_SHOP = Level(name="shopall", grants=(PrivilegeGrant(on=("shop.*",), privileges=("SELECT",)),))
WITH_EXTENSION = Level(name="everything", grants=(PrivilegeGrant(on=("public.*",), privileges=("SELECT",)),))
BILLS = Level(name="bills", grants=(PrivilegeGrant(on=("billing.bills",), privileges=("SELECT",)),))
NOTES = Level(name="notes", grants=(PrivilegeGrant(on=("shop.notes",), privileges=("SELECT", "INSERT")),))
TOOLS_CONNECTIONS = 8
"""The connections of a program with an editor, a tree of tables and results in tabs."""


@pytest.fixture(scope="module")
def checking() -> Iterator[EngineHarness]:
    """A server with Debian's extensions that checks passwords and stores them as MD5 by default."""
    extra = "shared_preload_libraries = 'pg_stat_statements, passwordcheck'\npassword_encryption = 'md5'\n"
    for server in had(lambda: servers.start(15, extra=extra, programs=servers.with_cron())):
        yield build(server)


def as_administrator(harness: EngineHarness, *statements: str) -> None:
    """Run the statements as superuser. ``{holder}`` is the role that acts for the bot."""
    with harness.superuser() as c:
        for statement in statements:
            c.execute(sql.SQL(statement).format(holder=sql.Identifier(harness.owner or harness.bot)))  # type: ignore[arg-type]


def give_whole_shop(harness: EngineHarness) -> None:
    as_administrator(harness, "GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {holder} WITH GRANT OPTION")


def migrate(harness: EngineHarness, table: str) -> None:
    """Create a table like a team's migration does: as the owner of the schema, without dbaccess."""
    as_administrator(harness, f"SET ROLE shop_owner; CREATE TABLE shop.{table} (id int)")


@contextmanager
def granted(harness: EngineHarness, level: Level) -> Iterator[UserSpec]:
    adapter, spec = harness.adapter(), harness.spec(level)
    adapter.create_user(spec)
    try:
        yield spec
    finally:
        adapter.drop_user(spec.username, level)


def refusal(harness: EngineHarness, level: Level) -> str | None:
    """The text of the refusal of a grant of this level, or None."""
    try:
        with granted(harness, level):
            return None
    except Rejected as rejected:
        return str(rejected)


def reads(harness: EngineHarness, spec: UserSpec, table: str) -> bool:
    with harness.login(spec) as c:
        try:
            c.execute(f"SELECT count(*) FROM {table}".encode())
        except psycopg.errors.InsufficientPrivilege:
            return False
    return True


@open_fault("U8", "after a migration created a table, grants of a level on schema.* are refused")
def test_a_schema_level_is_given_after_a_migration(own_harness: EngineHarness) -> None:
    """The table that the bot cannot grant is left out. The others are granted."""
    give_whole_shop(own_harness)
    require(refusal(own_harness, WHOLE_SHOP) is None, "before the migration it is given")
    migrate(own_harness, "invoices")
    assert refusal(own_harness, WHOLE_SHOP) is None
    with granted(own_harness, WHOLE_SHOP) as spec:
        assert reads(own_harness, spec, "shop.customers")


def test_a_live_user_keeps_reading_after_a_migration(own_harness: EngineHarness) -> None:
    give_whole_shop(own_harness)
    with granted(own_harness, WHOLE_SHOP) as spec:
        migrate(own_harness, "invoices")
        assert reads(own_harness, spec, "shop.customers")


def test_the_remedy_for_a_new_table_works(own_harness: EngineHarness) -> None:
    give_whole_shop(own_harness)
    migrate(own_harness, "invoices")
    remedies = [str(finding.remedy) for finding in own_harness.adapter().check([WHOLE_SHOP]).findings]
    as_administrator(own_harness, *(remedy for remedy in remedies if remedy.startswith("GRANT")))
    with granted(own_harness, WHOLE_SHOP) as spec:
        assert reads(own_harness, spec, "shop.invoices")


def test_the_next_grant_gives_a_new_table_to_live_users(own_harness: EngineHarness) -> None:
    give_whole_shop(own_harness)
    as_administrator(
        own_harness,
        "ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT SELECT ON TABLES TO {holder} WITH GRANT OPTION",
    )
    with granted(own_harness, WHOLE_SHOP) as first:
        migrate(own_harness, "late")
        with granted(own_harness, WHOLE_SHOP) as second:
            assert reads(own_harness, second, "shop.late")
            assert reads(own_harness, first, "shop.late")


@open_fault("U8", "views of an extension in the schema stop every grant of a level on schema.*")
def test_a_schema_level_is_given_beside_an_extension(checking: EngineHarness) -> None:
    """The relations of the extension are left out."""
    as_administrator(
        checking,
        "CREATE TABLE public.orders (id int)",
        "GRANT USAGE ON SCHEMA public TO {holder} WITH GRANT OPTION",
        "GRANT SELECT ON public.orders TO {holder} WITH GRANT OPTION",
    )
    require(refusal(checking, WITH_EXTENSION) is None, "without the extension it is given")
    as_administrator(checking, "CREATE EXTENSION pg_stat_statements SCHEMA public")
    assert refusal(checking, WITH_EXTENSION) is None
    with granted(checking, WITH_EXTENSION) as spec:
        assert reads(checking, spec, "public.orders")


@open_fault("U8", "where the bot may not use the schema, doctor's remedy is to run doctor")
def test_the_remedies_for_a_schema_closed_to_the_bot_work(own_harness: EngineHarness) -> None:
    as_administrator(own_harness, "CREATE SCHEMA billing", "CREATE TABLE billing.bills (id int)")
    adapter = own_harness.adapter()
    require(adapter.check([BILLS]).problems, "doctor says so")
    for _ in range(3):  # first USAGE for the bot, then the privileges that it may grant
        for finding in adapter.check([BILLS]).problems:
            assert "dbaccess doctor" not in str(finding.remedy)
            as_administrator(own_harness, str(finding.remedy))
    with granted(own_harness, BILLS) as spec:
        assert reads(own_harness, spec, "billing.bills")


@open_fault("U8", "a level with INSERT cannot insert: the sequence behind the table's own key is not given")
def test_insert_includes_the_sequence_of_the_tables_key(own_harness: EngineHarness) -> None:
    as_administrator(
        own_harness,
        "CREATE TABLE shop.notes (id serial PRIMARY KEY, words text); ALTER TABLE shop.notes OWNER TO shop_owner",
        "GRANT SELECT, INSERT ON shop.notes TO {holder} WITH GRANT OPTION",
        "GRANT USAGE ON SEQUENCE shop.notes_id_seq TO {holder} WITH GRANT OPTION",
    )
    with granted(own_harness, NOTES) as spec, own_harness.login(spec) as c:
        try:
            c.execute("INSERT INTO shop.notes (words) VALUES ('seen')")
            complaint = None
        except psycopg.errors.InsufficientPrivilege as error:
            complaint = str(error)
    assert complaint is None


@open_fault("U8", "the sixth connection of a user is refused, and no setting changes it")
def test_a_user_can_open_eight_connections(own_harness: EngineHarness) -> None:
    with granted(own_harness, readonly()) as spec, ExitStack() as stack:
        opened = 0
        for _ in range(TOOLS_CONNECTIONS):
            try:
                stack.enter_context(closing(own_harness.login(spec)))
            except psycopg.OperationalError:
                break
            opened += 1
        assert opened == TOOLS_CONNECTIONS


def assert_a_grant_lives_and_ends(harness: EngineHarness, spec: UserSpec) -> None:
    adapter = harness.adapter()
    adapter.create_user(spec)
    session = harness.login(spec)
    adapter.set_password(spec.username, again := make_password())
    harness.login(spec, password=again).close()
    assert adapter.drop_user(spec.username, spec.level).sessions_ended == 1
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    assert not harness.role_exists(spec.username)


def test_a_grant_works_with_passwordcheck(checking: EngineHarness) -> None:
    """The server gets a SCRAM verifier: no password check can read it, and no setting turns it into MD5."""
    assert_a_grant_lives_and_ends(checking, checking.spec(readonly()))


@pytest.mark.parametrize("method", ["md5", "password"])
def test_a_grant_works_with_other_authentication_methods(checking: EngineHarness, method: str) -> None:
    rules = checking.server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    try:
        rules.write_text(before.replace("scram-sha-256", method))
        checking.server.restart()
        with checking.superuser() as c:
            row = c.execute("SELECT bool_and(auth_method = %s) FROM pg_hba_file_rules", (method,)).fetchone()
        require(row == (True,), "the server has read its rules")
        assert_a_grant_lives_and_ends(checking, checking.spec(readonly()))
    finally:
        rules.write_text(before)
        checking.server.restart()
