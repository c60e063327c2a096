"""What levels let through, by the server's own word and by trying; and what is refused in them."""

from __future__ import annotations

import pytest
from redis.exceptions import ResponseError

from adapters.base import Grant, Level, Rejected
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
WIDE = Level(name="wide", grants=(Grant(on=("*",), privileges=EVERYTHING),))


def made(harness: EngineHarness, level: Level) -> str:
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    return spec.username


def allowed(node: RedisServer, username: str, command: list[str]) -> bool:
    return bool(node.run("ACL", "DRYRUN", username, *command) == "OK")


@pytest.mark.parametrize("level", [READING, WRITING, NARROW, WIDE], ids=lambda level: level.name)
def test_no_level_allows_what_reaches_beyond_keys(harness: EngineHarness, level: Level) -> None:
    username = made(harness, level)
    for node in harness.nodes:
        free = [" ".join(c) for c in COMMANDS if allowed(node, username, c)]
        assert free == []


def test_the_list_of_critical_commands_can_fail(harness: EngineHarness) -> None:
    harness.server.run("ACL", "SETUSER", "mighty", "on", "nopass", "~*", "&*", "+@all")
    assert [c for c in COMMANDS if not allowed(harness.server, "mighty", c)] == []
    harness.server.run("ACL", "DELUSER", "mighty")


@pytest.mark.parametrize("level", [READING, WRITING, NARROW, WIDE], ids=lambda level: level.name)
def test_every_dangerous_command_of_this_server_is_refused(harness: EngineHarness, level: Level) -> None:
    """By the server's own categories: also those that no list of ours knows."""
    username = made(harness, level)
    names = {str(n) for c in ("dangerous", "admin", "scripting") for n in harness.server.run("ACL", "CAT", c)}
    assert len(names) > 80
    assert [name for name in names if dry_run(harness.server, username, name.split("|")) == "OK"] == []


KEYLESS = """
asking auth client|capa client|getname client|getredir client|help client|id client|import-source client|info client|no-touch client|reply
client|setinfo client|setname client|trackinginfo cluster|info cluster|keyslot cluster|myid cluster|nodes cluster|shards cluster|slots
command command|count command|docs command|getkeys command|getkeysandflags command|help command|info command|list dbsize discard echo
exec hello lolwut multi ping quit readonly readwrite reset select unwatch wait waitaof xread
"""
"""About the connection, the server's commands, or how many keys there are. XREAD names its keys after words that are not there here."""


def test_what_a_narrow_level_may_do_without_naming_a_key(harness: EngineHarness) -> None:
    """Each command this server has, tried with keys that are not the level's: nothing that shows another key's name or value."""
    username, free = made(harness, NARROW), set[str]()
    names = harness.server.listed("COMMAND", "LIST")
    assert len(names) > 350
    families = {name.split("|")[0] for name in names if "|" in name} - {"command"}
    for name in set(names) - families:
        if dry_run(harness.server, username, name.split("|")) == "OK":
            free.add(name)
    assert free - set(KEYLESS.split()) == set()


def dry_run(node: RedisServer, username: str, command: list[str]) -> str:
    """With as many words as the command wants."""
    for count in range(12):
        try:
            return str(node.run("ACL", "DRYRUN", username, *command, *["1"] * count))
        except ResponseError as error:
            wrong = str(error)
    pytest.fail(f"{command}: {wrong}")


@pytest.mark.parametrize("name", sorted(REFUSED.split()))
def test_what_is_refused_in_a_level_is_said(name: str) -> None:
    for privilege in (name, name.upper(), f"{name}|x"):
        level = Level(name="bad", grants=(Grant(on=("a*",), privileges=("@read", privilege)),))
        with pytest.raises(Rejected, match=r"not given to temporary users"):
            rules_of(level)


@pytest.mark.parametrize(
    "word",
    ["@all", "@dangerous", "@admin", "@scripting", "@pubsub", "@fast", "@slow", "@connection"],
)
def test_categories_that_are_more_than_keys_are_refused(word: str) -> None:
    level = Level(name="bad", grants=(Grant(on=("a*",), privileges=(word,)),))
    with pytest.raises(Rejected, match=r"is not given; one of @"):
        rules_of(level)


@pytest.mark.parametrize(
    "word", ["-get", "+get", "get set", "~*", ">x", "#" + "0" * 64, "", "(get", "get)", "get\n", "%R~*"]
)
def test_rules_in_a_privilege_are_refused(pair: EngineHarness, word: str) -> None:
    spec = pair.spec(Level(name="bad", grants=(Grant(on=("a*",), privileges=(word,)),)))
    with pytest.raises(Rejected):
        pair.adapter().create_user(spec)
    assert not pair.has_user(spec.username)


