"""The stand-in as a server: strict, logged as the real one, outliving its process; sets, routers, look-alikes, TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymongo.errors import AutoReconnect, NotPrimaryError, ServerSelectionTimeoutError
from pymongo.read_preferences import Secondary
from pymongo.write_concern import WriteConcern

from tests.contract.mongodb_wire.bench import APP, READ, USERS, Bench, refused, slow_find, until
from tests.servers.mongodb import server
from tests.servers.mongodb.server import MongoServer


@contextlib.contextmanager
def serving(**how: Any) -> Iterator[MongoServer]:
    made = server.start(**how)
    try:
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def bench_of(on: MongoServer) -> Iterator[Bench]:
    bench = Bench(on)
    try:
        bench.open()
        yield bench
    finally:
        bench.close()


@pytest.fixture(scope="module")
def standalone() -> Iterator[MongoServer]:
    with serving() as made:
        yield made


@pytest.fixture
def bench(standalone: MongoServer) -> Iterator[Bench]:
    with bench_of(standalone) as made:
        yield made


@pytest.fixture(scope="module")
def replica_set() -> Iterator[MongoServer]:
    with serving(members=2) as made:
        yield made


@pytest.fixture(scope="module")
def routers() -> Iterator[MongoServer]:
    with serving(members=2, routers=True) as made:
        yield made


def test_unknown_commands_fields_and_operators_are_errors(bench: Bench) -> None:
    with refused(59, "no such command: 'frobnicate'"):
        bench.root.admin.command("frobnicate")
    with refused(40415, "BSON field 'find.frobnicate' is an unknown field."):
        bench.root[APP].command("find", "things", frobnicate=1)
    with refused(40415, "'KillAllSessionsCmd.frobnicate'"):
        bench.root.admin.command("killAllSessions", [{"user": "x", "db": "y", "frobnicate": 1}])
    with refused(2, "unknown operator: $frobnicate"):
        list(bench.root[APP].things.find({"n": {"$frobnicate": 1}}))
    with refused(40324):
        list(bench.root[APP].things.aggregate([{"$frobnicate": 1}]))
    with refused(9):
        list(bench.root.admin.aggregate([{"$currentOp": {"frobnicate": True}}]))
    with refused(72):
        bench.root.admin.command("killAllSessions", [], writeConcern={"w": 1})
    with refused(73):
        bench.raw().command("a b", ping=1)
    with refused(2, "the stand-in does not know"):
        list(bench.root[APP].things.find({"$where": "this.n == 1"}))


def test_hello_in_the_old_message(bench: Bench) -> None:
    """Drivers before 4.18 begin so; the current one no longer does."""
    assert _old_query(bench, {"ismaster": 1, "helloOk": True})["ismaster"] is True
    assert _old_query(bench, {"ismaster": 1, "$db": "admin"})["code"] == 40621


def _old_query(bench: Bench, body: dict[str, Any]) -> dict[str, Any]:
    raw = bench.raw()
    message = struct.pack("<i", 0) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + bson.encode(body)
    raw._socket.sendall(struct.pack("<iiii", len(message) + 16, 7, 0, 2004) + message)
    (length,) = struct.unpack("<i", raw._read(4))
    head = raw._read(length - 4)
    assert struct.unpack("<iii", head[:12])[1:] == (7, 1)
    return dict(bson.decode(head[32:]))


def test_unacknowledged_writes_get_no_reply(bench: Bench) -> None:
    things = bench.root[APP].get_collection("unacknowledged", write_concern=WriteConcern(w=0))
    things.insert_one({"n": 1})
    assert bench.root.admin.command("ping")["ok"] == 1.0
    until(lambda: bench.root[APP].unacknowledged.count_documents({}) == 1)


def test_nonsense_closes_the_connection_and_nothing_else(bench: Bench) -> None:
    raw = bench.raw()
    raw._socket.sendall(struct.pack("<iiii", 20, 1, 0, 4711) + b"abcd")
    with pytest.raises(ConnectionResetError):
        raw._read(1)
    assert bench.root.admin.command("ping")["ok"] == 1.0


def test_log_shows_commands_without_passwords(bench: Bench) -> None:
    user = bench.user()
    bench.client(user)[APP].things.find_one()
    bench.root[USERS].command("updateUser", user.name, pwd="AnotherSecret0")
    text = bench.server.log_text()
    assert f'"createUser": "{user.name}"' in text
    assert f'"updateUser": "{user.name}", "pwd": "xxx"' in text
    assert user.password not in text
    assert "AnotherSecret0" not in text
    assert "The stand-in is wrong" not in text


def test_process_is_nobodys(standalone: MongoServer) -> None:
    """Started by root it does not stay root."""
    owner = Path(f"/proc/{standalone.processes[0].pid}").stat().st_uid
    assert owner != 0
    assert os.geteuid() in (0, owner)


def test_what_was_written_outlives_the_process() -> None:
    with serving() as made:
        with bench_of(made) as bench:
            user = bench.user(customData={"mark": 1})
            before = bench.info(user, showCredentials=True)
        for end in (made.kill, made.stop):
            end()
            with made.client(user.name, user.password, USERS, serverSelectionTimeoutMS=300) as client:
                with pytest.raises((ServerSelectionTimeoutError, AutoReconnect)):
                    client[APP].things.find_one()
                made.start()
            with bench_of(made) as bench:
                assert bench.info(user, showCredentials=True) == before
                assert bench.client(user)[APP].things.find_one() is not None


def test_first_administrator_is_made_once(standalone: MongoServer) -> None:
    with standalone.stranger() as stranger, refused(13, "requires authentication"):
        stranger.admin.command("createUser", "second", pwd="x", roles=["root"])


def test_set_is_found_from_one_member(replica_set: MongoServer) -> None:
    with replica_set.open(replica_set.root_url(), directConnection=False, replicaSet="rs0") as client:
        client[APP].found.insert_one({})
        assert client.nodes == {("127.0.0.1", port) for port in replica_set.members}
        assert client.primary == ("127.0.0.1", replica_set.port)
        assert client[APP].get_collection("found", read_preference=Secondary()).find_one() is not None


def test_secondary_refuses_writes(replica_set: MongoServer) -> None:
    with replica_set.admin(port=replica_set.members[1]) as secondary:
        with pytest.raises(NotPrimaryError, match="'code': 10107"):
            secondary.admin.command("dropUser", "anybody")
        assert secondary.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
        assert secondary.admin.command("usersInfo", 1, read_preference=Secondary())["users"]


def test_killing_reaches_one_member(replica_set: MongoServer) -> None:
    """What runs on the other goes on: each member has to be asked."""
    with bench_of(replica_set) as bench:
        user = bench.user()
        there = bench.client(user, port=replica_set.members[1])
        cursor = there[APP].things.find(batch_size=2)
        next(cursor)
        bench.bot.admin.command("killAllSessions", [user.document])
        assert list(cursor)
        cursor = there[APP].things.find(batch_size=2)
        next(cursor)
        with replica_set.admin(port=replica_set.members[1]) as secondary:
            secondary.admin.command("killAllSessions", [user.document])
        with refused(43):
            list(cursor)


def test_killing_sessions_undoes_a_transaction(replica_set: MongoServer) -> None:
    with bench_of(replica_set) as bench:
        user = bench.user({"role": "readWrite", "db": APP})
        login, collection = bench.client(user), bench.name()
        bench.root[APP][collection].insert_one({"_id": "before"})
        with login.start_session() as session:
            session.start_transaction()
            login[APP][collection].insert_one({"_id": "within"}, session=session)
            idle = bench.root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleSessions": True}}])
            assert [row for row in idle if row["type"] == "idleSession"]
            bench.bot.admin.command("killAllSessions", [user.document])
            with refused(251):
                login[APP][collection].insert_one({"_id": "after"}, session=session)
        assert [one["_id"] for one in bench.root[APP][collection].find()] == ["before"]
        with login.start_session() as session, session.start_transaction():
            login[APP][collection].insert_one({"_id": "committed"}, session=session)
        assert bench.root[APP][collection].count_documents({}) == 2


def test_member_goes_and_comes_back(replica_set: MongoServer) -> None:
    port = replica_set.members[1]
    with replica_set.admin(port=port, serverSelectionTimeoutMS=300) as secondary, replica_set.admin() as primary:
        secondary.admin.command("ping")
        replica_set.close_member(port)
        with pytest.raises((ServerSelectionTimeoutError, AutoReconnect)):
            secondary.admin.command("usersInfo", 1)
        assert primary.admin.command("ping")["ok"] == 1.0
        replica_set.open_member(port)
    with replica_set.admin(port=port) as secondary:
        assert secondary.admin.command("ping")["ok"] == 1.0


def test_router_remembers_users(routers: MongoServer) -> None:
    """A user dropped at one router lives on at another, up to half a minute or until that is told."""
    with bench_of(routers) as bench:
        user = bench.user(READ)
        here, there = bench.client(user), bench.client(user, port=routers.members[1])
        assert here.admin.command("hello")["msg"] == "isdbgrid"
        for login in (here, there):
            assert login[APP].things.find_one() is not None
        bench.bot[USERS].command("dropUser", user.name)
        with refused(13, "requires authentication"):
            here[APP].things.find_one()
        assert there[APP].things.find_one() is not None
        assert bench.client(user, port=routers.members[1])[APP].things.find_one() is not None
        with routers.admin(port=routers.members[1]) as other:
            other.admin.command("invalidateUserCache")
        with refused(13, "requires authentication"):
            there[APP].things.find_one()


def test_router_kills_everywhere(routers: MongoServer) -> None:
    with bench_of(routers) as bench:
        user = bench.user(READ)
        running = slow_find(bench.client(user, port=routers.members[1]))
        row = bench.await_running(user)
        assert row["shard"]
        with refused(50759):
            bench.bot.admin.command("killOp", 1)
        with refused(28625):
            bench.bot.admin.command("killOp", 1, op="1")
        bench.bot.admin.command("killOp", 1, op=row["opid"])
        with refused(11601):
            running.end()


def test_lookalikes_give_themselves_away() -> None:
    with serving(like="ferretdb") as ferret, bench_of_lookalike(ferret) as (root, powerless):
        assert "ferretdb" in root.admin.command("buildInfo")
        assert powerless[APP].things.find_one() is not None
        with refused(59):
            root.admin.command("killOp", 1, op=1)
    with serving(auth=False, like="atlas") as atlas, atlas.stranger() as client:
        assert client.admin.command("atlasVersion")["atlasVersion"]
        with refused(8000):
            client.admin.command("createUser", "x", pwd="y", roles=[])


@contextlib.contextmanager
def bench_of_lookalike(on: MongoServer) -> Iterator[tuple[Any, Any]]:
    with on.admin() as root:
        root[APP].things.insert_one({})
        root[USERS].command("createUser", "powerless", pwd="Secret0", roles=[])
        with on.client("powerless", "Secret0", USERS) as powerless:
            yield root, powerless


def certificate(folder: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(pem) + secret)
    return path


def test_tls_and_nothing_else(tmp_path: Path) -> None:
    with serving(certificate=certificate(tmp_path)) as made:
        with made.admin() as client:
            assert client.admin.command("ping")["ok"] == 1.0
        with (
            made.admin(tls=False, tlsCAFile=None, serverSelectionTimeoutMS=300) as client,
            pytest.raises((ServerSelectionTimeoutError, AutoReconnect)),
        ):
            client.admin.command("ping")
        with (
            made.admin(tlsCAFile=ssl.get_default_verify_paths().cafile, serverSelectionTimeoutMS=300) as client,
            pytest.raises(ServerSelectionTimeoutError, match="certificate verify failed"),
        ):
            client.admin.command("ping")
