"""The command from the credential message, pasted into MySQL's or MariaDB's client on a machine without further files."""

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
VERIFIES = "the command asks the client to verify the certificate, and does not give the authority that it needs"
NO_OPTION = "the command has an option for TLS that the other client does not know and refuses"
NO_KEY = "without TLS MySQL's client needs the server's public key before it sends a new password, and the command does not allow it to ask for it"
FAILS = {
    ("mysql", "mysql", "disable"): NO_KEY,
    **{("mysql", "mysql", mode): VERIFIES for mode in ("verify-full", "verify-ca")},
    **{("mariadb", "mariadb", mode): VERIFIES for mode in ("verify-full", "verify-ca")},
    **{("mysql", "mariadb", mode): NO_OPTION for mode in MODES},
    **{("mariadb", "mysql", mode): NO_OPTION for mode in ("verify-full", "verify-ca", "require", "disable")},
}


@dataclass(frozen=True)
class Secured:
    """Harnesses of both servers, which offer TLS, and the authority that the bot knows."""

    harnesses: dict[str, EngineHarness]
    pem: Certificates

    @contextmanager
    def granted(self, name: str, mode: str) -> Iterator[tuple[MySQLFamily, UserSpec]]:
        harness = self.harnesses[name]
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


def output_of(client: Flavour, options: list[str], home: Path) -> str:
    """The output of the client: its errors, or the account it logged in as. MariaDB's client is not installed, so it gets the folder of its plugins."""
    environment, own = {"HOME": str(home)}, ["--no-defaults"]
    if client is mysql.MARIADB:
        root = client.root()
        environment["LD_LIBRARY_PATH"] = str(debian.missing_libraries(root / client.client, root))
        (plugin,) = root.glob("usr/lib/*/libmariadb3/plugin")
        own.append(f"--plugin-dir={plugin}")
    command = [*client.command(client.client), *own, *options, "--batch", "-N", "-e", "SELECT CURRENT_USER()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


@pytest.mark.parametrize(("server", "client"), [("mysql", "mysql"), ("mysql", "mariadb"), ("mariadb", "mariadb")])
def test_both_clients_log_in_with_address_name_and_password(
    secured: Secured, tmp_path: Path, server: str, client: str
) -> None:
    """If this passes, a failure of the pasted command below comes from the command's own options."""
    with secured.granted(server, "prefer") as (adapter, spec):
        endpoint = adapter.endpoint(spec.level)
        address = [
            f"--host={endpoint.host}",
            f"--port={endpoint.port}",
            f"--user={spec.username}",
            f"--password={spec.password}",
        ]
        assert f"{spec.username}@" in output_of(FLAVOURS[client], address, tmp_path)


def cases() -> list[Any]:
    """Server, client and TLS mode. On many machines the client called ``mysql`` is MariaDB's."""
    every = [(server, client, mode) for server in FLAVOURS for client in FLAVOURS for mode in MODES]
    marks = {case: (open_fault("U7", what),) for case, what in FAILS.items()}
    return [pytest.param(*case, marks=marks.get(case, ())) for case in every]


@pytest.mark.parametrize(("server", "client", "mode"), cases())
def test_pasted_command_works_in_both_clients(
    secured: Secured, tmp_path: Path, server: str, client: str, mode: str
) -> None:
    with secured.granted(server, mode) as (adapter, spec):
        _, *options = shlex.split(adapter.endpoint(spec.level).paste(spec.username, spec.password))
        output = output_of(FLAVOURS[client], options, tmp_path)
    if (server, client) == ("mariadb", "mysql"):
        # MySQL's client no longer has the only password plugin that both know; a command cannot get further than this error.
        assert "mysql_native_password" in output or f"{spec.username}@" in output, output
    else:
        assert f"{spec.username}@" in output, output
