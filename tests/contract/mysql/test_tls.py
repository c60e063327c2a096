"""The configured TLS modes on servers that offer TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import LoginRefused, Rejected, Tls
from tests.conftest import had
from tests.contract.mysql.harness import EngineHarness, build
from tests.servers import certificates, mysql
from tests.servers.certificates import Certificates


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def secured(request: pytest.FixtureRequest, pem: Certificates) -> Iterator[EngineHarness]:
    flavour = mysql.MYSQL if request.param == "mysql" else mysql.MARIADB
    options = (f"--ssl-ca={pem.ca}", f"--ssl-cert={pem.certificate}", f"--ssl-key={pem.key}")
    for server in had(lambda: mysql.start(flavour, *options)):
        yield build(server)


def cipher(harness: EngineHarness, tls: Tls) -> str:
    with harness.adapter(tls=tls).server.session() as connection:
        return str(connection.run("SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1])


def test_accepted_tls_modes_connect(secured: EngineHarness, pem: Certificates) -> None:
    for tls in (Tls(mode="verify-full", ca=str(pem.ca)), Tls(mode="verify-ca", ca=str(pem.ca)), Tls(mode="require")):
        assert cipher(secured, tls), tls
    assert not cipher(secured, Tls(mode="disable"))


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca"])
def test_certificate_of_another_authority_is_refused(secured: EngineHarness, pem: Certificates, mode: str) -> None:
    for ca in (str(pem.stranger), None, "/nowhere/ca.pem"):
        with pytest.raises(Rejected) as caught:
            secured.adapter(tls=Tls(mode=mode, ca=ca)).identity()
        assert "authority" in str(caught.value), ca


def test_user_must_use_tls_where_the_bot_does(secured: EngineHarness) -> None:
    spec, required = secured.spec(secured.reading), secured.adapter(tls=Tls(mode="require"))
    required.create_user(spec)
    login = required.login(spec.username, spec.password, spec.level)
    assert login.is_alive()
    with pytest.raises(LoginRefused):
        secured.adapter(tls=Tls(mode="disable")).login(spec.username, spec.password, spec.level)
    assert spec.username in secured.login_by(required.endpoint(spec.level).paste(spec.username, spec.password))
    required.drop_user(spec.username, spec.level)
    assert not login.is_alive()
    login.close()
