"""The findings of ``check`` on one node, each with the statement that fixes it. Nothing here changes the server."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from adapters.base import Finding, Level, Rejected
from adapters.redis.levels import rules_of
from adapters.redis.nodes import Node
from adapters.redis.session import Session
from adapters.redis.users import OPEN_DEFAULT, SERVER_USER, get_user, is_open, server_mark, to_dict

OLDEST_SUPPORTED = {"Redis": 7, "Valkey": 8}
"""Major versions. An older server gets no new users; the users that it has are still listed and dropped."""
RIGHTS = (
    "acl|setuser x",
    "acl|getuser x",
    "acl|deluser x",
    "acl|users",
    "acl|save",
    "client|list",
    "client|kill x",
    "info",
)
"""The commands that the bot must be allowed to run, with as many arguments as ``ACL DRYRUN`` wants."""
OPTIONAL_RIGHTS = {
    "config|rewrite": "where the server has no ACL file it cannot save users",
    "script|kill": "it cannot end a script that holds up a revocation",
    "function|kill": "it cannot end a function that holds up a revocation",
}
"""Commands that the bot needs only in some cases, and what it cannot do without them."""


class ServerVersion(NamedTuple):
    """``product`` is Redis or Valkey, ``number`` its own version."""

    product: str
    number: str

    def __str__(self) -> str:
        return f"{self.product} {self.number}"

    @property
    def is_supported(self) -> bool:
        major = re.match(r"[0-9]+", self.number)
        return major is not None and int(major[0]) >= OLDEST_SUPPORTED[self.product]


class NodeReport(NamedTuple):
    """The findings of ``check`` on one node. ``mark`` is the node's identity, None where it has none or it was not read."""

    version: str
    mark: str | None
    findings: tuple[Finding, ...]


def node_report(
    session: Session,
    nodes: Sequence[Node],
    levels: Sequence[Level],
    *,
    database: Callable[[Level], str],
    confirm_identity: Callable[[], None],
) -> NodeReport:
    """The version is checked first, then the bot's rights: a server that fails one of them cannot be checked further."""
    try:
        too_old, version = unsupported_version(session), str(server_version(session.info("server")))
    except ResponseError:  # INFO is not allowed or disabled, which the findings about rights say
        too_old, version = None, "Redis"
    if too_old is not None:
        return NodeReport(version, None, (too_old,))
    found = list(right_findings(session))
    if any(f.is_fatal for f in found):
        return NodeReport(version, None, tuple(found))
    confirm_identity()
    found += server_findings(session, nodes)
    found += [finding for level in levels for finding in level_findings(session, level, database)]
    return NodeReport(version, server_mark(session), tuple(found))


def server_version(server: Mapping[str, str]) -> ServerVersion:
    """From the section ``server`` of ``INFO``. Valkey also reports a ``redis_version``, which is the version it is compatible with."""
    compatible = server.get("redis_version", "of unknown version")
    if "valkey_version" in server or server.get("server_name") == "valkey":
        return ServerVersion("Valkey", server.get("valkey_version", compatible))
    return ServerVersion("Redis", compatible)


def unsupported_version(session: Session) -> Finding | None:
    """The finding for a server that is too old for new users, or None."""
    version = server_version(session.info("server"))
    if version.is_supported:
        return None
    oldest = ", or ".join(f"{product} {major}.0 or later" for product, major in OLDEST_SUPPORTED.items())
    what = (
        f"{session.node} runs {version}, which is too old for new users; users that are already there are still ended"
    )
    return fatal(what, f"upgrade it to {oldest}")


def refuse_unsupported(session: Session) -> None:
    """Raise Rejected on a server that is too old for new users."""
    if (finding := unsupported_version(session)) is not None:
        raise Rejected(finding.what, remedy=finding.remedy)


def right_findings(session: Session) -> Iterator[Finding]:
    """One finding for each right of the bot, by a dry run of its command."""
    user = session.node.user
    for command, consequence in {**dict.fromkeys(RIGHTS), **OPTIONAL_RIGHTS}.items():
        right = command.split(" ")[0]
        remedy = f"ACL SETUSER {user} +{right}"
        try:
            answer = session.call("ACL", "DRYRUN", user, *command.replace("|", " ").split(" "))
        except NoPermissionError:
            remedy = f"ACL SETUSER {user} +acl|dryrun"
            yield warning(f"{user} may not run acl|dryrun on {session.node}, so its rights were not checked", remedy)
            return
        except ResponseError as error:
            if "not found" not in str(error):
                raise
            answer = None  # a Sentinel does not have every command, and an administrator may have disabled one
        if answer == "OK":
            yield ok(f"{user} may run {right}")
        elif consequence is None:
            yield fatal(f"{user} may not run {right} on {session.node}", remedy)
        else:
            yield warning(f"{user} may not run {right} on {session.node}: {consequence}", remedy)


