"""One socket of a client: who is logged in on it, what he may do, and the way of a request through all checks."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import ipaddress
import time
import traceback
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bson import Timestamp

from tests.servers.mongodb import errors, wire, write_concern
from tests.servers.mongodb.call import COMMANDS, Call, Reply
from tests.servers.mongodb.operations import Operation
from tests.servers.mongodb.rights import CLUSTER, Privilege, Resource
from tests.servers.mongodb.scram import Conversation
from tests.servers.mongodb.text import redacted
from tests.servers.mongodb.users import User, UserName

if TYPE_CHECKING:
    from tests.servers.mongodb.faults import Fault
    from tests.servers.mongodb.member import Member

NOBODY = hashlib.sha256(b"").digest()
"""Owner of every session on a server without authentication."""
LOCALHOST_EXCEPTION = [
    Privilege(Resource("admin"), frozenset({"createUser", "grantRole"})),
    Privilege(CLUSTER, frozenset({"replSetConfigure"})),
]


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
        known = self.member.known(self.user)
        if known is None or known[0].id != self.user_id:
            self.log("ACCESS", "User was removed from the user cache; logging out", user=str(self.user))
            self.log_out()
        elif not accounts.may_come(known[0], self.client_address, self.server_address):
            self.log("ACCESS", "Removed user: authentication restrictions are not met", user=str(self.user))
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
            self._join_transaction(call)
            reply = await call.command.run(call)
            reply = {**reply, "ok": 1.0, **await self._unconfirmed(call, fault)}
        finally:
            self.member.work.end(operation)
        if call.command.is_write:
            self.member.forget_users()
        if fault is not None and fault.loses_reply:
            return None
        return {**reply, **self._cluster_time()}

    async def _unconfirmed(self, call: Call, fault: Fault | None) -> Reply:
        """What goes with the reply of a write that too few members have, or that is said to be so."""
        if not call.command.takes_write_concern:
            return {}
        found = fault.write_concern_error if fault is not None else None
        found = found or await write_concern.missed(call)
        return {"writeConcernError": found} if found else {}

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

    def _join_transaction(self, call: Call) -> None:
        """Its own writes can be undone until it commits. Unlike the real server's, they are seen by others before that."""
        if call.get("autocommit") is not False:
            return
        if not (self.member.deployment.is_set or self.member.deployment.is_routed):
            raise errors.NO_TRANSACTIONS_HERE.failure()
        session, number = call.session, call.get("txnNumber")
        if session is None or number is None:
            raise errors.NOT_IN_TRANSACTION.failure(name=call.command.name)
        transaction = self.member.work.transaction(session, number, starts=bool(call.get("startTransaction")))
        if call.command.is_write and isinstance(call.value, str):
            transaction.undo.append(self._undo(call.db, call.value))

    def _undo(self, db: str, collection: str) -> Callable[[], None]:
        documents = self.member.deployment.documents
        before = copy.deepcopy(documents.of(db, collection))

        def undo() -> None:
            documents.made(db, collection)[:] = before
            documents.save()

        return undo

    def _begin(self, call: Call) -> Operation:
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
        if not self.member.deployment.is_set:
            return {}
        now = Timestamp(int(time.time()), 1)
        signature = {"hash": bytes(20), "keyId": 0}
        return {"$clusterTime": {"clusterTime": now, "signature": signature}, "operationTime": now}
