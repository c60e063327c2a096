"""The configured TLS modes, against a stand-in that accepts TLS only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base import AdapterError, Rejected, Tls
from tests.contract.mongodb.harness import MongoDBHarness
from tests.servers import certificates
from tests.servers.certificates import Certificates
from tests.servers.mongodb import server as servers


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module")
def secured(pem: Certificates) -> Iterator[MongoDBHarness]:
    """The server takes certificate and key in one file. The harness's own clients trust the certificates in it."""
    both = pem.ca.parent / "both.pem"
    both.write_bytes(pem.certificate.read_bytes() + pem.key.read_bytes() + pem.ca.read_bytes())
    both.chmod(0o644)
    server = servers.start(certificate=both)
    try:
        yield MongoDBHarness(server)
    finally:
        server.remove()


def test_verified_connection_is_accepted(secured: MongoDBHarness, pem: Certificates) -> None:
    known = str(pem.ca)
    for tls in (Tls(mode="verify-full", ca=known), Tls(mode="verify-ca", ca=known), Tls(mode="require")):
        adapter, spec = secured.adapter(tls=tls), secured.spec(secured.reading)
        adapter.create_user(spec)
        login = adapter.login(spec.username, spec.password, spec.level)
        assert login.is_alive()
        adapter.drop_user(spec.username, spec.level)
        assert not login.is_alive()
        login.close()


def test_unverified_connection_is_refused(secured: MongoDBHarness, pem: Certificates) -> None:
    for ca in (str(pem.stranger), None):
        with pytest.raises(Rejected, match=r"correct tls in databases\.yml"):
            secured.adapter(tls=Tls(mode="verify-full", ca=ca)).identity()
    for tls in (Tls(mode="disable"), Tls(mode="prefer"), Tls(mode="verify-ca", ca="/nowhere/ca.pem")):
        with pytest.raises(AdapterError):
            secured.adapter(tls=tls).identity()
