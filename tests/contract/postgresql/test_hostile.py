"""A hostile temporary user, which tries to stay, to prevent its revocation, or to gain rights by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from adapters.base import Level, UserSpec
from adapters.postgresql.connection import REVOKE_LIMIT_SECONDS
from tests.contract.postgresql.conftest import harness_of
from tests.contract.postgresql.harness import EngineHarness, acting_writer, writer
from tests.servers.postgresql import PostgresServer

PLANTED = """
CREATE FUNCTION public.planted_eq(oid, int) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN false; END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.planted_eq);
CREATE FUNCTION public.planted_eq(name, text) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN false; END $$;
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.planted_eq);
CREATE FUNCTION public.count(anyelement) RETURNS bigint LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN 0; END $$;
CREATE FUNCTION public.pg_terminate_backend(int) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN true; END $$;
CREATE VIEW public.pg_roles AS SELECT 1::oid AS oid, 'nobody'::name AS rolname;
CREATE VIEW public.pg_stat_activity AS SELECT 1 AS pid WHERE false;
"""
OWNED = """
CREATE TABLE public.notes (id serial PRIMARY KEY, words text DEFAULT 'kept', customer int);
INSERT INTO public.notes (words) VALUES ('kept');
CREATE TYPE public.mood AS ENUM ('good', 'bad');
CREATE DOMAIN public.small AS int CHECK (VALUE < 10);
CREATE SEQUENCE public.counter;
CREATE FUNCTION public.on_note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN new; END $$;
CREATE TRIGGER on_note BEFORE INSERT OR UPDATE ON public.notes FOR EACH ROW EXECUTE FUNCTION public.on_note();
CREATE FUNCTION public.peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(*) FROM shop.customers $$;
CREATE VIEW public.peeking AS SELECT * FROM shop.customers;
CREATE MATERIALIZED VIEW public.seen AS SELECT 1 AS one;
CREATE RULE also AS ON UPDATE TO public.notes DO ALSO SELECT 1;
CREATE SCHEMA mine;
CREATE TABLE mine.more (id int);
CREATE FUNCTION mine.f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION shop.left_here() RETURNS int LANGUAGE sql AS $$ SELECT 2 $$;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO shop_reader;
GRANT SELECT ON public.notes TO PUBLIC;
"""
LEFT_OBJECTS = {
    "public.notes (table)",
    "public.mood (type)",
    "public.small (type)",
    "public.counter (sequence)",
    "public.on_note() (function)",
    "public.peek() (function)",
    "public.peeking (view)",
    "public.seen (materialized view)",
    "mine (schema)",
    "mine.more (table)",
    "mine.f() (function)",
    "shop.left_here() (function)",
    "public.=(pg_catalog.oid,integer) (operator)",
    "public.planted_eq(pg_catalog.oid,integer) (function)",
}
OTHERS = """
SELECT 'role', rolname::text, concat_ws(' ', rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls) FROM pg_roles
 WHERE rolname !~ '^(j[0-9a-f]{6}_|e[0-9a-f]{6}_|bot_|owner_)'
UNION ALL SELECT 'member', m.member::regrole::text, m.roleid::regrole::text FROM pg_auth_members m
 WHERE m.member::regrole::text !~ '^(j[0-9a-f]{6}_|e[0-9a-f]{6}_|bot_|owner_)'
