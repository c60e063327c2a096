"""A grant on every engine at once in one workspace, then ``doctor --try`` and ``sweep`` on each engine."""

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
from bot.engines import installed_engines
from tests.contract.mongodb import harness as mongodb_harness
from tests.contract.mysql import harness as mysql_harness
from tests.contract.postgresql import harness as postgresql_harness
from tests.contract.redis import harness as redis_harness
from tests.e2e.harness import ALERTS, AUDIT, CARDS, LEAD, PATIENCE, REQUESTER, Environment
from tests.e2e.messages import buttons, command_of, credentials, number, pasted_url, text_of
from tests.servers.mongodb.server import MongoServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgresql import PostgresServer
from tests.servers.redis import RedisServer

LEVELS = {"readonly": "Read the shop", "write": "Change the shop"}


class EngineHarness(Protocol):
    """The part of an engine's harness that these tests need."""

    def login(self, username: str, password: str) -> Session: ...
    def login_by(self, command: str) -> str: ...
    def has_user(self, username: str) -> bool: ...


@dataclass
class Engine:
    """One database of the environment: its entry in databases.yml, its admin URL, and a harness to check the server itself."""

    label: str
    harness: EngineHarness
    entry: dict[str, Any]
    admin_url: str
    prompts_for_password: bool = False
    """Whether the ready-to-paste command prompts for the password."""


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
    return Engine("Redis", harness, entry, url, prompts_for_password=True)


def mongodb_engine(server: MongoServer) -> Engine:
    harness = mongodb_harness.MongoDBHarness(server)
    entry = {
        "engine": "mongodb", "ops_schema": harness.users, "connect": {"database": harness.app},
        "levels": {"readonly": {"roles": ["read"]}, "write": {"roles": ["readWrite"]}},
    }  # fmt: skip
    return Engine("MongoDB", harness, entry, harness.admin_url, prompts_for_password=True)


@pytest.fixture
def engines(request: pytest.FixtureRequest, environment: Environment) -> dict[str, Engine]:
    """One database of each engine, in the configuration of the environment. The bot is not started yet."""
    found = {
        "pg": postgresql_engine(request.getfixturevalue("postgresql15")),
        "my": mysql_engine(request.getfixturevalue("mysql"), environment.prefix),
        "maria": mysql_engine(request.getfixturevalue("mariadb"), environment.prefix),
        "mongo": mongodb_engine(request.getfixturevalue("mongodb_server")),
        "redis": redis_engine(request.getfixturevalue("redis7")),
    }
    entries: dict[str, Any] = {}
    for name, engine in found.items():
        entry = {**engine.entry, "admin_url": f"env:{name.upper()}_URL"}
        entry["levels"] = {level: {**parts, "description": LEVELS[level]} for level, parts in entry["levels"].items()}
        entries[name] = entry
        environment.extra_env[f"{name.upper()}_URL"] = engine.admin_url
    environment.databases = {"databases": entries}
    environment.policy["rules"][0]["databases"] = ["*"]
    return found


def test_grant_from_request_to_receipt_on_every_engine(environment: Environment, engines: dict[str, Engine]) -> None:
    environment.start()
    cards = {name: environment.request_access(f"{name} readonly 30m looking at a refund") for name in engines}
    for name, engine in engines.items():
        assert engine.label in text_of(cards[name]), "the card names the engine"
        environment.click(LEAD, cards[name], "Approve")
    sessions: dict[str, Session] = {}
    messages = {name: environment.dm_says(f"is ready (#{number(card)})") for name, card in cards.items()}
    for name, engine in engines.items():
        known, command = credentials(messages[name]), command_of(messages[name])
        sessions[name] = engine.harness.login(known["Username"], known["Password"])
        assert sessions[name].read() > 0
        with pytest.raises(Denied):
            sessions[name].write()
        assert (known["Password"] in command) is not engine.prompts_for_password
        if isinstance(engine.harness, redis_harness.EngineHarness):
            engine.harness.passwords[known["Username"]] = known["Password"]
        assert known["Username"] in engine.harness.login_by(command), name
        assert "Revoke" in buttons(environment.card_says(cards[name]["ts"], "until"))
    for name, card in cards.items():
        environment.click(LEAD, environment.card(card["ts"]), "Revoke")
        ended = environment.card_says(card["ts"], " · verified ")
        assert "Login blocked" in text_of(ended), name
        known = credentials(messages[name])
        assert not sessions[name].is_alive(), name
        sessions[name].close()
        assert not engines[name].harness.has_user(known["Username"]), name
    requests = json.loads(environment.cli("list", "--all", "--json"))
    assert {r["database"] for r in requests if r["state"] == "revoked"} == set(engines)
    assert not environment.slack.messages(ALERTS)
    everything = environment.log() + json.dumps([environment.slack.messages(c) for c in (CARDS, AUDIT)])
    for name in engines:
        assert credentials(messages[name])["Password"] not in everything
    assert environment.stop() == 0


