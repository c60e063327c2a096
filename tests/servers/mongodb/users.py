"""Users and roles of a deployment, kept in a file so that they outlive the process."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.mongodb import errors, scram, wire
from tests.servers.mongodb.built_in_roles import built_in, is_built_in, read_privilege
from tests.servers.mongodb.rights import Privilege, RoleName, merged


class UserName(NamedTuple):
    """``user@db`` is the identity: the same name in another database is another user."""

    name: str
    db: str

    def __str__(self) -> str:
        return f"{self.name}@{self.db}"

    def document(self) -> dict[str, str]:
        return {"user": self.name, "db": self.db}

    @property
    def uid(self) -> bytes:
        """The owner id of this user's sessions."""
        return hashlib.sha256(str(self).encode()).digest()


@dataclass
class User:
    """``id`` is new at each createUser: a user created again under the same name is another user."""

    name: UserName
    credentials: scram.Credentials
    roles: list[RoleName]
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    custom_data: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """The form of usersInfo."""
        return {
            "_id": f"{self.name.db}.{self.name.name}",
            "userId": self.id,
            "user": self.name.name,
            "db": self.name.db,
            **({} if self.custom_data is None else {"customData": self.custom_data}),
            "roles": [role.document() for role in self.roles],
            "mechanisms": [scram.MECHANISM],
        }

    def stored(self) -> dict[str, Any]:
        return {**self.document(), "credentials": self.credentials}

    @classmethod
    def from_stored(cls, document: dict[str, Any]) -> User:
        return cls(
            name=UserName(document["user"], document["db"]),
            credentials=document["credentials"],
            roles=[RoleName(r["role"], r["db"]) for r in document["roles"]],
            id=document["userId"],
            custom_data=document.get("customData"),
        )


@dataclass
class Role:
    """A user-defined role."""

    name: RoleName
    privileges: list[Privilege]
    roles: list[RoleName]

    def stored(self) -> dict[str, Any]:
        return {
            **self.name.document(),
            "privileges": [p.document() for p in self.privileges],
            "roles": [role.document() for role in self.roles],
        }

    @classmethod
    def from_stored(cls, document: dict[str, Any]) -> Role:
        return cls(
            name=RoleName(document["role"], document["db"]),
            privileges=[read_privilege(p) for p in document["privileges"]],
            roles=[RoleName(r["role"], r["db"]) for r in document["roles"]],
        )


class Accounts:
    """All users and roles. A change is on disk before the reply."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users: dict[UserName, User] = {}
        self.roles: dict[RoleName, Role] = {}
        if path.exists():
            stored = wire.decode(path.read_bytes())
            self.users = {user.name: user for user in map(User.from_stored, stored["users"])}
            self.roles = {role.name: role for role in map(Role.from_stored, stored["roles"])}

    def save(self) -> None:
        stored = {
            "users": [u.stored() for u in self.users.values()],
            "roles": [r.stored() for r in self.roles.values()],
        }
        replace(self.path, wire.encode(stored))

    def has_role(self, role: RoleName) -> bool:
        return is_built_in(role) or role in self.roles

    def need_roles(self, roles: list[RoleName]) -> None:
        missing = [str(role) for role in roles if not self.has_role(role)]
        if missing:
            row = errors.NO_ROLE if len(missing) == 1 else errors.NO_ROLES
            raise row.failure(role=", ".join(missing))

    def inherited(self, roles: list[RoleName]) -> list[RoleName]:
        """These roles and all roles that they hold."""
        found: list[RoleName] = []
        waiting = list(roles)
        while waiting:
            role = waiting.pop(0)
            if role not in found:
                found.append(role)
                waiting += self.roles[role].roles if role in self.roles else []
        return found

    def privileges(self, roles: list[RoleName]) -> list[Privilege]:
        found: list[Privilege] = []
        for role in self.inherited(roles):
            found += built_in(role) if is_built_in(role) else self.roles[role].privileges
        return merged(found)


def replace(path: Path, data: bytes) -> None:
    """Replaces the file as a whole, whenever the process dies."""
    half = path.with_suffix(".half")
    half.write_bytes(data)
    half.replace(path)
