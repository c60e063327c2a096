"""Rare servers and rare moments: encodings, locks of others, rights that the bot lacks, users that others dropped."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import psycopg
import pytest

from adapters.base import CREATE_LIMIT_SECONDS, Level, PrivilegeGrant, ServerDown
from adapters.postgresql import connection as connections
from adapters.postgresql import pins, users
from tests.contract.postgresql.harness import EngineHarness, build, readonly, writer
from tests.servers import postgresql as servers


def reader_elsewhere(harness: EngineHarness, database: str) -> Level:
    """A level in another database, which is open to everybody."""
    return replace(readonly(), database=database)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_user_with_names_outside_utf8_is_ended(own_harness: EngineHarness, encoding: str) -> None:
    database = f"{own_harness.database}_{encoding.lower()}"
    with own_harness.superuser() as c:
        c.execute(f"CREATE DATABASE {database} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'".encode())
    with own_harness.superuser(database) as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        c.execute(f"GRANT CREATE ON DATABASE {database} TO PUBLIC".encode())
    spec = own_harness.spec(readonly())
    own_harness.adapter().create_user(spec)
    with psycopg.connect(own_harness.server.url(spec.username, spec.password, database), autocommit=True) as c:
        c.execute(f"SET client_encoding TO '{encoding}'".encode())
        c.execute(
            b'CREATE SCHEMA "sch\xe9ma"; CREATE FUNCTION "sch\xe9ma"."f\xff"() RETURNS int LANGUAGE sql AS \'SELECT 1\''
        )
        c.execute(b"CREATE FUNCTION \"f\xff\"() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
        c.execute(b'CREATE VIEW "v\xe9" AS SELECT 1 AS one; CREATE TABLE "t\xe9" (id int)')
        c.execute(b"BEGIN; CREATE TABLE \"p\xe9\" (id int); PREPARE TRANSACTION 'g\xe9\\'")
    try:
        removal = own_harness.adapter().drop_user(spec.username, spec.level)
    finally:
        with own_harness.superuser(database) as c:
            c.execute(b"SET client_encoding TO 'SQL_ASCII'")
            left = c.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()
    assert left == (0,)
    assert not own_harness.role_exists(spec.username)
    assert len(removal.left_behind) == 5
    assert any("té" in name for name in removal.left_behind)


def test_a_table_that_others_read_does_not_delay_the_end(own_harness: EngineHarness) -> None:
    """The renamed role stays the owner, so no lock on the table is needed."""
    spec, adapter = own_harness.spec(writer()), own_harness.adapter()
    adapter.create_user(spec)
    session = own_harness.login(spec)
    session.execute("CREATE TABLE shop.busy (id int)")
    with own_harness.superuser() as reader:
        reader.execute("BEGIN; SELECT * FROM shop.busy")
        assert adapter.drop_user(spec.username, spec.level).left_behind == ("shop.busy (table)",)
        reader.execute("SELECT * FROM shop.busy")
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
    session.close()


def test_a_bot_with_only_admin_option_on_the_level_ends_users(postgresql18: servers.PostgresServer) -> None:
    """A bot that created the level's role itself: once the user has lost the role, the bot has no other access to the schema."""
    harness = build(postgresql18)
    with harness.superuser() as c:
        c.execute(f"GRANT shop_writer TO {harness.owner} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE".encode())
        c.execute(f"REVOKE USAGE ON SCHEMA shop FROM {harness.owner} CASCADE".encode())
        c.execute(f"REVOKE shop_reader FROM {harness.owner} CASCADE".encode())
    spec, adapter = harness.spec(writer()), harness.adapter()
    adapter.create_user(spec)
    with harness.login(spec) as c:
        c.execute("CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
        c.execute("CREATE VIEW shop.v AS SELECT 1 AS one")
        c.execute("CREATE TABLE shop.t (id int)")
    removal = adapter.drop_user(spec.username, spec.level)
    assert set(removal.left_behind) == {"shop.f() (function)", "shop.v (view)", "shop.t (table)"}
    assert not harness.role_exists(spec.username)


def test_a_schema_closed_meanwhile_does_not_delay_the_end(own_harness: EngineHarness) -> None:
    spec, adapter = own_harness.spec(writer()), own_harness.adapter()
    adapter.create_user(spec)
    with own_harness.login(spec) as c:
        c.execute("CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    with own_harness.superuser() as c:
        c.execute("REVOKE CREATE ON SCHEMA shop FROM shop_writer")
    assert adapter.drop_user(spec.username, spec.level).left_behind == ("shop.f() (function)",)


def test_rights_from_others_are_named(own_harness: EngineHarness) -> None:
    """Somebody else's grant cannot be revoked by the bot. The role keeps it, without a login, and the receipt says so."""
    spec, adapter = own_harness.spec(readonly()), own_harness.adapter()
    adapter.create_user(spec)
    with own_harness.superuser() as c:
        c.execute(f"GRANT SELECT ON shop.orders TO {spec.username}".encode())
    removal = adapter.drop_user(spec.username, spec.level)
    assert any("could not revoke: on TABLE shop.orders" in note for note in removal.notes), removal.notes
    assert not own_harness.role_exists(spec.username)
    with own_harness.superuser() as c:
        mark = f"dbaccess left ledger={own_harness.ledger} request={spec.request_id} %"
        query = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') LIKE %s"
        ((left,),) = c.execute(query, (mark,)).fetchall()
        c.execute(f"REVOKE ALL ON shop.orders FROM {left}".encode())
    assert adapter.drop_leftovers() == [f"dropped the role {left} of #{spec.request_id}, which owned nothing any more"]
    assert not own_harness.role_exists(left)


def test_open_sessions_of_a_dropped_user_are_reported(own_harness: EngineHarness) -> None:
    spec, adapter = own_harness.spec(readonly()), own_harness.adapter()
    adapter.create_user(spec)
    session = own_harness.login(spec)
    with own_harness.superuser() as c:
        c.execute(f"DROP ROLE {spec.username}".encode())
    removal = adapter.drop_user(spec.username, spec.level)
    assert removal.was_absent
    (note,) = removal.notes
    with own_harness.superuser() as c:
        c.execute(note.split("end them: ")[1].encode())
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT pg_sleep(5)")
    session.close()


def test_a_slow_create_leaves_no_user(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """No create may land after the time that the caller waits for it."""
    original = users.expiry_after

    def slow(*arguments: object) -> str:
        clock["now"] += 60
        return original(*arguments)  # type: ignore[arg-type]

    clock = {"now": time.monotonic()}
    monkeypatch.setattr(users.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(users, "expiry_after", slow)
    spec = own_harness.spec(readonly())
    with pytest.raises(ServerDown, match="too slow"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.role_exists(spec.username)


def test_a_create_gives_up_on_a_held_lock_in_time(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "LOCK_TIMEOUT_SECONDS", 1)
    level = Level(name="support", grants=(PrivilegeGrant(on=("shop.customers",), privileges=("SELECT",)),))
    spec, adapter = own_harness.spec(level), own_harness.adapter()
    with own_harness.superuser() as c:
        c.execute("BEGIN; LOCK TABLE pg_auth_members IN EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(ServerDown) as down:
            adapter.create_user(spec)
        assert time.monotonic() - began < CREATE_LIMIT_SECONDS
        assert down.value.is_ambiguous
    assert adapter.drop_user(spec.username, level).notes == ()
    with own_harness.superuser() as c:
        assert c.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^dbaccess_support_'").fetchall() == []


def test_a_user_with_more_tables_than_locks_is_ended() -> None:
    """More tables than the server has room for locks: a single REASSIGN OWNED would always fail."""
    try:
        server = servers.start(18, extra="max_locks_per_transaction = 10\n")
    except servers.NoServer as missing:
        pytest.skip(str(missing))
    try:
        harness = build(server)
        spec, adapter = harness.spec(writer()), harness.adapter()
        adapter.create_user(spec)
        with harness.login(spec) as c:
            c.execute("CREATE TYPE shop.pair AS (a int, b int)")
            c.execute("CREATE VIEW shop.one AS SELECT 1 AS one; CREATE SEQUENCE shop.counter")
            for portion in range(6):
                make = (
                    f"FOR n IN 1..1000 LOOP EXECUTE format('CREATE TABLE shop.t_{portion}_%s (id serial)', n); END LOOP"
                )
                c.execute(f"DO $$ BEGIN {make}; END $$".encode())
        removal = adapter.drop_user(spec.username, spec.level)
        assert removal.left_count == 12003  # tables and their sequences
        assert not harness.role_exists(spec.username)
    finally:
        server.remove()


def test_a_frozen_server_ends_the_wait(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    original, stopped = users.expiry_after, list[int]()

    def frozen(connection: connections.PostgreSQLConnection, remaining: float) -> str:
        stopped.append(connection.info.backend_pid)
        os.kill(stopped[0], signal.SIGSTOP)
        return original(connection, remaining)

    monkeypatch.setattr(users, "expiry_after", frozen)
    monkeypatch.setattr(connections, "ANSWER_MARGIN_SECONDS", -4.0)
    spec = own_harness.spec(readonly())
    try:
        with pytest.raises(ServerDown) as down:
            own_harness.adapter().create_user(spec)
        assert down.value.is_ambiguous
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    monkeypatch.undo()
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert not own_harness.role_exists(spec.username)