UNION ALL SELECT 'class', c.oid::regclass::text, c.relowner::regrole::text || coalesce(c.relacl::text, '') FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('shop', 'public')
UNION ALL SELECT 'schema', nspname::text, nspowner::regrole::text || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_'
UNION ALL SELECT 'proc', oid::regprocedure::text, proowner::regrole::text FROM pg_proc WHERE proowner <> 10
UNION ALL SELECT 'database', datname::text, datdba::regrole::text || coalesce(datacl::text, '') FROM pg_database
UNION ALL SELECT 'data', 'customers', count(*)::text FROM shop.customers
"""


def state_of_others(harness: EngineHarness) -> set[tuple[Any, ...]]:
    with harness.superuser() as connection:
        return set(connection.execute(OTHERS).fetchall())


@pytest.fixture
def open_harness(own_harness: EngineHarness) -> EngineHarness:
    """A permissive setup: everybody may create in ``public``, create schemas, and use the other database."""
    with own_harness.superuser() as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        c.execute("CREATE TABLE public.ran (who text)")
        c.execute("GRANT INSERT ON public.ran TO PUBLIC")
        c.execute(f'GRANT CREATE, TEMPORARY ON DATABASE "{own_harness.database}" TO shop_writer')
        c.execute(f'GRANT CONNECT, TEMPORARY ON DATABASE "{own_harness.other}" TO PUBLIC')
    with own_harness.superuser(own_harness.other) as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    return own_harness


@pytest.fixture
def hostile(open_harness: EngineHarness) -> Iterator[tuple[UserSpec, list[psycopg.Connection[Any]]]]:
    """The user and its open sessions."""
    spec = open_harness.spec(acting_writer())
    open_harness.adapter().create_user(spec)
    with contextlib.ExitStack() as stack:
        yield (
            spec,
            [session(stack, open_harness, spec) for session in (leave_things, leave_elsewhere, be_role, be_idle)],
        )
    with open_harness.superuser() as c:
        query = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for (gid,) in c.execute(query).fetchall():
            c.execute(f"ROLLBACK PREPARED '{gid}'".encode())


def logged_in(
    stack: contextlib.ExitStack, harness: EngineHarness, spec: UserSpec, database: str | None = None
) -> psycopg.Connection[Any]:
    session = harness.login(spec, database)
    stack.callback(session.close)
    return session


def leave_things(stack: contextlib.ExitStack, harness: EngineHarness, spec: UserSpec) -> psycopg.Connection[Any]:
    session = logged_in(stack, harness, spec)
    session.execute(OWNED.encode())
    session.execute(PLANTED.encode())
    session.execute("SELECT lo_from_bytea(0, 'bytes that are kept')")
    session.execute("CREATE TEMP TABLE passing AS SELECT 1 AS one")
    return session


def leave_elsewhere(stack: contextlib.ExitStack, harness: EngineHarness, spec: UserSpec) -> psycopg.Connection[Any]:
    session = logged_in(stack, harness, spec, harness.other)
    session.execute("CREATE TABLE public.elsewhere (id int)")
    session.execute("SELECT lo_create(0)")
    session.execute("BEGIN")
    session.execute("CREATE TABLE public.prepared_there (id int)")
    session.execute("PREPARE TRANSACTION 'it''s \\ there'")
    return session


def be_role(stack: contextlib.ExitStack, harness: EngineHarness, spec: UserSpec) -> psycopg.Connection[Any]:
    session = logged_in(stack, harness, spec)
    session.execute("SET ROLE shop_writer")
    session.execute("BEGIN")
    session.execute("DECLARE c CURSOR FOR SELECT * FROM shop.customers")
    session.execute("FETCH 1 FROM c")
    return session


def be_idle(stack: contextlib.ExitStack, harness: EngineHarness, spec: UserSpec) -> psycopg.Connection[Any]:
    session = logged_in(stack, harness, spec)
    session.execute("BEGIN")
    session.execute("CREATE TABLE public.uncommitted (id int)")
    session.execute("UPDATE shop.orders SET customer = 0 WHERE id < 10")
    return session


def prepare(harness: EngineHarness, spec: UserSpec) -> None:
    """Prepare two transactions: one as the user, and one as the level's role."""
    with contextlib.closing(psycopg.connect(harness.server.url(spec.username, spec.password, harness.database))) as c:
        c.execute("CREATE TABLE public.prepared_here (id int)")
        c.execute("PREPARE TRANSACTION 'own'")
        c.execute("CREATE TABLE public.hidden (id int)")
        c.execute("SET ROLE shop_writer")
        c.execute("PREPARE TRANSACTION 'hidden'")


def test_a_hostile_user_is_ended_and_gains_nothing(
    open_harness: EngineHarness, hostile: tuple[UserSpec, list[psycopg.Connection[Any]]]
) -> None:
    spec, sessions = hostile
    prepare(open_harness, spec)
    with open_harness.superuser() as c:
        c.execute("CREATE VIEW shop.theirs AS SELECT words FROM public.notes")
        c.execute("ALTER VIEW shop.theirs OWNER TO shop_reader")
        c.execute("GRANT SELECT ON public.notes TO shop_reader")
    before = state_of_others(open_harness)
    began = time.monotonic()
    removal = open_harness.adapter().drop_user(spec.username, spec.level)
    assert time.monotonic() - began < REVOKE_LIMIT_SECONDS / 2

    assert removal.sessions_ended == 4
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    assert not open_harness.role_exists(spec.username)
    assert set(removal.left_behind) >= LEFT_OBJECTS
    assert any("large object" in name for name in removal.left_behind)
    assert "public.elsewhere (table)" in removal.left_behind
    left_with = removal.left_with
    assert left_with is not None
    assert left_with.startswith(f"dbaccess_left_{spec.request_id}_ada")
    assert not any("uncommitted" in name or "prepared" in name or "hidden" in name for name in removal.left_behind)

    changed = state_of_others(open_harness) ^ before
    assert {row[:2] for row in changed if row[0] not in ("class", "proc", "schema")} == {("role", left_with)}
    assert not {row[1] for row in changed if str(row[1]).startswith("shop.") and row[1] != "shop.left_here()"}
    assert_nothing_ran_as_the_bot(open_harness)
    assert_left_role_has_nothing(open_harness, left_with)
    with open_harness.superuser() as c:
        assert c.execute("SELECT words FROM shop.theirs").fetchall() == [("kept",)]
        assert c.execute("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").fetchone() == (
            0,
        )
        assert c.execute("SELECT lo_get(oid) FROM pg_largeobject_metadata").fetchall() == [(b"bytes that are kept",)]
        assert c.execute("SELECT customer FROM shop.orders WHERE id = 1").fetchone() == (1,)


