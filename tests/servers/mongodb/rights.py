"""What a set of privileges allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.built_in_roles import ACTIONS, OF_ADMIN, OF_ANY_DATABASE, built_in, is_built_in
from tests.servers.mongodb.resources import ANYTHING, CLUSTER, EVERYWHERE, Privilege, Resource, RoleName

__all__ = [
    "ANYTHING",
    "CLUSTER",
    "EVERYWHERE",
    "OF_ADMIN",
    "OF_ANY_DATABASE",
    "Privilege",
    "Resource",
    "RoleName",
    "allows",
    "built_in",
    "covering",
    "is_built_in",
    "merged",
    "read_privilege",
]
INTERNAL = ("local", "config")


def covering(target: Resource) -> Iterable[Resource]:
    """The resources of which a privilege reaches ``target``."""
    yield ANYTHING
    if target.is_cluster or target.is_any:
        yield target
        return
    is_internal = target.db in INTERNAL
    if target.collection:
        if not target.is_system:
            if not is_internal:
                yield EVERYWHERE
            yield Resource(target.db)
        yield Resource("", target.collection)
    elif not is_internal:
        yield EVERYWHERE
    yield target


def allows(privileges: Iterable[Privilege], target: Resource, *actions: str) -> bool:
    """Whether these privileges together allow all ``actions`` on ``target``."""
    reach = set(covering(target))
    held: set[str] = set()
    for privilege in privileges:
        if privilege.resource in reach:
            held |= privilege.actions
    return set(actions) <= held


def merged(privileges: Iterable[Privilege]) -> list[Privilege]:
    """One entry for each resource."""
    found: dict[Resource, frozenset[str]] = {}
    for privilege in privileges:
        found[privilege.resource] = found.get(privilege.resource, frozenset()) | privilege.actions
    return [Privilege(resource, actions) for resource, actions in found.items()]


def read_privilege(document: Any) -> Privilege:
    """As a createRole names it. Unknown actions and half resources are refused."""
    if not isinstance(document, dict) or set(document) != {"resource", "actions"} or not document["actions"]:
        raise errors.BAD_PRIVILEGE.failure(what="a resource and actions are needed")
    for action in document["actions"]:
        if action not in ACTIONS:
            raise errors.UNKNOWN_ACTION.failure(action=action)
    resource = document["resource"]
    if resource == {"cluster": True}:
        found = CLUSTER
    elif resource == {"anyResource": True}:
        found = ANYTHING
    elif set(resource) == {"db", "collection"}:
        found = Resource(resource["db"], resource["collection"])
    else:
        raise errors.BAD_PRIVILEGE.failure(what="a resource has both db and collection, or is the cluster")
    return Privilege(found, frozenset(document["actions"]))