def server_findings(session: Session, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Findings about the server and its set-up. ``nodes`` are all nodes of the target."""
    node, server = session.node, session.info("server")
    if server.get("redis_mode", server.get("server_mode")) == "sentinel":
        yield fatal(f"{node} is a Sentinel and holds no data", "name the servers it watches in admin_url and replicas")
    if (balanced := several_servers(session)) is not None:
        yield balanced
    if is_open(session):
        yield fatal(f"{node}: {OPEN_DEFAULT[0]}", OPEN_DEFAULT[1])
    else:
        yield ok(f"{node} lets nobody in without a password")
    if node.user == "default" or "+@all" in str((get_user(session, node.user) or {}).get("commands")).split():
        rights = " ".join(f"+{right.split()[0]}" for right in (*RIGHTS, *OPTIONAL_RIGHTS, "acl|dryrun"))
        remedy = f"ACL SETUSER dbaccess reset on >PASSWORD {rights}"
        yield warning(f"the bot logs in to {node} as {node.user}, which may do more than the bot needs", remedy)
    if server_mark(session) is None:
        yield ok(f"{node} has no mark of dbaccess yet; the first grant makes the user {SERVER_USER}, which is the mark")
    if not server.get("config_file"):
        what = (
            f"{node} was started without a configuration file: unless it has an ACL file, a restart forgets all users"
        )
        yield warning(what, "start it with a file, best with aclfile in it")
    if node == nodes[0] and session.info("replication").get("role") == "slave":
        what = f"{node} is a replica and takes no writes, whatever a level says"
        yield warning(what, "name the primary in admin_url and this one under replicas")
    yield from unlisted_nodes(session, nodes)


def several_servers(session: Session) -> Finding | None:
    """The finding for an address behind which a balancer or a proxy changes between servers, or None.

    A second connection must reach the process that answers this one.
    """
    first = session.info("server").get("run_id")
    with session.node.session() as other:
        second = other.info("server").get("run_id")
    if first == second:
        return None
    what = f"two connections to {session.node} reached two servers ({first} and {second}): a user would be on one of them only"
    return fatal(what, "name the address of each server itself, in admin_url and replicas")


def unlisted_nodes(session: Session, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Nodes that the server knows and ``nodes`` does not: after a failover to one, temporary users could not log in."""
    listed = {address for node in nodes for address in addresses(node)}
    try:
        known = sorted(set(known_nodes(session)))
    except NoPermissionError:
        what = (
            f"{session.node.user} may not run cluster|shards on {session.node}, so the nodes of the cluster are unknown"
        )
        yield warning(what, f"ACL SETUSER {session.node.user} +cluster|shards")
        return
    for host, port in filter(all, known):
        if not {(ip, port) for ip in resolve(host)} & listed:
            what = (
                f"{session.node} names a node {host}:{port} that databases.yml does not: temporary users are not there"
            )
            yield warning(what, "name it under replicas")


def known_nodes(session: Session) -> Iterator[tuple[str, int]]:
    """Host and port of the other nodes, by ``INFO replication`` and ``CLUSTER SHARDS``."""
    found = session.info("replication")
    if found.get("role") == "slave":
        yield found["master_host"], int(found["master_port"])
    for key, value in found.items():
        if re.fullmatch(r"slave[0-9]+", key):
            parts = dict(part.partition("=")[::2] for part in value.split(","))
            yield parts["ip"], int(parts["port"])
    if session.info("cluster").get("cluster_enabled") == "1":
        for shard in map(to_dict, session.call("CLUSTER", "SHARDS")):
            for node in map(to_dict, shard["nodes"]):
                yield str(node["ip"]), int(node.get("tls-port") or node["port"])


def resolve(host: str) -> set[str]:
    """The IP addresses of a host, or the name itself where it has none."""
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}


def addresses(node: Node) -> set[tuple[str, int]]:
    return {(ip, node.port) for ip in resolve(node.host)}


def level_findings(session: Session, level: Level, database: Callable[[Level], str]) -> Iterator[Finding]:
    """A fatal finding where the level cannot be granted, or names a command that the server does not know."""
    try:
        rules_of(level)
        database(level)
    except Rejected as error:
        yield fatal(error.what, error.remedy)
        return
    for command in (p for g in level.grants for p in g.privileges if not p.startswith("@")):
        try:
            session.call("ACL", "DRYRUN", session.node.user, *command.split("|"))
        except ResponseError as error:
            if "not found" in str(error):
                yield fatal(f"{session.node} knows no command {command}, which the level {level.name} names")


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)
