"""A certificate authority and a server certificate for 127.0.0.1 and localhost, valid from yesterday to tomorrow.

The files are in a temporary folder that the unprivileged account can read.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.servers.postgresql import unprivileged

Signed: TypeAlias = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files. ``stranger`` is an authority that did not sign the certificate."""

    ca: Path
    certificate: Path
    key: Path
    stranger: Path


@contextmanager
def made() -> Iterator[Certificates]:
    """Make the files, and remove them at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-tls-") as name:
        folder = Path(name)
        authority, stranger = signed("an authority"), signed("a stranger")
        certificate, key = signed("a server", authority)
        form, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        content = {
            "ca.pem": authority[0].public_bytes(serialization.Encoding.PEM),
            "stranger.pem": stranger[0].public_bytes(serialization.Encoding.PEM),
            "cert.pem": certificate.public_bytes(serialization.Encoding.PEM),
            "key.pem": key.private_bytes(serialization.Encoding.PEM, form, bare),
        }
        folder.chmod(0o755)
        for file, text in content.items():
            _write(folder / file, text)
        yield Certificates(*(folder / file for file in ("ca.pem", "cert.pem", "key.pem", "stranger.pem")))


def _write(path: Path, content: bytes) -> None:
    """Only the owner may read the key, because servers refuse a key that others can read."""
    path.write_bytes(content)
    path.chmod(0o600 if path.name == "key.pem" else 0o644)
    if account := unprivileged():
        os.chown(path, int(str(account["user"])), int(str(account["group"])))


def signed(name: str, by: Signed | None = None) -> Signed:
    """A certificate and its key, signed by the authority ``by``; without one it is itself an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=by is None, path_length=None), critical=True)
    )
    if by:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(by[1] if by else key, hashes.SHA256()), key
