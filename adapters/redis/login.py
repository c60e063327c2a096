"""The login of a temporary user: its address and command, and ``Login``, with which ``doctor --try`` proves them."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError

from adapters.base import Endpoint, Level, LoginRefused, Rejected, ServerDown, Target
from adapters.redis.nodes import Node
from adapters.usernames import scrub


def to_endpoint(target: Target, node: Node, level: Level, *, label: str) -> Endpoint:
    """The address of ``node`` as the requester reaches it, and the command. ``label`` is the engine's name."""
    connect = target.connect
    host, port, database = connect.host or node.host, connect.port or node.port, database_of(target, node, level)
    tls = connect.tls or target.tls.mode
    arguments = ["redis-cli", "--user", "{username}", "-h", shlex.quote(host), "-p", str(port)]
    arguments += ["-n", database] if database != "0" else []
    if tls not in ("disable", "prefer") or (connect.tls is None and node.is_tls):
        arguments += ["--tls", *tls_options(target, tls)]
    command = " ".join([*arguments, "--askpass"])
    return Endpoint(host=host, port=port, database=database, tls=tls, note=connect.note, engine=label, command=command)


def tls_options(target: Target, tls: str) -> tuple[str, ...]:
    """redis-cli checks who signed the certificate, but not for which host."""
    if target.tls.ca:
        return "--cacert", shlex.quote(target.tls.ca)
    return () if tls.startswith("verify") else ("--insecure",)


def database_of(target: Target, node: Node, level: Level) -> str:
    """The number of the level's database. Raises Rejected for a name."""
    database = level.database or target.connect.database or node.database
    if not re.fullmatch(r"[0-9]{1,5}", database):
        raise Rejected(f"{database!r} is no database of Redis", remedy="they are numbers; leave it out for 0")
    return database


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
