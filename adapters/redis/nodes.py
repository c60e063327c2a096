"""The nodes: ``Node`` is an address with the bot's login.

Each use opens a connection of its own to each node, where the node lets one in. The driver's cluster client is not used, because it sends
``ACL`` commands to one node only. Every driver error that leaves this module is an ``AdapterError`` without a secret in it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as TimedOut
from redis.retry import Retry

from adapters.base import AdapterError, Blocked, ForeignUser, Rejected, ServerDown, Tls, WrongServer
from adapters.redis.links import Link, held_links
from adapters.redis.session import Session
from adapters.usernames import scrub

DEFAULT_PORT = 6379
CONNECT_SECONDS = 5
ANSWER_SECONDS = 8
"""Time limit for one answer. It is above 5 seconds, because a server that runs a script answers ``BUSY`` only after 5 seconds."""
HURRY_SECONDS = 1.0
"""How long an end waits for a new connection before it uses the held one."""
DROP_SECONDS = 60.0
"""How long an end waits for one answer of a node, and how long it tries to end the sessions and the scripts there. Above one long command."""
KERNEL_OPTIONS = {
    "TCP_USER_TIMEOUT": ANSWER_SECONDS * 1000,
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
}
"""By the first, in milliseconds, the kernel stops to resend a command that the network lost: it has run by then or never will.
The others find out that a held connection is dead."""
SOCKET_OPTIONS = {getattr(socket, name): value for name, value in KERNEL_OPTIONS.items() if hasattr(socket, name)}
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""Errors while an unexpected answer is read."""
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

    def connection(self, user: str, password: str, database: int = 0, *, is_bot: bool = False) -> Any:
        """A driver connection that is not open yet. The driver retries nothing, because a ``SETUSER`` whose answer was lost has run.

        With ``is_bot`` the driver does not log in: ``_open`` does, so that a connection outlives a time-out.
        """
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
            "redis_connect_func": start_unauthenticated if is_bot else None,
        }
        driver: Any = SSLConnection if self.is_tls else Connection
        if self.is_tls:
            is_verified = self.tls.mode in ("verify-ca", "verify-full")
            settings["ssl_cert_reqs"] = "required" if is_verified else "none"
            settings["ssl_check_hostname"] = self.tls.mode == "verify-full"
            settings["ssl_ca_certs"] = self.tls.ca
        return driver(**settings)

    @contextmanager
    def session(self, *, to_end: bool = False, patience: float | None = None) -> Iterator[Session]:
        """A connection of the bot. Raises only AdapterError.

        With ``to_end`` it may be the held connection, its commands end a script that blocks the server, and it waits longer for an answer,
        unless ``patience`` is the time limit in seconds.
        """
        if self.error is not None:
            raise self.error
        patience = patience or patience_of(to_end=to_end)
        with self._translated(), self._lent(to_end=to_end, patience=patience) as link:
            yield Session(self, link, patience=patience, to_end=to_end)

    @contextmanager
    def _lent(self, *, to_end: bool, patience: float) -> Iterator[Link]:
        """A connection that has logged in. It is held afterwards if it was held before, if the verb wants it, or if an end waits for its answers."""
        link, was_held = self._open(to_end=to_end, patience=patience)
        is_usable = True
        try:
            yield link
        except BaseException as error:
            link.is_wanted = link.is_wanted or (to_end and link.owed > 0)
            is_usable = isinstance(error, AdapterError | ResponseError | TimedOut) and not isinstance(
                error, WrongServer
            )
            raise
        finally:
            kept = link if is_usable and link.driver.is_connected and (was_held or link.is_wanted) else None
            if was_held:
                held_links.give_back(self, kept)
            elif kept is not None:
                held_links.hold(self, kept)
            if kept is None:
                link.close()

    def _open(self, *, to_end: bool, patience: float) -> tuple[Link, bool]:
        """A new connection, and False. The held connection, and True, where a new one is refused, or where an end has to wait for it."""
        link = Link(self.connection(self.user, self.password, is_bot=True))
        try:
            link.driver.connect()
            link.send([("AUTH", self.user, self.password)])
            link.read_login(HURRY_SECONDS if to_end else patience)
        except AuthenticationError:
            link.close()
            raise
        except (TimedOut, NoConnection, OSError) as error:
            is_slow = isinstance(error, TimedOut)
            held = held_links.take(self, wait_seconds=0 if is_slow else patience) if to_end or not is_slow else None
            if held is not None or not (to_end and link.owed):
                link.close()
            if held is not None:
                return held, True
            if not (to_end and link.owed):
                raise
            self._wait_for_login(link, patience)
        return link, False

    def _wait_for_login(self, link: Link, patience: float) -> None:
        """The connection is held where the answer does not come in time. The next end goes on waiting for it."""
        try:
            link.read_login(patience)
        except TimedOut:
            held_links.hold(self, link)
            raise
        except BaseException:
            link.close()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the driver, and of an answer that cannot be read, become AdapterError."""
        unreadable = None
        try:
            yield
        except (RedisError, OSError) as error:
            text = scrub(" ".join(str(error).split()), self.password)
            error.args = (text,)  # a caller may log the driver's error, which is the context of the AdapterError
            vars(error).update({k: scrub(v, self.password) for k, v in vars(error).items() if isinstance(v, str)})
            raise self._translate(error, text) from None
        except UNREADABLE as error:
            unreadable = type(error).__name__
        if unreadable is not None:  # raised here, so that it has no context: an error of decoding contains the text
            raise ServerDown(f"an answer of {self} could not be read ({unreadable})", is_ambiguous=True)

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
            hint = (
                "; to make room, run CONFIG SET maxclients over a connection that is still open, or restart the server"
            )
        return ServerDown(f"{self}: {text}{hint}", is_ambiguous=True)


T = TypeVar("T")


def on_every_node(nodes: Sequence[Node], act: Callable[[int], T]) -> list[T]:
    """The results of ``act``, which gets the number of a node, on all nodes at once. Raises the most serious error, once all nodes are done."""

    def outcome(number: int) -> T | AdapterError:
        try:
            return act(number)
        except AdapterError as error:
            return error

    with ThreadPoolExecutor(len(nodes)) as pool:
        outcomes = list(pool.map(outcome, range(len(nodes))))
    if errors := [found for found in outcomes if isinstance(found, AdapterError)]:
        raise max(errors, key=lambda e: (isinstance(e, ForeignUser), isinstance(e, Rejected), isinstance(e, Blocked)))
    return [found for found in outcomes if not isinstance(found, AdapterError)]


def patience_of(*, to_end: bool) -> float:
    """The time limit for one answer, in seconds."""
    return DROP_SECONDS if to_end else ANSWER_SECONDS


def start_unauthenticated(driver: Any) -> None:
    """Prepares the driver to read answers, as it does before its own login."""
    driver._parser.on_connect(driver)  # noqa: SLF001 - the driver offers this only together with its own login