@pytest.mark.parametrize("pattern", ["a b", "a\nb", "a)", "(a", 'a"', "a'", "a\\", "ä*", "", "a\0", "\t", "a`b"])
def test_key_patterns_the_files_would_not_read_back_are_refused(pair: EngineHarness, pattern: str) -> None:
    spec = pair.spec(Level(name="bad", grants=(Grant(on=("ok:*", pattern), privileges=("@read",)),)))
    with pytest.raises(Rejected, match="key pattern"):
        pair.adapter().create_user(spec)
    assert not pair.has_user(spec.username)


@pytest.mark.parametrize(
    "level",
    [
        Level(name="x"),
        Level(name="x", roles=("admin",)),
        Level(name="x", roles=("readonly", "+@all")),
        Level(name="x", grants=(Grant(on=(), privileges=("@read",)),)),
        Level(name="x", grants=(Grant(on=("a",), privileges=()),)),
        Level(name="x", roles=("readonly",), settings={"statement_timeout": "5min"}),
        Level(name="x", grants=(Grant(on=("a",), privileges=("nosuchcommand",)),)),
    ],
)
def test_levels_that_make_no_sense_make_nobody(harness: EngineHarness, level: Level) -> None:
    spec = harness.spec(level)
    with pytest.raises(Rejected):
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)


def test_a_level_of_two_grants_keeps_them_apart(harness: EngineHarness) -> None:
    reads, writes = Grant(on=("r:*",), privileges=("@read",)), Grant(on=("w:*",), privileges=("get", "SET"))
    spec = harness.spec(Level(name="two", grants=(reads, writes)))
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.execute("GET", "r:1") is None
    assert session.execute("SET", "w:1", "x") == "OK"
    assert session.execute("GET", "w:1") == "x"
    for words in (
        ("SET", "r:1", "x"),
        ("DEL", "w:1"),
        ("GET", "other"),
        ("COPY", "w:1", "r:1"),
        ("MGET", "r:1", "w:1"),
    ):
        with pytest.raises(Denied):
            session.execute(*words)
    session.close()


def test_roles_and_grants_together(harness: EngineHarness) -> None:
    level = Level(name="both", roles=("readonly",), grants=(Grant(on=("w:*",), privileges=("set",)),))
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.read_beside() > 0
    assert session.execute("SET", "w:1", "x") == "OK"
    with pytest.raises(Denied):
        session.write()
    session.close()


def test_a_narrow_level_does_not_see_the_names_of_other_keys(harness: EngineHarness) -> None:
    """Key patterns alone hide values only."""
    spec = harness.spec(NARROW)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    for words in (("SCAN", "0"), ("RANDOMKEY",), ("KEYS", "*"), ("CLIENT", "TRACKING", "on", "BCAST")):
        with pytest.raises(Denied):
            session.execute(*words)
    session.close()
    named = Level(name="names", grants=(Grant(on=("shop:customers*",), privileges=("@read", "scan")),))
    spec = harness.spec(named)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    assert session.execute("SCAN", "0", "COUNT", "1000")[1]
    session.close()


def test_transactions_and_the_connections_own_commands_work(harness: EngineHarness) -> None:
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


def test_every_pattern_that_is_taken_comes_back_from_the_file(own: RedisServer) -> None:
    """A pattern that a file cannot hold would keep the whole server from starting."""
    harness = EngineHarness((own,))
    characters = [chr(n) for n in range(32, 127) if PATTERN.fullmatch(chr(n))]
    assert len(characters) > 80
    patterns = ("".join(characters), *(f"{c}x{c}" for c in characters))
    spec = harness.spec(Level(name="odd", grants=(Grant(on=patterns, privileges=("@read",)),)))
    harness.adapter().create_user(spec)
    before = own.run("ACL", "GETUSER", spec.username)
    own.restart()
    after = own.run("ACL", "GETUSER", spec.username)
    assert [one[3] for one in after[11]] == [one[3] for one in before[11]], (
        "the keys; the text of commands is rewritten"
    )
    assert [c for c in COMMANDS if allowed(own, spec.username, c)] == []
    assert all(allowed(own, spec.username, ["get", f"{c}x{c}"]) for c in characters if c not in "[]^")
    harness.adapter().drop_user(spec.username, spec.level)
