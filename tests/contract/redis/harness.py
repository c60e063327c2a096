"""Redis servers set up for production: the default account is closed, and the bot has the rights that ``check`` asks for and none on keys."""

from __future__ import annotations

import secrets
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from redis.connection import AbstractConnection
from redis.exceptions import NoPermissionError, RedisError

from adapters.base import Level, PrivilegeGrant, Secrets, Target, Tls, UserSpec
from adapters.contract import Denied, Died, LoginRefused
from adapters.redis import Redis
from adapters.usernames import make_username
from tests.servers import redis as servers
from tests.servers.redis import RedisServer

BOT_PASSWORD = "BotSecret0Login"
RIGHTS = [
    "acl|setuser",
    "acl|getuser",
    "acl|deluser",
    "acl|users",
    "acl|save",
    "acl|dryrun",
    "client|list",
    "client|kill",
    "info",
    "config|rewrite",
    "script|kill",
    "function|kill",
    "cluster|shards",
]
LACKING = ("acl|setuser", "acl|getuser", "acl|deluser", "acl|users", "acl|save", "client|list", "client|kill", "info")
CUSTOMERS = 1000

READING = Level(name="readonly", roles=("readonly",))
WRITING = Level(name="readwrite", roles=("readwrite",))
NARROW = Level(name="support", grants=(PrivilegeGrant(on=("shop:customers*",), privileges=("@read",)),))


class RecordingRedis(Redis):
    """Records the passwords of the users it creates. The pasted command prompts for the password, so the test must know it."""

    passwords: dict[str, str]

    def create_user(self, spec: UserSpec) -> None:
        super().create_user(spec)
        self.passwords[spec.username] = spec.password


@dataclass
class Session:
    """A login of a temporary user that never connects again."""

    connection: Any
    is_open: bool = True

    def execute(self, *arguments: str | int) -> Any:
        assert self.is_open
        try:
            self.connection.send_command(*arguments, check_health=False)
            return self.connection.read_response()
        except NoPermissionError as error:
            raise Denied(str(error)) from None

    def read(self) -> int:
        return int(self.execute("HLEN", "shop:customers"))

    def read_beside(self) -> int:
        return int(self.execute("HLEN", "shop:orders"))

    def write(self) -> None:
        self.execute("HSET", "shop:orders", "1", "1")

    def work(self, seconds: float) -> None:
        self.execute("XREAD", "BLOCK", int(seconds * 1000), "STREAMS", "shop:customers:news", "$")

    def is_alive(self) -> bool:
        if self.is_open:
            try:
                self.execute("PING")
            except (RedisError, OSError):
                self.close()
        return self.is_open

    def close(self) -> None:
        self.is_open = False
        self.connection.disconnect()


