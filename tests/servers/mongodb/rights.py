"""Privileges: actions on a resource, and what a set of privileges allows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

INTERNAL_DATABASES = ("local", "config")


class Resource(NamedTuple):
    """``{db, collection}`` (an empty name means all), the cluster, or any resource."""

    db: str = ""
    collection: str = ""
    is_cluster: bool = False
    is_any: bool = False

    def document(self) -> dict[str, Any]:
        if self.is_any:
            return {"anyResource": True}
        return {"cluster": True} if self.is_cluster else {"db": self.db, "collection": self.collection}


CLUSTER, ANYTHING, EVERYWHERE = Resource(is_cluster=True), Resource(is_any=True), Resource()


class RoleName(NamedTuple):
    """A role of a database."""

    name: str
    db: str

    def __str__(self) -> str:
        return f"{self.name}@{self.db}"

    def document(self) -> dict[str, Any]:
        return {"role": self.name, "db": self.db}


@dataclass(frozen=True)
class Privilege:
    """Actions on one resource."""

    resource: Resource
    actions: frozenset[str]

    def document(self) -> dict[str, Any]:
        return {"resource": self.resource.document(), "actions": sorted(self.actions)}


def covering(target: Resource) -> Iterable[Resource]:
    """The resources whose privileges apply to ``target``. Privileges on all collections leave out the server's own collections."""
    yield ANYTHING
    yield target
    if target.is_cluster or target.is_any or target.collection.startswith("system."):
        return
    if target.db not in INTERNAL_DATABASES:
        yield EVERYWHERE
    yield Resource(target.db)
    yield Resource("", target.collection)


def allows(privileges: Iterable[Privilege], target: Resource, *actions: str) -> bool:
    """Whether these privileges together allow all ``actions`` on ``target``."""
    resources = set(covering(target))
    held: set[str] = set()
    for privilege in privileges:
        if privilege.resource in resources:
            held |= privilege.actions
    return set(actions) <= held


def merged(privileges: Iterable[Privilege]) -> list[Privilege]:
    """One entry for each resource."""
    found: dict[Resource, frozenset[str]] = {}
    for privilege in privileges:
        found[privilege.resource] = found.get(privilege.resource, frozenset()) | privilege.actions
    return [Privilege(resource, actions) for resource, actions in found.items()]