def assert_nothing_ran_as_the_bot(harness: EngineHarness) -> None:
    with harness.superuser() as c:
        ran = {who for (who,) in c.execute("SELECT who FROM public.ran").fetchall()}
    assert not {who for who in ran if who in (harness.bot, harness.owner, "postgres")}


def assert_left_role_has_nothing(harness: EngineHarness, role: str) -> None:
    """The role has no memberships, no members, no login, and no privilege on objects that it does not own."""
    with harness.superuser() as c:
        memberships = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole"
        assert c.execute(memberships, (role,)).fetchall() == []
        members = "SELECT DISTINCT member::regrole::text FROM pg_auth_members WHERE roleid = %s::regrole"
        assert {name for (name,) in c.execute(members, (role,)).fetchall()} <= {harness.owner, harness.bot}
        query = "SELECT rolcanlogin, rolsuper, rolcreaterole, rolpassword IS NULL FROM pg_authid WHERE rolname = %s"
        assert c.execute(query, (role,)).fetchone() == (False, False, False, True)
        acl = (
            "SELECT 1 FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'a'"
            " AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert c.execute(acl, (role,)).fetchall() == []


def test_a_left_behind_view_and_function_give_no_access(open_harness: EngineHarness) -> None:
    """Code that runs with its owner's rights reaches nothing but the owner's own objects."""
    adapter = open_harness.adapter()
    victim, thief, reader = (open_harness.spec(writer()) for _ in range(3))
    adapter.create_user(victim)
    with open_harness.login(victim) as c:
        c.execute("CREATE TABLE public.private AS SELECT 'secret'::text AS words")
    adapter.drop_user(victim.username, victim.level)
    adapter.create_user(thief)
    with open_harness.login(thief) as c:
        c.execute(
            "CREATE FUNCTION public.steal() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN (SELECT words FROM public.private); END $$"
        )
        c.execute("CREATE VIEW public.stealing AS SELECT * FROM public.private")
        c.execute("GRANT SELECT ON public.stealing TO PUBLIC")
    adapter.drop_user(thief.username, thief.level)
    adapter.create_user(reader)
    with open_harness.login(reader) as c:
        for query in ("SELECT public.steal()", "SELECT * FROM public.stealing", "SELECT * FROM public.private"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                c.execute(query.encode())
    adapter.drop_user(reader.username, reader.level)


def test_a_user_with_createrole_is_ended(postgresql: PostgresServer) -> None:
    harness = harness_of(postgresql, with_owner=True)
    spec = harness.spec(writer())
    harness.adapter().create_user(spec)
    with harness.superuser() as c:
        c.execute(f"ALTER ROLE {spec.username} CREATEROLE".encode())
    harness.adapter().drop_user(spec.username, spec.level)
    assert not harness.role_exists(spec.username)


def test_a_user_with_more_objects_than_locks_is_ended(open_harness: EngineHarness) -> None:
    """A user with read access creates more large objects than the server has room for locks."""
    spec = open_harness.spec(Level(name="readonly", roles=("shop_reader",)))
    open_harness.adapter().create_user(spec)
    with open_harness.login(spec) as c:
        c.execute("SELECT count(lo_create(0)) FROM generate_series(1, 12000)")
    removal = open_harness.adapter().drop_user(spec.username, spec.level)
    assert not open_harness.role_exists(spec.username)
    assert len(removal.left_behind) == 50
    assert removal.left_count == 12000


def test_prepared_transactions_are_rolled_back_after_a_restart(open_harness: EngineHarness) -> None:
    spec = open_harness.spec(acting_writer())
    open_harness.adapter().create_user(spec)
    with open_harness.login(spec) as c:
        c.execute("CREATE TYPE public.mood AS ENUM ('good')")
        c.execute("CREATE TABLE public.notes (m public.mood)")
    prepare(open_harness, spec)
    open_harness.server.restart()
    open_harness.adapter().drop_user(spec.username, spec.level)
    assert not open_harness.role_exists(spec.username)
    with open_harness.superuser() as c:
        assert c.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)


def test_a_prepared_transaction_of_a_colleague_is_kept_and_named(open_harness: EngineHarness) -> None:
    """The transaction is not the user's and does not delay the revocation. Only its owner knows its purpose."""
    spec = open_harness.spec(writer())
    open_harness.adapter().create_user(spec)
    with contextlib.closing(psycopg.connect(open_harness.server.superuser_url(open_harness.database))) as c:
        c.execute("SET ROLE shop_writer")
        c.execute("UPDATE shop.orders SET customer = 7 WHERE id = 7")
        c.execute("PREPARE TRANSACTION 'payroll'")
    try:
        removal = open_harness.adapter().drop_user(spec.username, spec.level)
        assert any("'payroll'" in note for note in removal.notes)
        assert not open_harness.role_exists(spec.username)
    finally:
        with open_harness.superuser() as c:
            c.execute("ROLLBACK PREPARED 'payroll'")
