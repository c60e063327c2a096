"""SCRAM-SHA-256: stored credentials, and the server's side of one login."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from pymongo.saslprep import saslprep

from tests.servers.mongodb import errors

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 15000
SALT_BYTES = 28
Credentials = dict[str, Any]


def credentials(password: str) -> Credentials:
    """The stored form of a password, prepared by SASLprep (RFC 4013)."""
    salt = secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    return {
        "iterationCount": ITERATIONS,
        "salt": _text(salt),
        "storedKey": _text(hashlib.sha256(client).digest()),
        "serverKey": _text(hmac.digest(salted, b"Server Key", "sha256")),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Conversation:
    """One login. ``first`` and ``final`` return the next payload or raise LOGIN_FAILED."""

    db: str
    user: str = ""
    _bare: str = ""
    _server_first: str = ""
    _nonce: str = ""

    def read_first(self, payload: bytes) -> None:
        """Reads ``n,,n=<user>,r=<nonce>``."""
        try:
            binding, _, bare = payload.decode().split(",", 2)
            parts = dict(part.split("=", 1) for part in bare.split(","))
            self.user = parts["n"].replace("=2C", ",").replace("=3D", "=")
            client_nonce = parts["r"]
        except (ValueError, KeyError):
            raise errors.LOGIN_FAILED.failure() from None
        if binding != "n":
            raise errors.LOGIN_FAILED.failure()
        self._bare = bare
        self._nonce = client_nonce + _text(secrets.token_bytes(24))

    def first(self, stored: Credentials) -> bytes:
        self._server_first = f"r={self._nonce},s={stored['salt']},i={stored['iterationCount']}"
        return self._server_first.encode()

    def final(self, payload: bytes, stored: Credentials) -> bytes:
        try:
            without_proof, proof = payload.decode().rsplit(",p=", 1)
            parts = dict(part.split("=", 1) for part in without_proof.split(","))
            given = base64.b64decode(proof, validate=True)
            is_same_login = parts["c"] == "biws" and parts["r"] == self._nonce
        except (ValueError, KeyError):
            raise errors.LOGIN_FAILED.failure() from None
        message = f"{self._bare},{self._server_first},{without_proof}".encode()
        stored_key = base64.b64decode(stored["storedKey"])
        signature = hmac.digest(stored_key, message, "sha256")
        key = bytes(a ^ b for a, b in zip(given, signature, strict=False))
        if not is_same_login or not hmac.compare_digest(hashlib.sha256(key).digest(), stored_key):
            raise errors.LOGIN_FAILED.failure()
        return b"v=" + base64.b64encode(hmac.digest(base64.b64decode(stored["serverKey"]), message, "sha256"))
