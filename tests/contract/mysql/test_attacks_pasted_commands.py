"""The command that a person pastes, into the client of MySQL or of MariaDB, on a machine without our files: it works as it stands."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adapters.base import Tls, UserSpec
from adapters.mysql import MySQLFamily
from tests.conftest import had
from tests.contract.mysql.harness import EngineHarness, build
from tests.open_faults import open_fault
from tests.servers import certificates, debian, mysql
from tests.servers.certificates import Certificates
from tests.servers.mysql import Flavour

FLAVOURS = {"mysql": mysql.MYSQL, "mariadb": mysql.MARIADB}
MODES = ("verify-full", "verify-ca", "require", "prefer", "disable")
VERIFIES = "the command asks the person's machine to verify, and says nothing of the authority it needs for that"
NO_OPTION = "the command has an option for TLS that the other client does not know, and which ends it"
NO_KEY = "without TLS MySQL's own client asks for the server's key before it sends a new password, and nobody told it that it may"
FAILS = {
    ("mysql", "mysql", "disable"): NO_KEY,
    **{("mysql", "mysql", mode): VERIFIES for mode in ("verify-full", "verify-ca")},
    **{("mariadb", "mariadb", mode): VERIFIES for mode in ("verify-full", "verify-ca")},
    **{("mysql", "mariadb", mode): NO_OPTION for mode in MODES},
    **{("mariadb", "mysql", mode): NO_OPTION for mode in ("verify-full", "verify-ca", "require", "disable")},
}


@dataclass(frozen=True)
class Secured:
    """Benches of both servers, which speak TLS, and the authority that the bot knows."""

    benches: dict[str, EngineHarness]
    pem: Certificates

    @contextmanager
    def granted(self, name: str, mode: str) -> Iterator[tuple[MySQLFamily, UserSpec]]:
        harness = self.benches[name]
        adapter = harness.adapter(tls=Tls(mode=mode, ca=str(self.pem.ca) if mode.startswith("verify") else None))
        spec = harness.spec(harness.reading)
        adapter.create_user(spec)
        try:
            yield adapter, spec
        finally:
            adapter.drop_user(spec.username, spec.level)


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with certificates.made() as pem:
        options = (f"--ssl-ca={pem.ca}", f"--ssl-cert={pem.certificate}", f"--ssl-key={pem.key}")
        running = {name: had(lambda f=flavour: mysql.start(f, *options)) for name, flavour in FLAVOURS.items()}  # type: ignore[misc]
        yield Secured({name: build(next(one)) for name, one in running.items()}, pem)
        for one in running.values():
            next(one, None)


def said_by(client: Flavour, options: list[str], home: Path) -> str:
    """What it says of the options and of whom it logged in as. MariaDB's is not installed, so it is told where its plugins are."""
    environment, own = {"HOME": str(home)}, ["--no-defaults"]
    if client is mysql.MARIADB:
        root = client.root()
        environment["LD_LIBRARY_PATH"] = str(debian.missing_libraries(root / client.client, root))
        (plugin,) = root.glob("usr/lib/*/libmariadb3/plugin")
        own.append(f"--plugin-dir={plugin}")
    words = [*client.command(client.client), *own, *options, "--batch", "-N", "-e", "SELECT CURRENT_USER()"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("server", "client"), [("mysql", "mysql"), ("mysql", "mariadb"), ("mariadb", "mariadb")])
def test_both_clients_get_in(secured: Secured, tmp_path: Path, server: str, client: str) -> None:
    """With nothing but an address, a name and a password: what fails below fails for the command's own words."""
    with secured.granted(server, "prefer") as (adapter, spec):
        told = adapter.endpoint(spec.level)
        address = [
            f"--host={told.host}",
            f"--port={told.port}",
            f"--user={spec.username}",
            f"--password={spec.password}",
        ]
        assert f"{spec.username}@" in said_by(FLAVOURS[client], address, tmp_path)


def cases() -> list[Any]:
    """Server, client and mode of TLS. On many machines the client called ``mysql`` is MariaDB's."""
    every = [(server, client, mode) for server in FLAVOURS for client in FLAVOURS for mode in MODES]
    marks = {case: (open_fault("U7", what),) for case, what in FAILS.items()}
    return [pytest.param(*case, marks=marks.get(case, ())) for case in every]


@pytest.mark.parametrize(("server", "client", "mode"), cases())
def test_a_pasted_command_works_in_both_clients(
    secured: Secured, tmp_path: Path, server: str, client: str, mode: str
) -> None:
    with secured.granted(server, mode) as (adapter, spec):
        _, *options = shlex.split(adapter.endpoint(spec.level).paste(spec.username, spec.password))
        said = said_by(FLAVOURS[client], options, tmp_path)
    if (server, client) == ("mariadb", "mysql"):
        # MySQL's client has lost the only plugin that both know for passwords; that it gets so far is all a command can do.
        assert "mysql_native_password" in said or f"{spec.username}@" in said, said
    else:
        assert f"{spec.username}@" in said, said
