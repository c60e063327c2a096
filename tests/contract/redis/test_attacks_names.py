"""Servers whose commands were renamed or disabled, and the names, passwords and addresses that a server allows."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from adapters.base import AdapterError, Grant, Level, Rejected, Secrets
from adapters.redis import Redis
from tests.contract.redis.harness import BOT_PASSWORD, READING, RIGHTS, EngineHarness
from tests.open_faults import open_fault, require
from tests.servers.postgresql import has_ipv6
from tests.servers.redis import PASSWORD, REDIS, TESTER, VALKEY, Flavour, RedisServer

FANCY = "p@ss/w:rd#1?x%zz&+ é"
DISABLED = 'rename-command {} ""\n'
KEEPS = ("aclfile", "config")
WITHOUT_CONFIG = {"disabled": 'rename-command CONFIG ""\n', "renamed": 'rename-command CONFIG "cfg-9f"\n'}
HARMLESS = {
    "plain": "",
    "what the bot needs not": "".join(f'rename-command {c} ""\n' for c in ("FLUSHALL", "DEBUG", "KEYS", "SHUTDOWN")),
    "channels for everybody": "acl-pubsub-default allchannels\n",
    "no log of refusals": "acllog-max-len 0\n",
}


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


def as_administrator(
    harness: EngineHarness, server: RedisServer, user: str = TESTER, password: str = PASSWORD
) -> Redis:
    """A bot that logs in by an administrator's account, as many do."""
    return Redis(harness.target(), Secrets(admin_url=server.url(user, quote(password, safe=""))))


def expect_life(harness: EngineHarness, adapter: Redis, level: Level = READING) -> None:
    """A grant from its beginning to its end, with a new password on the way."""
    assert adapter.check([level]).problems == ()
    spec = harness.spec(level)
    adapter.create_user(spec)
    login = adapter.login(spec.username, spec.password, level)
    assert login.is_alive()
    adapter.set_password(spec.username, "f" * 32)
    assert adapter.drop_user(spec.username, level).sessions_ended == 1
    assert not login.is_alive()
    assert not harness.has_user(spec.username)


def outcome(harness: EngineHarness, adapter: Redis) -> tuple[AdapterError | None, bool]:
    """What a grant ends in, and whether its user is there afterwards."""
    spec = harness.spec(READING)
    try:
        adapter.create_user(spec)
    except AdapterError as trouble:
        return trouble, harness.has_user(spec.username)
    return None, harness.has_user(spec.username)


def unsaved(server: RedisServer, bot: str, rights: list[str]) -> EngineHarness:
    """A bench whose bot was not saved: this server cannot save, or lacks what a bench is made by."""
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
    return unsaved(server, "dbaccess", [right for right in RIGHTS if right != "config|rewrite"])


