"""Connections: one to each node for each use, never the driver's cluster client, which asks one node for all."""

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

from adapters.base import AdapterError, LoginRefused, Rejected, ServerDown, Tls, scrub

DEFAULT_PORT = 6379
CONNECT_SECONDS = 5
ANSWER_SECONDS = 8
"""A server in a script says nothing for 5 seconds and only then that it is busy."""
UNHEARD = {option: ANSWER_SECONDS * 1000 for option in [getattr(socket, "TCP_USER_TIMEOUT", None)] if option}
"""Milliseconds. A statement the network swallowed is not sent again after that: it has landed by then or never will."""
DROP_SECONDS = 20.0
NOT_LET_IN = re.compile(r"^DENIED|protected mode|\[SSL: (?!UNEXPECTED_EOF)|certificate|No such file or directory")
"""A server that refuses strangers, or the two sides do not agree about TLS."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """One server, as the bot logs in to it."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    tls: Tls
    is_tls: bool
    trouble: Rejected | None = None

    @classmethod
    def later(cls, url: str, reference: str, tls: Tls) -> Node:
        """As ``parse``, but a URL that cannot be read is an error of this node's sessions: it must not keep an end from the other nodes."""
        try:
            return cls.parse(url, reference, tls)
        except Rejected as no:
            return cls(host=reference, port=0, database="0", user="", password="", tls=tls, is_tls=False, trouble=no)

    @classmethod
    def parse(cls, url: str, reference: str, tls: Tls) -> Node:
        """Raises Rejected."""
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
        """Nothing is tried twice: a SETUSER whose answer was lost did run."""
        settings: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "db": database,
            "username": user,
            "password": password,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": ANSWER_SECONDS,
            "socket_keepalive_options": UNHEARD,
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
        """As the bot. Raises only AdapterError: here all that the driver raises is translated."""
        if self.trouble is not None:
            raise self.trouble
        connection = self.connection(self.user, self.password)
        try:
            connection.connect()
            yield Session(self, connection, ends_scripts=ends_scripts)
        except (RedisError, OSError) as error:
            words = scrub(" ".join(str(error).split()), self.password)
            error.args = (words,)
            vars(error).update({k: scrub(v, self.password) for k, v in vars(error).items() if isinstance(v, str)})
            raise self._translated(error, words) from None
        finally:
            connection.disconnect()

    def _translated(self, error: Exception, words: str) -> AdapterError:
        if isinstance(error, NoPermissionError):
            right = re.search(r"'([a-z|_-]+)' command", words)
            lacking = right[1] if right else "that"
            return Rejected(f"the bot may not run {lacking} on {self}", remedy=f"ACL SETUSER {self.user} +{lacking}")
        if isinstance(error, AuthenticationError | AuthorizationError):
            remedy = f"an account {self.user} with the password of the admin URL, and ACL SAVE, on this node"
            return Rejected(f"{self} does not let {self.user} in", remedy=remedy)
        if NOT_LET_IN.search(words):
            return Rejected(f"{self}: {words}")
        may_change = ("LOADING", "BUSY", "UNKILLABLE", "MISCONF", "OOM", "max number of clients")
        if isinstance(error, ResponseError) and not words.startswith(may_change) and "trying to save" not in words:
            return Rejected(f"{self}: {words}")
        hint = "; it may not speak TLS on this port" if self.is_tls and "Timeout connecting" in words else ""
        if "max number of clients" in words:
            hint = "; CONFIG SET maxclients, from a connection that is still open, makes room"
        return ServerDown(f"{self}: {words}{hint}", is_ambiguous=True)


class Session:
    """A connection of the bot to one node."""

    def __init__(self, node: Node, connection: Any, *, ends_scripts: bool) -> None:
        self.node = node
        self._connection = connection
        self._ends_scripts = ends_scripts
        self._until = time.monotonic() + DROP_SECONDS

    def call(self, *words: str) -> Any:
        """The answer. A script that holds up a revocation is ended: for as long as it runs, its server does nothing else."""
        while True:
            try:
                return self._asked(*words)
            except ResponseError as error:
                if not (str(error).startswith("BUSY ") and self._ends_scripts and time.monotonic() < self._until):
                    raise
            self._end_script()

    def _asked(self, *words: str) -> Any:
        self._connection.send_command(*words)
        return self._connection.read_response()

    def _end_script(self) -> None:
        for what in ("SCRIPT", "FUNCTION"):
            try:
                self._asked(what, "KILL")
            except NoPermissionError:
                remedy = f"ACL SETUSER {self.node.user} +script|kill +function|kill"
                raise ServerDown(f"{self.node} is busy with a script that the bot may not end; {remedy}") from None
            except ResponseError as error:
                if str(error).startswith("UNKILLABLE"):
                    why = "is busy with a script that has written, which nothing but SHUTDOWN NOSAVE ends before it is over"
                    raise ServerDown(f"{self.node} {why}") from None
            else:
                return
        time.sleep(0.02)

    def clients(self) -> list[dict[str, str]]:
        """CLIENT LIST, a row per connection."""
        lines = str(self.call("CLIENT", "LIST")).splitlines()
        return [dict(part.partition("=")[::2] for part in line.split(" ")) for line in lines if line]

    def info(self, section: str) -> dict[str, str]:
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.partition(":")[::2] for line in lines if ":" in line)

    def now(self) -> float:
        """The server's clock, in seconds since 1970."""
        said = self.info("server").get("server_time_usec")
        if said is None:
            raise Rejected(f"{self.node} does not say what time it is", remedy="Redis 7 or later, or Valkey")
        return int(said) / 1e6

    def version(self) -> str:
        found = self.info("server")
        return f"Valkey {found['valkey_version']}" if "valkey_version" in found else f"Redis {found['redis_version']}"

    def save(self) -> bool:
        """Users to where the server keeps them, False where it keeps none: a user that stands in a file comes back at a restart. Raises Unreachable."""
        try:
            self.call("ACL", "SAVE")
        except ResponseError as error:
            if "not configured to use an ACL file" not in str(error):
                raise self._unsaved(error) from None
        else:
            return True
        try:
            self.call("CONFIG", "REWRITE")
        except ResponseError as error:
            if "without a config file" not in str(error):
                raise self._unsaved(error) from None
            return False
        return True

    def _unsaved(self, error: ResponseError) -> Exception:
        if isinstance(error, NoPermissionError) or str(error).startswith(("BUSY", "LOADING")):
            return error
        why = f"{self.node} could not save its users, and a restart would bring back those in its file"
        return ServerDown(f"{why}: {error}", is_ambiguous=True)


class Login:
    """Implements ``adapters.base.Login``. Once it is dead it stays so: the driver would log in again."""

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
