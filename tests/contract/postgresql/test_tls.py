"""The configured TLS modes against a server with TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import Rejected, Tls
from tests.conftest import had
from tests.contract.postgresql.harness import ContractHarness, EngineHarness, build, readonly
from tests.servers import certificates
from tests.servers import postgresql as servers
from tests.servers.certificates import Certificates


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module")
def secured(pem: Certificates) -> Iterator[EngineHarness]:
    extra = f"ssl = on\nssl_cert_file = '{pem.certificate}'\nssl_key_file = '{pem.key}'\n"
    for server in had(lambda: servers.start(15, extra=extra)):
        yield build(server)


def speaks_tls(harness: EngineHarness, tls: Tls) -> bool:
    with harness.adapter(tls=tls).server.session() as connection:
        return bool(connection.pgconn.ssl_in_use)


def test_valid_tls_modes_connect(secured: EngineHarness, pem: Certificates) -> None:
    known = str(pem.ca)
    for tls in (
        Tls(mode="verify-full", ca=known),
        Tls(mode="verify-ca", ca=known),
        Tls(mode="require"),
        Tls(mode="prefer"),
    ):
        assert speaks_tls(secured, tls), tls
    assert not speaks_tls(secured, Tls(mode="disable"))


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_an_unknown_authority_is_rejected(secured: EngineHarness, pem: Certificates, mode: str) -> None:
    for ca in (str(pem.stranger), "/nowhere/ca.pem"):
        with pytest.raises(Rejected, match=r"correct tls in databases\.yml"):
            secured.adapter(tls=Tls(mode=mode, ca=ca)).identity()


def test_a_server_without_tls_is_rejected(postgresql18: servers.PostgresServer) -> None:
    with pytest.raises(Rejected, match=r"correct tls in databases\.yml"):
        build(postgresql18).adapter(tls=Tls(mode="require")).identity()


def test_users_log_in_over_tls(secured: EngineHarness, pem: Certificates) -> None:
    adapter, spec = secured.adapter(tls=Tls(mode="verify-ca", ca=str(pem.ca))), secured.spec(readonly())
    adapter.create_user(spec)
    login = adapter.login(spec.username, spec.password, spec.level)
    assert login.is_alive()
    required = secured.adapter(tls=Tls(mode="require")).endpoint(spec.level)
    assert spec.username in ContractHarness(secured).login_by(required.paste(spec.username, spec.password))
    adapter.drop_user(spec.username, spec.level)
    assert not login.is_alive()
    login.close()
