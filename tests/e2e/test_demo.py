"""The demo's additional databases, which it offers where the machine has their servers. The test puts unpacked servers on the PATH."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adapters.base import Level, Secrets, Target, Tls
from bot.engines import installed_engines
from bot.policy.loader import load
from demo import extra_databases
from demo.world import free_port
from tests.servers import debian, mysql, redis
from tests.servers.mysql import MySQLServer
from tests.servers.postgresql import unprivileged
from tests.servers.redis import RedisServer

PASSWORDS = {"superuser": "Super0Secret0Demo", "bot": "Bot0Secret0Demo"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the unprivileged account can enter, which it cannot do with pytest's own."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-demo-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def on_the_path(open_folder: Path, mariadb: MySQLServer, redis7: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts on the PATH, with the names of the programs of an installed server."""
    assert mariadb.process, "the server could be started"
    assert redis7.process
    folder = open_folder / "bin"
    folder.mkdir()
    root = mysql.MARIADB.root()
    libraries = f"LD_LIBRARY_PATH={debian.missing_libraries(root / mysql.MARIADB.program, root)}"
    share = f"--lc-messages-dir={root}/usr/share/mysql"
    scripts = {
        "mariadbd": f'first="$1"; shift; {libraries} exec {root}/usr/sbin/mariadbd "$first" {share} --plugin-dir={root}/usr/lib/mysql/plugin "$@"',
        "mariadb-install-db": f'{libraries} exec {root}/usr/bin/mariadb-install-db "$@" --basedir={root}/usr {share}',
        "redis-server": f'exec {" ".join(redis.command(redis.REDIS, redis.REDIS.program))} "$@"',
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.usefixtures("on_the_path")
def test_demo_offers_the_servers_that_the_machine_has(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with extra_databases.running(open_folder, dict(unprivileged()), free_port, PASSWORDS) as started:
        assert [one.name for one in started] == ["shop-reports", "shop-cache"]
        folder = extra_databases.write_config(open_folder, started)
        for one in started:
            monkeypatch.setenv(one.variable, one.admin_url)
        assert not load(folder).warnings
        databases = yaml.safe_load((folder / "databases.yml").read_text())["databases"]
        for one in started:
            target = Target(
                name=one.name, engine=databases[one.name]["engine"], admin_url=f"env:{one.variable}",
                prefix="jit_", ledger="demoledger", tls=Tls(mode="prefer"),
            )  # fmt: skip
            roles = tuple(databases[one.name]["levels"]["readonly"]["roles"])
            health = installed_engines()[target.engine](target, Secrets(admin_url=one.admin_url)).check(
                [Level(name="readonly", roles=roles)]
            )
            assert (health.problems, health.warnings) == ((), ())


def test_demo_does_not_offer_servers_that_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_databases, "find_programs", lambda *_programs: None)
    with extra_databases.running(tmp_path, {}, free_port, PASSWORDS) as started:
        assert started == []
        names = yaml.safe_load((extra_databases.write_config(tmp_path, started) / "databases.yml").read_text())[
            "databases"
        ]
        assert list(names) == ["shop-prod"]
