"""A client below the driver, for requests that the driver does not send, such as a find without a session."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import secrets
import socket
import struct
from typing import Any, Self

import bson
from pymongo.errors import OperationFailure

OP_MSG = 2013
WAIT_SECONDS = 120


class ScramClient:
    """The client's side of SCRAM-SHA-256, written from RFC 7677 and not from the stand-in."""

    def __init__(self, user: str, password: str) -> None:
        self._password = password
        self._nonce = base64.b64encode(secrets.token_bytes(32)).decode()
        escaped = user.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={self._nonce}"
        self.verifier = b""

    @property
    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        parts = dict(part.split("=", 1) for part in server_first.decode().split(","))
        assert parts["r"].startswith(self._nonce)
        salt, count = base64.b64decode(parts["s"]), int(parts["i"])
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), salt, count)
        without_proof = f"c=biws,r={parts['r']}"
        message = f"{self._bare},{server_first.decode()},{without_proof}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), message, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        signed = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        self.verifier = b"v=" + base64.b64encode(signed)
        return without_proof.encode() + b",p=" + proof


class RawConnection:
    """One socket. It sends a command as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=WAIT_SECONDS)
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def log_in(self, user: str, password: str, database: str) -> None:
        scram = ScramClient(user, password)
        options = {"skipEmptyExchange": True}
        begun = self.command(database, saslStart=1, mechanism="SCRAM-SHA-256", payload=scram.first, options=options)
        done = self.command(database, saslContinue=1, conversationId=1, payload=scram.final(begun["payload"]))
        assert done["done"]
        assert done["payload"] == scram.verifier

    def command(self, database: str, **parts: Any) -> dict[str, Any]:
        """The reply. Raises OperationFailure as the driver does."""
        body = b"\0\0\0\0\0" + bson.encode({**parts, "$db": database})
        head = struct.pack("<iiii", len(body) + 16, next(self._numbers), 0, OP_MSG)
        self._socket.sendall(head + body)
        (length,) = struct.unpack("<i", self._read(4))
        reply: dict[str, Any] = bson.decode(self._read(length - 4)[17:])
        if not reply["ok"]:
            raise OperationFailure(reply["errmsg"], reply["code"], reply)
        return reply

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self._socket.recv(count - len(data))
            if not part:
                raise ConnectionResetError("the server hung up")
            data += part
        return data
