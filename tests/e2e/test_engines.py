"""The main job on every engine, side by side in one workspace; then each is proven by ``doctor --try`` and swept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any, Protocol

import psycopg
import pytest

from adapters.base import Adapter, Level, Secrets, Tls, UserSpec
from adapters.harness import Denied, Session
from bot.databases import DatabaseEntry, target
from bot.engines import installed
from tests.contract.mongodb import harness as mongodb_harness
from tests.contract.mysql import harness as mysql_harness
from tests.contract.postgresql import harness as postgresql_harness
from tests.contract.redis import harness as redis_harness
from tests.e2e import harness
from tests.e2e.harness import LEAD, PATIENCE, REQUESTER, World, command_of, credentials, number, text_of
from tests.servers.mongodb.server import MongoServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

LEVELS = {"readonly": "Read the shop", "write": "Change the shop"}


class EngineHarness(Protocol):
    """What the benches of all engines can do here."""

    def login(self, username: str, password: str) -> Session: ...
    def login_by(self, command: str) -> str: ...
    def has_user(self, username: str) -> bool: ...


@dataclass
class Engine:
    """One database of the world: its entry in databases.yml, the admin URL, and a bench to look behind it."""

    label: str
    harness: EngineHarness
    entry: dict[str, Any]
    admin_url: str
    is_proven_by_asking: bool = False
    """The ready-to-paste command asks for the password."""


def postgresql_engine(server: PostgresServer) -> Engine:
    harness = postgresql_harness.build(server)
    entry = {
        "engine": "postgresql", "admin_role": harness.owner,
        "levels": {"readonly": {"roles": ["shop_reader"]}, "write": {"roles": ["shop_writer"]}},
    }  # fmt: skip
    url = server.url(harness.bot, postgresql_harness.BOT_PASSWORD, harness.database)
    return Engine("PostgreSQL", postgresql_harness.ContractHarness(harness), entry, url)


def mysql_engine(server: MySQLServer, prefix: str) -> Engine:
    harness = mysql_harness.build(server, prefix=prefix)
    entry = {
        "engine": server.flavour.name, "ops_schema": harness.ops_schema,
        "levels": {"readonly": {"roles": [harness.reader]}, "write": {"roles": [harness.writer]}},
    }  # fmt: skip
    label = "MariaDB" if harness.is_mariadb else "MySQL"
    return Engine(label, harness, entry, server.url(harness.bot, mysql_harness.BOT_PASSWORD, harness.database))


def redis_engine(server: RedisServer) -> Engine:
    harness = redis_harness.EngineHarness((server,))
    entry = {"engine": "redis", "levels": {"readonly": {"roles": ["readonly"]}, "write": {"roles": ["readwrite"]}}}
    url = server.url(harness.bot, redis_harness.BOT_PASSWORD)
    return Engine("Redis", harness, entry, url, is_proven_by_asking=True)


def mongodb_engine(server: MongoServer) -> Engine:
    harness = mongodb_harness.EngineHarness(server)
    entry = {
        "engine": "mongodb", "ops_schema": harness.users, "connect": {"database": harness.app},
        "levels": {"readonly": {"roles": ["read"]}, "write": {"roles": ["readWrite"]}},
    }  # fmt: skip
    return Engine("MongoDB", harness, entry, harness.admin_url, is_proven_by_asking=True)


@pytest.fixture
def engines(request: pytest.FixtureRequest, world: World) -> dict[str, Engine]:
    """In the files of the world, which is not started yet."""
    found = {
        "pg": postgresql_engine(request.getfixturevalue("postgresql15")),
        "my": mysql_engine(request.getfixturevalue("mysql"), world.prefix),
        "maria": mysql_engine(request.getfixturevalue("mariadb"), world.prefix),
        "mongo": mongodb_engine(request.getfixturevalue("mongodb_server")),
        "redis": redis_engine(request.getfixturevalue("redis7")),
    }
    entries: dict[str, Any] = {}
    for name, engine in found.items():
        entry = {**engine.entry, "admin_url": f"env:{name.upper()}_URL"}
        entry["levels"] = {level: {**parts, "description": LEVELS[level]} for level, parts in entry["levels"].items()}
        entries[name] = entry
        world.further_env[f"{name.upper()}_URL"] = engine.admin_url
    world.databases = {"databases": entries}
    world.policy["rules"][0]["databases"] = ["*"]
    return found


def test_the_whole_story_on_every_engine(world: World, engines: dict[str, Engine]) -> None:
    world.start()
    cards = {name: world.ask(f"{name} readonly 30m looking at a refund") for name in engines}
    for name, engine in engines.items():
        assert engine.label in text_of(cards[name]), "the card says who ends it"
        world.click(LEAD, cards[name], "Approve")
    sessions: dict[str, Session] = {}
    messages = {name: world.dm_says(f"is ready (#{number(card)})") for name, card in cards.items()}
    for name, engine in engines.items():
        known, command = credentials(messages[name]), command_of(messages[name])
        sessions[name] = engine.harness.login(known["Username"], known["Password"])
        assert sessions[name].read() > 0
        with pytest.raises(Denied):
            sessions[name].write()
        assert (known["Password"] in command) is not engine.is_proven_by_asking
        if isinstance(engine.harness, redis_harness.EngineHarness):
            engine.harness.passwords[known["Username"]] = known["Password"]
        assert known["Username"] in engine.harness.login_by(command), name
        assert "Revoke" in harness.buttons(world.card_says(cards[name]["ts"], "until"))
    for name, card in cards.items():
        world.click(LEAD, world.card(card["ts"]), "Revoke")
        ended = world.card_says(card["ts"], "Read back from the server")
        assert "Login blocked" in text_of(ended), name
        known = credentials(messages[name])
        assert not sessions[name].is_alive(), name
        sessions[name].close()
        assert not engines[name].harness.has_user(known["Username"]), name
    requests = json.loads(world.cli("list", "--all", "--json"))
    assert {r["database"] for r in requests if r["state"] == "revoked"} == set(engines)
    assert not world.slack.messages(harness.ALERTS)
    everything = world.log() + json.dumps([world.slack.messages(c) for c in (harness.CARDS, harness.AUDIT)])
    for name in engines:
        assert credentials(messages[name])["Password"] not in everything
    assert world.stop() == 0


def test_the_end_comes_by_itself(world: World, engines: dict[str, Engine]) -> None:
    world.start()
    cards = {name: world.granted(f"{name} write 40s fixing a refund") for name in engines}
    for name, (card, message) in cards.items():
        assert "Read back from the server" in text_of(world.card_says(card["ts"], "Read back from the server"))
        assert not engines[name].harness.has_user(credentials(message)["Username"]), name
    world.dm_says("ended", REQUESTER)


def test_doctor_proves_every_engine(world: World, engines: dict[str, Engine]) -> None:
    world.write_config()
    world.cli("store", "upgrade")
    report = json.loads(world.cli("doctor", "--try", "--json"))
    steps = [f for f in report if "step" in f]
    assert {(f["database"], f["level"]) for f in steps} == {(n, level) for n in engines for level in LEVELS}
    assert all(f["ok"] and f["ms"] >= 0 for f in steps), [f for f in steps if not f["ok"]]
    order = ["create", "log in", "use", "list", "end", "session dead", "log in again", "read back"]
    assert [f["step"] for f in steps[: len(order)]] == order
    assert not [f for f in report if f["fatal"]]
    text = json.dumps(report)
    for secret in ("BotSecret0Login", "://", world.prefix + "9"):
        assert secret not in text
    swept = json.loads(world.cli("sweep", "--json"))
    assert [s for s in swept if s["kind"] != "foreign"] == [], "nothing is left"
    assert "Trial pg, level readonly" in world.cli("doctor", "pg", "--try")
    world.start()
    world.feed_says("database.tried")


def test_a_trial_leaves_nothing_when_it_is_interrupted_or_fails(world: World, postgresql15: PostgresServer) -> None:
    engine = postgresql_engine(postgresql15)
    levels = {**engine.entry["levels"], "broken": {"roles": ["no_such_role"]}}
    world.databases = {"databases": {"pg": {**engine.entry, "levels": levels, "admin_url": "env:PG_URL"}}}
    world.further_env["PG_URL"] = engine.admin_url
    world.policy["rules"][0]["databases"] = ["*"]
    world.write_config()
    world.cli("store", "upgrade")
    report = json.loads(world.cli("doctor", "pg", "--try", "--json", expect=1))
    broken = [f for f in report if f.get("level") == "broken"]
    assert [(f["step"], f["ok"]) for f in broken] == [("create", False)]
    assert "no_such_role" in broken[0]["what"]
    command = [sys.executable, "-u", "-m", "bot.cli", "doctor", "pg", "--try"]
    with subprocess.Popen(command, env=world.env, cwd=world.folder, stdout=subprocess.PIPE, text=True) as trial:
        assert trial.stdout is not None
        next(line for line in trial.stdout if "create" in line and "ms" in line)
        trial.send_signal(signal.SIGINT)
        trial.stdout.read()
        assert trial.wait(PATIENCE) != 0
    assert world.users() == []


def test_sweep_ends_what_nobody_answers_for(world: World, engines: dict[str, Engine]) -> None:
    """Each engine has a user of this ledger that no grant knows, one of another ledger, and a live grant."""
    world.start()
    live = {name: credentials(world.granted(f"{name} readonly 1h looking")[1])["Username"] for name in engines}
    ledger = ledger_of(world)
    orphans, foreign = set[str](), set[str]()
    for name, engine in engines.items():
        for found, whose, tail in ((orphans, ledger, "aaaa"), (foreign, "anotherledgr", "bbbb")):
            username = f"{world.prefix}77_{name}_{tail}"
            make_stray(engine, username, world.prefix, whose)
            found.add(username)
    strays = json.loads(world.cli("sweep", "--json", expect=1))
    assert {s["username"] for s in strays if s["kind"] == "orphan"} == orphans
    assert {s["username"] for s in strays if s["kind"] == "foreign"} >= foreign
    assert not {s["username"] for s in strays} & set(live.values())
    ended = json.loads(world.cli("sweep", "--fix", "--json"))
    assert {s["username"] for s in ended if (s["became"] or "").startswith("ended")} == orphans
    for name, engine in engines.items():
        assert not engine.harness.has_user(f"{world.prefix}77_{name}_aaaa")
        assert engine.harness.has_user(f"{world.prefix}77_{name}_bbbb")
        assert engine.harness.has_user(live[name])
    world.feed_says("database.swept")
    for name, engine in engines.items():
        adapter_of(engine, world.prefix, "anotherledgr").drop_user(f"{world.prefix}77_{name}_bbbb", Level(name="x"))


def ledger_of(world: World) -> str:
    found = next(f["what"] for f in json.loads(world.cli("doctor", "pg", "--json")) if f["what"].startswith("ledger "))
    return str(found.split()[1].rstrip(","))


def adapter_of(engine: Engine, prefix: str, ledger: str) -> Adapter:
    """The installed engine, as the bot of that ledger would use it."""
    entry = DatabaseEntry.model_validate({**engine.entry, "admin_url": "env:UNUSED"})
    where = target("stray", entry, prefix=prefix, ledger=ledger)
    return installed()[entry.engine](replace(where, tls=Tls(mode="prefer")), Secrets(admin_url=engine.admin_url))


def make_stray(engine: Engine, username: str, prefix: str, ledger: str) -> None:
    roles = tuple(engine.entry["levels"]["readonly"]["roles"])
    level = Level(name="readonly", roles=roles)
    spec = UserSpec(username=username, password="Stray0Password0Long", level=level, remaining=600, request_id=77)
    adapter_of(engine, prefix, ledger).create_user(spec)


def test_several_databases_behind_one_server(world: World, postgresql15: PostgresServer) -> None:
    """Each with its own database and one bot; the sweep asks the server once."""
    harness = postgresql_harness.build(postgresql15)
    second = postgresql_harness.build(postgresql15)
    with second.superuser() as connection:
        holder = harness.owner or harness.bot
        connection.execute(f'GRANT CONNECT ON DATABASE "{second.database}" TO {holder} WITH GRANT OPTION'.encode())
        connection.execute(f"GRANT USAGE ON SCHEMA shop TO {holder} WITH GRANT OPTION".encode())
        connection.execute(f"GRANT SELECT ON shop.orders TO {holder} WITH GRANT OPTION".encode())
    shared = {"engine": "postgresql", "admin_role": harness.owner, "admin_url": "env:SHOP_ADMIN_URL"}
    orders = {"grants": [{"on": ["shop.orders"], "privileges": ["SELECT"]}], "description": "Orders"}
    world.further_env["SHOP_ADMIN_URL"] = postgresql15.url(
        harness.bot, postgresql_harness.BOT_PASSWORD, harness.database
    )
    world.databases = {
        "databases": {
            "one": {**shared, "levels": {"readonly": {"roles": ["shop_reader"]}}},
            "two": {**shared, "connect": {"database": second.database}, "levels": {"orders": orders}},
            "three": {**shared, "levels": {"orders": {**orders, "database": second.database}}},
        }
    }
    world.policy["rules"][0]["databases"] = ["*"]
    world.start()
    for ask, database in (
        ("one readonly", harness.database),
        ("two orders", second.database),
        ("three orders", second.database),
    ):
        card, message = world.granted(f"{ask} 1h looking")
        known = credentials(message)
        assert known["Database"] == database
        with psycopg.connect(harness.pasted(message), autocommit=True) as session:
            assert session.execute("SELECT count(*) FROM shop.orders").fetchone() == (1000,)
        assert card
    assert world.cli("sweep").splitlines()[-1].startswith("1 servers, 3 managed users, 0 strays")
