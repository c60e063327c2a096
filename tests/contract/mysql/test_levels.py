"""Names in levels, levels that are refused, managed roles and limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from adapters.base import (
    ForeignUser,
    Level,
    LoginRefused,
    PrivilegeGrant,
    Rejected,
)
from adapters.harness import Denied, wait_until
from adapters.mysql.levels import managed_role
from tests.contract.mysql.harness import EngineHarness
from tests.contract.mysql.hostile import findings, grant_to_bot, is_locked, level_with


def test_underscore_in_a_database_name_is_no_wildcard(own_harness: EngineHarness) -> None:
    grant_to_bot(own_harness, "SELECT")
    beside = own_harness.database.replace("my_shop", "myXshop")
    own_harness.server.run(f"CREATE DATABASE {beside}", f"CREATE TABLE {beside}.customers (id INT)")
    spec = own_harness.spec(level_with("SELECT"))
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read() == 100
    with pytest.raises(Denied):
        session._query(f"SELECT COUNT(*) FROM {beside}.customers")
    session.close()
    own_harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize("name", ["x`; DROP TABLE customers; -- ", "x' OR ''='", 'x"y', "no\\such", "%"])
def test_hostile_names_in_levels_are_quoted_or_refused(harness: EngineHarness, name: str) -> None:
    for level in (
        Level(name="x", roles=(name,)),
        Level(name="x", grants=(PrivilegeGrant(on=(name,), privileges=("SELECT",)),)),
        Level(name="x", grants=(PrivilegeGrant(on=("customers",), privileges=(name,)),)),
    ):
        spec = harness.spec(level)
        with pytest.raises(Rejected):
            harness.adapter().create_user(spec)
        harness.adapter().check([level])
        assert not harness.has_user(spec.username) or is_locked(harness, spec.username)
        harness.adapter().drop_user(spec.username, spec.level)
    assert harness.server.query(f"SELECT COUNT(*) FROM {harness.database}.customers") == [(100,)]


def test_user_with_another_host_is_foreign(harness: EngineHarness) -> None:
    spec = harness.spec(harness.reading)
    harness.server.run(
        f"CREATE USER `{spec.username}`@`localhost` IDENTIFIED BY 'known0Password'",
        f"GRANT SELECT ON {harness.database}.* TO `{spec.username}`@`localhost`",
    )
    session = harness.login(spec.username, "known0Password")
    for change in (
        lambda: harness.adapter().create_user(spec),
        lambda: harness.adapter().drop_user(spec.username, spec.level),
    ):
        with pytest.raises(ForeignUser):
            change()
    assert session.is_alive()
    session.close()
    harness.server.run(f"DROP USER `{spec.username}`@`localhost`")


def test_user_whose_name_differs_in_case_is_foreign(own_harness: EngineHarness) -> None:
    """The process list compares names without case; accounts are compared with case. Neither the adapter nor the event touches the other user."""
    spec, fleeting = own_harness.spec(own_harness.reading), own_harness.spec(own_harness.reading, remaining=1)
    for one in (spec, fleeting):
        own_harness.adapter().create_user(one)
        own_harness.server.run(f"CREATE USER `{one.username.upper()}`@`%` IDENTIFIED BY 'Known0Password'")
    others = [own_harness.server.connect(one.username.upper(), "Known0Password") for one in (spec, fleeting)]
    mine = own_harness.login(spec.username, spec.password)
    assert own_harness.adapter().activity([spec.username])[0].sessions == 1
    assert own_harness.adapter().drop_user(spec.username, spec.level).sessions_ended == 1
    assert not mine.is_alive()
    wait_until(lambda: not own_harness.has_user(fleeting.username))
    for other in others:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1")
        other.close()


def test_check_reports_anonymous_accounts(own_harness: EngineHarness) -> None:
    own_harness.server.run("CREATE USER ''@'anonymous.example.com'")
    warnings = findings(own_harness, "anonymous account for anonymous.example.com")
    assert [f.is_fatal for f in warnings] == [False]
    assert warnings[0].remedy is not None
    own_harness.server.run(warnings[0].remedy.rstrip(";"))
    assert findings(own_harness, "anonymous.example.com") == []


# Levels.


@pytest.mark.parametrize("right", ["CREATE USER", "SUPER", "FILE", "PROCESS"])
def test_role_with_a_dangerous_right_is_refused(own_harness: EngineHarness, right: str) -> None:
    own_harness.server.run(f"GRANT {right} ON *.* TO {own_harness.server_role(own_harness.reader)}")
    spec = own_harness.spec(own_harness.reading)
    with pytest.raises(Rejected, match="could outlive the grant"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.has_user(spec.username)
    assert findings(own_harness, "could outlive the grant")


@pytest.mark.parametrize(
    ("privilege", "is_dangerous"),
    [
        ("INSERT ON *.*", True),
        ("UPDATE ON mysql.*", True),
        ("DELETE ON mysql.db", True),
        ("INSERT ON `%`.*", True),
        ("SELECT ON mysql.*", False),
        ("SELECT ON *.*", False),
        ("UPDATE ON {shop}.*", False),
    ],
)
def test_role_that_can_write_accounts_is_refused(
    own_harness: EngineHarness, privilege: str, is_dangerous: bool
) -> None:
    role = own_harness.server_role(own_harness.reader)
    own_harness.server.run(f"GRANT {privilege.replace('{shop}', own_harness.database)} TO {role}")
    spec = own_harness.spec(own_harness.reading)
    if is_dangerous:
        with pytest.raises(Rejected, match="could outlive the grant"):
            own_harness.adapter().create_user(spec)
    else:
        own_harness.adapter().create_user(spec)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_level_on_system_schemas_is_refused(own_harness: EngineHarness) -> None:
    for on in ("mysql.user", "mysql.*", f"{own_harness.ops_schema}.*"):
        with pytest.raises(Rejected, match="cannot give anything"):
            own_harness.adapter().create_user(own_harness.spec(level_with("SELECT", on=on)))


def test_dangerous_right_through_another_role_is_refused(own_harness: EngineHarness) -> None:
    role = own_harness.server_role
    own_harness.server.run(
        f"GRANT CREATE USER ON *.* TO {role(own_harness.writer)}",
        f"GRANT {role(own_harness.writer)} TO {role(own_harness.reader)}",
    )
    with pytest.raises(Rejected, match=f"through {own_harness.writer}"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))


@pytest.mark.parametrize(
    "privilege", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL", "GRANT OPTION", "SUPER", "SELECT, UPDATE", ""]
)
def test_privilege_that_no_level_may_grant_is_refused(harness: EngineHarness, privilege: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        harness.adapter().create_user(harness.spec(level_with(privilege)))


def test_managed_role_is_made_equal_to_its_level_and_dropped_with_its_last_user(own_harness: EngineHarness) -> None:
    level = own_harness.narrow
    role = managed_role(own_harness.target(), level)
    assert role is not None
    first, second = own_harness.spec(level), own_harness.spec(level)
    adapter = own_harness.adapter()
    adapter.create_user(first)
    own_harness.server.run(f"GRANT SELECT ON `{own_harness.database}`.orders TO {own_harness.server_role(role)}")
    grant_to_bot(own_harness, "SELECT")
    adapter.create_user(second)
    session = own_harness.login(second.username, second.password)
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    adapter.drop_user(first.username, level)
    assert own_harness.has_user(role)
    adapter.drop_user(second.username, level)
    assert not own_harness.has_user(role)


def test_level_with_several_roles_and_grants_works(own_harness: EngineHarness) -> None:
    level = Level(name="both", roles=(own_harness.reader, own_harness.writer), grants=own_harness.narrow.grants)
    spec = own_harness.spec(level)
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read_beside() == 100
    session.write()
    session.close()
    own_harness.adapter().drop_user(spec.username, level)


def test_users_of_a_managed_role_can_be_created_in_parallel(own_harness: EngineHarness) -> None:
    specs = [own_harness.spec(own_harness.narrow) for _ in range(16)]
    adapter = own_harness.adapter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(adapter.create_user, specs))
        for spec in specs:
            session = own_harness.login(spec.username, spec.password)
            assert session.read() == 100
            session.close()
        list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert not any(own_harness.has_user(spec.username) for spec in specs)


def test_server_enforces_the_limits_in_settings(harness: EngineHarness) -> None:
    spec = harness.spec(replace(harness.reading, settings={"max_user_connections": "2"}))
    harness.adapter().create_user(spec)
    sessions = [harness.login(spec.username, spec.password) for _ in range(2)]
    with pytest.raises(LoginRefused, match="max_user_connections"):
        harness.login(spec.username, spec.password)
    for session in sessions:
        session.close()
    harness.adapter().drop_user(spec.username, spec.level)
    with pytest.raises(Rejected, match="no setting statement_timeout"):
        harness.adapter().create_user(harness.spec(replace(harness.reading, settings={"statement_timeout": "5min"})))
