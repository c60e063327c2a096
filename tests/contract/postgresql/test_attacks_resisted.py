"""Attacks that fail today and must go on failing: changes of the user's own role, busy sessions, and objects of rare kinds."""

from __future__ import annotations

import psycopg
import pytest

from adapters.base import UserSpec
from adapters.contract import wait_until
from tests.contract.postgresql.attacks import Attack, half_open_login, run_setup, succeeds
from tests.contract.postgresql.harness import BOT_PASSWORD, writer

FORBIDDEN = (
    "COMMENT ON ROLE {user} IS 'mine'",
    "ALTER ROLE {user} RENAME TO somebody",
    "ALTER ROLE {user} VALID UNTIL 'infinity'",
    "ALTER ROLE {user} CONNECTION LIMIT -1",
    "ALTER ROLE {user} CREATEROLE",
    "SECURITY LABEL ON ROLE {user} IS 'x'",
    "CREATE ROLE somebody",
    "GRANT {user} TO shop_reader",
    "GRANT shop_writer TO shop_reader",
    "REASSIGN OWNED BY {user} TO {bot}",
    "SET SESSION AUTHORIZATION {bot}",
    "SET ROLE {owner}",
    "SET ROLE dbaccess_graveyard",
    "ALTER ROLE {bot} SET search_path = 'x'",
    "ALTER ROLE ALL SET search_path = 'x'",
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION x()",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
    "SELECT pg_create_logical_replication_slot('x', 'pgoutput')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{bot}'",
)
"""Statements by which a user could outlive its grant or reach the bot. The server refuses each."""
OWN_PASSWORD = "ItsOwn0Password"
ALLOWED = (
    "ALTER ROLE {user} SET search_path = 'public'",
    "ALTER ROLE {user} IN DATABASE {database} SET search_path = 'public'",
    "ALTER ROLE {user} SET default_transaction_read_only = on",
    "ALTER ROLE {user} RESET ALL",
    f"ALTER ROLE {{user}} PASSWORD '{OWN_PASSWORD}'",
)
"""Statements that change the user's own role. The server allows each."""
SET_ROLE = "ALTER ROLE {user} SET role = 'shop_writer'"
"""The server allows this one where the user may SET ROLE to its level's role."""
THINGS = (
    "CREATE SCHEMA mine",
    "CREATE TABLE mine.t (id int PRIMARY KEY)",
    "CREATE PUBLICATION p FOR TABLE mine.t",
    "CREATE STATISTICS mine.st ON (id + 1), (id + 2) FROM mine.t",
    "ALTER TABLE mine.t ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY pol ON mine.t TO {user} USING (true)",
    'CREATE COLLATION mine.co FROM "C"',
    "CREATE TEXT SEARCH DICTIONARY mine.d (template = simple)",
    "CREATE TEXT SEARCH CONFIGURATION mine.cf (copy = simple)",
    "CREATE CONVERSION mine.cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE FUNCTION mine.eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR mine.=== (leftarg = int, rightarg = int, function = mine.eq)",
    "CREATE AGGREGATE mine.ag(int) (sfunc = int4pl, stype = int)",
    "CREATE PROCEDURE mine.pr() LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE mine.rng AS RANGE (subtype = float8)",
    "CREATE DOMAIN mine.dom AS int",
    "CREATE TYPE mine.comp AS (a int)",
    "CREATE CAST (mine.dom AS text) WITH INOUT",
    "CREATE TABLE mine.parted (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE mine.part PARTITION OF mine.parted FOR VALUES FROM (1) TO (2)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA mine GRANT ALL ON TABLES TO PUBLIC",
)
LEFT_OBJECTS = (
    "mine.t (table)",
    "p (publication)",
    "mine.st (statistics object)",
    "mine.part (table)",
    "mine.cf (text search configuration)",
)
EXTENSIONS = ("CREATE EXTENSION hstore SCHEMA mine", "CREATE EXTENSION pg_trgm")
"""Trusted extensions, where the server has them."""
FOREIGN = (
    "CREATE SERVER srv FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1')",
    "CREATE USER MAPPING FOR {user} SERVER srv OPTIONS (user 'x', password 'y')",
    "CREATE USER MAPPING FOR PUBLIC SERVER srv",
    "CREATE FOREIGN TABLE mine.ft (a int) SERVER srv",
)
RESTLESS = """
DO $$ BEGIN LOOP
  BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN OTHERS OR query_canceled THEN NULL; END;
END LOOP; END $$
"""
PARALLEL = """
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SELECT count(*) FROM shop.customers a, shop.customers b, shop.customers c, shop.orders d
"""
UNREAD = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT"


