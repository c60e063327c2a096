"""Servers with other settings: password policies, partial revokes, unusual modes, a replica that is promoted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pymysql
import pytest

from adapters.base import AdapterError, Level, PrivilegeGrant, UserSpec
from bot.access.password import make_password
from bot.trial import Step, run_trial
from tests.conftest import had
from tests.contract.mysql.harness import EngineHarness, build
from tests.contract.mysql.hostile import closed_after_test, create_user, run, try_drop
from tests.open_faults import open_fault
from tests.servers import mysql as servers


def own_server(flavour: servers.Flavour, *options: str) -> Iterator[EngineHarness]:
    for server in had(lambda: servers.start(flavour, *options)):
        yield build(server)


def spec_with_real_password(harness: EngineHarness, level: Level) -> UserSpec:
    return replace(harness.spec(level), password=make_password())


def is_granted(harness: EngineHarness, level: Level) -> bool:
    """Whether create_user and set_password work with passwords as the bot makes them."""
    spec = spec_with_real_password(harness, level)
    fresh = make_password()
    try:
        harness.adapter().create_user(spec)
        harness.adapter().set_password(spec.username, fresh)
    except AdapterError:
        return False
    finally:
        try_drop(harness, spec)
    return True


# Password policies.


@pytest.fixture(scope="module")
def policy() -> Iterator[EngineHarness]:
    for harness in own_server(servers.MYSQL):
        harness.server.run("INSTALL COMPONENT 'file://component_validate_password'")
        yield harness


def set_policy(harness: EngineHarness, name: str) -> None:
    harness.server.run(f"SET GLOBAL validate_password.policy = {name}")


def test_password_meets_the_low_policy(policy: EngineHarness) -> None:
    set_policy(policy, "LOW")
    assert is_granted(policy, policy.reading)


@open_fault("U5", "a password of letters and digits has no special character, so the server refuses every grant")
@pytest.mark.parametrize("name", ["MEDIUM", "STRONG"])
def test_password_meets_a_stricter_policy_or_check_reports_it(policy: EngineHarness, name: str) -> None:
    set_policy(policy, name)
    health = policy.adapter().check([policy.reading])
    assert is_granted(policy, policy.reading) or [f for f in health.problems if "password" in f.what]


@open_fault("U5", "the trial generates other passwords than grants do, so it succeeds where no grant can be made")
def test_trial_and_grant_have_the_same_result(policy: EngineHarness) -> None:
    """Twelve tries each: most of the trial's passwords contain a special character."""
    set_policy(policy, "MEDIUM")
    tries = range(12)
    trials = [_trial_succeeds(policy) for _ in tries]
    grants = [is_granted(policy, policy.reading) for _ in tries]
    assert any(trials) == any(grants)


def _trial_succeeds(harness: EngineHarness) -> bool:
    steps = list[Step]()
    return run_trial(
        harness.adapter(), harness.reading, prefix=harness.prefix, report=steps.append, stop=threading.Event()
    )


@pytest.fixture(scope="module")
def checked() -> Iterator[EngineHarness]:
    yield from own_server(servers.MARIADB)


@pytest.mark.parametrize("plugin", ["simple_password_check", "password_reuse_check"])
def test_password_policy_of_mariadb_is_not_reported_as_a_replica(checked: EngineHarness, plugin: str) -> None:
    """The plugin cannot check a hash, and refuses it with the error number that a read-only server uses too."""
    checked.server.run(f"INSTALL SONAME '{plugin}'")
    try:
        with pytest.raises(AdapterError) as caught:
            checked.adapter().create_user(spec_with_real_password(checked, checked.reading))
        assert "strict-password-validation" in str(caught.value)
        assert "replica" not in str(caught.value)
        checked.server.run("SET GLOBAL strict_password_validation = OFF")
        assert is_granted(checked, checked.reading)
    finally:
        checked.server.run("SET GLOBAL strict_password_validation = ON", f"UNINSTALL SONAME '{plugin}'")


def test_check_reports_a_password_policy_of_mariadb(checked: EngineHarness) -> None:
    checked.server.run("INSTALL SONAME 'simple_password_check'")
    try:
        health = checked.adapter().check([checked.reading])
        assert is_granted(checked, checked.reading) or [f for f in health.problems if "password" in f.what]
    finally:
        checked.server.run("UNINSTALL SONAME 'simple_password_check'")


# Modes and options.


@pytest.fixture(scope="module")
def unusual_mysql() -> Iterator[EngineHarness]:
    yield from own_server(
        servers.MYSQL,
        "--sql-mode=ANSI,NO_BACKSLASH_ESCAPES",
        "--activate-all-roles-on-login=ON",
        "--password-history=5",
        "--password-reuse-interval=365",
        "--default-password-lifetime=1",
        "--password-require-current=ON",
        "--authentication-policy=caching_sha2_password,,",
    )


@pytest.fixture(scope="module")
def unusual_mariadb() -> Iterator[EngineHarness]:
    yield from own_server(
        servers.MARIADB,
        "--sql-mode=ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH",
        "--default-password-lifetime=1",
        "--disconnect-on-expired-password=ON",
        "--event-scheduler=OFF",
    )


@pytest.fixture(params=["mysql", "mariadb"])
def unusual(request: pytest.FixtureRequest) -> EngineHarness:
    found: EngineHarness = request.getfixturevalue(f"unusual_{request.param}")
    return found


def test_grants_work_under_unusual_modes_and_password_rules(unusual: EngineHarness) -> None:
    for level in (unusual.reading, unusual.narrow):
        assert unusual.adapter().check([level]).problems == ()
        spec = create_user(unusual, level)
        session = closed_after_test(unusual.server.connect(spec.username, spec.password))
        assert run(session, f"SELECT COUNT(*) FROM {unusual.database}.customers") == [(100,)]
        unusual.adapter().set_password(spec.username, make_password())
        assert not unusual.adapter().drop_user(spec.username, level).was_absent
        assert not unusual.has_user(spec.username)


def whole(harness: EngineHarness) -> Level:
    return Level(name="whole", grants=(PrivilegeGrant(on=(f"{harness.database}.*",), privileges=("SELECT",)),))


@pytest.mark.parametrize("everywhere", [False, True])
def test_level_on_a_whole_database_works_under_partial_revokes(unusual_mysql: EngineHarness, everywhere: bool) -> None:
    """The shop's name contains a ``_``."""
    harness = build(unusual_mysql.server)
    harness.server.run("SET GLOBAL partial_revokes = ON")
    on = "*.*" if everywhere else f"`{harness.database}`.*"
    harness.server.run(f"GRANT SELECT ON {on} TO `{harness.bot}`@`%` WITH GRANT OPTION")
    spec = spec_with_real_password(harness, whole(harness))
    try:
        harness.adapter().create_user(spec)
        session = closed_after_test(harness.server.connect(spec.username, spec.password))
        found = run(session, f"SELECT COUNT(*) FROM `{harness.database}`.customers")
    except (AdapterError, pymysql.MySQLError) as error:
        raise AssertionError(f"the level gives no access: {error}") from None
    finally:
        try_drop(harness, spec)
        harness.server.run("SET GLOBAL partial_revokes = OFF")
    assert found == [(100,)]
