"""MongoDB set up as a team does: an application's database, and a bot with exactly the rights that doctor asks for."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pymongo
import pytest
from pymongo.errors import OperationFailure, PyMongoError

from adapters.base import Connect, Level, LoginRefused, PrivilegeGrant, Secrets, Target, Tls, UserSpec
from adapters.harness import Denied, Died
from adapters.mongodb import MongoDB
from adapters.mongodb.connection import MongoDBConnection
from adapters.usernames import make_username
from tests.servers.mongodb.server import SLOW, MongoServer

BOT_PASSWORD = "BotSecret0Login"
CUSTOMERS = 100
ON_USERS = ("createUser", "dropUser", "viewUser", "changePassword", "changeCustomData", "createRole", "viewRole")
ON_APP = ("grantRole", "revokeRole", "createRole", "dropRole", "viewRole")
ON_CLUSTER = ("killAnySession", "killop", "inprog")
ON_ROUTERS = ("invalidateUserCache",)
READING, WRITING = Level(name="readonly", roles=("read",)), Level(name="write", roles=("readWrite",))
NARROW = Level(name="support", grants=(PrivilegeGrant(on=("customers",), privileges=("find",)),))
NO_LOGIN, NOT_ALLOWED = "requires authentication", 13


class Session:
    """One login of a temporary user, on one connection."""

    def __init__(self, client: pymongo.MongoClient[dict[str, Any]], app: str) -> None:
        self.client = client
        self.app = app

    def count(self, collection: str, **query: Any) -> int:
        try:
            return len(list(self.client[self.app][collection].find(query)))
        except OperationFailure as error:
            raise refusal(error) from None

    def read(self) -> int:
        return self.count("customers")

    def read_beside(self) -> int:
        return self.count("orders")

    def write(self) -> None:
        try:
            self.client[self.app].orders.insert_one({"customer": 1})
        except OperationFailure as error:
            raise refusal(error) from None

    def work(self, seconds: float) -> None:
        assert seconds <= CUSTOMERS * 0.2, "each document takes 0.2 s"
        self.count("customers", **{"$where": SLOW})

    def is_alive(self) -> bool:
        """Whether the server still runs commands of this session. The socket stays open either way."""
        try:
            self.client[self.app].customers.find_one()
        except OperationFailure as error:
            return error.code == NOT_ALLOWED and NO_LOGIN not in str(error)
        except PyMongoError:
            return False
        return True

    def close(self) -> None:
        self.client.close()


def refusal(error: OperationFailure) -> Exception:
    is_denied = error.code == NOT_ALLOWED and NO_LOGIN not in str(error)
    return Denied(str(error)) if is_denied else error


@dataclass
class MongoDBHarness:
    """A bot, an application's database and a database for temporary users. Implements ``adapters.harness.EngineHarness``."""

    server: MongoServer
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    without: tuple[str, ...] = ()
    reading: Level = READING
    writing: Level = WRITING
    narrow: Level = NARROW
    admin_secrets: tuple[str, ...] = (BOT_PASSWORD,)
    counts_idle_sessions: bool = False

    def __post_init__(self) -> None:
        self.app, self.users, self.bot = f"shop_{self.tag}", f"temps_{self.tag}", f"bot_{self.tag}"
        self.ledger, self.prefix = f"ledger{self.tag}", f"j{self.tag}_"
        with self.server.admin() as root:
            privileges = [
                {"resource": {"db": self.users, "collection": ""}, "actions": self._but(ON_USERS)},
                {"resource": {"db": self.app, "collection": ""}, "actions": self._but(ON_APP)},
                {"resource": {"cluster": True}, "actions": self._but((*ON_CLUSTER, *ON_ROUTERS))},
            ]
            root.admin.command("createRole", self.bot, privileges=privileges, roles=[])
            root.admin.command("createUser", self.bot, pwd=BOT_PASSWORD, roles=[self.bot])
            for name in ("customers", "orders"):
                root[self.app][name].insert_many([{"n": n} for n in range(CUSTOMERS)])

    def _but(self, actions: tuple[str, ...]) -> list[str]:
        return [action for action in actions if action not in self.without]

    @property
    def cluster_rights(self) -> tuple[str, ...]:
        """Rights on the cluster that the bot needs. Only routers cache users."""
        return (*ON_CLUSTER, *(ON_ROUTERS if self.server.routers else ()))

    @property
    def admin_url(self) -> str:
        hosts = ",".join(f"{self.server.host}:{port}" for port in self.server.members)
        return f"mongodb://{self.bot}:{BOT_PASSWORD}@{hosts}/?authSource=admin"

    def target(self, **changes: object) -> Target:
        found = Target(
            name="shop", engine="mongodb", admin_url=f"env:UNUSED_{self.tag}", prefix=self.prefix, ledger=self.ledger,
            tls=Tls(mode="prefer"), connect=Connect(database=self.app), ops_schema=self.users,
        )  # fmt: skip
        return replace(found, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]

    def adapter(self, *, ledger: str | None = None, identity: str | None = None, **changes: object) -> MongoDB:
        return MongoDB(self.target(ledger=ledger, identity=identity, **changes), Secrets(admin_url=self.admin_url))

    def spec(self, level: Level, *, username: str | None = None, remaining: float = 300.0) -> UserSpec:
        number = secrets.randbelow(10**6) + 1
        name = username or make_username(self.prefix, request_id=number, who="ada", key=secrets.token_hex(4))
        return UserSpec(
            username=name, password=secrets.token_hex(16), level=level, remaining=remaining, request_id=number
        )

    def login(self, username: str, password: str, *, port: int | None = None) -> Session:
        client = self.server.client(
            username, password, self.users, port=port, maxPoolSize=1, authMechanism="SCRAM-SHA-256"
        )
        try:
            client.admin.command("connectionStatus")
        except PyMongoError as error:
            client.close()
            raise LoginRefused(str(error)) from None
        return Session(client, self.app)

    def login_by(self, command: str) -> str:
        """Reads the URL of the command as mongosh does. mongosh itself is not installed."""
        program, url = shlex.split(command)
        assert program == "mongosh"
        with self.server.admin() as root:  # the user that the URL names
            parts = pymongo.uri_parser.parse_uri(url)
            found = root[str(parts["options"]["authSource"])].command("usersInfo", parts["username"])["users"]
        assert not parts["password"]
        assert parts["database"] == self.app
        return str(found)

    def make_foreign_user(self, username: str, password: str) -> None:
        with self.server.admin() as root:
            root[self.users].command("createUser", username, pwd=password, roles=[{"role": "read", "db": self.app}])

    def has_user(self, username: str) -> bool:
        with self.server.admin() as root:
            return bool(username) and bool(root[self.users].command("usersInfo", username)["users"])

    def log_text(self) -> str:
        return self.server.log_text()

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    def lacking(self) -> dict[str, MongoDB]:
        """Bots that each lack one right."""
        return {
            right: MongoDBHarness(self.server, without=(right,)).adapter()
            for right in {*ON_USERS, *ON_APP, *self.cluster_rights}
        }

    @staticmethod
    @contextmanager
    def dies_after(step: int | None) -> Iterator[list[str]]:
        original, ran = MongoDBConnection.run, list[str]()

        def run(self: MongoDBConnection, database: str, command: Any, **how: Any) -> dict[str, Any]:
            if step is not None and len(ran) >= step:
                raise Died
            try:
                return original(self, database, command, **how)
            finally:
                ran.append(str(next(iter(command))))
                if step is not None and len(ran) == step:
                    self._client.close()
                    raise Died

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(MongoDBConnection, "run", run)
            yield ran
