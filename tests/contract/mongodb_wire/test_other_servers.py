"""Other releases, servers that only look like MongoDB, and TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymongo.errors import AutoReconnect, OperationFailure, ServerSelectionTimeoutError

from tests.contract.mongodb_wire.harness import (
    APP,
    USERS,
    expect_refused,
    harness_of,
    serving,
)
from tests.servers.mongodb.server import MongoServer


def test_lookalikes_give_themselves_away() -> None:
    with serving(like="ferretdb") as ferret, bench_of_lookalike(ferret) as (root, powerless):
        assert "ferretdb" in root.admin.command("buildInfo")
        assert powerless[APP].things.find_one() is not None
        with expect_refused(59):
            root.admin.command("killOp", 1, op=1)
    with serving(auth=False, like="atlas") as atlas, atlas.stranger() as client:
        assert client.admin.command("atlasVersion")["atlasVersion"]
        with expect_refused(8000):
            client.admin.command("createUser", "x", pwd="y", roles=[])


def test_other_releases_differ_where_it_matters() -> None:
    with serving(like="4.4") as old, old.stranger() as stranger:
        assert stranger.server_info()["version"] == "4.4.29"
        assert stranger.admin.command("hello")["maxWireVersion"] == 9
        with pytest.raises(OperationFailure, match=r"^command find requires authentication"):
            stranger[APP].things.find_one()
    with serving(like="8.2") as new, harness_of(new) as harness:
        with expect_refused(13, "buildinfo requires authentication"):
            harness.stranger().server_info()
        assert harness.root.server_info()["version"] == "8.2.0"
        harness.client(harness.user())[APP].things.find_one()
        rows = list(harness.root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}]))
        assert not [row for row in rows if not row["active"] and "effectiveUsers" in row]
        assert [row for row in rows if row["active"] and "effectiveUsers" in row]


@contextlib.contextmanager
def bench_of_lookalike(on: MongoServer) -> Iterator[tuple[Any, Any]]:
    with on.admin() as root:
        root[APP].things.insert_one({})
        root[USERS].command("createUser", "powerless", pwd="Secret0", roles=[])
        with on.client("powerless", "Secret0", USERS) as powerless:
            yield root, powerless


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(pem) + secret)
    return path


def test_tls_and_nothing_else(tmp_path: Path) -> None:
    with serving(certificate=certificate(tmp_path)) as made:
        with made.admin() as client:
            assert client.admin.command("ping")["ok"] == 1.0
        with (
            made.admin(tls=False, tlsCAFile=None, serverSelectionTimeoutMS=300) as client,
            pytest.raises((ServerSelectionTimeoutError, AutoReconnect)),
        ):
            client.admin.command("ping")
        with (
            made.admin(tlsCAFile=ssl.get_default_verify_paths().cafile, serverSelectionTimeoutMS=300) as client,
            pytest.raises(ServerSelectionTimeoutError, match="certificate verify failed"),
        ):
            client.admin.command("ping")
