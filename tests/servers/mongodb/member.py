"""A deployment and its members: each member listens, has connections and work of its own; accounts and documents are shared."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import itertools
import time
import traceback
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from bson import Timestamp, json_util
from bson.binary import UuidRepresentation
from bson.objectid import ObjectId

from tests.servers.mongodb import errors, wire
from tests.servers.mongodb.call import COMMANDS, Call, Reply
from tests.servers.mongodb.documents import Documents
from tests.servers.mongodb.faults import Faults
from tests.servers.mongodb.operations import Work
from tests.servers.mongodb.rights import CLUSTER, Privilege, Resource
from tests.servers.mongodb.scram import Conversation
from tests.servers.mongodb.text import redacted
from tests.servers.mongodb.users import Accounts, User, UserName

HOST = "127.0.0.1"
LOG_JSON = json_util.JSONOptions(
    json_mode=json_util.JSONMode.RELAXED, uuid_representation=UuidRepresentation.STANDARD, tz_aware=True
)
NOBODY = hashlib.sha256(b"").digest()
"""Owner of every session on a server without authentication."""
LOCALHOST_EXCEPTION = [
    Privilege(Resource("admin"), frozenset({"createUser", "grantRole"})),
    Privilege(CLUSTER, frozenset({"replSetConfigure"})),
]


class Deployment:
    """What all members share. The first member is the primary."""

    def __init__(self, folder: Path, *, is_auth_on: bool, set_name: str | None, log: TextIO) -> None:
        self.is_auth_on = is_auth_on
        self.set_name = set_name
        self.set_id = ObjectId(hashlib.sha256(str(folder).encode()).digest()[:12])
        self.accounts = Accounts(folder / "accounts.bson")
        self.documents = Documents(folder / "documents.bson")
        self.members: list[Member] = []
        self._log = log

    def log(self, component: str, context: str, message: str, **attributes: Any) -> None:
        """One line of JSON, as the real server writes it, in local time."""
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
        self.work = Work()
        self.faults = Faults()
        self.connections: dict[int, Connection] = {}
        self._numbers = itertools.count(1)
        self._server: asyncio.Server | None = None
        deployment.members.append(self)

    @property
    def is_primary(self) -> bool:
        return self.deployment.members[0] is self

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)
        self.deployment.log("NETWORK", "listener", "Waiting for connections", port=self.port)

    async def close(self) -> None:
        """As a process that ends: nobody is told, every socket closes."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections.values()):
            connection.writer.transport.abort()
        self.work = Work()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, next(self._numbers), reader, writer)
        self.connections[connection.id] = connection
        self.deployment.log("NETWORK", "listener", "Connection accepted", connectionId=connection.id)
        try:
            await connection.serve()
        finally:
            del self.connections[connection.id]
            writer.close()
            self.deployment.log("NETWORK", connection.context, "Connection ended", connectionId=connection.id)


