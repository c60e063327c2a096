"""What ``check`` says of a server, and that the statement it gives mends it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.base import Finding, Grant, Health, Level, Rejected
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
    """One that a test may spoil."""
    flavour: Flavour = request.param
    return EngineHarness((started(flavour),))


def remedy(harness: EngineHarness, finding: Finding) -> None:
    """As an administrator pastes it."""
    assert finding.remedy is not None
    harness.server.run(*finding.remedy.split())


def words(findings: tuple[Finding, ...]) -> str:
    return "\n".join(f"{finding.what} | {finding.remedy}" for finding in findings)


def test_nothing_to_say_of_a_healthy_server(harness: EngineHarness) -> None:
    health = harness.adapter().check([READING, WRITING, NARROW])
    assert health.problems == ()
    assert health.warnings == ()
    assert health.version.startswith(
        {REDIS: "Redis 7.0.", REDIS8: "Redis 8.0.", VALKEY: "Valkey 8.1."}[harness.server.flavour]
    )


def test_it_changes_nothing(harness: EngineHarness) -> None:
    before = harness.server.run("ACL", "LIST")
    assert harness.adapter().check([READING, NARROW]).identity == ""
    assert harness.server.run("ACL", "LIST") == before


@pytest.mark.parametrize("right", LACKING)
def test_a_missing_right_is_a_problem_and_its_statement_mends_it(harness: EngineHarness, right: str) -> None:
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    (problem,) = harness.adapter().check([READING]).problems
    assert right in problem.what
    remedy(harness, problem)
    assert harness.adapter().check([READING]).problems == ()


@pytest.mark.parametrize("right", ["config|rewrite", "script|kill", "function|kill", "acl|dryrun"])
def test_a_right_that_is_needed_at_times_is_a_warning(harness: EngineHarness, right: str) -> None:
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    health = harness.adapter().check([READING])
    assert health.problems == ()
    (warning,) = health.warnings
    assert right in words((warning,))
    remedy(harness, warning)
    assert harness.adapter().check([READING]).warnings == ()


@pytest.mark.parametrize("right", LACKING)
def test_an_end_without_a_right_names_it_and_ends_what_it_can(harness: EngineHarness, right: str) -> None:
    """Somebody took a right away while the grant lived."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    make_bot(harness.server, harness.bot, [word for word in RIGHTS if word != right])
    if right in ("acl|setuser", "acl|users", "client|kill"):
        assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    else:
        with pytest.raises(Rejected) as caught:
            adapter.drop_user(spec.username, READING)
        assert caught.value.remedy == f"ACL SETUSER {harness.bot} +{right}"
    assert session.is_alive() == (right in ("acl|getuser", "acl|deluser"))
    harness.server.run("ACL", "SETUSER", harness.bot, f"+{right}")
    adapter.drop_user(spec.username, READING)
    assert not session.is_alive()
    harness.server.restart()
    assert not harness.has_user(spec.username)


def test_an_open_default_account_is_fatal_and_nobody_is_made(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    (problem,) = harness.adapter().check([READING]).problems
    spec = harness.spec(READING)
    with pytest.raises(Rejected, match="without a password") as caught:
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)
    assert caught.value.remedy == problem.remedy
    remedy(harness, problem)
    assert harness.adapter().check([READING]).problems == ()
    harness.adapter().create_user(spec)


def test_an_end_is_not_held_up_by_an_open_default_account(harness: EngineHarness) -> None:
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    harness.server.run("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    assert not harness.adapter().drop_user(spec.username, READING).was_absent


def test_a_default_account_with_a_password_will_do(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "default", "on", f">{BOT_PASSWORD}", "+@all", "~*")
    as_default = harness.adapter(bot="default")
    health = as_default.check([READING])
    assert health.problems == ()
    (warning,) = health.warnings
    assert "may do more than it needs" in warning.what
    statement = str(warning.remedy).replace("PASSWORD", BOT_PASSWORD)
    harness.server.run(*statement.split())
    assert harness.adapter(bot="dbaccess").check([READING]).warnings == ()
    spec = harness.spec(READING)
    harness.adapter(bot="dbaccess").create_user(spec)
    assert not harness.adapter(bot="dbaccess").drop_user(spec.username, READING).was_absent


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (Level(name="x", roles=("orders_reader",)), "roles: [readonly] or [readwrite]"),
        (Level(name="x", grants=(Grant(on=("a",), privileges=("hgett",)),)), "knows no command hgett"),
        (Level(name="x", grants=(Grant(on=("a",), privileges=("keys",)),)), "'keys'"),
        (Level(name="x", grants=(Grant(on=("a",), privileges=("SELECT",)),)), None),
        (Level(name="x", roles=("readonly",), database="orders"), "'orders' is no database"),
        (Level(name="x", roles=("readonly",), settings={"timeout": "5"}), "no setting timeout"),
    ],
)
def test_a_level_that_cannot_be_given_is_a_problem(harness: EngineHarness, level: Level, said: str | None) -> None:
    found = harness.adapter().check([READING, level]).problems
    if said is None:
        assert found == ()
    else:
        (problem,) = found
        assert said in words((problem,))


def test_a_sentinel_is_no_server(started: Callable[..., RedisServer]) -> None:
    sentinel = EngineHarness.__new__(EngineHarness)
    server = started(arguments=("--sentinel",), saves_in="config")
    server.run("ACL", "SETUSER", "dbaccess", "on", f">{BOT_PASSWORD}", "+@all")
    sentinel.nodes, sentinel.prefix, sentinel.ledger, sentinel.passwords = (server,), "jit_", "ledger", {}
    health = sentinel.adapter(bot="dbaccess").check()
    assert "is a Sentinel" in words(health.problems)


def test_health_says_that_the_server_ends_nothing(harness: EngineHarness) -> None:
    health: Health = harness.adapter().check()
    assert health.enforced.value == "nothing"
