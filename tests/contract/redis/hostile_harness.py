"""The harness of the hostile acts on Redis and Valkey."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from tests.contract.redis.harness import EngineHarness, Session
from tests.servers.redis import PASSWORD, TESTER, RedisServer


class RawSession:
    """A session without limits. It is alive as long as the server lists it."""

    def __init__(self, server: RedisServer, session: Session) -> None:
        self.server, self.connection = server, session.connection
        self.number = str(self.run("CLIENT", "ID"))

    def run(self, *words: str) -> Any:
        """Run the words of a command, or a command in one string."""
        self.send(*words)
        return self.connection.read_response()

    def send(self, *words: str) -> None:
        command = shlex.split(words[0]) if len(words) == 1 else words
        self.connection.send_command(*command, check_health=False)

    def is_alive(self) -> bool:
        return bool(self.server.run("CLIENT", "LIST", "ID", self.number))

    def close(self) -> None:
        with suppress(RedisError, OSError):
            self.connection.disconnect()


class HostileHarness(EngineHarness):
    """The names are in ``adapters.contract.acts.redis``."""

    @property
    def address(self) -> tuple[str, int]:
        return self.server.host, self.server.port

    @property
    def names(self) -> dict[str, str]:
        return {"customers": "shop:customers", "bot": self.bot}

    def raw_session(self, username: str, password: str) -> RawSession:
        return RawSession(self.server, self.login(username, password))

    def administrator(self) -> RawSession:
        return RawSession(self.server, self.login(TESTER, PASSWORD))

    def make_friend(self, username: str, password: str) -> None:
        self.server.run("ACL", "SETUSER", username, "on", f">{password}", "resetchannels", "-@all", "+@connection")
