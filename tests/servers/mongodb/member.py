"""A deployment and its members. Each member listens and has its own connections; accounts and documents are shared."""

from __future__ import annotations

import asyncio
import copy
import itertools
import ssl
import time
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from bson import json_util
from bson.binary import UuidRepresentation

from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.documents import Documents
from tests.servers.mongodb.fail_points import FailPoints
from tests.servers.mongodb.operations import Operations
from tests.servers.mongodb.rights import Privilege
from tests.servers.mongodb.users import Accounts, User, UserName

HOST = "127.0.0.1"
CACHE_SECONDS = 30
READY = "the stand-in is listening"
"""What the process says when all its members listen."""
LOG_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED, uuid_representation=UuidRepresentation.STANDARD, tz_aware=True
)


class Shape(StrEnum):
    """Each member of a set runs its own operations; all routers (mongos) send operations to the same shard."""

    STANDALONE = "standalone"
    SET = "set"
    ROUTERS = "routers"


class Deployment:
    """Shared by all members. The first member of a set is the primary."""

    set_name = "rs0"

    def __init__(self, folder: Path, *, shape: Shape, is_auth_on: bool, log: TextIO) -> None:
        self.shape = shape
        self.is_auth_on = is_auth_on
        self.accounts = Accounts(folder / "accounts.bson")
        self.documents = Documents(folder / "documents.bson")
        self.members: list[Member] = []
        self.shard = Operations()
        self.connection_numbers = itertools.count(1)
        self._log = log

    @property
    def is_set(self) -> bool:
        return self.shape is Shape.SET

    @property
    def is_routed(self) -> bool:
        return self.shape is Shape.ROUTERS

    def log(self, component: str, context: str, message: str, **attributes: Any) -> None:
        """Writes one line of JSON in the format of the real server, in local time."""
        line = {
            "t": {"$date": datetime.now().astimezone().isoformat(timespec="milliseconds")},
            "s": "I",
            "c": component,
            "ctx": context,
            "msg": message,
            "attr": attributes,
        }
        self._log.write(json_util.dumps(line, json_options=LOG_JSON) + "\n")
        self._log.flush()


class Member:
    """One listener."""

    def __init__(self, deployment: Deployment, port: int) -> None:
        self.deployment = deployment
        self.port = port
        self.operations = deployment.shard if deployment.is_routed else Operations()
        self.fail_points = FailPoints()
        self.connections: dict[int, Connection] = {}
        self._known: dict[UserName, tuple[User, list[Privilege]]] = {}
        self._known_at = 0.0
        self._server: asyncio.Server | None = None
        deployment.members.append(self)

    @property
    def is_primary(self) -> bool:
        return self.deployment.members[0] is self or self.deployment.is_routed

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def known(self, name: UserName) -> tuple[User, list[Privilege]] | None:
        """The user and its privileges, as this member knows them. A router caches them for 30 seconds."""
        now = time.monotonic()
        if not self.deployment.is_routed or now - self._known_at > CACHE_SECONDS:
            self.forget_users()
        if name not in self._known:
            user = self.deployment.accounts.users.get(name)
            if user is None:
                return None
            self._known[name] = copy.deepcopy(user), self.deployment.accounts.privileges(user.roles)
        return self._known[name]

    def forget_users(self) -> None:
        self._known.clear()
        self._known_at = time.monotonic()

    async def open(self, certificate: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, ssl=certificate)
        self.deployment.log("NETWORK", "listener", "Waiting for connections", port=self.port)

    async def close(self) -> None:
        """Like the end of a process: every socket closes and every operation ends."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections.values()):
            connection.writer.transport.abort()
        self.operations.end_all()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if writer.get_extra_info("peername") is None:  # the client is gone already
            writer.close()
            return
        connection = Connection(self, next(self.deployment.connection_numbers), reader, writer)
        self.connections[connection.id] = connection
        self.deployment.log("NETWORK", "listener", "Connection accepted", connectionId=connection.id)
        try:
            await connection.serve()
        finally:
            del self.connections[connection.id]
            writer.close()
            self.deployment.log("NETWORK", connection.context, "Connection ended", connectionId=connection.id)
