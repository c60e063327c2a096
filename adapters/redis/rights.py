"""What ``check`` looks at on one node, each with the statement that would mend it. Changes nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence

from redis.exceptions import NoPermissionError, ResponseError

from adapters.base import Finding, Level, Rejected
from adapters.redis.levels import rules_of
from adapters.redis.nodes import Node, Session
from adapters.redis.users import OPEN_DEFAULT, SERVER_USER, get_user, is_open, paired, server_mark

OLDEST = 7
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
AT_TIMES = {
    "config|rewrite": "where the server has no ACL file it cannot save users",
    "script|kill": "it cannot end a script that holds up a revocation",
    "function|kill": "it cannot end a function that holds up a revocation",
}


def rights(session: Session) -> Iterator[Finding]:
    """Each right by a dry run of its command."""
    user = session.node.user
    for words, why in {**dict.fromkeys(RIGHTS), **AT_TIMES}.items():
        right = words.split(" ")[0]
        remedy = f"ACL SETUSER {user} +{right}"
        try:
            answer = session.call("ACL", "DRYRUN", user, *words.replace("|", " ").split(" "))
        except NoPermissionError:
            remedy = f"ACL SETUSER {user} +acl|dryrun"
            yield warning(
                f"{user} may not ask for its own rights on {session.node}, so they were not looked at", remedy
            )
            return
        except ResponseError as error:
            if "unknown subcommand" in str(error).lower():
                yield fatal(f"{session.node} knows no ACL DRYRUN: it is older than Redis {OLDEST}")
                return
            if "not found" not in str(error):
                raise
            answer = None  # a Sentinel has not all of them
        if answer == "OK":
            yield ok(f"{user} may run {right}")
        elif why is None:
            yield fatal(f"{user} may not run {right} on {session.node}", remedy)
        else:
            yield warning(f"{user} may not run {right} on {session.node}: {why}", remedy)


def server_findings(session: Session, nodes: Sequence[Node]) -> Iterator[Finding]:
    node, server = session.node, session.info("server")
    if int(server["redis_version"].split(".")[0]) < OLDEST:
        yield fatal(f"{session.version()} on {node} is too old; Redis {OLDEST} or later, or Valkey")
    if server.get("redis_mode", server.get("server_mode")) == "sentinel":
        yield fatal(f"{node} is a Sentinel and holds no data", "name the servers it watches in admin_url and replicas")
    if is_open(session):
        yield fatal(f"{node}: {OPEN_DEFAULT[0]}", OPEN_DEFAULT[1])
    else:
        yield ok(f"{node} lets nobody in without a password")
    if node.user == "default" or "+@all" in str((get_user(session, node.user) or {}).get("commands")).split():
        remedy = f"ACL SETUSER dbaccess reset on >PASSWORD {' '.join(f'+{r.split()[0]}' for r in (*RIGHTS, *AT_TIMES, 'acl|dryrun'))}"
        yield warning(f"the bot is {node.user} on {node}, who may do more than it needs", remedy)
    if server_mark(session) is None:
        yield ok(f"{node} is not marked yet; the bot makes {SERVER_USER} when it is first needed")
    if not server.get("config_file"):
        what = (
            f"{node} was started without a configuration file: unless it has an ACL file, a restart forgets all users"
        )
        yield warning(what, "start it with a file, best with aclfile in it")
    if node == nodes[0] and session.info("replication").get("role") == "slave":
        what = f"{node} is a replica and takes no writes, whatever a level says"
        yield warning(what, "name the primary in admin_url and this one under replicas")
    yield from unnamed(session, nodes)


def unnamed(session: Session, nodes: Sequence[Node]) -> Iterator[Finding]:
    """Nodes that the server knows and databases.yml does not: users would not be there after a failover."""
    known = {address for node in nodes for address in addresses(node)}
    try:
        named = sorted(set(others(session)))
    except NoPermissionError:
        what = f"{session.node.user} may not run cluster|shards on {session.node}: which nodes there are cannot be seen"
        yield warning(what, f"ACL SETUSER {session.node.user} +cluster|shards")
        return
    for host, port in filter(all, named):
        if not {(ip, port) for ip in resolved(host)} & known:
            what = (
                f"{session.node} names a node {host}:{port} that databases.yml does not: temporary users are not there"
            )
            yield warning(what, "name it under replicas")


def others(session: Session) -> Iterator[tuple[str, int]]:
    """By INFO replication and CLUSTER SHARDS."""
    found = session.info("replication")
    if found.get("role") == "slave":
        yield found["master_host"], int(found["master_port"])
    for key, value in found.items():
        if re.fullmatch(r"slave[0-9]+", key):
            parts = dict(part.partition("=")[::2] for part in value.split(","))
            yield parts["ip"], int(parts["port"])
    if session.info("cluster").get("cluster_enabled") == "1":
        for shard in map(paired, session.call("CLUSTER", "SHARDS")):
            for node in map(paired, shard["nodes"]):
                yield str(node["ip"]), int(node.get("tls-port") or node["port"])


def resolved(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}


def addresses(node: Node) -> set[tuple[str, int]]:
    return {(ip, node.port) for ip in resolved(node.host)}


def level_findings(session: Session, level: Level, database: Callable[[Level], str]) -> Iterator[Finding]:
    """Whether the level can be given, and whether the server knows each command it names."""
    try:
        rules_of(level)
        database(level)
    except Rejected as trouble:
        yield fatal(trouble.what, trouble.remedy)
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