def test_grant_expires_on_every_engine(environment: Environment, engines: dict[str, Engine]) -> None:
    environment.start()
    cards = {name: environment.request_and_approve(f"{name} write 40s fixing a refund") for name in engines}
    for name, (card, message) in cards.items():
        assert " · verified " in text_of(environment.card_says(card["ts"], " · verified "))
        assert not engines[name].harness.has_user(credentials(message)["Username"]), name
    environment.dm_says("ended", REQUESTER)


def test_doctor_try_succeeds_on_every_engine(environment: Environment, engines: dict[str, Engine]) -> None:
    environment.write_config()
    environment.cli("store", "upgrade")
    report = json.loads(environment.cli("doctor", "--try", "--json"))
    steps = [f for f in report if "step" in f]
    assert {(f["database"], f["level"]) for f in steps} == {(n, level) for n in engines for level in LEVELS}
    assert all(f["ok"] and f["ms"] >= 0 for f in steps), [f for f in steps if not f["ok"]]
    order = ["create", "log in", "use", "list", "end", "session dead", "log in again", "read back"]
    assert [f["step"] for f in steps[: len(order)]] == order
    assert not [f for f in report if f["fatal"]]
    text = json.dumps(report)
    for secret in ("BotSecret0Login", "://", environment.prefix + "9"):
        assert secret not in text
    swept = json.loads(environment.cli("sweep", "--json"))
    assert [s for s in swept if s["kind"] != "foreign"] == [], "no trial user is left"
    assert "Trial pg, level readonly" in environment.cli("doctor", "pg", "--try")
    environment.start()
    environment.feed_says("database.tried")


def test_doctor_try_that_fails_or_is_interrupted_leaves_no_user(
    environment: Environment, postgresql15: PostgresServer
) -> None:
    engine = postgresql_engine(postgresql15)
    levels = {**engine.entry["levels"], "broken": {"roles": ["no_such_role"]}}
    environment.databases = {"databases": {"pg": {**engine.entry, "levels": levels, "admin_url": "env:PG_URL"}}}
    environment.extra_env["PG_URL"] = engine.admin_url
    environment.policy["rules"][0]["databases"] = ["*"]
    environment.write_config()
    environment.cli("store", "upgrade")
    report = json.loads(environment.cli("doctor", "pg", "--try", "--json", expect=1))
    broken = [f for f in report if f.get("level") == "broken"]
    assert [(f["step"], f["ok"]) for f in broken] == [("create", False)]
    assert "no_such_role" in broken[0]["what"]
    command = [sys.executable, "-u", "-m", "bot.cli", "doctor", "pg", "--try"]
    with subprocess.Popen(
        command, env=environment.env, cwd=environment.folder, stdout=subprocess.PIPE, text=True
    ) as trial:
        assert trial.stdout is not None
        next(line for line in trial.stdout if "create" in line and "ms" in line)
        trial.send_signal(signal.SIGINT)
        trial.stdout.read()
        assert trial.wait(PATIENCE) != 0
    assert environment.users() == []


