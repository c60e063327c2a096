"""Users that are blocked together: locks that one of them or somebody else holds, and what an administrator runs by hand."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.contract.mysql.harness import EngineHarness
from tests.contract.mysql.hostile import can_log_in, closed_after_test, connect, create_user, is_alive, is_locked
from tests.contract.mysql.test_attacks_ends import give_locks, hold


@pytest.mark.parametrize("name", ["accounts-written", "privileges", "events", "rows", "flushed"])
def test_lock_held_by_one_user_does_not_delay_the_others(own_harness: EngineHarness, name: str) -> None:
    holder, other = create_user(own_harness, own_harness.reading), create_user(own_harness, own_harness.writing)
    give_locks(own_harness)
    session, lock = connect(own_harness, other), connect(own_harness, holder)
    hold(own_harness, lock, name)
    names = {holder.username, other.username}
    assert other.username in own_harness.adapter().block_users(sorted(names))
    assert not is_alive(session)
    assert not can_log_in(own_harness, other.username, other.password)
    assert own_harness.adapter().block_users(sorted(names)) == names
    assert not is_alive(lock)
    for spec in (holder, other):
        own_harness.adapter().drop_user(spec.username, spec.level)


def test_lock_of_an_administrator_lets_nobody_be_blocked_and_ends_all_sessions(own_harness: EngineHarness) -> None:
    specs = [create_user(own_harness, own_harness.reading) for _ in range(3)]
    sessions = [connect(own_harness, spec) for spec in specs]
    names = [spec.username for spec in specs]
    with closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, "everything")
        assert own_harness.adapter().block_users(names) == frozenset()
        assert not any(is_alive(session) for session in sessions)
    assert own_harness.adapter().block_users(names) == set(names)
    for spec in specs:
        own_harness.adapter().drop_user(spec.username, spec.level)


def test_user_that_the_bot_may_not_end_is_left_out(own_harness: EngineHarness) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB has no accounts that are protected from each other")
    protected, other = create_user(own_harness, own_harness.reading), create_user(own_harness, own_harness.reading)
    own_harness.server.run(f"GRANT SYSTEM_USER ON *.* TO `{protected.username}`@`%`")
    sessions = [connect(own_harness, spec) for spec in (protected, other)]
    assert own_harness.adapter().block_users([protected.username, other.username]) == {other.username}
    assert [is_alive(session) for session in sessions] == [True, False]
    assert is_locked(own_harness, other.username)


def test_user_without_a_mark_is_blocked(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    own_harness.server.run(f"DROP EVENT {own_harness.ops_schema}.`{spec.username}`")
    assert own_harness.adapter().block_users([spec.username]) == {spec.username}
    assert is_locked(own_harness, spec.username)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_names_that_dbaccess_does_not_make_are_left_alone(own_harness: EngineHarness) -> None:
    assert own_harness.adapter().block_users([own_harness.bot, "root", "x' OR '1'='1"]) == frozenset()
    own_harness.adapter().identity()


def test_end_by_hand_ends_the_user(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    lock, kills, drop = own_harness.adapter().end_by_hand(spec.username)
    own_harness.server.run(lock)
    for (kill,) in own_harness.server.query(kills):
        own_harness.server.run(kill)
    own_harness.server.run(drop)
    assert not is_alive(session)
    assert not own_harness.has_user(spec.username)
    assert own_harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_comparison_names_what_was_given_by_hand(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    user, writer = f"`{spec.username}`@`%`", own_harness.server_role(own_harness.writer)
    own_harness.server.run(
        f"GRANT SELECT (id), UPDATE ON `{own_harness.database}`.orders TO {user} WITH GRANT OPTION",
        f"GRANT {writer} TO {user} WITH ADMIN OPTION",
        f"GRANT RELOAD ON *.* TO {user}",
        f"ALTER USER {user} REQUIRE SSL WITH MAX_USER_CONNECTIONS 0",
        f"CREATE USER `{spec.username}`@`localhost`",
    )
    found = own_harness.adapter().compare_users({spec.username: spec.level})
    text = "\n".join(found[spec.username])
    assert "RELOAD ON *.*" in text
    assert "SELECT (`id`), UPDATE" in text
    assert "WITH GRANT OPTION" in text
    assert f"its level does not give the role {own_harness.writer}" in text
    assert "ADMIN OPTION" in text
    assert "MAX_USER_CONNECTIONS is 0 and not 20" in text
    assert "TLS" in text
    assert "the host localhost" in text
    assert "PASSWORD '" not in text, "no hash of a password"
    own_harness.server.run(
        f"DROP USER `{spec.username}`@`localhost`", f"REVOKE {own_harness.server_role(own_harness.reader)} FROM {user}"
    )
    found = own_harness.adapter().compare_users({spec.username: spec.level})
    assert f"it lacks the role {own_harness.reader} of its level" in found[spec.username]
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_comparison_names_whom_the_users_rights_were_given_to(own_harness: EngineHarness) -> None:
    if own_harness.is_mariadb:
        pytest.skip("on MariaDB an account is no role")
    spec = create_user(own_harness, own_harness.reading)
    own_harness.server.run(f"GRANT `{spec.username}`@`%` TO `{own_harness.bot}`@`%`")
    found = own_harness.adapter().compare_users({spec.username: spec.level})
    assert found[spec.username] == (f"its rights were given to {own_harness.bot}",)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_refresh_takes_from_a_managed_role_what_its_level_does_not_give(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.narrow)
    adapter, level = own_harness.adapter(), own_harness.narrow
    (role,) = [
        name
        for (name,) in own_harness.server.query("SELECT user FROM mysql.user WHERE user LIKE 'dbaccess\\_support%'")
        if name in str(own_harness.server.query(f"SHOW GRANTS FOR `{spec.username}`@`%`"))
    ]
    quoted = own_harness.server_role(role)
    own_harness.server.run(f"GRANT UPDATE ON `{own_harness.database}`.customers TO {quoted}")
    own_harness.server.run(
        f"GRANT UPDATE ON `{own_harness.database}`.customers TO `{own_harness.bot}`@`%` WITH GRANT OPTION"
    )
    (sentence,) = adapter.refresh_levels([level, own_harness.reading])
    assert "UPDATE ON" in sentence
    assert "was revoked" in sentence
    own_harness.server.run(f"REVOKE SELECT ON `{own_harness.database}`.customers FROM {quoted}")
    (sentence,) = adapter.refresh_levels([level])
    assert "SELECT ON" in sentence
    assert "again" in sentence
    assert adapter.refresh_levels([level]) == []
    session = own_harness.login(spec.username, spec.password)
    assert session.read() > 0
    session.close()
    adapter.drop_user(spec.username, level)
