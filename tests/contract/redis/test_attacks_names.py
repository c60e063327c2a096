"""Servers with renamed or disabled commands, and unusual passwords, addresses and key patterns."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from adapters.base import AdapterError, Level, PrivilegeGrant, Rejected, Secrets
from adapters.redis import Redis
from tests.contract.redis.harness import BOT_PASSWORD, READING, RIGHTS, EngineHarness
from tests.open_faults import open_fault, require
from tests.servers.postgresql import has_ipv6
from tests.servers.redis import PASSWORD, REDIS, TESTER, VALKEY, Flavour, RedisServer

FANCY = "p@ss/w:rd#1?x%zz&+ é"
DISABLED = 'rename-command {} ""\n'
PLACES = ("aclfile", "config")
WITHOUT_CONFIG = {"disabled": 'rename-command CONFIG ""\n', "renamed": 'rename-command CONFIG "cfg-9f"\n'}
HARMLESS = {
    "plain": "",
    "commands that the bot does not need are disabled": "".join(
        f'rename-command {c} ""\n' for c in ("FLUSHALL", "DEBUG", "KEYS", "SHUTDOWN")
    ),
    "channels are allowed for everybody": "acl-pubsub-default allchannels\n",
    "refusals are not logged": "acllog-max-len 0\n",
}


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


def as_administrator(
    harness: EngineHarness, server: RedisServer, user: str = TESTER, password: str = PASSWORD
) -> Redis:
    """An adapter that logs in with an administrator's account."""
    return Redis(harness.target(), Secrets(admin_url=server.url(user, quote(password, safe=""))))


def assert_grant_works(harness: EngineHarness, adapter: Redis, level: Level = READING) -> None:
    """Create a user, log in, change the password, drop the user."""
    assert adapter.check([level]).problems == ()
    spec = harness.spec(level)
    adapter.create_user(spec)
    login = adapter.login(spec.username, spec.password, level)
    assert login.is_alive()
    adapter.set_password(spec.username, "f" * 32)
    assert adapter.drop_user(spec.username, level).sessions_ended == 1
    assert not login.is_alive()
    assert not harness.has_user(spec.username)


def try_to_create(harness: EngineHarness, adapter: Redis) -> tuple[AdapterError | None, bool]:
    """The error of a create, None without one, and whether the user exists afterwards."""
    spec = harness.spec(READING)
    try:
        adapter.create_user(spec)
    except AdapterError as error:
        return error, harness.has_user(spec.username)
    return None, harness.has_user(spec.username)


def make_harness(server: RedisServer, bot: str, rights: list[str]) -> EngineHarness:
    """A harness for a server on which the ordinary one cannot be made: it cannot save users, or lacks a command. The bot is not saved."""
    harness = EngineHarness.__new__(EngineHarness)
    harness.nodes, harness.bot, harness.ledger, harness.prefix, harness.passwords = (
        (server,),
        bot,
        "ledger1",
        "jit_",
        {},
    )
    if bot != TESTER:
        server.run("ACL", "SETUSER", bot, "reset", "on", f">{BOT_PASSWORD}", *(f"+{right}" for right in rights))
    return harness


def without_config(server: RedisServer) -> EngineHarness:
    return make_harness(server, "dbaccess", [right for right in RIGHTS if right != "config|rewrite"])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", HARMLESS)
