"""The set-up statements of docs/engines.md are run on real servers. After them ``check`` has no problems and no warnings."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Any

import psycopg
import pytest

from adapters.base import Connect, Level, Secrets, Target, Tls
from adapters.mongodb import MongoDB, rights
from adapters.mongodb.rights import FOR_MANAGED_ROLES
from adapters.mysql import MariaDB, MySQL
from adapters.postgresql import PostgreSQL
from adapters.redis import Redis
from adapters.redis.findings import OPTIONAL_RIGHTS, RIGHTS
from tests.servers import mysql as mysql_servers
from tests.servers import postgresql as postgresql_servers
from tests.servers import redis as redis_servers
from tests.servers.mongodb import server as mongodb_servers

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text()
PASSWORD = f"Page0{secrets.token_hex(8)}"


def block(engine: str) -> str:
    """The set-up statements of an engine, with a password filled in."""
    section = PAGE.split(f"\n## {engine}\n", 1)[1]
    found = re.search(r"```\w*\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1].replace("…", PASSWORD).replace("PASSWORD +", f"{PASSWORD} +")


def statements(engine: str) -> list[str]:
    return [s.strip() for s in re.sub(r" +--.*", "", block(engine)).split(";\n") if s.strip()]


def target(engine: str, **parts: Any) -> Target:
    known = {"prefix": "jit_", "ledger": "pageledger", "tls": Tls(mode="prefer"), **parts}
    return Target(name="shop", engine=engine, admin_url="env:UNUSED", **known)


def test_postgresql_setup_is_complete() -> None:
    server = postgresql_servers.start(18)
    try:
        with server.admin() as connection:
            connection.execute("CREATE DATABASE shop")
            connection.execute("CREATE ROLE shop_reader NOLOGIN")
            for name in ("postgres", "template1"):
                connection.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC".encode())
        with psycopg.connect(server.superuser_url("shop"), autocommit=True) as connection:
            for statement in statements("PostgreSQL"):
                connection.execute(statement.encode())
        url = Secrets(admin_url=server.url("dbaccess", PASSWORD, "shop"))
        health = PostgreSQL(target("postgresql", admin_role="dbaccess_owner"), url).check(
            [Level(name="readonly", roles=("shop_reader",))]
        )
        assert (health.problems, health.warnings) == ((), ())
    finally:
        server.remove()


@pytest.mark.parametrize(("flavour", "engine"), [(mysql_servers.MYSQL, MySQL), (mysql_servers.MARIADB, MariaDB)])
def test_mysql_and_mariadb_setup_is_complete(flavour: mysql_servers.Flavour, engine: type[MySQL | MariaDB]) -> None:
    server = mysql_servers.start(flavour)
    try:
        server.run(
            "CREATE DATABASE shop",
            "CREATE ROLE shop_reader",
            "GRANT SELECT ON shop.* TO shop_reader",
            *statements(engine.label),
        )
        adapter = engine(target(flavour.name), Secrets(admin_url=server.url("dbaccess", PASSWORD, "shop")))
        levels = [Level(name="readonly", roles=("shop_reader",))]
        health = adapter.check(levels)
        if engine is MariaDB:
            (procedure,) = health.problems
            assert procedure.remedy is not None
            _, _, rest = procedure.remedy.partition("DELIMITER //\n")
            body, _, grant = rest.partition(" //\nDELIMITER ;\n")
            server.run(body, grant)
            health = adapter.check(levels)
        assert (health.problems, health.warnings) == ((), ())
    finally:
        server.remove()


def test_redis_setup_is_complete() -> None:
    server = redis_servers.start(redis_servers.REDIS)
    try:
        for line in block("Redis and Valkey").splitlines():
            server.run(*line.split())
        adapter = Redis(target("redis"), Secrets(admin_url=server.url("dbaccess", PASSWORD)))
        health = adapter.check([Level(name="readonly", roles=("readonly",))])
        assert (health.problems, health.warnings) == ((), ())
        assert all(f"+{right.split()[0]}" in block("Redis and Valkey") for right in (*RIGHTS, *OPTIONAL_RIGHTS))
    finally:
        server.remove()


def test_mongodb_setup_is_complete() -> None:
    """MongoDB's shell is not available, so the test parses the documents on the page and sends them with the driver."""
    server = mongodb_servers.start()
    try:
        text = block("MongoDB")
        listed = re.findall(r'resource: \{(?:db: "(\w+)", collection: ""|cluster: true)\}, actions: \[([^\]]+)\]', text)
        privileges = [
            {
                "resource": {"db": name, "collection": ""} if name else {"cluster": True},
                "actions": re.findall(r'"(\w+)"', actions),
            }
            for name, actions in listed
        ]
        with server.admin() as root:
            root.admin.command("createRole", "dbaccess_bot", roles=[], privileges=privileges)
            root.admin.command("createUser", "dbaccess", pwd=PASSWORD, roles=["dbaccess_bot"])
        adapter = MongoDB(
            target("mongodb", connect=Connect(database="shop")), Secrets(admin_url=server.url("dbaccess", PASSWORD))
        )
        health = adapter.check([Level(name="readonly", roles=("read",))])
        assert (health.problems, health.warnings) == ((), ())
        wanted = (set(rights.ON_USERS), {"grantRole", *FOR_MANAGED_ROLES}, set(rights.ON_CLUSTER))
        assert tuple(set(p["actions"]) for p in privileges) == wanted
    finally:
        server.remove()