@pytest.mark.parametrize("keeps", KEEPS)
@pytest.mark.parametrize("what", HARMLESS)
def test_settings_that_change_nothing_for_us(
    flavour: Flavour, started: Callable[..., RedisServer], keeps: str, what: str
) -> None:
    harness = EngineHarness((started(flavour, saves_in=keeps, extra=HARMLESS[what]),))
    expect_life(harness, harness.adapter())


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
def test_no_config_where_users_are_kept_in_a_file_of_their_own(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = EngineHarness((started(flavour, extra=WITHOUT_CONFIG[how]),))
    expect_life(harness, harness.adapter())


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
@open_fault("U6", "users cannot be saved there, and doctor only warns, as if another right were missing")
def test_doctor_says_that_users_cannot_be_saved(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = without_config(started(flavour, saves_in="config", extra=WITHOUT_CONFIG[how]))
    found = harness.adapter().check([READING])
    require(found.warnings, "something is said")
    assert any("aclfile" in str(finding.remedy) for finding in found.problems), "the one way out is an ACL file"


@pytest.mark.parametrize("how", WITHOUT_CONFIG)
@open_fault("U6", "users cannot be saved there, and a grant is tried over and over, as if the server were away")
def test_a_grant_is_refused_where_users_cannot_be_saved(
    flavour: Flavour, started: Callable[..., RedisServer], how: str
) -> None:
    harness = without_config(started(flavour, saves_in="config", extra=WITHOUT_CONFIG[how]))
    trouble, is_there = outcome(harness, harness.adapter())
    require(trouble is not None, "no user is given who would be forgotten at a restart")
    assert isinstance(trouble, Rejected)
    assert "aclfile" in str(trouble.remedy)
    assert not is_there


def of_administrator(server: RedisServer) -> tuple[EngineHarness, Redis]:
    """A bench without a bot of its own, for servers on which none can be made, and a bot by the administrator's account."""
    harness = unsaved(server, TESTER, RIGHTS)
    return harness, as_administrator(harness, server)


@pytest.mark.parametrize("keeps", KEEPS)
@pytest.mark.parametrize("command", ["info", "client"])
def test_doctor_finds_what_was_disabled(
    flavour: Flavour, started: Callable[..., RedisServer], keeps: str, command: str
) -> None:
    _, adapter = of_administrator(started(flavour, saves_in=keeps, extra=DISABLED.format(command)))
    assert [finding for finding in adapter.check([READING]).problems if command in finding.what]


@pytest.mark.parametrize("command", ["info", "client"])
@open_fault(
    "U6", "a disabled command is taken for a missing right: the statement that is printed runs and changes nothing"
)
def test_the_mend_for_what_was_disabled_helps(
    flavour: Flavour, started: Callable[..., RedisServer], command: str
) -> None:
    server = started(flavour, extra=DISABLED.format(command))
    _, adapter = of_administrator(server)
    before = adapter.check([READING]).problems
    require(before, "doctor says that something is missing")
    for finding in before:
        if str(finding.remedy).startswith("ACL SETUSER"):
            server.run(*str(finding.remedy).split())
    assert not set(before) & set(adapter.check([READING]).problems)


def test_nobody_is_made_whose_end_cannot_be_proven(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness, adapter = of_administrator(started(flavour, extra=DISABLED.format("client")))
    trouble, is_there = outcome(harness, adapter)
    assert isinstance(trouble, Rejected)
    assert not is_there


def test_who_is_there_is_ended_although_it_cannot_be_proven(
    flavour: Flavour, started: Callable[..., RedisServer]
) -> None:
    """CLIENT was taken out of the server after the grant was made."""
    harness, adapter = of_administrator(started(flavour, extra=DISABLED.format("client")))
    spec = harness.spec(READING)
    harness.make_foreign_user(spec.username, spec.password)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(AdapterError):
        adapter.drop_user(spec.username, READING)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)


def test_nobody_is_made_without_info(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness, adapter = of_administrator(started(flavour, extra=DISABLED.format("info")))
    trouble, is_there = outcome(harness, adapter)
    assert isinstance(trouble, Rejected)
    assert not is_there


def test_an_admin_password_with_special_characters(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(flavour),))
    harness.server.run("ACL", "SETUSER", "fancy", "on", f">{FANCY}", "~*", "&*", "+@all")
    harness.server.run("ACL", "SAVE")
    expect_life(harness, as_administrator(harness, harness.server, "fancy", FANCY))


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")
def test_over_ipv6(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(flavour, extra="bind 127.0.0.1 ::1\n"),))
    url = f"redis://{harness.bot}:{BOT_PASSWORD}@[::1]:{harness.server.port}"
    adapter = Redis(harness.target(), Secrets(admin_url=url))
    expect_life(harness, adapter)
    assert " -h ::1 " in adapter.endpoint(READING).command


@pytest.mark.parametrize(
    ("on", "privileges"),
    [(("order[0-9]:*", "{tag}:*"), ("@read", "scan")), (("a:*",), ("@READ", "HGET")), (("50%:*", "a|b:*"), ("get",))],
)
def test_key_patterns_and_words(
    flavour: Flavour, started: Callable[..., RedisServer], on: tuple[str, ...], privileges: tuple[str, ...]
) -> None:
    harness = EngineHarness((started(flavour),))
    expect_life(harness, harness.adapter(), Level(name="k", grants=(Grant(on=on, privileges=privileges),)))
