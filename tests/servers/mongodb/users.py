"""Users and roles of a deployment, kept in a file so that they outlive the process."""

from __future__ import annotations

import hashlib
import ipaddress
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.servers.mongodb import errors, rights, scram, wire
from tests.servers.mongodb.rights import Privilege, RoleName

Restrictions = list[dict[str, list[str]]]


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
        """Owner of a session."""
        return hashlib.sha256(str(self).encode()).digest()


@dataclass
class User:
    """``id`` is new at each createUser, so that one made again under the same name is another."""

    name: UserName
    credentials: scram.Credentials
    roles: list[RoleName]
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    custom_data: dict[str, Any] | None = None
    restrictions: Restrictions = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As it is stored; usersInfo leaves out what it was not asked for."""
        return {
            "_id": f"{self.name.db}.{self.name.name}",
            "userId": self.id,
            "user": self.name.name,
            "db": self.name.db,
            "credentials": self.credentials,
            **({"authenticationRestrictions": self.restrictions} if self.restrictions else {}),
            **({} if self.custom_data is None else {"customData": self.custom_data}),
            "roles": [role.document() for role in self.roles],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> User:
        return cls(
            name=UserName(document["user"], document["db"]),
            credentials=document["credentials"],
            roles=[RoleName(r["role"], r["db"]) for r in document["roles"]],
            id=document["userId"],
            custom_data=document.get("customData"),
            restrictions=document.get("authenticationRestrictions", []),
        )


@dataclass
class Role:
    """A role somebody made."""

    name: RoleName
    privileges: list[Privilege]
    roles: list[RoleName]
    restrictions: Restrictions = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "_id": f"{self.name.db}.{self.name.name}",
            "role": self.name.name,
            "db": self.name.db,
            "privileges": [p.document() for p in self.privileges],
            "roles": [role.document() for role in self.roles],
            **({"authenticationRestrictions": self.restrictions} if self.restrictions else {}),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Role:
        return cls(
            name=RoleName(document["role"], document["db"]),
            privileges=[rights.read_privilege(p) for p in document["privileges"]],
            roles=[RoleName(r["role"], r["db"]) for r in document["roles"]],
            restrictions=document.get("authenticationRestrictions", []),
        )


class Accounts:
    """All users and roles. A write is on disk before it is answered."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.users: dict[UserName, User] = {}
        self.roles: dict[RoleName, Role] = {}
        if path is not None and path.exists():
            kept = wire.decode(path.read_bytes())
            for user in map(User.from_document, kept["users"]):
                self.users[user.name] = user
            for role in map(Role.from_document, kept["roles"]):
                self.roles[role.name] = role

    def save(self) -> None:
        if self.path is None:
            return
        kept = {
            "users": [u.document() for u in self.users.values()],
            "roles": [r.document() for r in self.roles.values()],
        }
        replace(self.path, wire.encode(kept))

    def has_role(self, role: RoleName) -> bool:
        return rights.is_built_in(role) or role in self.roles

    def need_roles(self, roles: list[RoleName]) -> None:
        missing = [str(role) for role in roles if not self.has_role(role)]
        if len(missing) == 1:
            raise errors.NO_ROLE.failure(role=missing[0])
        if missing:
            raise errors.NO_ROLES.failure(role=", ".join(missing))

    def inherited(self, roles: list[RoleName]) -> list[RoleName]:
        """These and all that they hold in turn; a role that is gone holds nothing."""
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
            if rights.is_built_in(role):
                found += rights.built_in(role)
            elif role in self.roles:
                found += self.roles[role].privileges
        return rights.merged(found)

    def restrictions_of(self, user: User) -> list[Restrictions]:
        """The user's own and those of his roles: every one of these lists must be met."""
        of_roles = [self.roles[role].restrictions for role in self.inherited(user.roles) if role in self.roles]
        return [restrictions for restrictions in (user.restrictions, *of_roles) if restrictions]

    def may_come(self, user: User, client: str, server: str) -> bool:
        return all(
            any(_meets(one, client, server) for one in restrictions) for restrictions in self.restrictions_of(user)
        )


def _meets(restriction: dict[str, list[str]], client: str, server: str) -> bool:
    return _within(client, restriction.get("clientSource")) and _within(server, restriction.get("serverAddress"))


def _within(address: str, networks: list[str] | None) -> bool:
    if networks is None:
        return True
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False) for network in networks)


def read_restrictions(value: Any) -> Restrictions:
    """A list of ``{clientSource, serverAddress}``, each a list of addresses or ranges."""
    if not isinstance(value, list):
        raise errors.NULL_RESTRICTIONS.failure()
    for one in value:
        if not isinstance(one, dict) or not one:
            raise errors.BAD_RESTRICTION.failure(what="each one is an object that is not empty")
        for key, networks in one.items():
            if key not in ("clientSource", "serverAddress"):
                raise errors.BAD_RESTRICTION.failure(what=f"Unrecognized key '{key}'")
            try:
                for network in networks:
                    ipaddress.ip_network(network, strict=False)
            except (TypeError, ValueError):
                raise errors.BAD_RESTRICTION.failure(what=f"{key} needs a list of addresses") from None
    return value


def replace(path: Path, data: bytes) -> None:
    """All of it or nothing, whenever the process dies."""
    half = path.with_suffix(".half")
    half.write_bytes(data)
    half.replace(path)
