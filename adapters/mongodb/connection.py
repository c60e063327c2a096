"""Opens connections to a standalone server, a replica set or routers: one client for each use, closed after it.

Kills do not replicate, and a lagging member still accepts a dropped user: each member gets a direct connection.
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
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure, PyMongoError

from adapters.base import CREATE_LIMIT_SECONDS, LoginRefused, Rejected, Secrets, ServerDown, Target, Tls, WrongServer
from adapters.mongodb.errors import (
    LOGIN_FAILED,
    ROLE_EXISTS,
    clean,
    code,
    refuse_unconfirmed,
    suppress_code,
    translated,
)

Client: TypeAlias = pymongo.MongoClient[dict[str, Any]]
DEFAULT_PORT = 27017
CONNECT_MS = 3_000
STATEMENT_MS = int(CREATE_LIMIT_SECONDS * 500)
"""``maxTimeMS`` of a command, with its wait for a majority. After CREATE_LIMIT_SECONDS a create whose answer was lost is either done or never will be."""
MAJORITY_MS = STATEMENT_MS - 1_000
SCHEMES = ("mongodb", "mongodb+srv")
MARKER = "dbaccess_server_"
UNMARKED = "not marked yet"
LOGIN_OPTIONS = ("authSource", "authMechanism")
BATCH = 10_000
READ: CodecOptions[Any] = CodecOptions(
    tz_aware=True,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="replace",
)
"""Also reads a date after the year 9999 and text that is no UTF-8: a mark written by hand may hold them. A command does not use the client's options."""
UNREAD: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument, unicode_decode_error_handler="replace")
"""Reads only what the caller looks at. Rows of ``$currentOp`` contain the commands of users, and these may hold values that the driver refuses."""


@dataclass(frozen=True, kw_only=True)
class Hello:
    """The reply of ``hello``. ``members`` are the data-bearing members of the set, as ``host:port``; ``is_router`` is true on mongos."""

    members: tuple[str, ...]
    is_router: bool
    now: datetime


