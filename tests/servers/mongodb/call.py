"""What a command is, and one call of it: its fields checked, its rights asked for."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.mongodb import errors, rights, write_concern
from tests.servers.mongodb.operations import Operation, SessionId
from tests.servers.mongodb.rights import Resource
from tests.servers.mongodb.text import redacted, shell, type_name
from tests.servers.mongodb.wire import Request

if TYPE_CHECKING:
    from tests.servers.mongodb.connection import Connection
    from tests.servers.mongodb.member import Deployment, Member

GENERIC = frozenset(
    [
        "lsid",
        "$db",
        "$readPreference",
        "$clusterTime",
        "$client",
        "txnNumber",
        "autocommit",
        "startTransaction",
        "apiVersion",
        "apiStrict",
        "apiDeprecationErrors",
        "comment",
        "maxTimeMS",
        "readConcern",
        "writeConcern",
    ]
)
API_V1 = frozenset(
    [
        "abortTransaction",
        "aggregate",
        "collMod",
        "commitTransaction",
        "count",
        "create",
        "createIndexes",
        "delete",
        "drop",
        "dropDatabase",
        "dropIndexes",
        "endSessions",
        "find",
        "findAndModify",
        "getMore",
        "hello",
        "insert",
        "killCursors",
        "listCollections",
        "listDatabases",
        "listIndexes",
        "ping",
        "saslContinue",
        "saslStart",
        "update",
    ]
)
ACCEPTED = {
    "string": {"string"},
    "bool": {"bool", "int", "long", "double"},
    "number": {"int", "long", "double"},
    "array": {"array"},
    "object": {"object"},
}
Reply = dict[str, Any]
Run = Callable[["Call"], Awaitable[Reply]]


@dataclass(frozen=True)
class Command:
    """``fields`` maps each that is known to its type; ``required`` are those that must be there."""

    name: str
    run: Run
    fields: dict[str, str]
    required: tuple[str, ...]
    needs_login: bool = True
    is_admin_only: bool = False
    takes_write_concern: bool = False
    is_write: bool = False
    is_read: bool = False
    is_lax: bool = False


COMMANDS: dict[str, Command] = {}


def command(name: str, fields: str = "", *, aliases: tuple[str, ...] = (), **how: bool) -> Callable[[Run], Run]:
    """Make it a command. ``fields``: ``name:type``, with ``!`` after the name where it must be there; no type: any."""
    parts = [part.partition(":") for part in fields.split()]
    types = {one.rstrip("!"): kind for one, _, kind in parts}
    required = tuple(one.rstrip("!") for one, _, _ in parts if one.endswith("!"))

    def add(run: Run) -> Run:
        for alias in (name, *aliases):
            COMMANDS[alias] = Command(name=alias, run=run, fields=types, required=required, **how)
        return run

    return add


def need_object(what: str, name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise errors.WRONG_TYPE.failure(command=what, field=name, found=type_name(value), expected="object")


def part(what: str, document: Any, known: tuple[str, ...], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """A document within a command: an object, with no other fields and these at least."""
    need_object(what, "0", document)
    for name in document:
        if name not in known:
            raise errors.UNKNOWN_FIELD.failure(command=what, field=name)
    for name in required:
        if name not in document:
            raise errors.MISSING_FIELD.failure(command=what, field=name)
    found: dict[str, Any] = document
    return found


@dataclass
class Call:
    """One request for one command."""

    connection: Connection
    request: Request
    command: Command
    operation: Operation = field(init=False)

    @property
    def body(self) -> dict[str, Any]:
        return self.request.body

    @property
    def value(self) -> Any:
        """What stands at the command's own name."""
        return next(iter(self.body.values()))

    @property
    def db(self) -> str:
        return str(self.body.get("$db", "admin"))

    @property
    def member(self) -> Member:
        return self.connection.member

    @property
    def deployment(self) -> Deployment:
        return self.member.deployment

    @property
    def session(self) -> SessionId | None:
        lsid = self.body.get("lsid")
        return None if lsid is None else SessionId(lsid["id"], self.connection.uid)

    def get(self, name: str, default: Any = None) -> Any:
        return self.body.get(name, default)

    def needs_login(self) -> None:
        """Before anything of the command is read."""
        if not self.deployment.is_auth_on or not self.command.needs_login:
            return
        if self.connection.user is None and not self.connection.is_localhost_exception:
            raise errors.NEEDS_LOGIN.failure(name=self.command.name)

    def parse(self) -> None:
        """Unknown fields, wrong types, missing fields; in this order, as the real server finds them."""
        known = self.command
        for name, value in list(self.body.items())[1:]:
            if name in known.fields:
                self._check_type(name, value, known.fields[name])
            elif name not in GENERIC and not known.is_lax:
                raise errors.UNKNOWN_FIELD.failure(command=known.name, field=name)
        for name in known.required:
            if name not in self.body:
                raise errors.MISSING_FIELD.failure(command=known.name, field=name)
        self._check_generic()

    def _check_generic(self) -> None:
        known = self.command
        if "writeConcern" in self.body:
            if not known.takes_write_concern:
                raise errors.NO_WRITE_CONCERN.failure(name=known.name)
            write_concern.check(self.body["writeConcern"], is_replicated=self.deployment.is_set)
        if self.get("apiStrict") and known.name not in API_V1:
            raise errors.API_STRICT.failure(name=known.name)
        lsid = self.get("lsid", {"id": uuid.UUID(int=0)})
        if not isinstance(lsid, dict) or not isinstance(lsid.get("id"), uuid.UUID):
            raise errors.MISSING_FIELD.failure(command="OperationSessionInfo.lsid", field="id")

    def _check_type(self, name: str, value: Any, expected: str) -> None:
        if name == "roles" and value is None:
            raise errors.ROLES_NULL.failure()
        if expected and type_name(value) not in ACCEPTED[expected]:
            raise errors.WRONG_TYPE.failure(
                command=self.command.name, field=name, found=type_name(value), expected=expected
            )

    def value_of_type(self, expected: str) -> Any:
        """What stands at the command's name, which is to be of this type."""
        self._check_type(self.command.name, self.value, expected)
        return self.value

    def may(self, resource: Resource, *actions: str) -> bool:
        if not self.deployment.is_auth_on:
            return True
        return rights.allows(self.connection.privileges, resource, *actions)

    def need(self, resource: Resource, *actions: str) -> None:
        if not self.may(resource, *actions):
            raise self.refused()

    def refused(self) -> errors.Failure:
        shown = redacted(self.body, without=self.request.streamed)
        return errors.NOT_AUTHORIZED.failure(db=self.db, command=shell(shown))
