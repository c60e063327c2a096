"""Settings of a database's owner, or of the server, do not change what the bot's own statements do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adapters.base import Level, Secrets, UserSpec
from adapters.contract import wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.attacks import Attack, Session, run_setup
from tests.contract.postgresql.harness import BOT_PASSWORD, readonly
from tests.servers.postgresql import PostgresServer

TRANSACTION_TIMEOUT = 17
"""The first version with transaction_timeout."""
LEFT = (
    "CREATE TABLE shop.mine (id int)",
    "CREATE FUNCTION shop.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
)

HOLDS = (
    "ALTER DATABASE {d} SET exit_on_error = on",
    "ALTER DATABASE {d} SET default_transaction_isolation = 'serializable'",
    "ALTER DATABASE {d} SET standard_conforming_strings = off",
    "ALTER DATABASE {d} SET client_min_messages = 'error'",
    "ALTER DATABASE {d} SET max_parallel_workers_per_gather = 0",
    "ALTER DATABASE {d} SET role = 'shop_owner'",
    "REVOKE CONNECT ON DATABASE {d} FROM {holder} CASCADE",
)
"""Settings that the owner may give the database of the admin URL. They delay no revocation."""
FAILS = {
    "ALTER DATABASE {d} SET default_transaction_read_only = on": "the server refuses each change of the user",
    "ALTER DATABASE {d} SET datestyle = 'German'": "the driver cannot read a time stamp: NotImplementedError",
    "ALTER DATABASE {d} SET idle_session_timeout = '1ms'": "the bot's connection is ended between two statements",
    "ALTER DATABASE {d} SET local_preload_libraries = '$libdir/plugins/nope'": "the bot cannot connect",
    "ALTER DATABASE {d} CONNECTION LIMIT 0": "the bot cannot connect",
}
"""Settings that prevent the revocation today, each with the reason."""


def owner_level(attack: Attack) -> Level:
    """A level whose role owns the level's database."""
    holder, database = attack.harness.owner or attack.harness.bot, attack.harness.database
    attack.as_superuser(f'ALTER DATABASE "{database}" OWNER TO shop_owner')
    attack.as_superuser(f"GRANT shop_owner TO {holder} WITH ADMIN OPTION")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{database}" TO {holder} WITH GRANT OPTION')
    return Level(name="owner", roles=("shop_owner",), database=database)


def owner_with_things(attack: Attack) -> tuple[UserSpec, Session]:
    spec = attack.user(owner_level(attack))
    session = attack.session(spec)
    for statement in LEFT:
        run_setup(session, statement)
    return spec, session


def assert_ended_after(attack: Attack, statement: str) -> None:
    """A user with objects and a session runs the statement, and is ended."""
    spec, session = owner_with_things(attack)
    names = {"d": f'"{attack.harness.database}"', "holder": attack.harness.owner or attack.harness.bot}
    run_setup(session, statement.format(**names))
    attack.assert_ended(spec, attack.end(spec), session)


@pytest.mark.parametrize("statement", HOLDS)
def test_harmless_settings_of_the_database_do_not_delay_the_revocation(attack: Attack, statement: str) -> None:
    assert_ended_after(attack, statement)


@pytest.mark.parametrize("statement", FAILS)
def test_hostile_settings_of_the_database_do_not_delay_the_revocation(attack: Attack, statement: str) -> None:
    assert_ended_after(attack, statement)


@pytest.mark.parametrize("attack", ["own login"], indirect=True)
def test_a_role_in_the_settings_of_the_database_does_not_delay_the_revocation(attack: Attack) -> None:
    assert_ended_after(attack, "ALTER DATABASE {d} SET role = 'shop_owner'")


def test_a_transaction_timeout_does_not_delay_the_revocation(attack: Attack) -> None:
    if attack.harness.server.version < TRANSACTION_TIMEOUT:
        pytest.skip("PostgreSQL 15 has no such limit")
    assert_ended_after(attack, "ALTER DATABASE {d} SET transaction_timeout = '1ms'")


def test_a_database_closed_by_its_owner_does_not_delay_the_revocation(attack: Attack) -> None:
    """The user closes it from another database, which is open to everybody."""
    spec, session = owner_with_things(attack)
    elsewhere = attack.session(spec, "postgres")
    run_setup(elsewhere, f'ALTER DATABASE "{attack.harness.database}" ALLOW_CONNECTIONS false')
    end = attack.end(spec)
    with attack.harness.superuser("postgres") as c:
        c.execute(f'ALTER DATABASE "{attack.harness.database}" ALLOW_CONNECTIONS true'.encode())
    attack.assert_ended(spec, end, session, elsewhere)


def test_a_read_only_database_of_the_level_does_not_delay_the_revocation(attack: Attack) -> None:
    """The admin URL leads to another database of the server."""
    secrets = Secrets(admin_url=attack.harness.server.url(attack.harness.bot, BOT_PASSWORD, "postgres"))
    adapter, level = PostgreSQL(attack.harness.target(), secrets), owner_level(attack)
    spec = attack.user(level, adapter)
    session = attack.session(spec)
    run_setup(session, LEFT[0])
    run_setup(session, f'ALTER DATABASE "{attack.harness.database}" SET default_transaction_read_only = on')
    attack.assert_ended(spec, attack.end(spec, adapter=adapter), session)


def test_check_warns_of_a_level_that_owns_the_bots_database(attack: Attack) -> None:
    level = owner_level(attack)
    bad_findings = attack.bad_findings(level)
    assert [t for t in bad_findings if f"level {level.name}" in t.what and attack.harness.database in t.what], (
        bad_findings
    )


@contextmanager
def server_wide(server: PostgresServer, name: str, value: str) -> Iterator[None]:
    """Set a server-wide setting, as in ``postgresql.conf``."""
    with server.admin() as c:
        c.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        c.execute("SELECT pg_reload_conf()")
    wait_until(lambda: is_in_force(server, name))
    try:
        yield
    finally:
        with server.admin() as c:
            c.execute(f"ALTER SYSTEM RESET {name}".encode())
            c.execute("SELECT pg_reload_conf()")
        wait_until(lambda: not is_in_force(server, name))


def is_in_force(server: PostgresServer, name: str) -> bool:
    query = "SELECT 1 FROM pg_settings WHERE lower(name) = %s AND sourcefile LIKE %s"
    with server.admin() as c:
        return c.execute(query, (name, "%auto.conf")).fetchone() is not None


@pytest.fixture(params=["German", "SQL, DMY"])
def dated(request: pytest.FixtureRequest, attack: Attack) -> Iterator[Attack]:
    """A server with another date style. No user attacks it."""
    with server_wide(attack.harness.server, "datestyle", f"'{request.param}'"):
        yield attack


def test_users_are_ended_with_any_date_style(dated: Attack) -> None:
    spec = dated.user(readonly())
    session = dated.session(spec)
    dated.assert_ended(spec, dated.end(spec), session)


@pytest.mark.parametrize("verb", ["check", "list_users"])
def test_the_server_can_be_read_with_any_date_style(dated: Attack, verb: str) -> None:
    """One server that cannot be read must not stop the check of all servers."""
    spec = dated.user(readonly())
    try:
        seen = str(getattr(dated.harness.adapter(), verb)())
    except Exception as error:  # noqa: BLE001  whatever it is, it is no answer
        seen = f"{type(error).__name__}: {error}"
    text = spec.username if verb == "list_users" else f"PostgreSQL {dated.harness.server.version}"
    assert text in seen, seen
