"""SCRAM-SHA-1 and SCRAM-SHA-256: stored credentials, and one conversation of a login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from pymongo.saslprep import saslprep

from tests.servers.mongodb import errors

SHA1, SHA256 = "SCRAM-SHA-1", "SCRAM-SHA-256"
HASHES = {SHA1: "sha1", SHA256: "sha256"}
ITERATIONS = {SHA1: 10000, SHA256: 15000}
SALT_BYTES = {SHA1: 16, SHA256: 28}
Credentials = dict[str, dict[str, Any]]


def prepared(mechanism: str, user: str, password: str) -> bytes:
    """The secret that is hashed: RFC 4013 for SHA-256, for SHA-1 the older digest."""
    if mechanism == SHA1:
        return hashlib.md5(f"{user}:mongo:{password}".encode(), usedforsecurity=False).hexdigest().encode()
    if not password:
        raise errors.EMPTY_PASSWORD.failure()
    try:
        return bytes(saslprep(password).encode())
    except ValueError:
        raise errors.PROHIBITED_PASSWORD.failure() from None


def credentials(mechanisms: list[str], user: str, password: str, *, is_digest: bool = False) -> Credentials:
    """What is stored: one entry for each mechanism, SHA-1 first. ``is_digest``: the password is already SHA-1's older digest."""
    return {
        m: _stored(m, password.encode() if is_digest else prepared(m, user, password))
        for m in (SHA1, SHA256)
        if m in mechanisms
    }


def _stored(mechanism: str, secret: bytes) -> dict[str, Any]:
    name, salt, count = HASHES[mechanism], secrets.token_bytes(SALT_BYTES[mechanism]), ITERATIONS[mechanism]
    salted = hashlib.pbkdf2_hmac(name, secret, salt, count)
    client = hmac.digest(salted, b"Client Key", name)
    return {
        "iterationCount": count,
        "salt": _text(salt),
        "storedKey": _text(hashlib.new(name, client).digest()),
        "serverKey": _text(hmac.digest(salted, b"Server Key", name)),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Conversation:
    """Server side of one login: ``first`` and ``final`` give the next payload or raise errors.LOGIN_FAILED."""

    mechanism: str
    db: str
    skips_empty_exchange: bool
    user: str = ""
    is_proven: bool = False
    _bare: str = ""
    _server_first: str = ""
    _nonce: str = ""

    def read_first(self, payload: bytes) -> None:
        """``n,,n=<user>,r=<nonce>``. Channel binding is refused."""
        try:
            binding, _, bare = payload.decode().split(",", 2)
            parts = dict(part.split("=", 1) for part in bare.split(","))
            self.user = parts["n"].replace("=2C", ",").replace("=3D", "=")
            client_nonce = parts["r"]
        except (ValueError, KeyError):
            raise errors.LOGIN_FAILED.failure() from None
        if binding not in ("n", "y"):
            raise errors.LOGIN_FAILED.failure()
        self._bare = bare
        self._nonce = client_nonce + _text(secrets.token_bytes(24))

    def first(self, stored: dict[str, Any]) -> bytes:
        self._server_first = f"r={self._nonce},s={stored['salt']},i={stored['iterationCount']}"
        return self._server_first.encode()

    def final(self, payload: bytes, stored: dict[str, Any]) -> bytes:
        name = HASHES[self.mechanism]
        try:
            without_proof, proof = payload.decode().rsplit(",p=", 1)
            parts = dict(part.split("=", 1) for part in without_proof.split(","))
            given = base64.b64decode(proof, validate=True)
            is_ours = parts["c"] == "biws" and parts["r"] == self._nonce
        except (ValueError, KeyError):
            raise errors.LOGIN_FAILED.failure() from None
        message = f"{self._bare},{self._server_first},{without_proof}".encode()
        stored_key = base64.b64decode(stored["storedKey"])
        signature = hmac.digest(stored_key, message, name)
        key = bytes(a ^ b for a, b in zip(given, signature, strict=False))
        if not is_ours or not hmac.compare_digest(hashlib.new(name, key).digest(), stored_key):
            raise errors.LOGIN_FAILED.failure()
        self.is_proven = True
        return b"v=" + base64.b64encode(hmac.digest(base64.b64decode(stored["serverKey"]), message, name))