def test_sweep_ends_managed_users_without_a_live_grant(environment: Environment, engines: dict[str, Engine]) -> None:
    """Each engine has a user of this ledger without a grant, a user of another ledger, and a user with a live grant."""
    environment.start()
    live = {
        name: credentials(environment.request_and_approve(f"{name} readonly 1h looking")[1])["Username"]
        for name in engines
    }
    ledger = ledger_of(environment)
    orphans, foreign = set[str](), set[str]()
    for name, engine in engines.items():
        for found, owner, tail in ((orphans, ledger, "aaaa"), (foreign, "anotherledgr", "bbbb")):
            username = f"{environment.prefix}77_{name}_{tail}"
            make_stray(engine, username, environment.prefix, owner)
            found.add(username)
    strays = json.loads(environment.cli("sweep", "--json", expect=1))
    assert {s["username"] for s in strays if s["kind"] == "orphan"} == orphans
    assert {s["username"] for s in strays if s["kind"] == "foreign"} >= foreign
    assert not {s["username"] for s in strays} & set(live.values())
    ended = json.loads(environment.cli("sweep", "--adopt", "--json"))
    assert {s["username"] for s in ended if (s["became"] or "").startswith("ended")} == orphans
    for name, engine in engines.items():
        assert not engine.harness.has_user(f"{environment.prefix}77_{name}_aaaa")
        assert engine.harness.has_user(f"{environment.prefix}77_{name}_bbbb")
        assert engine.harness.has_user(live[name])
    environment.feed_says("database.swept")
    for name, engine in engines.items():
        adapter_of(engine, environment.prefix, "anotherledgr").drop_user(
            f"{environment.prefix}77_{name}_bbbb", Level(name="x")
        )


def ledger_of(environment: Environment) -> str:
    found = next(
        f["what"] for f in json.loads(environment.cli("doctor", "pg", "--json")) if f["what"].startswith("ledger ")
    )
    return str(found.split()[1].rstrip(","))


def adapter_of(engine: Engine, prefix: str, ledger: str) -> Adapter:
    """The adapter of the installed engine, for a bot with that ledger."""
    entry = DatabaseEntry.model_validate({**engine.entry, "admin_url": "env:UNUSED"})
    where = target("stray", entry, prefix=prefix, ledger=ledger)
    return installed_engines()[entry.engine](
        replace(where, tls=Tls(mode="prefer")), Secrets(admin_url=engine.admin_url)
    )


def make_stray(engine: Engine, username: str, prefix: str, ledger: str) -> None:
    roles = tuple(engine.entry["levels"]["readonly"]["roles"])
    level = Level(name="readonly", roles=roles)
    spec = UserSpec(username=username, password="Stray0Password0Long", level=level, remaining=600, request_id=77)
    adapter_of(engine, prefix, ledger).create_user(spec)


def test_three_databases_of_one_server_are_swept_once(environment: Environment, postgresql15: PostgresServer) -> None:
    """They share the server and the bot's account; each has a database of its own."""
    harness = postgresql_harness.build(postgresql15)
    second = postgresql_harness.build(postgresql15)
    with second.superuser() as connection:
        holder = harness.owner or harness.bot
        connection.execute(f'GRANT CONNECT ON DATABASE "{second.database}" TO {holder} WITH GRANT OPTION'.encode())
        connection.execute(f"GRANT USAGE ON SCHEMA shop TO {holder} WITH GRANT OPTION".encode())
        connection.execute(f"GRANT SELECT ON shop.orders TO {holder} WITH GRANT OPTION".encode())
    shared = {"engine": "postgresql", "admin_role": harness.owner, "admin_url": "env:SHOP_ADMIN_URL"}
    orders = {"grants": [{"on": ["shop.orders"], "privileges": ["SELECT"]}], "description": "Orders"}
    environment.extra_env["SHOP_ADMIN_URL"] = postgresql15.url(
        harness.bot, postgresql_harness.BOT_PASSWORD, harness.database
    )
    environment.databases = {
        "databases": {
            "one": {**shared, "levels": {"readonly": {"roles": ["shop_reader"]}}},
            "two": {**shared, "connect": {"database": second.database}, "levels": {"orders": orders}},
            "three": {**shared, "levels": {"orders": {**orders, "database": second.database}}},
        }
    }
    environment.policy["rules"][0]["databases"] = ["*"]
    environment.start()
    for request, database in (
        ("one readonly", harness.database),
        ("two orders", second.database),
        ("three orders", second.database),
    ):
        card, message = environment.request_and_approve(f"{request} 1h looking")
        known = credentials(message)
        assert known["Database"] == database
        with psycopg.connect(pasted_url(message), autocommit=True) as session:
            assert session.execute("SELECT count(*) FROM shop.orders").fetchone() == (1000,)
        assert card
    assert environment.cli("sweep").splitlines()[-1].startswith("1 server, 3 managed users, 0 strays")
