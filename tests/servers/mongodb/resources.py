"""What rights are about: resources, roles by name, and actions on a resource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Resource(NamedTuple):
    """``{db, collection}`` (empty: all), the cluster, or anything at all."""

    db: str = ""
    collection: str = ""
    is_cluster: bool = False
    is_any: bool = False

    @property
    def is_system(self) -> bool:
        return self.collection.startswith("system.")

    def document(self) -> dict[str, Any]:
        if self.is_any:
            return {"anyResource": True}
        return {"cluster": True} if self.is_cluster else {"db": self.db, "collection": self.collection}


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


CLUSTER, ANYTHING, EVERYWHERE = Resource(is_cluster=True), Resource(is_any=True), Resource()
