"""One socket of a client: its login, its privileges, and the checks that each request passes."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any

from tests.servers.mongodb import errors, wire
from tests.servers.mongodb.call import COMMANDS, Call, Reply
from tests.servers.mongodb.operations import Operation
from tests.servers.mongodb.rights import Privilege, Resource
from tests.servers.mongodb.scram import Conversation
from tests.servers.mongodb.text import redacted
from tests.servers.mongodb.users import User, UserName

if TYPE_CHECKING:
    from tests.servers.mongodb.fail_points import FailPoint
    from tests.servers.mongodb.member import Member

NO_LOGIN_UID = hashlib.sha256(b"").digest()
"""The owner of every session on a server without authentication."""

STAND_IN_BUG = "The stand-in is wrong"
"""Begins the log line of an unexpected exception; no test may cause one."""


class Connection:
    """One socket and the login on it."""

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
        self.address, port = writer.get_extra_info("peername")[:2]
        self.remote = f"{self.address}:{port}"

    @property
    def context(self) -> str:
        return f"conn{self.id}"

    @property
    def uid(self) -> bytes:
        return self.user.uid if self.user is not None else NO_LOGIN_UID

    @property
    def is_localhost_exception(self) -> bool:
        """A client on this machine may create the first user."""
        return ipaddress.ip_address(self.address).is_loopback and not self.member.deployment.accounts.users

    def log(self, component: str, message: str, **attributes: Any) -> None:
        self.member.deployment.log(component, self.context, message, **attributes)

    def log_in(self, user: User) -> None:
        self.user, self.user_id = user.name, user.id
        self.refresh()

    def log_out(self) -> None:
        self.user, self.user_id, self.privileges = None, None, []

    def refresh(self) -> None:
        """Before every request: a user that was dropped, or dropped and created again, is logged out."""
        if self.user is None:
            first = [Privilege(Resource("admin"), frozenset({"createUser", "grantRole"}))]
            self.privileges = first if self.is_localhost_exception else []
            return
        known = self.member.known(self.user)
        if known is None or known[0].id != self.user_id:
            self.log("ACCESS", "User was removed from the user cache; logging out", user=str(self.user))
            self.log_out()
        else:
            self.privileges = known[1]

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
            self.writer.write(wire.reply(request, reply))
            try:
                await self.writer.drain()
            except ConnectionError:
                return

    async def answer(self, request: wire.Request) -> Reply | None:
        """The reply; None closes the connection without one."""
        self.refresh()
        began = time.monotonic()
        try:
            reply = await self._run(request)
        except errors.Failure as failure:
            reply = failure.reply()
        except Exception:  # noqa: BLE001 - a mistake in the stand-in must be visible, not only a lost connection
            self.log("COMMAND", STAND_IN_BUG, traceback=traceback.format_exc())
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
        call.check_login()
        call.parse()
        self._check_place(call)
        fail_point = self.member.fail_points.take(name)
        if fail_point is not None and fail_point.fails():
            return None
        operation = self._begin(call)
        try:
            reply = {**await call.command.run(call), "ok": 1.0}
        finally:
            self.member.operations.end(operation)
        if call.command.is_write:
            self.member.forget_users()
        return reply if fail_point is None else self._faulty(reply, fail_point)

    @staticmethod
    def _faulty(reply: Reply, fail_point: FailPoint) -> Reply | None:
        """The command has run; its reply is lost, or says that no majority confirmed the write."""
        if fail_point.loses_reply:
            return None
        error = fail_point.write_concern_error
        return {**reply, "writeConcernError": error} if error else reply

    @staticmethod
    def _check_database(call: Call) -> None:
        if "$db" not in call.body:
            raise errors.NO_DB_IN_MESSAGE.failure()
        if not call.db or any(c in '/\\. "\0' for c in call.db) or len(call.db.encode()) > 63:
            raise errors.INVALID_DATABASE.failure(db=call.db)
        if call.command.is_admin_only and call.db != "admin":
            raise errors.ADMIN_ONLY.failure(name=call.command.name)

    def _check_place(self, call: Call) -> None:
        """Writes run on the primary only; reads elsewhere need a read preference."""
        if self.member.is_primary:
            return
        if call.command.is_write:
            raise errors.NOT_PRIMARY.failure()
        mode = call.get("$readPreference", {}).get("mode", "primary")
        if call.command.is_read and mode == "primary":
            raise errors.NOT_PRIMARY_NO_SECONDARY_OK.failure()

    def _begin(self, call: Call) -> Operation:
        place = call.value if isinstance(call.value, str) else "$cmd"
        call.operation = self.member.operations.begin(
            connection_id=self.id,
            user=self.user,
            command=redacted(call.body, without=call.request.streamed),
            ns=f"{call.db}.{place}",
            session=call.session,
            kind=call.command.name,
            is_gone=self.reader.at_eof,
        )
        return call.operation
