"""``compare_users`` names what somebody changed by hand, and ``refresh_levels`` brings new tables to live users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from adapters.base import Level, PrivilegeGrant, UserSpec
from adapters.postgresql.level import managed_roles as managed
from adapters.postgresql.level.grants import managed_role
from tests.contract.postgresql.harness import EngineHarness, support


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an administrator runs, and a part of the sentence about it. ``{user}`` is the user, ``{bot}`` the bot's role."""

    runs: str
    named: str


CHANGES = [
    Change(runs="ALTER ROLE {user} CREATEDB CREATEROLE", named="CREATEDB, CREATEROLE"),
    Change(runs="ALTER ROLE {user} NOLOGIN", named="NOLOGIN"),
    Change(runs="ALTER ROLE {user} NOINHERIT", named="NOINHERIT"),
    Change(runs="ALTER ROLE {user} CONNECTION LIMIT 50", named="connection limit is 50 instead of 5"),
    Change(runs="GRANT shop_writer TO {user}", named="shop_writer with"),
    Change(runs="GRANT shop_reader TO {user} WITH ADMIN OPTION", named="shop_reader with ADMIN TRUE"),
    Change(
        runs="SET ROLE {bot}; REVOKE shop_reader FROM {user}; RESET ROLE",
        named="not a member of roles that its level gives: shop_reader",
    ),
    Change(runs="CREATE ROLE mate_{user}; GRANT {user} TO mate_{user}", named="can act as this user: mate_"),
    Change(
        runs="ALTER ROLE {user} SET statement_timeout = 0",
        named="settings are not those of its level: statement_timeout",
    ),
    Change(runs="ALTER ROLE {user} SET work_mem = '1GB'", named="work_mem"),
    Change(runs="ALTER ROLE {user} RESET ALL", named="search_path, statement_timeout"),
    Change(
        runs="ALTER ROLE {user} IN DATABASE {database} SET work_mem = '1GB'",
        named="settings for one database: work_mem in ",
    ),
    Change(runs="GRANT SELECT ON shop.orders TO {user}", named="granted to the user itself: on 1 objects in "),
    Change(runs="GRANT CONNECT ON DATABASE {other} TO {user}", named="on 1 objects in the whole server"),
]


def level() -> Level:
    settings = {"statement_timeout": "5min", "search_path": "shop, public", "DateStyle": "ISO, MDY"}
    return Level(name="readonly", roles=("shop_reader",), settings=settings)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.named)
def test_a_change_by_hand_is_named(harness: EngineHarness, change: Change) -> None:
    spec, other, adapter = harness.spec(level()), harness.spec(level()), harness.adapter()
    levels = {spec.username: spec.level, other.username: other.level}
    for one in (spec, other):
        adapter.create_user(one)
    assert adapter.compare_users(levels) == {}
    words = {
        "user": spec.username,
        "bot": harness.owner or harness.bot,
        "database": harness.database,
        "other": harness.other,
    }
    with harness.superuser() as c:
        c.execute(change.runs.format(**words).encode())
    found = adapter.compare_users(levels)
    assert found.keys() == {spec.username}
    (sentence,) = found[spec.username]
    assert change.named in sentence
    with harness.superuser() as c:
        c.execute(f"DROP ROLE IF EXISTS mate_{spec.username}".encode())
    for one in (spec, other):
        adapter.drop_user(one.username, one.level)


@pytest.fixture
def live(own_harness: EngineHarness) -> Iterator[UserSpec]:
    """A user of a level of all tables of a schema."""
    grants = (PrivilegeGrant(on=("shop.*",), privileges=("SELECT",)),)
    owner = own_harness.owner or own_harness.bot
    with own_harness.superuser() as c:
        c.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA shop TO {owner} WITH GRANT OPTION".encode())
        c.execute(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT SELECT ON TABLES TO {owner} WITH GRANT OPTION".encode()
        )
    spec = own_harness.spec(Level(name="all", grants=grants))
    own_harness.adapter().create_user(spec)
    yield spec
    own_harness.adapter().drop_user(spec.username, spec.level)


def run_as_owner(harness: EngineHarness, statement: str) -> None:
    with harness.superuser() as c:
        c.execute(f"SET ROLE shop_owner; {statement}".encode())


def test_a_new_table_reaches_a_live_user(own_harness: EngineHarness, live: UserSpec) -> None:
    run_as_owner(own_harness, "CREATE TABLE shop.parcels (id int)")
    with own_harness.login(live) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM shop.parcels")
        (sentence,) = own_harness.adapter().refresh_levels([live.level, support()])
        assert sentence == "The managed role of the level all has now SELECT ON TABLE shop.parcels."
        session.execute("SELECT * FROM shop.parcels")
    assert own_harness.adapter().refresh_levels([live.level]) == []


def test_a_privilege_that_somebody_gave_or_revoked_is_put_right(own_harness: EngineHarness, live: UserSpec) -> None:
    role = managed_role(own_harness.target(), live.level)
    owner = own_harness.owner or own_harness.bot
    with own_harness.superuser() as c:
        c.execute(f"GRANT UPDATE ON shop.orders TO {owner} WITH GRANT OPTION; SET ROLE {owner}".encode())
        c.execute(f"REVOKE SELECT ON shop.customers FROM {role}; GRANT UPDATE ON shop.orders TO {role}".encode())
    (sentence,) = own_harness.adapter().refresh_levels([live.level])
    assert sentence == (
        "The managed role of the level all has now SELECT ON TABLE shop.customers and no longer UPDATE ON TABLE shop.orders."
    )
    with own_harness.login(live) as session:
        session.execute("SELECT * FROM shop.customers")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("UPDATE shop.orders SET customer = 1")


def test_an_error_on_one_level_stops_no_other(own_harness: EngineHarness, live: UserSpec) -> None:
    """A table of one level is gone, and the bot may not grant a privilege of another."""
    gone = own_harness.spec(Level(name="gone", grants=(PrivilegeGrant(on=("shop.parcels",), privileges=("SELECT",)),)))
    run_as_owner(own_harness, "CREATE TABLE shop.parcels (id int)")
    own_harness.adapter().create_user(gone)
    run_as_owner(own_harness, "DROP TABLE shop.parcels; CREATE TABLE shop.letters (id int)")
    first, second = own_harness.adapter().refresh_levels([gone.level, live.level])
    assert first == (
        "The managed role of the level gone was not made equal to it:"
        f" there is no table shop.parcels in {own_harness.database}"
    )
    assert "has now SELECT ON TABLE shop.letters" in second
    own_harness.adapter().drop_user(gone.username, gone.level)


def test_a_level_that_nobody_has_is_not_touched(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managed, "make_equal", None)
    assert own_harness.adapter().refresh_levels([support()]) == []
    assert not own_harness.role_exists(str(managed_role(own_harness.target(), support())))
