"""The printed command works unchanged on a machine that has psql and no file of dbaccess."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.base import Connect, Secrets, Tls, UserSpec
from adapters.postgresql import PostgreSQL
from tests.conftest import had
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build, readonly
from tests.open_faults import open_fault, require
from tests.servers import certificates
from tests.servers import postgresql as servers
from tests.servers.certificates import Certificates
from tests.servers.postgresql import free_port, has_ipv6, psql


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module")
def secured(pem: Certificates) -> Iterator[EngineHarness]:
    extra = f"ssl = on\nssl_cert_file = '{pem.certificate}'\nssl_key_file = '{pem.key}'\nlisten_addresses = '127.0.0.1, ::1'\n"
    for server in had(lambda: servers.start(15, extra=extra)):
        with (server.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("\nhost all all ::1/128 scram-sha-256\n")
        server.restart()
        yield build(server)


@contextmanager
def granted(harness: EngineHarness, adapter: PostgreSQL) -> Iterator[UserSpec]:
    spec = harness.spec(readonly())
    adapter.create_user(spec)
    try:
        yield spec
    finally:
        adapter.drop_user(spec.username, spec.level)


def pasted(adapter: PostgreSQL, spec: UserSpec, home: Path) -> str:
    """The output of the command in a shell with the empty home directory ``home``."""
    command = adapter.endpoint(spec.level).paste(spec.username, spec.password)
    arguments = [str(psql()), *shlex.split(command)[1:], "-XAtc", "SELECT current_user"]
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, "HOME": str(home)}
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("mode", ["require", "prefer", "disable"])
def test_the_command_works_over_unverified_tls(secured: EngineHarness, tmp_path: Path, mode: str) -> None:
    adapter = secured.adapter(tls=Tls(mode=mode))
    with granted(secured, adapter) as spec:
        assert pasted(adapter, spec, tmp_path) == spec.username


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
@open_fault("U7", "the command makes the person's machine verify, and does not name the authority that this needs")
def test_the_command_works_over_verified_tls(
    secured: EngineHarness, pem: Certificates, tmp_path: Path, mode: str
) -> None:
    """Only the bot has the file with the authority."""
    adapter = secured.adapter(tls=Tls(mode=mode, ca=str(pem.ca)))
    with granted(secured, adapter) as spec:
        assert pasted(adapter, spec, tmp_path) == spec.username


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_the_command_may_verify_less_than_the_bot(
    secured: EngineHarness, pem: Certificates, tmp_path: Path, mode: str
) -> None:
    adapter = secured.adapter(tls=Tls(mode=mode, ca=str(pem.ca)), connect=Connect(tls="require"))
    with granted(secured, adapter) as spec:
        assert pasted(adapter, spec, tmp_path) == spec.username


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no address ::1")
def test_the_command_works_over_ipv6(secured: EngineHarness, tmp_path: Path) -> None:
    url = f"postgresql://{secured.bot}:{BOT_PASSWORD}@[::1]:{secured.server.port}/{secured.database}"
    adapter = PostgreSQL(secured.target(), Secrets(admin_url=url))
    with granted(secured, adapter) as spec:
        assert pasted(adapter, spec, tmp_path) == spec.username
        assert adapter.endpoint(spec.level).host == "::1"


def of_several(harness: EngineHarness, *ports: int, attributes: str = "") -> PostgreSQL:
    """A bot whose admin URL names several servers. The driver finds the right one."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    url = f"postgresql://{harness.bot}:{BOT_PASSWORD}@{hosts}/{harness.database}{attributes}"
    return PostgreSQL(harness.target(), Secrets(admin_url=url))


def test_the_command_works_with_the_first_of_several_hosts(own_harness: EngineHarness, tmp_path: Path) -> None:
    adapter = of_several(own_harness, own_harness.server.port, free_port())
    with granted(own_harness, adapter) as spec:
        assert pasted(adapter, spec, tmp_path) == spec.username


@pytest.mark.parametrize("attributes", ["", "?target_session_attrs=read-write"])
@open_fault("U7", "the command names only the first host of the admin URL, also while another one is the server")
def test_the_command_works_with_another_of_several_hosts(
    own_harness: EngineHarness, tmp_path: Path, attributes: str
) -> None:
    adapter = of_several(own_harness, free_port(), own_harness.server.port, attributes=attributes)
    with granted(own_harness, adapter) as spec:
        require(adapter.identity(), "the bot itself gets through")
        assert pasted(adapter, spec, tmp_path) == spec.username
