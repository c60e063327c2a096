"""The findings of ``check``, and that the statement of each fixes it. Servers that are too old get no new users."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from adapters.base import Finding, Level, PrivilegeGrant, Rejected
from adapters.redis import findings
from adapters.redis.session import Session
from tests.contract.redis.harness import (
    BOT_PASSWORD,
    LACKING,
    NARROW,
    READING,
    RIGHTS,
    WRITING,
    EngineHarness,
    make_bot,
)
from tests.servers.redis import REDIS, REDIS8, VALKEY, Flavour, RedisServer


@pytest.fixture(params=[REDIS, REDIS8, VALKEY], ids=lambda flavour: flavour.name)
def harness(request: pytest.FixtureRequest, started: Callable[..., RedisServer]) -> EngineHarness:
    """On a server of the test's own, which it may break."""
    flavour: Flavour = request.param
    return EngineHarness((started(flavour),))


def apply_remedy(harness: EngineHarness, finding: Finding) -> None:
    """Run the statement as an administrator would paste it."""
    assert finding.remedy is not None
    harness.server.run(*finding.remedy.split())


def text_of(*found: Finding) -> str:
    return "\n".join(f"{finding.what} | {finding.remedy}" for finding in found)


def test_healthy_server_has_no_problems_and_no_warnings(harness: EngineHarness) -> None:
    health = harness.adapter().check([READING, WRITING, NARROW])
    assert health.problems == ()
    assert health.warnings == ()
    assert health.version.startswith(
        {REDIS: "Redis 7.0.", REDIS8: "Redis 8.0.", VALKEY: "Valkey 8.1."}[harness.server.flavour]
    )


def test_check_changes_nothing(harness: EngineHarness) -> None:
    before = harness.server.run("ACL", "LIST")
    assert harness.adapter().check([READING, NARROW]).identity == ""
    assert harness.server.run("ACL", "LIST") == before


@pytest.mark.parametrize("right", LACKING)
def test_missing_right_is_a_problem_and_its_remedy_fixes_it(harness: EngineHarness, right: str) -> None:
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    (problem,) = harness.adapter().check([READING]).problems
    assert right in problem.what
    apply_remedy(harness, problem)
    assert harness.adapter().check([READING]).problems == ()


@pytest.mark.parametrize("right", ["config|rewrite", "script|kill", "function|kill", "acl|dryrun"])
def test_missing_optional_right_is_a_warning_and_its_remedy_fixes_it(harness: EngineHarness, right: str) -> None:
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    health = harness.adapter().check([READING])
    assert health.problems == ()
    (warning,) = health.warnings
    assert right in text_of(warning)
    apply_remedy(harness, warning)
    assert harness.adapter().check([READING]).warnings == ()


