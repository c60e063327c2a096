"""The acts of a user that keep its operations out of the bot's sight, delay its end, or leave something behind.

All of it runs on the stand-in, which models the server from its documentation and source.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import bson
import pytest
from bson import Binary
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.errors import PyMongoError

from adapters.base import Blocked, Level, Rejected, ServerDown, UserSpec, WrongServer
from adapters.harness import wait_until
from adapters.mongodb import MongoDB, sessions
from adapters.mongodb.connection import MARKER, UNREAD, MongoDBConnection
from tests.contract.mongodb.harness import MongoDBHarness
from tests.servers.mongodb import server as servers
from tests.servers.mongodb.server import SLOW, MongoServer


@pytest.fixture(scope="module")
def alone() -> Iterator[MongoServer]:
    made = servers.start()
    yield made
    made.remove()


@pytest.fixture
def shop(alone: MongoServer) -> MongoDBHarness:
    return MongoDBHarness(alone)


@dataclass
class Running:
    """A slow operation of a temporary user, in a thread of its own."""

    harness: MongoDBHarness
    adapter: MongoDB
    spec: UserSpec
    command: dict[str, Any]

    def __enter__(self) -> Self:
        self.adapter.create_user(self.spec)
        self.session = self.harness.login(self.spec.username, self.spec.password)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        wait_until(self.is_running)
        return self

    def is_running(self) -> bool:
        with self.harness.server.admin() as root:
            rows = MongoDBConnection(root, "the server").rows(
                "admin", {"aggregate": 1, "pipeline": [{"$currentOp": {"allUsers": True}}]}
            )
        return any(user["user"] == self.spec.username for row in rows for user in row.get("effectiveUsers", ()))

    def __exit__(self, *_: object) -> None:
        self.session.close()
        self.thread.join(60)

    def _run(self) -> None:
        with suppress(PyMongoError):
            self.session.client[self.harness.app].command(self.command)


def slow_find(**conditions: Any) -> dict[str, Any]:
    return {"find": "customers", "filter": {"$where": SLOW, **conditions}, "singleBatch": True}


def invalid_text() -> RawBSONDocument:
    """A document whose text is no valid UTF-8."""
    value = b"\xff\xfe\x00"
    element = b"\x02a\x00" + len(value).to_bytes(4, "little") + value
    return RawBSONDocument((len(element) + 5).to_bytes(4, "little") + element + b"\x00")


def test_operation_whose_command_cannot_be_read_is_ended(shop: MongoDBHarness) -> None:
    """The rows of $currentOp contain the commands of users. By default, the driver refuses to read a date after the year 9999."""
    adapter, spec = shop.adapter(), shop.spec(shop.reading)
    with Running(shop, adapter, spec, slow_find(at=DatetimeMS(2**62))) as running:
        assert adapter.activity([spec.username])[0].sessions > 0
        assert adapter.drop_user(spec.username, spec.level).sessions_ended > 0
        assert not running.is_running()
    assert not shop.has_user(spec.username)


@pytest.mark.parametrize(
    "comment", [{"id": Binary(b"12345", 4)}, invalid_text(), {"at": DatetimeMS(2**62)}], ids=["uuid", "utf-8", "date"]
)
def test_row_with_a_command_that_cannot_be_read_shows_its_user(comment: Any) -> None:
    """The stand-in cannot send these rows, because it reads commands itself."""
    row = {"effectiveUsers": [{"user": "u", "db": "d"}], "opid": 7, "command": {"comment": comment}}
    reply: Any = bson.decode(bson.encode({"cursor": {"firstBatch": [row]}}), codec_options=UNREAD)
    (found,) = reply["cursor"]["firstBatch"]
    assert sessions.users_of(found) == [{"user": "u", "db": "d"}]
    assert found["opid"] == 7


def test_operation_that_does_not_end_is_named_with_the_statement_that_kills_it(
    shop: MongoDBHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is killed, as on a server where an operation does not reach a point at which it can stop."""
    adapter, spec, original = shop.adapter(), shop.spec(shop.reading), MongoDBConnection.run

    def run(self: MongoDBConnection, database: str, command: Any, **how: Any) -> dict[str, Any]:
        kills = next(iter(command)) in ("killOp", "killAllSessions")
        return {"ok": 1} if kills else original(self, database, command, **how)

    with Running(shop, adapter, spec, slow_find()), monkeypatch.context() as patched:
        patched.setattr(MongoDBConnection, "run", run)
        patched.setattr(sessions, "PATIENCE_SECONDS", 0.3)
        with pytest.raises(Blocked) as caught:
            adapter.drop_user(spec.username, spec.level)
        assert spec.username in caught.value.what
        assert str(caught.value.remedy).startswith("db.killOp(")
        assert caught.value.remedy.removeprefix("db.killOp(")[:-1] in caught.value.what  # type: ignore[union-attr]
    assert not shop.has_user(spec.username), "the login ended all the same"
    assert adapter.drop_user(spec.username, spec.level).was_absent


@pytest.mark.parametrize("right", ["viewUser", "viewRole"])
def test_mark_that_the_bot_may_not_read_does_not_delay_the_end(alone: MongoServer, right: str) -> None:
    """An administrator took the right from the bot after the user was created."""
    shop = MongoDBHarness(alone)
    adapter, spec = shop.adapter(), shop.spec(shop.reading)
    frozen = shop.adapter(identity=adapter.identity())
    with Running(shop, frozen, spec, slow_find()) as running:
        with shop.server.admin() as root:
            privilege = {"resource": {"db": shop.users, "collection": ""}, "actions": [right]}
            root.admin.command("revokePrivilegesFromRole", shop.bot, privileges=[privilege])
        with suppress(Rejected):
            frozen.drop_user(spec.username, spec.level)
        assert not running.is_running()
    assert not shop.has_user(spec.username)


