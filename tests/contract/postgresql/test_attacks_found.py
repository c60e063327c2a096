"""Further ways in which a user, or a friend with an ordinary login, held up an end or hid something from the receipt."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any

import psycopg
import pytest

from adapters.base import Rejected, Removal, ServerDown
from adapters.harness import wait_until
from adapters.postgresql import left_behind, left_privileges
from adapters.postgresql.connection import PostgreSQLServer
from tests.contract.postgresql.attacks import FRIENDS_PASSWORD, Attack, Session, run_setup
from tests.contract.postgresql.harness import readonly, writer
from tests.contract.postgresql.test_attacks_settings import owner_level

SETTINGS = "max_connections = 60\nmax_prepared_transactions = 50\nautovacuum = off\n"
TABLES = 100
LONG = '"' + '""' * 30 + '"'
"""A name that is twice as long when it is quoted."""


def owns_a_table(attack: Attack, name: str) -> tuple[Any, Session]:
    spec = attack.user(writer())
    session = attack.session(spec)
    run_setup(session, f"CREATE TABLE shop.{name} (a int)")
    return spec, session


def begun(session: Session, statement: str) -> Session:
    """The session with an open transaction that ran the statement."""
    session.autocommit = False
    run_setup(session, statement)
    return session


def timed(attack: Attack, spec: Any) -> tuple[Any, float]:
    began = time.monotonic()
    return attack.end(spec, tries=1), time.monotonic() - began


# What the user left is there after the end, and the receipt names it.


def test_a_table_beside_many_temporary_ones_is_kept_and_named(attack: Attack) -> None:
    """After a crash the temporary tables are still there, and they come first in the server's records."""
    attack.as_superuser(f'GRANT TEMPORARY ON DATABASE "{attack.harness.database}" TO shop_writer')
    spec = attack.user(writer())
    session = attack.session(spec)
    for first in range(0, left_behind.LOOKED_AT_MOST + 200, 100):
        run_setup(session, ";".join(f"CREATE TEMP TABLE t_{n} (a int)" for n in range(first, first + 100)))
    run_setup(session, "CREATE TABLE shop.beside (a int)")
    attack.as_superuser("CHECKPOINT")
    attack.harness.server.stop(signal.SIGQUIT)
    attack.harness.server.start()
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert attack.query("SELECT 1 FROM pg_class WHERE relname = 'beside'"), "the end dropped the table"
    assert "shop.beside" in end.report_text