@pytest.mark.parametrize("right", LACKING)
def test_drop_without_a_right_names_the_right_and_ends_what_it_can(harness: EngineHarness, right: str) -> None:
    """An administrator took a right from the bot after the user was created."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    if right in ("acl|setuser", "acl|users"):
        assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    else:
        with pytest.raises(Rejected) as caught:
            adapter.drop_user(spec.username, READING)
        assert caught.value.remedy == f"ACL SETUSER {harness.bot} +{right}"
    assert not session.is_alive()
    harness.server.run("ACL", "SETUSER", harness.bot, f"+{right}")
    adapter.drop_user(spec.username, READING)
    assert not session.is_alive()
    harness.server.restart()
    assert not harness.has_user(spec.username)


def test_open_default_account_is_a_problem_and_create_is_rejected(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    (problem,) = harness.adapter().check([READING]).problems
    spec = harness.spec(READING)
    with pytest.raises(Rejected, match="without a password") as caught:
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)
    assert caught.value.remedy == problem.remedy
    apply_remedy(harness, problem)
    assert harness.adapter().check([READING]).problems == ()
    harness.adapter().create_user(spec)


def test_open_default_account_does_not_prevent_a_drop(harness: EngineHarness) -> None:
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    harness.server.run("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    assert not harness.adapter().drop_user(spec.username, READING).was_absent


def test_bot_that_uses_the_default_account_works_with_a_warning(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "default", "on", f">{BOT_PASSWORD}", "+@all", "~*")
    as_default = harness.adapter(bot="default")
    health = as_default.check([READING])
    assert health.problems == ()
    (warning,) = health.warnings
    assert "may do more than the bot needs" in warning.what
    statement = str(warning.remedy).replace("PASSWORD", BOT_PASSWORD)
    harness.server.run(*statement.split())
    assert harness.adapter(bot="dbaccess").check([READING]).warnings == ()
    spec = harness.spec(READING)
    harness.adapter(bot="dbaccess").create_user(spec)
    assert not harness.adapter(bot="dbaccess").drop_user(spec.username, READING).was_absent


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (Level(name="x", roles=("orders_reader",)), "roles: [readonly] or [readwrite]"),
        (Level(name="x", grants=(PrivilegeGrant(on=("a",), privileges=("hgett",)),)), "knows no command hgett"),
        (Level(name="x", grants=(PrivilegeGrant(on=("a",), privileges=("keys",)),)), "'keys'"),
        (Level(name="x", grants=(PrivilegeGrant(on=("a",), privileges=("SELECT",)),)), None),
        (Level(name="x", roles=("readonly",), database="orders"), "'orders' is no database"),
        (Level(name="x", roles=("readonly",), settings={"timeout": "5"}), "no setting timeout"),
    ],
)
def test_level_that_cannot_be_granted_is_a_problem(harness: EngineHarness, level: Level, expected: str | None) -> None:
    found = harness.adapter().check([READING, level]).problems
    if expected is None:
        assert found == ()
    else:
        (problem,) = found
        assert expected in text_of(problem)


def test_sentinel_is_a_problem(started: Callable[..., RedisServer]) -> None:
    sentinel = EngineHarness.__new__(EngineHarness)
    server = started(arguments=("--sentinel",), saves_in="config")
    server.run("ACL", "SETUSER", "dbaccess", "on", f">{BOT_PASSWORD}", "+@all")
    sentinel.nodes, sentinel.prefix, sentinel.ledger, sentinel.passwords = (server,), "jit_", "ledger", {}
    health = sentinel.adapter(bot="dbaccess").check()
    assert "is a Sentinel" in text_of(*health.problems)


def test_check_says_that_the_server_ends_nothing_by_itself(harness: EngineHarness) -> None:
    assert harness.adapter().check().enforced.value == "nothing"


# Versions. The servers of these tests are supported, so the oldest supported version is raised above them.


@pytest.mark.parametrize(
    ("info", "version", "is_supported"),
    [
        ({"redis_version": "6.0.16"}, "Redis 6.0.16", False),
        ({"redis_version": "6.2.14"}, "Redis 6.2.14", False),
        ({"redis_version": "7.0.0"}, "Redis 7.0.0", True),
        ({"redis_version": "8.6.3"}, "Redis 8.6.3", True),
        ({"redis_version": "10.0.0"}, "Redis 10.0.0", True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "7.2.11"}, "Valkey 7.2.11", False),
        ({"redis_version": "7.2.4", "server_name": "valkey"}, "Valkey 7.2.4", False),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.0.0"}, "Valkey 8.0.0", True),
        ({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"}, "Valkey 9.1.2", True),
        ({}, "Redis of unknown version", False),
    ],
)
def test_redis_7_and_valkey_8_are_the_oldest_supported_versions(
    info: dict[str, str], version: str, is_supported: bool
) -> None:
    found = findings.server_version(info)
    assert (str(found), found.is_supported) == (version, is_supported)


@pytest.fixture
def raise_oldest_supported(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(findings, "OLDEST_SUPPORTED", {"Redis": 99, "Valkey": 99})


def test_check_of_an_unsupported_version_says_what_to_upgrade_to(
    harness: EngineHarness, raise_oldest_supported: Callable[[], None]
) -> None:
    version = harness.adapter().check([READING]).version
    raise_oldest_supported()
    health = harness.adapter().check([READING])
    assert health.version == version
    (problem,) = health.problems
    assert f"{harness.server.port} runs {version}, which is too old for new users" in problem.what
    assert problem.remedy == "upgrade it to Redis 99.0 or later, or Valkey 99.0 or later"


def test_unsupported_version_gets_no_new_user_and_no_mark(
    harness: EngineHarness, raise_oldest_supported: Callable[[], None]
) -> None:
    raise_oldest_supported()
    spec, before = harness.spec(READING), harness.server.run("ACL", "LIST")
    for verb in (lambda: harness.adapter().create_user(spec), harness.adapter().identity):
        with pytest.raises(Rejected, match="too old for new users") as caught:
            verb()
        assert str(caught.value.remedy).startswith("upgrade it to Redis")
    assert harness.server.run("ACL", "LIST") == before


def test_users_of_an_unsupported_version_are_still_listed_extended_and_dropped(
    harness: EngineHarness, raise_oldest_supported: Callable[[], None]
) -> None:
    adapter = harness.adapter(identity=harness.adapter().identity())
    marked, unmarked = harness.spec(READING), harness.spec(READING)
    adapter.create_user(marked)
    harness.make_foreign_user(unmarked.username, unmarked.password)
    sessions = [harness.login(spec.username, spec.password) for spec in (marked, unmarked)]
    raise_oldest_supported()
    assert {user.username for user in adapter.list_users()} == {marked.username, unmarked.username}
    adapter.set_expiry(marked.username, 60)
    for spec in (marked, unmarked):
        assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not any(session.is_alive() for session in sessions)
    assert adapter.list_users() == []


def test_server_that_does_not_report_its_clock_still_drops_users(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis 6 does not report it."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    monkeypatch.setattr(Session, "now", lambda _: None)
    with pytest.raises(Rejected, match="does not report its clock"):
        adapter.create_user(harness.spec(READING))
    removal = adapter.drop_user(spec.username, READING)
    assert not removal.was_absent
    assert abs(removal.read_back_at - datetime.now(UTC)) < timedelta(minutes=1)
