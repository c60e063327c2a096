"""The definition of a command, and one call of it: its fields and rights are checked here."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.servers.mongodb import errors, rights
from tests.servers.mongodb.operations import Operation, SessionId
from tests.servers.mongodb.rights import Resource
from tests.servers.mongodb.text import redacted, shell, type_name
from tests.servers.mongodb.wire import Request

if TYPE_CHECKING:
    from tests.servers.mongodb.connection import Connection
    from tests.servers.mongodb.member import Deployment, Member

GENERIC = frozenset({"lsid", "$db", "$readPreference", "txnNumber", "maxTimeMS", "writeConcern"})
"""Fields that the driver adds to any command."""

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
    """``fields`` maps each known field to its type; the ``required`` ones must be present."""

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


def command(name: str, fields: str = "", **how: bool) -> Callable[[Run], Run]:
    """Registers a command. ``fields`` are ``name:type``; ``!`` after the name marks a required field; without a type any value passes."""
    parts = [part.partition(":") for part in fields.split()]
    types = {one.rstrip("!"): kind for one, _, kind in parts}
    required = tuple(one.rstrip("!") for one, _, _ in parts if one.endswith("!"))

    def add(run: Run) -> Run:
        COMMANDS[name] = Command(name=name, run=run, fields=types, required=required, **how)
        return run

    return add


def part(what: str, document: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """A document within a command: an object with exactly these fields."""
    if not isinstance(document, dict):
        raise errors.WRONG_TYPE.failure(command=what, field="0", found=type_name(document), expected="object")
    for name in document:
        if name not in fields:
            raise errors.UNKNOWN_FIELD.failure(command=what, field=name)
    for name in fields:
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
        """The value of the command's own name."""
        return next(iter(self.body.values()))

    @property
    def db(self) -> str:
        return str(self.body["$db"])

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

    def check_login(self) -> None:
        """The first check, before the fields."""
        if not self.deployment.is_auth_on or not self.command.needs_login:
            return
        if self.connection.user is None and not self.connection.is_localhost_exception:
            raise errors.NEEDS_LOGIN.failure(name=self.command.name)

    def parse(self) -> None:
        """Unknown fields, wrong types, missing fields: the order of the real server."""
        known = self.command
        for name, value in list(self.body.items())[1:]:
            if name in known.fields:
                self._check_type(name, value, known.fields[name])
            elif name not in GENERIC and not known.is_lax:
                raise errors.UNKNOWN_FIELD.failure(command=known.name, field=name)
        for name in known.required:
            if name not in self.body:
                raise errors.MISSING_FIELD.failure(command=known.name, field=name)
        if "writeConcern" in self.body and not known.takes_write_concern:
            raise errors.NO_WRITE_CONCERN.failure(name=known.name)
        lsid = self.get("lsid", {"id": uuid.UUID(int=0)})
        if not isinstance(lsid, dict) or not isinstance(lsid.get("id"), uuid.UUID):
            raise errors.MISSING_FIELD.failure(command="OperationSessionInfo.lsid", field="id")

    def _check_type(self, name: str, value: Any, expected: str) -> None:
        if expected and type_name(value) not in ACCEPTED[expected]:
            raise errors.WRONG_TYPE.failure(
                command=self.command.name, field=name, found=type_name(value), expected=expected
            )

    def value_of_type(self, expected: str) -> Any:
        """The value of the command's own name, which must have this type."""
        self._check_type(self.command.name, self.value, expected)
        return self.value

    def may(self, resource: Resource, *actions: str) -> bool:
        if not self.deployment.is_auth_on:
            return True
        return rights.allows(self.connection.privileges, resource, *actions)

    def need(self, resource: Resource, *actions: str) -> None:
        if not self.may(resource, *actions):
            shown = redacted(self.body, without=self.request.streamed)
            raise errors.NOT_AUTHORIZED.failure(db=self.db, command=shell(shown))
