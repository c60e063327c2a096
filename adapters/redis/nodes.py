"""Connections to the nodes: ``Node`` is an address with a login, ``Session`` a connection of the bot, ``Login`` one of a temporary user.

Each use opens a connection of its own to each node. The driver's cluster client is not used, because it sends ``ACL`` commands to one node
only. Every driver error that leaves this module is an ``AdapterError`` without a secret in it.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from adapters.base import AdapterError, LoginRefused, Rejected, ServerDown, Tls
from adapters.usernames import scrub

DEFAULT_PORT = 6379
CONNECT_SECONDS = 5
ANSWER_SECONDS = 8
"""Time limit for one answer. It is above 5 seconds, because a server that runs a script answers ``BUSY`` only after 5 seconds."""
SOCKET_OPTIONS = {option: ANSWER_SECONDS * 1000 for option in [getattr(socket, "TCP_USER_TIMEOUT", None)] if option}
"""In milliseconds. After this time the kernel no longer resends a command that the network lost, so the command has run by then or never will."""
DROP_SECONDS = 20.0
"""How long one drop tries to end the sessions on a node and the scripts that block it."""
SCRIPT_PAUSE_SECONDS = 0.02
REFUSED_CONNECTION = re.compile(
    r"^DENIED|protected mode|\[SSL: (?!UNEXPECTED_EOF)|certificate|No such file or directory"
)
"""Errors of a connection that another try will not change: protected mode, or a TLS setting that does not fit."""
TEMPORARY_ERRORS = ("LOADING", "BUSY", "UNKILLABLE", "MISCONF", "OOM", "max number of clients")


@dataclass(frozen=True, kw_only=True)
class Node:
    """The address of one server and the bot's login there. ``error`` is set where the URL cannot be read; each session then raises it."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: Tls
    is_tls: bool
    error: Rejected | None = None

    @classmethod
    def parse_replica(cls, url: str, reference: str, tls: Tls) -> Node:
        """The node of a replica's URL. A URL that cannot be read fails only this node's sessions, so that users are still dropped on the other nodes."""
        try:
            return cls.parse(url, reference, tls)
        except Rejected as error:
            return cls(host=reference, port=0, database="0", user="", password="", tls=tls, is_tls=False, error=error)

    @classmethod
    def parse(cls, url: str, reference: str, tls: Tls) -> Node:
        """The node of an admin URL. Raises Rejected for a URL that cannot be read; the error names ``reference`` and never the URL."""
        try:
            parts, port = urlsplit(url), urlsplit(url).port
        except ValueError:
            parts, port = SplitResult("", "", "", "", ""), None
        if parts.scheme not in ("redis", "rediss") or parts.query or parts.fragment or not parts.hostname:
            remedy = "redis://user:password@host:port, or rediss://"
            raise Rejected(f"the admin URL behind {reference} cannot be read", remedy=remedy)
        if parts.scheme == "rediss" and tls.mode == "disable":
            raise Rejected(f"the admin URL behind {reference} is for TLS", remedy="tls: {mode: verify-full}")
        return cls(
            host=unquote(parts.hostname),
            port=port or DEFAULT_PORT,
            database=parts.path.strip("/") or "0",
            user=unquote(parts.username or "") or "default",
            password=unquote(parts.password or ""),
            tls=tls,
            is_tls=parts.scheme == "rediss" or tls.mode not in ("disable", "prefer"),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def connection(self, user: str, password: str, database: int = 0) -> Any:
        """A driver connection that is not open yet. The driver retries nothing, because a ``SETUSER`` whose answer was lost has run."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": database,
            "username": user,
            "password": password,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_keepalive_options": SOCKET_OPTIONS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "driver_info": None,
            "decode_responses": True,
            "encoding_errors": "replace",
        }
        driver: Any = SSLConnection if self.is_tls else Connection
        if self.is_tls:
            is_verified = self.tls.mode in ("verify-ca", "verify-full")
            settings["ssl_cert_reqs"] = "required" if is_verified else "none"
            settings["ssl_check_hostname"] = self.tls.mode == "verify-full"
            settings["ssl_ca_certs"] = self.tls.ca
        return driver(**settings)

    @contextmanager
    def session(self, *, ends_scripts: bool = False) -> Iterator[Session]:
        """A connection of the bot. With ``ends_scripts`` its commands end a script that blocks the server. Raises only AdapterError."""
        if self.error is not None:
            raise self.error
        connection = self.connection(self.user, self.password)
        try:
            connection.connect()
            yield Session(self, connection, ends_scripts=ends_scripts)
        except (RedisError, OSError) as error:
            text = scrub(" ".join(str(error).split()), self.password)
            error.args = (text,)  # a caller may log the driver's error, which is the context of the AdapterError
            vars(error).update({k: scrub(v, self.password) for k, v in vars(error).items() if isinstance(v, str)})
            raise self._translate(error, text) from None
        finally:
            connection.disconnect()

    def _translate(self, error: Exception, text: str) -> AdapterError:
        """``text`` is the driver's message without secrets."""
        if isinstance(error, NoPermissionError):
            right = re.search(r"'([a-z|_-]+)' command", text)
            missing = right[1] if right else "that"
            return Rejected(f"the bot may not run {missing} on {self}", remedy=f"ACL SETUSER {self.user} +{missing}")
        if isinstance(error, AuthenticationError | AuthorizationError):
            remedy = f"an account {self.user} with the password of the admin URL, and ACL SAVE, on this node"
            return Rejected(f"{self} does not let {self.user} in", remedy=remedy)
        if REFUSED_CONNECTION.search(text):
            return Rejected(f"{self}: {text}")
        if isinstance(error, ResponseError) and not text.startswith(TEMPORARY_ERRORS) and "trying to save" not in text:
            return Rejected(f"{self}: {text}")
        hint = "; it may not speak TLS on this port" if self.is_tls and "Timeout connecting" in text else ""
        if "max number of clients" in text:
            hint = "; to make room, run CONFIG SET maxclients over a connection that is still open"
        return ServerDown(f"{self}: {text}{hint}", is_ambiguous=True)


class Session:
    """An open connection of the bot to one node."""

    def __init__(self, node: Node, connection: Any, *, ends_scripts: bool) -> None:
        self.node = node
        self._connection = connection
        self._ends_scripts = ends_scripts
        self._deadline = time.monotonic() + DROP_SECONDS

    def call(self, *arguments: str) -> Any:
        """Send one command and return the answer.

        A server that runs a script does nothing else meanwhile. With ``ends_scripts`` the script is killed and the command sent again.
        """
        while True:
            try:
                return self._send(*arguments)
            except ResponseError as error:
                is_busy = str(error).startswith("BUSY ")
                if not (is_busy and self._ends_scripts and time.monotonic() < self._deadline):
                    raise
            self._kill_script()

    def _send(self, *arguments: str) -> Any:
        self._connection.send_command(*arguments)
        return self._connection.read_response()

    def _kill_script(self) -> None:
        for kind in ("SCRIPT", "FUNCTION"):
            try:
                self._send(kind, "KILL")
            except NoPermissionError:
                remedy = f"ACL SETUSER {self.node.user} +script|kill +function|kill"
                raise ServerDown(f"{self.node} is busy with a script that the bot may not end; {remedy}") from None
            except ResponseError as error:
                if str(error).startswith("UNKILLABLE"):
                    what = (
                        "is busy with a script that has written; until the script is over, only SHUTDOWN NOSAVE ends it"
                    )
                    raise ServerDown(f"{self.node} {what}") from None
            else:
                return
        time.sleep(SCRIPT_PAUSE_SECONDS)

    def clients(self) -> list[dict[str, str]]:
        """The connections of this node, a row of ``CLIENT LIST`` each."""
        lines = str(self.call("CLIENT", "LIST")).splitlines()
        return [dict(part.partition("=")[::2] for part in line.split(" ")) for line in lines if line]

    def info(self, section: str) -> dict[str, str]:
        """One section of ``INFO``."""
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.partition(":")[::2] for line in lines if ":" in line)

    def now(self) -> float | None:
        """The server's clock in seconds since 1970, or None where the server does not report it (Redis 6)."""
        microseconds = self.info("server").get("server_time_usec")
        return None if microseconds is None else int(microseconds) / 1e6

    def save(self) -> bool:
        """Save the users to the server's ACL file or configuration file. A user that is still in the file returns at a restart.

        Returns False where the server has neither file. Raises ServerDown where the file could not be written.
        """
        try:
            self.call("ACL", "SAVE")
        except ResponseError as error:
            if "not configured to use an ACL file" not in str(error):
                raise self._save_error(error) from None
        else:
            return True
        try:
            self.call("CONFIG", "REWRITE")
        except ResponseError as error:
            if "without a config file" not in str(error):
                raise self._save_error(error) from None
            return False
        return True

    def _save_error(self, error: ResponseError) -> Exception:
        if isinstance(error, NoPermissionError) or str(error).startswith(("BUSY", "LOADING")):
            return error
        what = f"{self.node} could not save its users, and a restart would bring back those in its file"
        return ServerDown(f"{what}: {error}", is_ambiguous=True)


class Login:
    """Implements ``adapters.base.Login``. A login that has ended once stays ended, although the driver could log in again."""

    def __init__(self, node: Node, username: str, password: str, *, database: int) -> None:
        self._connection = node.connection(username, password, database)
        self._is_alive = True
        try:
            self._connection.connect()
        except (AuthenticationError, AuthorizationError) as error:
            self.close()
            raise LoginRefused(scrub(str(error), password)) from None
        except (RedisError, OSError) as error:
            self.close()
            raise ServerDown(f"no login as {username}: {scrub(str(error), password)}") from None

    def is_alive(self) -> bool:
        if self._is_alive:
            try:
                self._connection.send_command("PING", check_health=False)
                self._connection.read_response()
            except (RedisError, OSError):
                self.close()
        return self._is_alive

    def close(self) -> None:
        self._is_alive = False
        with suppress(RedisError, OSError):
            self._connection.disconnect()