@dataclass
class EngineHarness:
    """Implements ``adapters.harness.EngineHarness`` for nodes with a bot on each. Its names are unique, so that harnesses can share servers."""

    nodes: tuple[RedisServer, ...]
    bot: str = field(default_factory=lambda: f"bot_{secrets.token_hex(3)}")
    ledger: str = field(default_factory=lambda: f"ledger{secrets.token_hex(3)}")
    prefix: str = field(default_factory=lambda: f"j{secrets.token_hex(3)}_")
    passwords: dict[str, str] = field(default_factory=dict)
    reading: Level = READING
    writing: Level = WRITING
    narrow: Level = NARROW
    admin_secrets: tuple[str, ...] = (BOT_PASSWORD,)
    counts_idle_sessions: bool = True

    def __post_init__(self) -> None:
        for node in self.nodes:
            make_bot(node, self.bot, RIGHTS)
        self.fill()

    @property
    def server(self) -> RedisServer:
        return self.nodes[0]

    def fill(self) -> None:
        """Write the keys that levels read. The servers save no data over a restart."""
        if self.server.run("INFO", "replication")["role"] == "slave":
            return
        for key in ("shop:customers", "shop:orders"):
            arguments = [str(word) for n in range(CUSTOMERS) for word in (n, f"{key} {n}")]
            self.server.run("HSET", key, *arguments)

    def target(self, **changes: object) -> Target:
        found = Target(
            name="cache",
            engine="redis",
            admin_url="env:UNUSED",
            prefix=self.prefix,
            ledger=self.ledger,
            tls=Tls(mode="prefer"),
            replicas=tuple(f"env:UNUSED{n}" for n in range(1, len(self.nodes))),
        )
        return replace(found, **changes)  # type: ignore[arg-type]

    def urls(self, bot: str | None = None) -> Secrets:
        first, *others = (node.url(bot or self.bot, BOT_PASSWORD) for node in self.nodes)
        return Secrets(admin_url=first, replicas=tuple(others))

    def adapter(
        self, *, ledger: str | None = None, identity: str | None = None, bot: str | None = None, **changes: object
    ) -> RecordingRedis:
        target = self.target(ledger=ledger or self.ledger, identity=identity, **changes)
        found = RecordingRedis(target, self.urls(bot))
        found.passwords = self.passwords
        return found

    def spec(self, level: Level, *, username: str | None = None, remaining: float = 300.0) -> UserSpec:
        number = secrets.randbelow(10**6) + 1
        name = username or make_username(self.prefix, request_id=number, who="ada", key=secrets.token_hex(4))
        password = secrets.token_hex(16)
        return UserSpec(username=name, password=password, level=level, remaining=remaining, request_id=number)

    def lacking(self) -> dict[str, RecordingRedis]:
        found = {}
        for right in LACKING:
            bot = f"{self.bot}_{right.replace('|', '_')}"
            for node in self.nodes:
                make_bot(node, bot, [word for word in RIGHTS if word != right])
            found[right] = self.adapter(bot=bot)
        return found

    @staticmethod
    @contextmanager
    def dies_after(step: int | None) -> Iterator[list[str]]:
        original, ran = AbstractConnection.read_response, list[str]()

        def read_response(self: Any, *rest: Any, **named: Any) -> Any:
            answer: object = None
            try:
                answer = original(self, *rest, **named)
            finally:
                ran.append(str(answer))
                if step is not None and len(ran) >= step:
                    self.disconnect()
                    raise Died
            return answer

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(AbstractConnection, "read_response", read_response)
            yield ran

    def login(self, username: str, password: str, node: RedisServer | None = None) -> Session:
        server = node or self.server
        with server.connect(username, password) as client:
            connection = client.connection_pool.make_connection()
        try:
            connection.connect()
        except RedisError as error:  # in a storm the server may hang up before it has answered
            raise LoginRefused(str(error)) from None
        return Session(connection)

    def login_by(self, command: str) -> str:
        _, *arguments = shlex.split(command)
        client = servers.command(self.server.flavour, self.server.flavour.client)
        known = self.passwords[arguments[arguments.index("--user") + 1]]
        done = subprocess.run(
            [*client, *arguments, "CLIENT", "INFO"],
            input=known + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.stdout + done.stderr

    def make_foreign_user(self, username: str, password: str) -> None:
        for node in self.nodes:
            node.run("ACL", "SETUSER", username, "on", f">{password}", "~*", "+@all")

    def has_user(self, username: str) -> bool:
        return any(username in node.run("ACL", "USERS") for node in self.nodes)

    def log_text(self) -> str:
        return "".join(node.log_text() for node in self.nodes)

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()
        self.fill()


def make_bot(node: RedisServer, name: str, rights: list[str]) -> None:
    arguments = ["reset", "on", f">{BOT_PASSWORD}", "resetchannels", *(f"+{right}" for right in rights)]
    node.run("ACL", "SETUSER", name, *arguments)
    if node.saves_in == "aclfile":
        node.run("ACL", "SAVE")
    elif node.saves_in == "config":
        node.run("CONFIG", "REWRITE")