def test_harmless_settings_change_nothing(
    flavour: Flavour, started: Callable[..., RedisServer], place: str, what: str
) -> None:
    harness = EngineHarness((started(flavour, saves_in=place, extra=HARMLESS[what]),))
    assert_grant_works(harness, harness.adapter())


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
def test_server_with_an_acl_file_does_not_need_config(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = EngineHarness((started(flavour, extra=WITHOUT_CONFIG[how]),))
    assert_grant_works(harness, harness.adapter())


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
@open_fault("U6", "users cannot be saved there, and check only warns, as if a right were missing")
def test_check_has_a_problem_where_users_cannot_be_saved(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = without_config(started(flavour, saves_in="config", extra=WITHOUT_CONFIG[how]))
    found = harness.adapter().check([READING])
    require(found.warnings, "check warns")
    assert any("aclfile" in str(finding.remedy) for finding in found.problems), "only an ACL file helps"


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
@open_fault("U6", "users cannot be saved there, and the create is repeated for ever, as if the server were down")
def test_create_is_rejected_where_users_cannot_be_saved(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = without_config(started(flavour, saves_in="config", extra=WITHOUT_CONFIG[how]))
    error, is_there = try_to_create(harness, harness.adapter())
    require(error is not None, "no user is created that a restart would forget")
    assert isinstance(error, Rejected)
    assert "aclfile" in str(error.remedy)
    assert not is_there


def administrator_harness(server: RedisServer) -> tuple[EngineHarness, Redis]:
    """A harness and an adapter that use the administrator's account as the bot."""
    harness = make_harness(server, TESTER, RIGHTS)
    return harness, as_administrator(harness, server)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", ["info", "client"])
def test_check_names_a_disabled_command(
    flavour: Flavour, started: Callable[..., RedisServer], place: str, command: str
) -> None:
    _, adapter = administrator_harness(started(flavour, saves_in=place, extra=DISABLED.format(command)))
    assert [finding for finding in adapter.check([READING]).problems if command in finding.what]


@pytest.mark.parametrize("command", ["info", "client"])
@open_fault("U6", "a disabled command is reported as a missing right, and the remedy changes nothing")
def test_remedy_for_a_disabled_command_fixes_it(
    flavour: Flavour, started: Callable[..., RedisServer], command: str
) -> None:
    server = started(flavour, extra=DISABLED.format(command))
    _, adapter = administrator_harness(server)
    before = adapter.check([READING]).problems
    require(before, "check reports a problem")
    for finding in before:
        if str(finding.remedy).startswith("ACL SETUSER"):
            server.run(*str(finding.remedy).split())
    assert not set(before) & set(adapter.check([READING]).problems)


def test_create_is_rejected_where_the_end_of_sessions_cannot_be_proven(
    flavour: Flavour, started: Callable[..., RedisServer]
) -> None:
    harness, adapter = administrator_harness(started(flavour, extra=DISABLED.format("client")))
    error, is_there = try_to_create(harness, adapter)
    assert isinstance(error, Rejected)
    assert not is_there


def test_drop_deletes_the_user_where_the_end_of_sessions_cannot_be_proven(
    flavour: Flavour, started: Callable[..., RedisServer]
) -> None:
    """CLIENT was disabled after the user was created."""
    harness, adapter = administrator_harness(started(flavour, extra=DISABLED.format("client")))
    spec = harness.spec(READING)
    harness.make_foreign_user(spec.username, spec.password)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(AdapterError):
        adapter.drop_user(spec.username, READING)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)


def test_create_is_rejected_without_info(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness, adapter = administrator_harness(started(flavour, extra=DISABLED.format("info")))
    error, is_there = try_to_create(harness, adapter)
    assert isinstance(error, Rejected)
    assert not is_there


def test_admin_password_with_special_characters(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(flavour),))
    harness.server.run("ACL", "SETUSER", "fancy", "on", f">{FANCY}", "~*", "&*", "+@all")
    harness.server.run("ACL", "SAVE")
    assert_grant_works(harness, as_administrator(harness, harness.server, "fancy", FANCY))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")
def test_admin_url_with_an_ipv6_address(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(flavour, extra="bind 127.0.0.1 ::1\n"),))
    url = f"redis://{harness.bot}:{BOT_PASSWORD}@[::1]:{harness.server.port}"
    adapter = Redis(harness.target(), Secrets(admin_url=url))
    assert_grant_works(harness, adapter)
    assert " -h ::1 " in adapter.endpoint(READING).command


@pytest.mark.parametrize(
    ("on", "privileges"),
    [(("order[0-9]:*", "{tag}:*"), ("@read", "scan")), (("a:*",), ("@READ", "HGET")), (("50%:*", "a|b:*"), ("get",))],
)
def test_key_patterns_and_privileges_with_special_characters(
    flavour: Flavour, started: Callable[..., RedisServer], on: tuple[str, ...], privileges: tuple[str, ...]
) -> None:
    harness = EngineHarness((started(flavour),))
    assert_grant_works(
        harness, harness.adapter(), Level(name="k", grants=(PrivilegeGrant(on=on, privileges=privileges),))
    )
