"""Levels: managed roles that equal their grants, refused roles, settings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from adapters.base import Connect, Level, PrivilegeGrant, Rejected
from adapters.postgresql.level.grants import managed_role
from tests.contract.postgresql.harness import EngineHarness, readonly, support, writer


def grants_level(*on: str, privileges: tuple[str, ...] = ("SELECT",), name: str = "support") -> Level:
    return Level(name=name, grants=(PrivilegeGrant(on=on, privileges=privileges),))


def managed_roles(harness: EngineHarness, stem: str) -> list[str]:
    """The managed roles of this harness. Tests with other harnesses share the server."""
    query = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) AND starts_with(shobj_description(oid, 'pg_authid'), %s)"
    with harness.superuser() as c:
        rows = c.execute(query, (f"dbaccess_{stem}_", f"dbaccess ledger={harness.ledger} ")).fetchall()
    return [str(name) for (name,) in rows]


def test_a_level_with_grants_opens_only_its_tables(harness: EngineHarness) -> None:
    spec, adapter = harness.spec(support()), harness.adapter()
    adapter.create_user(spec)
    with harness.login(spec) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        for query in ("SELECT * FROM shop.orders", "DELETE FROM shop.customers", "CREATE TABLE shop.t (id int)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                c.execute(query.encode())
    assert not adapter.drop_user(spec.username, spec.level).notes
    assert managed_roles(harness, "support") == []


def test_a_managed_role_exists_while_it_is_used(harness: EngineHarness) -> None:
    first, second, adapter = harness.spec(support()), harness.spec(support()), harness.adapter()
    adapter.create_user(first)
    adapter.create_user(second)
    (role,) = managed_roles(harness, "support")
    adapter.drop_user(first.username, first.level)
    assert managed_roles(harness, "support") == [role]
    with harness.login(second) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
    adapter.drop_user(second.username, second.level)
    assert managed_roles(harness, "support") == []


def test_a_managed_role_is_made_equal_to_its_grants_again(harness: EngineHarness) -> None:
    """Somebody revoked and granted privileges of the managed role by hand. The next grant restores them, also for the first user."""
    first, adapter = harness.spec(support()), harness.adapter()
    adapter.create_user(first)
    (role,) = managed_roles(harness, "support")
    with harness.superuser() as c:
        c.execute(f"SET ROLE {harness.owner or harness.bot}".encode())
        c.execute(f"REVOKE SELECT ON shop.customers FROM {role}".encode())
        c.execute("RESET ROLE")
        c.execute(f"GRANT SELECT ON shop.orders TO {role}".encode())
    second = harness.spec(support())
    with pytest.raises(Rejected, match="does not hold what its level gives") as rejected:
        adapter.create_user(second)  # the bot cannot revoke what the owner granted
    with harness.superuser() as c:
        c.execute((rejected.value.remedy or "").encode())
    adapter.create_user(second)
    with harness.login(second) as c:
        assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            c.execute("SELECT * FROM shop.orders")
    for spec in (first, second):
        adapter.drop_user(spec.username, spec.level)
    assert managed_roles(harness, "support") == []


def test_a_level_with_schema_privileges_works(own_harness: EngineHarness) -> None:
    with own_harness.superuser() as c:
        holder = own_harness.owner or own_harness.bot
        c.execute(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA shop TO {holder} WITH GRANT OPTION".encode())
        c.execute(f"GRANT CREATE ON SCHEMA shop TO {holder} WITH GRANT OPTION".encode())
    level = Level(
        name="wide",
        grants=(
            PrivilegeGrant(on=("shop.*",), privileges=("select", "INSERT")),
            PrivilegeGrant(on=("shop",), privileges=("USAGE", "CREATE")),
        ),
    )
    spec, adapter = own_harness.spec(level), own_harness.adapter()
    adapter.create_user(spec)
    with own_harness.login(spec) as c:
        assert c.execute("SELECT count(*) FROM shop.orders").fetchone() == (1000,)
        c.execute("CREATE TABLE shop.made (id int)")
        c.execute("CREATE FUNCTION shop.made() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    removal = adapter.drop_user(spec.username, level)
    assert removal.left_behind == ("shop.made (table)", "shop.made() (function)")
    assert managed_roles(own_harness, "wide") == []
    with own_harness.superuser() as c:
        c.execute("DROP TABLE shop.made; DROP FUNCTION shop.made()")


@pytest.mark.parametrize(
    ("level", "says", "remedy"),
    [
        (
            grants_level("shop.orders"),
            "cannot give SELECT ON TABLE shop.orders",
            "GRANT SELECT ON TABLE shop.orders TO",
        ),
        (grants_level("shop.nothing"), "no table shop.nothing", None),
        (grants_level("nowhere.customers"), "no schema nowhere", None),
        (grants_level("shop.customers", privileges=("OWN",)), "OWN is no privilege", "SELECT"),
        (grants_level('shop.customers"; DROP ROLE x; --'), "no table", None),
        (Level(name="x", roles=("no_such",)), "no_such does not exist", "CREATE ROLE no_such NOLOGIN"),
        (Level(name="x", roles=("postgres",)), "postgres has SUPERUSER", None),
        (Level(name="x", roles=("pg_execute_server_program",)), "shell", None),
    ],
)
def test_impossible_levels_are_refused_with_a_remedy(
    harness: EngineHarness, level: Level, says: str, remedy: str | None
) -> None:
    spec = harness.spec(level)
    with pytest.raises(Rejected) as rejected:
        harness.adapter().create_user(spec)
    assert says in rejected.value.what
    assert remedy is None or remedy in str(rejected.value.remedy)
    assert not harness.role_exists(spec.username)
    harness.adapter().drop_user(spec.username, level)
    assert managed_roles(harness, level.name) == []


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("CREATE ROLE {r} CREATEROLE", "CREATEROLE"),
        ("CREATE ROLE {r} REPLICATION", "REPLICATION"),
        ("CREATE ROLE {r}; GRANT pg_write_server_files TO {r}", "shell"),
        ("CREATE ROLE {r}; GRANT pg_signal_backend TO {r}", "hold up every end"),
        ("CREATE ROLE {r}; GRANT shop_reader TO {r} WITH ADMIN OPTION", "ADMIN OPTION"),
        ("CREATE ROLE {r}; CREATE ROLE {r}_far CREATEROLE; GRANT {r}_far TO {r}", "member of {r}_far"),
        ("CREATE ROLE {r}; CREATE ROLE dbaccess_left_{r}; GRANT dbaccess_left_{r} TO {r}", "left behind"),
        ("CREATE ROLE {r}; CREATE ROLE dbaccess_graveyard; GRANT dbaccess_graveyard TO {r}", "left behind"),
    ],
)
def test_dangerous_roles_are_refused(own_harness: EngineHarness, make: str, says: str) -> None:
    role = f"danger_{own_harness.bot}"
    with own_harness.superuser() as c:
        c.execute(make.replace("{r}", role).encode())
        c.execute(f"GRANT {role} TO {own_harness.owner} WITH ADMIN OPTION".encode())
    level = Level(name="x", roles=(role,))
    with pytest.raises(Rejected, match=says.replace("{r}", role)):
        own_harness.adapter().create_user(own_harness.spec(level))
    assert any(says.replace("{r}", role) in f.what for f in own_harness.adapter().check([level]).problems)
    with own_harness.superuser() as c:
        c.execute("DROP ROLE IF EXISTS dbaccess_graveyard")


def test_managed_role_names_differ() -> None:
    from tests.contract.postgresql.test_errors import target

    one, level = target(), grants_level("shop.customers")
    names = {
        managed_role(one, level),
        managed_role(replace(one, prefix="tmp_"), level),
        managed_role(replace(one, name="other"), level),
        managed_role(one, grants_level("shop.orders")),
        managed_role(one, grants_level("shop.customers", privileges=("UPDATE",))),
        managed_role(one, replace(level, database="next")),
    }
    assert len(names) == 6
    assert managed_role(one, grants_level("s.t", name="x" * 40)).startswith("dbaccess_" + "x" * 12 + "_")  # type: ignore[union-attr]
    assert managed_role(one, readonly()) is None


def test_a_planted_managed_role_is_not_given(own_harness: EngineHarness) -> None:
    role = managed_role(own_harness.target(), support())
    with own_harness.superuser() as c:
        c.execute(f"CREATE ROLE {role}; GRANT {role} TO {own_harness.owner} WITH ADMIN OPTION".encode())
    with pytest.raises(Rejected, match="did not create"):
        own_harness.adapter().create_user(own_harness.spec(support()))
    with own_harness.superuser() as c:
        c.execute(
            f"COMMENT ON ROLE {role} IS 'dbaccess ledger=abc level=support'; GRANT shop_writer TO {role}".encode()
        )
    with pytest.raises(Rejected, match="a member of shop_writer"):
        own_harness.adapter().create_user(own_harness.spec(support()))
    with own_harness.superuser() as c:
        c.execute(f"DROP ROLE {role}".encode())


def test_parallel_grants_with_a_managed_role(harness: EngineHarness) -> None:
    specs, adapter = [harness.spec(support()) for _ in range(16)], harness.adapter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(adapter.create_user, specs))
        list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert not any(harness.role_exists(spec.username) for spec in specs)
    assert managed_roles(harness, "support") == []


def test_parallel_revocations_with_left_behind_objects(own_harness: EngineHarness) -> None:
    """Each renames its own role. None waits for another."""
    specs, adapter = [own_harness.spec(writer()) for _ in range(8)], own_harness.adapter()
    for spec in specs:
        adapter.create_user(spec)
        with own_harness.login(spec) as c:
            c.execute(f"CREATE FUNCTION shop.f_{spec.username}() RETURNS int LANGUAGE sql AS 'SELECT 1'".encode())
    with own_harness.superuser() as c:
        c.execute("REVOKE CREATE ON SCHEMA shop FROM shop_writer")
        c.execute(f"GRANT CREATE ON SCHEMA shop TO {own_harness.owner} WITH GRANT OPTION".encode())
    with ThreadPoolExecutor(8) as pool:
        removals = list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert [len(removal.left_behind) for removal in removals] == [1] * 8
    assert len({removal.left_with for removal in removals}) == len(specs)


def test_objects_created_as_a_managed_role_are_left_behind(own_harness: EngineHarness) -> None:
    """On PostgreSQL 15 a member can always SET ROLE. Objects that it creates as the managed role are left behind like its own."""
    spec, adapter = own_harness.spec(support()), own_harness.adapter()
    adapter.create_user(spec)
    role = managed_role(own_harness.target(), support())
    with own_harness.login(spec) as c:
        try:
            c.execute(f"SET ROLE {role}".encode())
        except psycopg.errors.InsufficientPrivilege:
            assert own_harness.server.version >= 16
        c.execute("SELECT lo_create(0)")
    removal = adapter.drop_user(spec.username, spec.level)
    named = [*removal.left_behind, *(note for note in removal.notes if note.startswith("left behind by"))]
    assert len([name for name in named if "large object" in name]) == 1
    assert managed_roles(own_harness, "support") == []


def test_settings_apply_to_the_user(harness: EngineHarness) -> None:
    settings = {"statement_timeout": "7min", "search_path": "shop, public", "default_transaction_read_only": "on"}
    spec = harness.spec(Level(name="readonly", roles=("shop_reader",), settings=settings))
    harness.adapter().create_user(spec)
    with harness.login(spec) as c:
        assert c.execute("SHOW statement_timeout").fetchone() == ("7min",)
        assert c.execute("SELECT count(*) FROM customers").fetchone() == (1000,)
        assert c.execute("SHOW transaction_read_only").fetchone() == ("on",)
    harness.adapter().drop_user(spec.username, spec.level)


def test_the_remedy_for_a_refused_setting_works(harness: EngineHarness) -> None:
    spec = harness.spec(Level(name="readonly", roles=("shop_reader",), settings={"log_statement": "all"}))
    with pytest.raises(Rejected) as rejected:
        harness.adapter().create_user(spec)
    assert rejected.value.remedy == f"GRANT SET ON PARAMETER log_statement TO {harness.owner or harness.bot};"
    with harness.superuser() as c:
        c.execute(rejected.value.remedy.encode())
    harness.adapter().create_user(spec)
    harness.adapter().drop_user(spec.username, spec.level)


def test_a_level_of_another_database_works(harness: EngineHarness) -> None:
    with harness.superuser(harness.other) as c:
        c.execute("CREATE SCHEMA IF NOT EXISTS next")
        c.execute("CREATE TABLE IF NOT EXISTS next.things (id int)")
        holder = harness.owner or harness.bot
        c.execute(f"GRANT USAGE ON SCHEMA next TO {holder} WITH GRANT OPTION".encode())
        c.execute(f"GRANT SELECT ON next.things TO {holder} WITH GRANT OPTION".encode())
    level = replace(grants_level("next.things", name="next"), database=harness.other)
    spec, adapter = harness.spec(level), harness.adapter()
    adapter.create_user(spec)
    endpoint = adapter.endpoint(level)
    assert endpoint.database == harness.other
    with harness.login(spec, harness.other) as c:
        assert c.execute("SELECT count(*) FROM next.things").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        harness.login(spec)
    adapter.drop_user(spec.username, level)
    assert managed_roles(harness, "next") == []


def test_the_endpoint_has_the_configured_values(harness: EngineHarness) -> None:
    connect = Connect(host="2001:db8::7", port=6000, database="sh op$", tls="require", note="VPN only")
    endpoint = harness.adapter(connect=connect).endpoint(readonly())
    assert endpoint.command == 'psql "postgresql://{username}:{password}@[2001:db8::7]:6000/sh%20op%24?sslmode=require"'
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.note) == ("2001:db8::7", 6000, "require", "VPN only")