class Connection:
    """One socket: who is logged in on it, and what he may do."""

    def __init__(self, member: Member, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.member = member
        self.id = number
        self.reader = reader
        self.writer = writer
        self.client: dict[str, Any] = {}
        self.user: UserName | None = None
        self.user_id: uuid.UUID | None = None
        self.privileges: list[Privilege] = []
        self.conversation: Conversation | None = None
        self.client_address = str(writer.get_extra_info("peername")[0])
        self.remote = ":".join(map(str, writer.get_extra_info("peername")[:2]))
        self.server_address = str(writer.get_extra_info("sockname")[0])

    @property
    def context(self) -> str:
        return f"conn{self.id}"

    @property
    def uid(self) -> bytes:
        return self.user.uid if self.user is not None else NOBODY

    @property
    def is_gone(self) -> bool:
        return self.reader.at_eof()

    @property
    def is_localhost_exception(self) -> bool:
        """No users at all yet, and the client is on this machine."""
        is_near = ipaddress.ip_address(self.client_address).is_loopback
        return is_near and not self.member.deployment.accounts.users

    def log(self, component: str, message: str, **attributes: Any) -> None:
        self.member.deployment.log(component, self.context, message, **attributes)

    def log_in(self, user: User) -> None:
        if self.user is not None and self.user != user.name:
            raise errors.SECOND_LOGIN.failure(user=self.user)
        self.user, self.user_id = user.name, user.id
        self.refresh()

    def log_out(self) -> None:
        self.user, self.user_id, self.privileges = None, None, []

    def refresh(self) -> None:
        """Before every request: the user as he is now. Gone, made again or shut out means logged out."""
        accounts = self.member.deployment.accounts
        if self.user is None:
            self.privileges = LOCALHOST_EXCEPTION if self.is_localhost_exception else []
            return
        now = accounts.users.get(self.user)
        if now is None or now.id != self.user_id:
            self.log("ACCESS", "User was removed from the user cache; logging out", user=str(self.user))
            self.log_out()
        elif not accounts.may_come(now, self.client_address, self.server_address):
            self.log("ACCESS", "Removed user: authentication restrictions are not met", user=str(self.user))
            self.log_out()
        else:
            self.privileges = accounts.privileges(now.roles)

    async def serve(self) -> None:
        while True:
            try:
                request = await wire.read(self.reader)
            except wire.NotAMessage as error:
                self.log("NETWORK", "Error receiving request from client; closing", error=str(error))
                return
            if request is None:
                return
            reply = await self.answer(request)
            if reply is None:
                return
            if request.wants_reply:
                self.writer.write(wire.reply(request, reply))
                try:
                    await self.writer.drain()
                except ConnectionError:
                    return

    async def answer(self, request: wire.Request) -> Reply | None:
        """None: hang up without a word."""
        self.refresh()
        began = time.monotonic()
        try:
            reply = await self._run(request)
        except errors.Failure as failure:
            reply = failure.reply()
        except Exception:  # noqa: BLE001 - a mistake in here must be seen, not lose the connection
            self.log("COMMAND", "The stand-in is wrong", traceback=traceback.format_exc())
            reply = {"ok": 0.0, "errmsg": traceback.format_exc(), "code": 1, "codeName": "InternalError"}
        shown = redacted(request.body, without=request.streamed)
        outcome = {k: (reply or {})[k] for k in ("ok", "errmsg", "code") if k in (reply or {})}
        took = int((time.monotonic() - began) * 1000)
        self.log("COMMAND", "Slow query", remote=self.remote, command=shown, durationMillis=took, **outcome)
        return reply

    async def _run(self, request: wire.Request) -> Reply | None:
        name = next(iter(request.body), "")
        if name not in COMMANDS:
            raise errors.NO_SUCH_COMMAND.failure(name=name)
        call = Call(self, request, COMMANDS[name])
        self._check_database(call)
        if call.command.is_admin_only and call.db != "admin":
            raise errors.ADMIN_ONLY.failure(name=name)
        call.needs_login()
        call.parse()
        self._check_place(call)
        fault = self.member.faults.of(name)
        if fault is not None and await fault.hangs_up():
            return None
        operation = self._begin(call)
        try:
            reply = {**await call.command.run(call), "ok": 1.0}
        finally:
            self.member.work.end(operation)
        if fault is not None and fault.write_concern_error and call.command.takes_write_concern:
            reply["writeConcernError"] = fault.write_concern_error
        return {**reply, **self._cluster_time()}

    def _check_database(self, call: Call) -> None:
        if call.request.is_query and "$db" in call.body:
            raise errors.NO_DB_IN_QUERY.failure()
        if not call.request.is_query and "$db" not in call.body:
            raise errors.NO_DB_IN_MESSAGE.failure()
        if not call.db or any(c in '/\\. "\0' for c in call.db) or len(call.db.encode()) > 63:
            raise errors.INVALID_DATABASE.failure(db=call.db)

    def _check_place(self, call: Call) -> None:
        """Writes need the primary; reads elsewhere need to say so."""
        if self.member.is_primary:
            return
        if call.command.is_write:
            raise errors.NOT_PRIMARY.failure()
        mode = call.get("$readPreference", {}).get("mode", "primary")
        if call.command.is_read and mode == "primary":
            raise errors.NOT_PRIMARY_NO_SECONDARY_OK.failure()

    def _begin(self, call: Call) -> Any:
        limit = call.get("maxTimeMS")
        shown = redacted(call.body, without=call.request.streamed)
        place = call.value if isinstance(call.value, str) else "$cmd"
        call.operation = self.member.work.begin(
            connection_id=self.id,
            users=[] if self.user is None else [self.user],
            command=shown,
            ns=f"{call.db}.{place}",
            session=call.session,
            kind=call.command.name,
            deadline=time.monotonic() + limit / 1000 if limit else None,
            is_gone=lambda: self.is_gone,
        )
        return call.operation

    def _cluster_time(self) -> Reply:
        if self.member.deployment.set_name is None:
            return {}
        now = Timestamp(int(time.time()), 1)
        signature = {"hash": bytes(20), "keyId": 0}
        return {"$clusterTime": {"clusterTime": now, "signature": signature}, "operationTime": now}
