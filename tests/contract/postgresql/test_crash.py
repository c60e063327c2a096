"""Creation and revocation die after each statement. The next run completes them and leaves nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import psycopg
import pytest

from adapters.base import Level, PrivilegeGrant, Removal, UserSpec
from adapters.contract import Died
from tests.contract.postgresql.harness import EngineHarness, build, dies_after
from tests.servers.postgresql import PostgresServer


@pytest.fixture
def shop(postgresql: PostgresServer) -> EngineHarness:
    return build(postgresql)


def count_statements(verb: Callable[[], object]) -> int:
    with dies_after(None) as ran:
        verb()
    return len(ran)


def both() -> Level:
    """A level with an existing role and a managed role."""
    return Level(
        name="both",
        roles=("shop_writer",),
        grants=(PrivilegeGrant(on=("shop.customers",), privileges=("SELECT",)),),
        settings={"statement_timeout": "5min"},
    )


def leave_things(shop: EngineHarness, spec: UserSpec) -> None:
    with shop.login(spec) as c:
        c.execute("CREATE TABLE shop.left_table AS SELECT 1 AS one")
        c.execute("CREATE FUNCTION shop.left_function() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
        c.execute("SELECT lo_create(0)")
        c.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    prepared = shop.login(spec)
    prepared.execute("BEGIN")
    prepared.execute("CREATE TABLE shop.prepared (id int)")
    prepared.execute(f"PREPARE TRANSACTION '{spec.username}'".encode())
    prepared.close()


def clear(shop: EngineHarness) -> None:
    with shop.superuser() as c:
        c.execute("DROP TABLE IF EXISTS shop.left_table")
        c.execute("DROP FUNCTION IF EXISTS shop.left_function()")
        c.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


def roles_of_ledger(shop: EngineHarness) -> list[tuple[Any, ...]]:
    with shop.superuser() as c:
        query = (
            "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)"
            " OR starts_with(shobj_description(oid, 'pg_authid'), %s)"
        )
        return c.execute(query, (shop.prefix, f"dbaccess ledger={shop.ledger} ")).fetchall()


def test_create_is_completed_after_a_crash_at_each_statement(shop: EngineHarness) -> None:
    spec = shop.spec(both())
    statements = count_statements(lambda: shop.adapter().create_user(spec))
    shop.adapter().drop_user(spec.username, spec.level)
    assert statements > 10
    for step in range(1, statements + 1):
        spec = shop.spec(both())
        with dies_after(step), pytest.raises(Died):
            shop.adapter().create_user(spec)
        if step % 2:  # half of the grants are tried again, the others are ended at once
            shop.adapter().create_user(spec)
            with shop.login(spec) as c:
                assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        shop.adapter().drop_user(spec.username, spec.level)
        assert roles_of_ledger(shop) == [], f"after step {step}"


def test_drop_is_completed_after_a_crash_at_each_statement(shop: EngineHarness) -> None:
    def made() -> UserSpec:
        spec = shop.spec(both())
        shop.adapter().create_user(spec)
        leave_things(shop, spec)
        return spec

    for step in count(1):
        spec = made()
        session = shop.login(spec)
        if has_died := dies(shop, spec, step):
            removal = shop.adapter().drop_user(spec.username, spec.level)
            assert_nothing_left(shop, removal, step)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()
        clear(shop)
        if not has_died:
            break
    assert step > 20


def dies(shop: EngineHarness, spec: UserSpec, step: int) -> bool:
    """Drop the user and die after so many statements. False if the drop needs fewer."""
    with dies_after(step):
        try:
            shop.adapter().drop_user(spec.username, spec.level)
        except Died:
            return True
    return False


def assert_nothing_left(shop: EngineHarness, removal: Removal, step: int) -> None:
    """No managed role is left, and the renamed role owns the user's objects."""
    assert roles_of_ledger(shop) == [], f"after step {step}: {removal}"
    with shop.superuser() as c:
        owners = c.execute(
            "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'shop.left_table'::regclass UNION ALL"
            " SELECT proowner::regrole::text FROM pg_proc WHERE oid = 'shop.left_function()'::regprocedure UNION ALL"
            " SELECT lomowner::regrole::text FROM pg_largeobject_metadata"
        ).fetchall()
        assert len(owners) == 3, f"after step {step}"
        ((left_with,),) = set(owners)
        assert left_with == removal.left_with or removal.was_absent, f"after step {step}"
        assert c.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone() == (0,)
        member = "SELECT count(*) FROM pg_auth_members WHERE member = %s::regrole"
        assert c.execute(member, (left_with,)).fetchone() == (0,), f"after step {step}"
