"""A server with a bot's account and temporary users, the assertions of the cases, and the table of the cases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.contract.mongodb_wire.raw import RawConnection
from tests.servers.mongodb import server
from tests.servers.mongodb.server import MongoServer

Client = MongoClient[dict[str, Any]]
USERS, APP, OTHER = "temps", "app", "other"
BOT, BOT_PASSWORD = "bot", "BotSecret0"
DOCUMENTS = 12
WAIT_SECONDS = 120
BOT_PRIVILEGES = [
    {
        "resource": {"db": USERS, "collection": ""},
        "actions": ["createUser", "dropUser", "viewUser", "changePassword", "changeCustomData"],
    },
    {
        "resource": {"db": APP, "collection": ""},
        "actions": ["grantRole", "revokeRole", "createRole", "dropRole", "viewRole"],
    },
    {"resource": {"cluster": True}, "actions": ["killAnySession", "killop", "inprog"]},
]
READ = {"role": "read", "db": APP}
READ_WRITE = {"role": "readWrite", "db": APP}
SLOW_FILTER = {"$where": "sleep(400) || true"}
"""Takes five seconds on all documents, on the real server and on the stand-in."""
_numbers = count(1)


class User(NamedTuple):
    """A temporary user."""

    name: str
    password: str

    @property
    def document(self) -> dict[str, str]:
        return {"user": self.name, "db": USERS}

    def __str__(self) -> str:
        return f"{self.name}@{USERS}"


@dataclass
class WireHarness:
    """``root`` and ``bot`` are clients. ``close`` closes all clients that the harness opened."""

    server: MongoServer
    clients: ExitStack = field(default_factory=ExitStack)

    root: Client = field(init=False)
    bot: Client = field(init=False)

    def open(self) -> None:
        self.root = self.clients.enter_context(self.server.admin())
        if not self.server.is_auth_on:
            return
        if not self.root.admin.command("usersInfo", BOT)["users"]:
            self._create_bot()
        self.bot = self.clients.enter_context(self.server.client(BOT, BOT_PASSWORD))

    def _create_bot(self) -> None:
        self.root.admin.command("createRole", "dbaccess_bot", privileges=BOT_PRIVILEGES, roles=[])
        self.root.admin.command("createUser", BOT, pwd=BOT_PASSWORD, roles=["dbaccess_bot"])
        self.root[APP].things.insert_many([{"n": number} for number in range(DOCUMENTS)])

    def close(self) -> None:
        self.clients.close()

    def name(self) -> str:
        return f"t{next(_numbers)}"

    def user(self, *roles: dict[str, str] | str, **options: Any) -> User:
        """A new user, created by root. Without ``roles`` it may read the application's database."""
        user = User(self.name(), "Secret0Temporary")
        asked = {"pwd": user.password, "mechanisms": ["SCRAM-SHA-256"], "roles": list(roles) or [READ], **options}
        self.root[USERS].command("createUser", user.name, **asked)
        return user

    def client(self, user: User, **options: Any) -> Client:
        """A client with one connection, so that a case knows which socket it uses."""
        opened = self.server.client(user.name, user.password, USERS, maxPoolSize=1, **options)
        return self.clients.enter_context(opened)

    def stranger(self) -> Client:
        return self.clients.enter_context(self.server.stranger(maxPoolSize=1))

    def raw(self, user: User | None = None) -> RawConnection:
        connection = self.clients.enter_context(RawConnection(self.server.host, self.server.port))
        if user is not None:
            connection.log_in(user.name, user.password, USERS)
        return connection

    def info(self, user: User, **options: Any) -> dict[str, Any]:
        """The document of usersInfo for a user that exists."""
        reply = self.root[USERS].command("usersInfo", user.name, **options)
        found: list[dict[str, Any]] = reply["users"]
        assert len(found) == 1, f"{len(found)} users {user}"
        return found[0]

    def running(self, user: User) -> list[dict[str, Any]]:
        """The user's active operations as the bot sees them, without those that are killed and have not ended yet."""
        rows = self.bot.admin.aggregate([{"$currentOp": {"allUsers": True}}])
        return [
            row
            for row in rows
            if row.get("active") and user.document in row.get("effectiveUsers", []) and not row.get("killPending")
        ]

    def await_running(self, user: User) -> dict[str, Any]:
        rows: list[dict[str, Any]] = until(lambda: self.running(user))
        return rows[0]


@contextmanager
def expect_refused(code: int, *texts: str) -> Iterator[None]:
    """The server refuses with this code and these texts; upper and lower case are equal."""
    try:
        yield
    except OperationFailure as failure:
        error = failure
    else:
        raise AssertionError(f"it was not refused; expected {code} {texts}")
    said = (error.details or {}).get("errmsg", str(error))
    assert error.code == code, f"code {error.code} instead of {code}: {said}"
    for text in texts:
        assert text.casefold() in said.casefold(), said


def until(question: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := question()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
    return found


class Slow(threading.Thread):
    """A find on a thread that takes seconds. ``failure`` is None when it was not refused."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.failure: PyMongoError | OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except (PyMongoError, OSError) as error:
            self.failure = error

    def end(self) -> None:
        """Waits for its end and raises its failure."""
        self.join(WAIT_SECONDS)
        assert not self.is_alive(), "it still runs"
        if self.failure is not None:
            raise self.failure


@contextmanager
def serving(**how: Any) -> Iterator[MongoServer]:
    made = server.start(**how)
    try:
        yield made
    finally:
        made.remove()


@contextmanager
def harness_of(on: MongoServer) -> Iterator[WireHarness]:
    harness = WireHarness(on)
    try:
        harness.open()
        yield harness
    finally:
        harness.close()


def slow_find(client: Client) -> Slow:
    return Slow(lambda: list(client[APP].things.find(SLOW_FILTER)))


def slow_find_without_session(connection: RawConnection) -> Slow:
    return Slow(lambda: connection.command(APP, find="things", filter=SLOW_FILTER))


Check = Callable[[WireHarness], None]


@dataclass(frozen=True)
class Case:
    """One fact. ``is_auth_on`` is the kind of server that it needs."""

    number: int
    check: Check
    is_auth_on: bool

    @property
    def id(self) -> str:
        return f"{self.number:02}-{self.check.__name__}"


CASES: dict[int, Case] = {}


def case(number: int, *, is_auth_on: bool = True) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        assert number not in CASES
        CASES[number] = Case(number, check, is_auth_on)
        return check

    return add