class MongoDBConnection:
    """An open client. Every command goes through ``run``; ``where`` names the server in error texts."""

    def __init__(self, client: Client, where: str) -> None:
        self._client = client
        self.where = where

    def run(self, database: str, command: Mapping[str, Any], *, is_unread: bool = False) -> dict[str, Any]:
        """The reply, with ``is_unread`` as UNREAD. Raises the driver's errors, and ServerDown for a write that a majority did not confirm."""
        codec = UNREAD if is_unread else READ
        reply: dict[str, Any] = self._client[database].command({**command}, codec_options=codec)
        refuse_unconfirmed(reply, where=self.where)
        return reply

    def change(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a command on users or roles, confirmed by a majority. The write concern is in the command: the driver sends none of the client's own."""
        concern = {"w": "majority", "wtimeout": MAJORITY_MS}
        return self.run(database, {**command, "writeConcern": concern, "maxTimeMS": STATEMENT_MS})

    def rows(self, database: str, command: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All documents of a command that returns a cursor, as UNREAD. The first batch holds up to 16 MB; the rest is fetched."""
        cursor = self.run(database, {**command, "cursor": {"batchSize": BATCH}}, is_unread=True)["cursor"]
        found = list(cursor["firstBatch"])
        while cursor["id"]:
            command = {"getMore": cursor["id"], "collection": cursor["ns"].partition(".")[2]}
            cursor = self.run(database, command, is_unread=True)["cursor"]
            found += cursor["nextBatch"]
        return found

    def hello(self) -> Hello:
        """Needs no right."""
        reply = self.run("admin", {"hello": 1})
        return Hello(
            members=tuple(sorted({*reply.get("hosts", ()), *reply.get("passives", ())})),
            is_router=reply.get("msg") == "isdbgrid",
            now=as_utc(reply["localTime"]),
        )

    def build_info(self) -> dict[str, Any]:
        """Version and kind of the server."""
        return self.run("admin", {"buildInfo": 1})


class Server:
    """One deployment, as its administrator reaches it."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.url = _checked(secrets.admin_url, target.admin_url)
        self.replicas = tuple(zip(target.replicas, secrets.replicas, strict=True))
        self._hidden = (self.url, *secrets.replicas, *map(_password, (self.url, *secrets.replicas)))

    @property
    def users(self) -> str:
        """The database the temporary users live in."""
        return self.target.ops_schema

    @contextmanager
    def session(self, *secrets: str, to_end: bool = False) -> Iterator[MongoDBConnection]:
        """A connection to the deployment. ``secrets`` are removed from every error. Raises only AdapterError.

        WrongServer is raised where the target names an identity and the deployment has another one. With ``to_end`` the caller checks that.
        """
        with self._open(self.url, "the server", *secrets) as connection:
            expected = self.target.identity
            if expected is not None and not to_end and (found := identity(connection, self.users)) != expected:
                raise WrongServer(expected=expected, found=found)
            yield connection

    @contextmanager
    def member(self, address: str) -> Iterator[MongoDBConnection]:
        """A direct connection to one member or router, ``host:port``."""
        with self._open(self._direct_url(address), f"the member {address}") as connection:
            yield connection

    @contextmanager
    def replica(self, number: int) -> Iterator[MongoDBConnection]:
        """A direct connection to a configured replica that the set does not name, such as a hidden member."""
        reference, url = self.replicas[number]
        with self._open(_checked(url, reference), f"the replica {reference}", directConnection=True) as connection:
            yield connection

    @contextmanager
    def without_login(self) -> Iterator[MongoDBConnection]:
        """A connection to the same address that does not log in."""
        with self._open(self._url_without_login(), "the server") as connection:
            yield connection

    @contextmanager
    def _open(self, url: str, where: str, *secrets: str, **options: Any) -> Iterator[MongoDBConnection]:
        with translated((*self._hidden, *secrets), where=where):
            client = connect(url, self.target.tls, **options)
            try:
                yield MongoDBConnection(client, where)
            finally:
                client.close()

    def addresses(self) -> list[str]:
        """The ``host:port`` of each server in the URL."""
        hosts = urlsplit(self.url).netloc.rpartition("@")[2].split(",")
        return [host if ":" in host else f"{host}:{DEFAULT_PORT}" for host in hosts]

    def _direct_url(self, address: str) -> str:
        parts = urlsplit(self.url)
        login = parts.netloc.rpartition("@")[0]
        query = _query(parts.query, without=("replicaSet", "directConnection", "loadBalanced"))
        tls = "&tls=true" if parts.scheme == "mongodb+srv" and "tls=" not in query else ""
        return f"mongodb://{login}@{address}{parts.path or '/'}?directConnection=true&{query}{tls}"

    def _url_without_login(self) -> str:
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/?{_query(parts.query, without=LOGIN_OPTIONS)}"

    def client_of(self, username: str, password: str) -> Client:
        """A client with one connection, which logs in as a temporary user at first use."""
        login = {"username": username, "password": password, "authSource": self.users, "authMechanism": "SCRAM-SHA-256"}
        return connect(self._url_without_login(), self.target.tls, maxPoolSize=1, **login)


class MongoDBLogin:
    """Implements ``adapters.base.Login`` on one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def is_alive(self) -> bool:
        """Whether the server still has a user on this connection. The server never closes the connection itself."""
        try:
            found = self._client.admin.command("connectionStatus")
        except PyMongoError:
            return False
        return bool(found["authInfo"]["authenticatedUsers"])

    def close(self) -> None:
        close(self._client)


def log_in(server: Server, username: str, password: str) -> MongoDBLogin:
    """Raises LoginRefused where the server refuses the password, and ServerDown where it gives no answer."""
    client = server.client_of(username, password)
    try:
        client.admin.command("connectionStatus")
    except PyMongoError as error:
        close(client)
        text = clean(str(error), (password,))
        if isinstance(error, OperationFailure) and code(error) == LOGIN_FAILED:
            raise LoginRefused(text) from None
        raise ServerDown(f"no login as {username}: {text}") from None
    return MongoDBLogin(client)


def connect(url: str, tls: Tls, **options: Any) -> Client:
    """A client that sends nothing yet. Raises the driver's errors for a URL that it cannot read."""
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


def close(client: Client) -> None:
    with suppress(PyMongoError, OSError):
        client.close()


def _tls(tls: Tls) -> dict[str, Any]:
    """Options of the driver. ``prefer`` leaves the URL as it is: the protocol cannot try TLS and fall back."""
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
    """The URL, once it can be read. Raises Rejected, which names the reference and never the URL."""
    remedy = "mongodb://user:password@host:port/?authSource=admin, with special characters percent-encoded"
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
    left_out = {name.lower() for name in without}
    return urlencode([(name, value) for name, value in parse_qsl(query) if name.lower() not in left_out])


def as_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def identity(connection: MongoDBConnection, users: str) -> str:
    """The name of the empty role that marks this server; UNMARKED where there is none.

    dbaccess creates the role once in the users' database, because a standalone server has no number of its own. The role survives
    restarts and is on all members. A server without the role is another server; a copy from a backup has the role too.
    """
    found = _markers(connection, users)
    return found[0] if found else UNMARKED


def mark(connection: MongoDBConnection, users: str) -> str:
    """The identity, created where there is none. Two processes that create one at the same time agree on the first by name."""
    if not _markers(connection, users):
        name = f"{MARKER}{random.token_hex(8)}"
        with suppress_code(ROLE_EXISTS):
            connection.change(users, {"createRole": name, "privileges": [], "roles": []})
    return _markers(connection, users)[0]


def _markers(connection: MongoDBConnection, users: str) -> list[str]:
    roles = connection.run(users, {"rolesInfo": 1})["roles"]
    return sorted(role["role"] for role in roles if role["role"].startswith(MARKER))
