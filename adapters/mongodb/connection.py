"""Connections to a standalone server, a replica set or routers: a client for each use, closed after it.

Kills do not replicate and a lagging member still knows a dropped user, so what must be so on each member is done on a direct
connection to each.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from adapters.base import CREATE_LIMIT_SECONDS, Rejected, Secrets, Target, Tls, WrongServer
from adapters.mongodb.errors import NOT_ALLOWED, ROLE_EXISTS, code, of_reply, translated

Client: TypeAlias = pymongo.MongoClient[dict[str, Any]]
DEFAULT_PORT = 27017
CONNECT_MS = 3_000
STATEMENT_MS = int(CREATE_LIMIT_SECONDS * 500)
"""``maxTimeMS`` of a command, its wait for a majority included: a create whose answer was lost has landed by then, or never will."""

MAJORITY_MS = STATEMENT_MS - 1_000
SCHEMES = ("mongodb", "mongodb+srv")
MARKER = "dbaccess_server_"
UNMARKED = "not marked yet"


@dataclass(frozen=True, kw_only=True)
class Member:
    """What a server says of itself. ``members`` are the data-bearing ones of its set, as ``host:port``; ``is_router`` is mongos."""

    set_name: str | None
    members: tuple[str, ...]
    is_router: bool
    now: datetime


class Connection:
    """An open client; every command goes through ``run``."""

    def __init__(self, client: Client, where: str) -> None:
        self._client = client
        self.where = where

    def run(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """The reply. Raises what the driver raises, and Unreachable for a write concern that was not met."""
        reply: dict[str, Any] = self._client[database].command({**command})
        of_reply(reply, where=self.where)
        return reply

    def change(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """A command on users or roles, on a majority. The concern stands in the command: of the client's own the driver sends none."""
        concern = {"w": "majority", "wtimeout": MAJORITY_MS}
        return self.run(database, {**command, "writeConcern": concern, "maxTimeMS": STATEMENT_MS})

    def hello(self) -> Member:
        """Allowed to everyone."""
        reply = self.run("admin", {"hello": 1})
        return Member(
            set_name=reply.get("setName"),
            members=tuple(sorted({*reply.get("hosts", ()), *reply.get("passives", ())})),
            is_router=reply.get("msg") == "isdbgrid",
            now=_utc(reply["localTime"]),
        )

    def version(self) -> str:
        return str(self.run("admin", {"buildInfo": 1})["version"])


