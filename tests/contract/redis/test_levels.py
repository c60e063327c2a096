"""The commands that levels allow, by ``ACL DRYRUN`` and by trying it, and which levels are rejected."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from adapters.base import Level, PrivilegeGrant, Rejected
from adapters.contract import Denied
from adapters.redis.levels import PATTERN, REFUSED, rules_of
from tests.contract.redis.harness import NARROW, READING, WRITING, EngineHarness
from tests.servers.redis import RedisServer

CRITICAL = """
acl setuser x on|acl getuser x|acl list|acl users|acl load|acl save|acl deluser x|acl log|config get x|config set x y|config rewrite|
client kill id 1|client list|client pause 1|client unpause|client no-evict on|client unblock 1|client tracking on|client caching yes|
debug sleep 0|eval x 0|evalsha x 0|eval_ro x 0|fcall x 0|fcall_ro x 0|function load x|function delete x|function flush|function list|
function dump|function restore x|function kill|script load x|script flush|script kill|flushall|flushdb|swapdb 0 1|keys *|migrate h 1 k 0 1|
restore k 0 x|sort k|sort_ro k|module load x|module list|monitor|psync x 1|sync|replicaof h 1|slaveof h 1|replconf x y|failover|shutdown|
save|bgsave|bgrewriteaof|info|role|lastsave|latency latest|slowlog get|cluster reset|cluster failover|cluster forget x|cluster meet h 1|
cluster addslots 1|cluster getkeysinslot 1 1|cluster replicate x|subscribe c|psubscribe c|publish c m|pubsub channels|ssubscribe c|spublish c m|
acl whoami|memory doctor
"""
COMMANDS = [command.split() for command in CRITICAL.replace("\n", "").split("|")]
EVERYTHING = tuple(
    "@read @write @keyspace @string @hash @list @set @sortedset @bitmap @hyperloglog @geo @stream @blocking".split()  # noqa: SIM905
)
WIDE = Level(name="wide", grants=(PrivilegeGrant(on=("*",), privileges=EVERYTHING),))


def create_user(harness: EngineHarness, level: Level) -> str:
    """The username."""
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    return spec.username


def is_allowed(node: RedisServer, username: str, command: list[str]) -> bool:
    return bool(node.run("ACL", "DRYRUN", username, *command) == "OK")


@pytest.mark.parametrize("level", [READING, WRITING, NARROW, WIDE], ids=lambda level: level.name)
def test_no_level_allows_a_critical_command(harness: EngineHarness, level: Level) -> None:
    username = create_user(harness, level)
    for node in harness.nodes:
        permitted = [" ".join(c) for c in COMMANDS if is_allowed(node, username, c)]
        assert permitted == []


def test_user_with_all_rights_may_run_every_critical_command(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "mighty", "on", "nopass", "~*", "&*", "+@all")
    assert [c for c in COMMANDS if not is_allowed(harness.server, "mighty", c)] == []
    harness.server.run("ACL", "DELUSER", "mighty")


@pytest.mark.parametrize("level", [READING, WRITING, NARROW, WIDE], ids=lambda level: level.name)
def test_no_level_allows_a_command_that_the_server_calls_dangerous(harness: EngineHarness, level: Level) -> None:
    """By the server's own categories, which contain commands that no list of the adapter names."""
    username = create_user(harness, level)
    names = {str(n) for c in ("dangerous", "admin", "scripting") for n in harness.server.run("ACL", "CAT", c)}
    assert len(names) > 80
    assert [name for name in names if dry_run(harness.server, username, name.split("|")) == "OK"] == []


KEYLESS = """
asking auth client|capa client|getname client|getredir client|help client|id client|import-source client|info client|no-touch client|reply
client|setinfo client|setname client|trackinginfo cluster|info cluster|keyslot cluster|myid cluster|nodes cluster|shards cluster|slots
command command|count command|docs command|getkeys command|getkeysandflags command|help command|info command|list dbsize discard echo
exec hello lolwut multi ping quit readonly readwrite reset select unwatch wait waitaof xread
"""
"""Commands about the connection, about the server's commands, or about the number of keys. XREAD is here because the dry run gives it no STREAMS, so no key."""


def test_narrow_level_allows_only_harmless_commands_on_other_keys(harness: EngineHarness) -> None:
    """Every command of this server is tried with keys outside the level. None may show the name or value of another key."""
    username, permitted = create_user(harness, NARROW), set[str]()
    names = harness.server.run_unparsed("COMMAND", "LIST")
    assert len(names) > 350
    families = {name.split("|")[0] for name in names if "|" in name} - {"command"}
    for name in set(names) - families:
        if dry_run(harness.server, username, name.split("|")) == "OK":
            permitted.add(name)
    assert permitted - set(KEYLESS.split()) == set()


def dry_run(node: RedisServer, username: str, command: list[str]) -> str:
    """The answer of ``ACL DRYRUN``, with as many arguments as the command needs."""
    for count in range(12):
        try:
            return str(node.run("ACL", "DRYRUN", username, *command, *["1"] * count))
        except ResponseError as error:
            wrong = str(error)
    pytest.fail(f"{command}: {wrong}")


@pytest.mark.parametrize("name", sorted(REFUSED.split()))
def test_refused_command_in_a_grant_is_rejected(name: str) -> None:
    for privilege in (name, name.upper(), f"{name}|x"):
        level = Level(name="bad", grants=(PrivilegeGrant(on=("a*",), privileges=("@read", privilege)),))
        with pytest.raises(Rejected, match=r"not given to temporary users"):
            rules_of(level)


