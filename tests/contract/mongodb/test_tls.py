"""TLS as it is configured, against the stand-in, which then speaks nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import AdapterError, Rejected, Tls
from tests.contract.mongodb.harness import EngineHarness
from tests.servers import certificates
from tests.servers.certificates import Certificates
from tests.servers.mongodb import server as servers


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module")
def secured(pem: Certificates) -> Iterator[EngineHarness]:
    """The server wants certificate and key in one file; the bench's own clients trust what the file holds."""
    both = pem.ca.parent / "both.pem"
    both.write_bytes(pem.certificate.read_bytes() + pem.key.read_bytes() + pem.ca.read_bytes())
    both.chmod(0o644)
    server = servers.start(certificate=both)
    try:
        yield EngineHarness(server)
    finally:
        server.remove()


def test_what_is_let_through(secured: EngineHarness, pem: Certificates) -> None:
    known = str(pem.ca)
    for tls in (Tls(mode="verify-full", ca=known), Tls(mode="verify-ca", ca=known), Tls(mode="require")):
        adapter, spec = secured.adapter(tls=tls), secured.spec(secured.reading)
        adapter.create_user(spec)
        login = adapter.login(spec.username, spec.password, spec.level)
        assert login.is_alive()
        adapter.drop_user(spec.username, spec.level)
        assert not login.is_alive()
        login.close()


def test_what_is_not(secured: EngineHarness, pem: Certificates) -> None:
    for ca in (str(pem.stranger), None):
        with pytest.raises(Rejected, match=r"put tls in databases\.yml right"):
            secured.adapter(tls=Tls(mode="verify-full", ca=ca)).identity()
    for tls in (Tls(mode="disable"), Tls(mode="prefer"), Tls(mode="verify-ca", ca="/nowhere/ca.pem")):
        with pytest.raises(AdapterError):
            secured.adapter(tls=tls).identity()