class Server:
    """One deployment as its administrator sees it."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.url = _checked(secrets.admin_url, target.admin_url)
        self.replicas = tuple(zip(target.replicas, secrets.replicas, strict=True))
        parts = urlsplit(self.url)
        self.user = unquote(parts.username or "")
        self._hidden = (self.url, *secrets.replicas, *map(_password, (self.url, *secrets.replicas)))

    @property
    def users(self) -> str:
        """The database the temporary users live in."""
        return self.target.ops_schema

    @contextmanager
    def session(self, *secrets: str) -> Iterator[Connection]:
        """On the deployment the grant was made on. ``secrets`` are taken out of whatever goes wrong. Raises only AdapterError."""
        with self._open(self.url, "the server", *secrets) as connection:
            expected = self.target.identity
            if expected is not None and (found := identity(connection, self.users)) != expected:
                raise WrongServer(expected=expected, found=found)
            yield connection

    @contextmanager
    def each(self, member: str) -> Iterator[Connection]:
        """Straight to one member of the set, ``host:port``."""
        with self._open(self._to(member), f"the member {member}") as connection:
            yield connection

    @contextmanager
    def replica(self, number: int) -> Iterator[Connection]:
        """On a further server that the set does not name, a hidden member for one."""
        reference, url = self.replicas[number]
        with self._open(_checked(url, reference), f"the replica {reference}", directConnection=True) as connection:
            yield connection

    @contextmanager
    def stranger(self) -> Iterator[Connection]:
        """Somebody who does not log in, at the same address."""
        parts = urlsplit(self.url)
        place, query = parts.netloc.rpartition("@")[2], _query(parts.query, without=("authSource", "authMechanism"))
        with self._open(f"{parts.scheme}://{place}/?{query}", "the server") as connection:
            yield connection

    @contextmanager
    def _open(self, url: str, where: str, *secrets: str, **options: Any) -> Iterator[Connection]:
        with translated((*self._hidden, *secrets), where=where):
            client = connect(url, self.target.tls, **options)
            try:
                yield Connection(client, where)
            finally:
                client.close()

    def routers(self) -> list[str]:
        """The addresses the URL names."""
        places = urlsplit(self.url).netloc.rpartition("@")[2].split(",")
        return [place if ":" in place else f"{place}:{DEFAULT_PORT}" for place in places]

    def _to(self, member: str) -> str:
        """The same login, to one member alone."""
        parts = urlsplit(self.url)
        login = parts.netloc.rpartition("@")[0]
        query = _query(parts.query, without=("replicaSet", "directConnection", "loadBalanced"))
        tls = "&tls=true" if parts.scheme == "mongodb+srv" and "tls=" not in query else ""
        return f"mongodb://{login}@{member}{parts.path or '/'}?directConnection=true&{query}{tls}"

    def as_user(self, username: str, password: str) -> Client:
        """A client that logs in as a temporary user, and has one connection. Nothing is sent yet."""
        parts = urlsplit(self.url)
        place, query = parts.netloc.rpartition("@")[2], _query(parts.query, without=("authSource", "authMechanism"))
        known = {"username": username, "password": password, "authSource": self.users, "authMechanism": "SCRAM-SHA-256"}
        return connect(f"{parts.scheme}://{place}/?{query}", self.target.tls, maxPoolSize=1, **known)


def connect(url: str, tls: Tls, **options: Any) -> Client:
    """Raises what the driver raises for a URL it cannot read. Nothing is sent yet."""
    return pymongo.MongoClient(
        url,
        appname="dbaccess",
        tz_aware=True,
        uuidRepresentation="standard",
        serverSelectionTimeoutMS=CONNECT_MS,
        connectTimeoutMS=CONNECT_MS,
        socketTimeoutMS=int(CREATE_LIMIT_SECONDS * 1000),
        retryWrites=False,
        retryReads=False,
        **{**_tls(tls), **options},
    )


def _tls(tls: Tls) -> dict[str, Any]:
    """``prefer`` is what the URL says: the protocol has no way to try."""
    if tls.mode == "prefer":
        return {}
    if tls.mode == "disable":
        return {"tls": False}
    found: dict[str, Any] = {"tls": True, **({"tlsCAFile": tls.ca} if tls.ca else {})}
    if tls.mode == "require":
        found["tlsAllowInvalidCertificates"] = True
    elif tls.mode == "verify-ca":
        found["tlsAllowInvalidHostnames"] = True
    return found


def _checked(url: str, reference: str) -> str:
    """Raises Rejected, naming the reference and never the URL."""
    remedy = "mongodb://user:password@host:port/?authSource=admin, with % signs for what is special in a URL"
    try:
        parts = urlsplit(url)
        is_read = parts.scheme in SCHEMES and parts.username and parts.hostname and not parts.fragment
    except ValueError:
        is_read = False
    if not is_read:
        raise Rejected(f"the admin URL behind {reference} cannot be read", remedy=remedy)
    return url


def _password(url: str) -> str:
    """Empty where the URL cannot be read."""
    with suppress(ValueError):
        return unquote(urlsplit(url).password or "")
    return ""


def _query(query: str, *, without: tuple[str, ...]) -> str:
    hidden = {name.lower() for name in without}
    return urlencode([(name, value) for name, value in parse_qsl(query) if name.lower() not in hidden])


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def identity(connection: Connection, users: str) -> str:
    """The name of an empty role that dbaccess makes once among its users: a standalone server has no number of its own.

    It stays over restarts and on all members, and a server without it is another one; a copy from a backup has it too.
    """
    found = _markers(connection, users)
    return found[0] if found else UNMARKED


def mark(connection: Connection, users: str) -> str:
    """Its identity, made where there is none. Two that make one at the same time agree on the first by name."""
    if not _markers(connection, users):
        name = f"{MARKER}{random.token_hex(8)}"
        with suppress_code(ROLE_EXISTS):
            connection.change(users, {"createRole": name, "privileges": [], "roles": []})
    return _markers(connection, users)[0]


def _markers(connection: Connection, users: str) -> list[str]:
    roles = connection.run(users, {"rolesInfo": 1})["roles"]
    return sorted(role["role"] for role in roles if role["role"].startswith(MARKER))


@contextmanager
def suppress_code(*codes: int) -> Iterator[None]:
    """These answers are no error here."""
    try:
        yield
    except OperationFailure as error:
        if code(error) not in codes:
            raise


def answers_strangers(server: Server) -> bool:
    """Whether somebody who did not log in is answered: then users and roles count for nothing."""
    with server.stranger() as stranger:
        try:
            stranger.run("admin", {"listDatabases": 1, "nameOnly": True})
        except OperationFailure as error:
            if code(error) == NOT_ALLOWED:
                return False
            raise
        return True


def close(client: Client) -> None:
    with suppress(PyMongoError, OSError):
        client.close()