def test_user_is_ended_where_the_server_has_lost_its_mark(shop: MongoDBHarness) -> None:
    adapter, spec, other = shop.adapter(), shop.spec(shop.reading), shop.spec(shop.reading)
    identity = adapter.identity()
    frozen = shop.adapter(identity=identity)
    frozen.create_user(spec)
    with shop.server.admin() as root:
        root[shop.users].command("dropRole", identity)
    assert not frozen.drop_user(spec.username, spec.level).was_absent
    with pytest.raises(WrongServer):
        frozen.drop_user(other.username, other.level)


def test_another_server_is_not_touched(shop: MongoDBHarness) -> None:
    adapter, spec = shop.adapter(), shop.spec(shop.reading)
    adapter.create_user(spec)
    adapter.identity()
    with pytest.raises(WrongServer):
        shop.adapter(identity=f"{MARKER}ffffffffffffffff").drop_user(spec.username, spec.level)
    assert shop.has_user(spec.username)
    adapter.drop_user(spec.username, spec.level)


def test_members_that_answer_end_the_operations_although_another_is_down() -> None:
    made = servers.start(members=3)
    try:
        shop = MongoDBHarness(made)
        adapter, spec = shop.adapter(), shop.spec(shop.reading)
        with Running(shop, adapter, spec, slow_find()) as running:
            original = MongoDBConnection.hello

            def hello(self: MongoDBConnection) -> Any:
                found = original(self)
                nobody = f"127.0.0.1:{servers.free_port()}"
                return type(found)(members=(nobody, *found.members), is_router=False, now=found.now)

            with pytest.MonkeyPatch.context() as patched:
                patched.setattr(MongoDBConnection, "hello", hello)
                with pytest.raises(ServerDown):
                    adapter.drop_user(spec.username, spec.level)
            assert not running.is_running()
    finally:
        made.remove()


def test_date_of_a_mark_that_was_written_by_hand_does_not_stop_the_list(shop: MongoDBHarness) -> None:
    adapter, spec = shop.adapter(), shop.spec(shop.reading)
    mark = {"dbaccess": {"ledger": shop.ledger, "request": 1, "ends_at": DatetimeMS(2**62)}}
    with shop.server.admin() as root:
        root[shop.users].command("createUser", spec.username, pwd=spec.password, roles=[], customData=mark)
    (found,) = adapter.list_users()
    assert (found.username, found.expires_at) == (spec.username, None)
    adapter.drop_user(spec.username, spec.level)


# What changed while the grant was live.


def test_change_of_a_role_or_a_user_is_in_the_receipt(shop: MongoDBHarness) -> None:
    adapter = shop.adapter()
    with shop.server.admin() as root:
        find = {"resource": {"db": shop.app, "collection": "customers"}, "actions": ["find"]}
        root[shop.app].command("createRole", "team", privileges=[find], roles=[])
        level = Level(name="team", roles=("team",))
        before, spec = adapter.level_state(level), shop.spec(level)
        adapter.create_user(spec)
        insert = {"resource": {"db": shop.app, "collection": "orders"}, "actions": ["insert"]}
        root[shop.app].command("grantPrivilegesToRole", "team", privileges=[insert])
        root[shop.users].command("createUser", "friend", pwd="x" * 20, roles=["read"])
    notes = "\n".join(adapter.drop_user(spec.username, level, before).notes)
    assert f"insert on {shop.app}.orders" in notes
    assert "new friend" in notes


def test_grants_of_dbaccess_itself_are_no_change(shop: MongoDBHarness) -> None:
    adapter, level = shop.adapter(), shop.narrow
    before, spec, other = adapter.level_state(level), shop.spec(level), shop.spec(level)
    adapter.create_user(spec)
    adapter.create_user(other)
    notes = adapter.drop_user(spec.username, level, before).notes
    assert not [note for note in notes if "Changed" in note]
    adapter.drop_user(other.username, level)


def test_state_that_cannot_be_read_is_a_note(shop: MongoDBHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, spec = shop.adapter(), shop.spec(shop.reading)
    before = adapter.level_state(spec.level)
    adapter.create_user(spec)

    def describe(*_: object) -> None:
        raise ServerDown("no answer")

    monkeypatch.setattr("adapters.mongodb.users.describe", describe)
    removal = adapter.drop_user(spec.username, spec.level, before)
    assert [note for note in removal.notes if "is not known: no answer" in note]


# Managed roles that nobody needs.


def test_unused_managed_role_is_dropped_and_a_used_one_stays(shop: MongoDBHarness) -> None:
    adapter, spec = shop.adapter(), shop.spec(shop.narrow)
    adapter.create_user(spec)
    with shop.server.admin() as root:
        root[shop.app].command("createRole", "dbaccess_old_0123abcd", privileges=[], roles=[])
        root[shop.app].command("createRole", "dbaccess_team", privileges=[], roles=[])
        assert adapter.drop_leftovers() == [], "without the right nothing is dropped"
        cluster = {"resource": {"cluster": True}, "actions": ["viewUser"]}
        root.admin.command("grantPrivilegesToRole", shop.bot, privileges=[cluster])
        (sentence,) = adapter.drop_leftovers()
        assert "dbaccess_old_0123abcd" in sentence
        roles = {one["role"] for one in root[shop.app].command("rolesInfo", 1)["roles"]}
    assert "dbaccess_team" in roles
    assert len(roles) == 2
    adapter.drop_user(spec.username, spec.level)