@pytest.mark.parametrize(
    "word",
    ["@all", "@dangerous", "@admin", "@scripting", "@pubsub", "@fast", "@slow", "@connection"],
)
def test_category_that_is_not_about_keys_is_rejected(word: str) -> None:
    level = Level(name="bad", grants=(PrivilegeGrant(on=("a*",), privileges=(word,)),))
    with pytest.raises(Rejected, match=r"is not given; one of @"):
        rules_of(level)


@pytest.mark.parametrize(
    "word", ["-get", "+get", "get set", "~*", ">x", "#" + "0" * 64, "", "(get", "get)", "get\n", "%R~*"]
)
def test_acl_rule_in_a_privilege_is_rejected(pair: EngineHarness, word: str) -> None:
    spec = pair.spec(Level(name="bad", grants=(PrivilegeGrant(on=("a*",), privileges=(word,)),)))
    with pytest.raises(Rejected):
        pair.adapter().create_user(spec)
    assert not pair.has_user(spec.username)


@pytest.mark.parametrize("pattern", ["a b", "a\nb", "a)", "(a", 'a"', "a'", "a\\", "ä*", "", "a\0", "\t", "a`b"])
def test_key_pattern_that_a_file_could_not_hold_is_rejected(pair: EngineHarness, pattern: str) -> None:
    spec = pair.spec(Level(name="bad", grants=(PrivilegeGrant(on=("ok:*", pattern), privileges=("@read",)),)))
    with pytest.raises(Rejected, match="key pattern"):
        pair.adapter().create_user(spec)
    assert not pair.has_user(spec.username)


@pytest.mark.parametrize(
    "level",
    [
        Level(name="x"),
        Level(name="x", roles=("admin",)),
        Level(name="x", roles=("readonly", "+@all")),
        Level(name="x", grants=(PrivilegeGrant(on=(), privileges=("@read",)),)),
        Level(name="x", grants=(PrivilegeGrant(on=("a",), privileges=()),)),
        Level(name="x", roles=("readonly",), settings={"statement_timeout": "5min"}),
        Level(name="x", grants=(PrivilegeGrant(on=("a",), privileges=("nosuchcommand",)),)),
    ],
)
def test_invalid_level_is_rejected_and_creates_nobody(harness: EngineHarness, level: Level) -> None:
    spec = harness.spec(level)
    with pytest.raises(Rejected):
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)


def test_each_grant_of_a_level_covers_its_own_keys_only(harness: EngineHarness) -> None:
    reads, writes = (
        PrivilegeGrant(on=("r:*",), privileges=("@read",)),
        PrivilegeGrant(on=("w:*",), privileges=("get", "SET")),
    )
    spec = harness.spec(Level(name="two", grants=(reads, writes)))
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.execute("GET", "r:1") is None
    assert session.execute("SET", "w:1", "x") == "OK"
    assert session.execute("GET", "w:1") == "x"
    for arguments in (
        ("SET", "r:1", "x"),
        ("DEL", "w:1"),
        ("GET", "other"),
        ("COPY", "w:1", "r:1"),
        ("MGET", "r:1", "w:1"),
    ):
        with pytest.raises(Denied):
            session.execute(*arguments)
    session.close()


def test_level_with_roles_and_grants_allows_both(harness: EngineHarness) -> None:
    level = Level(name="both", roles=("readonly",), grants=(PrivilegeGrant(on=("w:*",), privileges=("set",)),))
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.read_beside() > 0
    assert session.execute("SET", "w:1", "x") == "OK"
    with pytest.raises(Denied):
        session.write()
    session.close()


def test_narrow_level_shows_names_of_other_keys_only_if_it_lists_scan(harness: EngineHarness) -> None:
    """Key patterns by themselves hide values and not names."""
    spec = harness.spec(NARROW)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    for arguments in (("SCAN", "0"), ("RANDOMKEY",), ("KEYS", "*"), ("CLIENT", "TRACKING", "on", "BCAST")):
        with pytest.raises(Denied):
            session.execute(*arguments)
    session.close()
    named = Level(name="names", grants=(PrivilegeGrant(on=("shop:customers*",), privileges=("@read", "scan")),))
    spec = harness.spec(named)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.execute("SCAN", "0", "COUNT", "1000")[1]
    session.close()


def test_transactions_and_connection_commands_work(harness: EngineHarness) -> None:
    spec = harness.spec(WRITING)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.execute("MULTI") == "OK"
    session.execute("HSET", "shop:orders", "1", "1")
    assert session.execute("EXEC") == [0]
    assert session.execute("SELECT", "1") == "OK"
    assert spec.username in session.execute("CLIENT", "INFO")
    assert len(session.execute("COMMAND", "COUNT").__str__()) > 1
    session.close()


def test_every_accepted_key_pattern_survives_a_restart(own: RedisServer) -> None:
    """With a pattern that a file cannot hold, the server would not start again."""
    harness = EngineHarness((own,))
    characters = [chr(n) for n in range(32, 127) if PATTERN.fullmatch(chr(n))]
    assert len(characters) > 80
    patterns = ("".join(characters), *(f"{c}x{c}" for c in characters))
    spec = harness.spec(Level(name="odd", grants=(PrivilegeGrant(on=patterns, privileges=("@read",)),)))
    harness.adapter().create_user(spec)
    before = own.run("ACL", "GETUSER", spec.username)
    own.restart()
    after = own.run("ACL", "GETUSER", spec.username)
    assert [one[3] for one in after[11]] == [one[3] for one in before[11]], (
        "only the keys are compared, because the server rewrites the text of commands"
    )
    assert [c for c in COMMANDS if is_allowed(own, spec.username, c)] == []
    assert all(is_allowed(own, spec.username, ["get", f"{c}x{c}"]) for c in characters if c not in "[]^")
    harness.adapter().drop_user(spec.username, spec.level)