def test_long_names_of_functions_are_cut_in_the_receipt(attack: Attack) -> None:
    attack.as_superuser(f"CREATE SCHEMA {LONG}; GRANT CREATE, USAGE ON SCHEMA {LONG} TO shop_writer")
    spec = attack.user(writer())
    session = attack.session(spec)
    run_setup(session, f"CREATE DOMAIN {LONG}.{LONG} AS int")
    arguments = ",".join([f"{LONG}.{LONG}"] * 100)
    for n in range(10):
        run_setup(session, f"CREATE FUNCTION shop.f{n}({arguments}) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    assert max(map(len, end.report_text.splitlines())) < 1_000


def test_the_note_on_sessions_of_dropped_users_is_short(attack: Attack) -> None:
    specs = [attack.user(readonly()) for _ in range(4)]
    sessions = [attack.session(spec) for spec in specs for _ in range(5)]
    for spec in specs:
        attack.as_superuser(f"DROP ROLE {spec.username}")
    end = attack.end(specs[0])
    assert f"{len(sessions)} sessions of dropped users" in end.report_text
    assert end.report_text.count("pg_terminate_backend") <= 5


def test_the_remedy_for_a_member_with_a_quote_in_its_name_is_one_statement(attack: Attack) -> None:
    member = f"it's {attack.harness.bot}"
    attack.as_superuser(f"CREATE ROLE \"{member}\" LOGIN PASSWORD '{FRIENDS_PASSWORD}'")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{attack.harness.database}" TO "{member}"')
    spec = attack.user(readonly())
    attack.as_superuser(f'GRANT {spec.username} TO "{member}"')
    url = attack.harness.server.url("somebody", FRIENDS_PASSWORD, attack.harness.database)
    attack.stack.enter_context(contextlib.closing(psycopg.connect(url, user=member)))
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert "WHERE usename = '{}'".format(member.replace("'", "''")) in end.report_text


def test_a_privilege_on_a_foreign_data_wrapper_is_revoked(attack: Attack) -> None:
    spec, session = owns_a_table(attack, "beside_wrapper")
    holder = attack.harness.owner
    attack.as_superuser(
        f"CREATE FOREIGN DATA WRAPPER wrapper; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO {holder} WITH GRANT OPTION;"
        f" SET ROLE {holder}; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper TO {spec.username}"
    )
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    assert "Privileges that others granted" not in end.report_text, end.report_text


# Nobody holds up the end.


def test_taken_names_do_not_prevent_the_end(attack: Attack) -> None:
    spec, session = owns_a_table(attack, "named")
    stem = spec.username.removeprefix(attack.harness.prefix)
    for name in (stem, stem.rsplit("_", 1)[0], f"{stem}_{attack.oids[spec.username]}"):
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            attack.as_superuser(f"CREATE ROLE dbaccess_left_{name}")
    attack.assert_ended(spec, attack.end(spec), session)


@pytest.mark.parametrize("owns", [False, True], ids=["owns nothing", "owns a table"])
def test_an_open_grant_of_the_levels_role_does_not_prevent_the_end(attack: Attack, *, owns: bool) -> None:
    """A colleague who may give the role to others has not committed yet. What is left loses the role later."""
    attack.make_friend()
    colleague = f"colleague_{attack.harness.bot}"
    attack.as_superuser(f"CREATE ROLE {colleague}; GRANT shop_writer TO {attack.friend} WITH ADMIN OPTION")
    spec, session = owns_a_table(attack, "open_grant") if owns else (attack.user(writer()), None)
    friend = begun(attack.friends_session(), f"GRANT shop_writer TO {colleague}")
    end = attack.end(spec, tries=1)
    attack.assert_ended(spec, end, *([session] if session else []))
    query = "SELECT m.roleid::regrole::text FROM pg_auth_members m WHERE m.member = %s::oid AND m.roleid::regrole::text = 'shop_writer'"
    oid = attack.oids[spec.username]
    assert not attack.query(query, oid) or "could not be revoked yet" in end.report_text
    friend.rollback()
    attack.harness.adapter().drop_leftovers()
    assert not attack.query(query, oid)


def test_open_grants_on_many_tables_do_not_delay_the_end(attack: Attack) -> None:
    spec, session = owns_a_table(attack, "open_grants")
    other = attack.session(attack.user(writer()))
    for n in range(TABLES):
        run_setup(
            other, f"CREATE TABLE shop.of_other_{n} (a int); GRANT SELECT ON shop.of_other_{n} TO {spec.username}"
        )
    begun(other, ";".join(f"GRANT INSERT ON shop.of_other_{n} TO {spec.username}" for n in range(TABLES)))
    end, seconds = timed(attack, spec)
    attack.assert_ended(spec, end, session)
    assert "could not revoke" in end.report_text
    assert seconds < TABLES * left_privileges.LOCK_SECONDS / 2


def test_a_locked_database_does_not_delay_the_end(attack: Attack) -> None:
    """The friend owns another database with an object of the user, and everybody who connects to it waits."""
    other = attack.harness.other
    attack.make_friend()
    attack.as_superuser(
        f'ALTER ROLE {attack.friend} CREATEDB; ALTER DATABASE "{other}" OWNER TO {attack.friend};'
        f' GRANT CONNECT ON DATABASE "{other}" TO shop_writer'
    )
    spec = attack.user(writer())
    session = attack.session(spec, other)
    run_setup(session, "SELECT lo_create(0)")
    session.close()
    friend = attack.friends_session()
    friend.autocommit = False

    def is_locked() -> bool:
        try:
            friend.execute(f'ALTER DATABASE "{other}" RENAME TO "x{other}"'.encode())
        except psycopg.errors.ObjectInUse:
            friend.rollback()
            return False
        return True

    wait_until(is_locked)
    end, seconds = timed(attack, spec)
    friend.rollback()
    attack.assert_ended(spec, end)
    assert f"1 objects in {other}" in end.report_text
    assert seconds < 8.0


def test_a_transaction_prepared_in_a_closed_database_does_not_prevent_the_end(attack: Attack) -> None:
    other = attack.harness.other
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{other}" TO shop_writer')
    spec = attack.user(writer())
    session = attack.session(spec, other)
    gid = f"closed_{attack.harness.bot}"
    run_setup(session, f"BEGIN; SELECT lo_create(0); PREPARE TRANSACTION '{gid}'")
    session.close()
    attack.as_superuser(f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS false')
    end = attack.end(spec)
    attack.as_superuser(f'ALTER DATABASE "{other}" ALLOW_CONNECTIONS true')
    with attack.harness.superuser(other) as c:
        c.execute(f"ROLLBACK PREPARED '{gid}'".encode())
    attack.assert_ended(spec, end)
    assert gid in end.report_text


def test_many_prepared_transactions_are_rolled_back_over_few_connections(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    for n in range(40):
        run_setup(session, f"BEGIN; SELECT lo_create(0); PREPARE TRANSACTION '{n}_{attack.harness.bot}'")
    opened, original = list[str](), PostgreSQLServer.open

    def open_counted(self: PostgreSQLServer, database: str, limit: float) -> Any:
        opened.append(database)
        return original(self, database, limit)

    monkeypatch.setattr(PostgreSQLServer, "open", open_counted)
    attack.assert_ended(spec, attack.end(spec), session)
    assert not attack.query("SELECT 1 FROM pg_prepared_xacts WHERE gid LIKE %s", f"%{attack.harness.bot}")
    assert len(opened) < 20


def test_simultaneous_ends_of_one_user_are_never_refused(attack: Attack) -> None:
    """The one that comes second tries again, or finds the user ended. Nothing needs a person."""
    spec, session = owns_a_table(attack, "simultaneous")
    results = list[object]()

    def end_it() -> None:
        try:
            results.append(attack.harness.adapter().drop_user(spec.username, spec.level))
        except Exception as error:  # noqa: BLE001  the test looks at its kind
            results.append(error)

    threads = [threading.Thread(target=end_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any(isinstance(result, Removal) for result in results)
    assert not [result for result in results if isinstance(result, Rejected)], results
    assert all(isinstance(result, Removal | ServerDown) for result in results), results
    attack.assert_ended(spec, attack.end(spec), session)


def test_the_databases_scram_iterations_do_not_stop_the_bot(attack: Attack) -> None:
    """The driver computes each verifier with the number that the server reports, and nothing else of the bot runs meanwhile."""
    level = owner_level(attack)
    session = attack.session(attack.user(level))
    if attack.harness.server.version < 16:
        pytest.skip("the server has no such setting")
    run_setup(session, f'ALTER DATABASE "{attack.harness.database}" SET scram_iterations = 30000000')
    began = time.monotonic()
    attack.user(readonly())
    assert time.monotonic() - began < 8.0