def filled(attack: Attack, spec: UserSpec, statement: str) -> str:
    database = f'"{attack.harness.database}"'
    return statement.format(user=spec.username, bot=attack.harness.bot, owner=attack.harness.owner, database=database)


# Changes of the user's own role.


def test_a_user_cannot_prevent_its_revocation(attack: Attack) -> None:
    spec = attack.user(writer())
    before = attack.harness.adapter().list_users()
    session = attack.session(spec)
    url = attack.harness.server.url(attack.harness.bot, BOT_PASSWORD, attack.harness.database)
    with psycopg.connect(url, autocommit=True) as bot:
        assert [statement for statement in FORBIDDEN if succeeds(session, filled(attack, spec, statement))] == []
        assert succeeds(bot)
    assert attack.harness.adapter().list_users() == before
    attack.assert_ended(spec, attack.end(spec, tries=1), session)


def test_a_users_own_settings_do_not_prevent_its_revocation(attack: Attack) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    for statement in ALLOWED:
        run_setup(session, filled(attack, spec, statement))
    succeeds(session, filled(attack, spec, SET_ROLE))
    attack.assert_ended(spec, attack.end(spec, tries=1), session)
    with pytest.raises(psycopg.OperationalError):
        attack.harness.login(spec, password=OWN_PASSWORD)


# Busy sessions.


BUSY = "SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s::oid AND state = 'active' AND backend_type = 'client backend'"


def test_busy_sessions_are_ended(attack: Attack) -> None:
    """A loop that ignores every cancellation, a COPY that nobody reads, parallel workers, a listener, and a login without a password."""
    spec = attack.user(writer())
    idle = attack.session(spec)
    run_setup(idle, "LISTEN x")
    for statement in (RESTLESS, UNREAD, PARALLEL):
        attack.session(spec).pgconn.send_query(statement.encode())
    wait_until(lambda: attack.query(BUSY, attack.oids[spec.username]) == [(3,)], within=60.0)
    with half_open_login(attack.harness.server.port, spec.username, attack.harness.database):
        end = attack.end(spec, tries=2)
        attack.assert_ended(spec, end, idle)


# Objects of rare kinds.


@pytest.fixture
def team(attack: Attack) -> Attack:
    attack.as_superuser(f'GRANT CREATE, TEMPORARY ON DATABASE "{attack.harness.database}" TO shop_writer')
    return attack


ORPHANS = """
SELECT pid::text FROM pg_stat_activity a WHERE usesysid IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid)
UNION ALL SELECT subname FROM pg_subscription
"""


def test_a_user_with_objects_of_every_kind_is_ended(team: Attack) -> None:
    spec = team.user(writer())
    session = team.session(spec)
    for statement in THINGS:
        run_setup(session, filled(team, spec, statement))
    for statement in EXTENSIONS:
        succeeds(session, statement)
    end = team.end(spec, tries=1)
    team.assert_ended(spec, end, session)
    assert end.removal
    assert set(end.removal.left_behind) >= set(LEFT_OBJECTS)
    assert team.query(ORPHANS) == []


def test_a_user_with_foreign_servers_is_ended(team: Attack) -> None:
    with team.harness.superuser() as c:
        if not succeeds(c, "CREATE EXTENSION postgres_fdw"):
            pytest.skip("this server has no postgres_fdw")
        run_setup(c, "GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO shop_writer")
    spec = team.user(writer())
    session = team.session(spec)
    for statement in ("CREATE SCHEMA mine", *FOREIGN):
        run_setup(session, filled(team, spec, statement))
    end = team.end(spec, tries=1)
    team.assert_ended(spec, end, session)
    assert end.removal
    assert "srv (server)" in end.removal.left_behind
