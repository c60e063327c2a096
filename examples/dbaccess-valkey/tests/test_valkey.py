"""The contract on a private Valkey server, which the tests start and stop. ``$VALKEY_SERVER`` is the command line of its program.

How an engine author starts a server for tests is up to the author; here it is a small class.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from dbaccess_valkey import RIGHTS, Valkey
from redis.connection import AbstractConnection
from redis.exceptions import NoPermissionError, RedisError

from adapters.base import Level, LoginRefused, Rejected, Secrets, Target, Tls, WrongServer
from adapters.contract import AdapterContract, Denied, Died, everything_on

ADMIN, BOT, PASSWORD = "root", "bot", "BotSecret0Login"
NAMES = ["|".join(command.split()[:2]) if command != "info" else command for command in RIGHTS]


class Session:
    """One login of a temporary user that never connects again."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.is_open = connection, True

    def execute(self, *arguments: str | int) -> Any:
        try:
            self.connection.send_command(*arguments, check_health=False)
            return self.connection.read_response()
        except NoPermissionError as error:
            raise Denied(str(error)) from None

    def read(self) -> int:
        return int(self.execute("HLEN", "customers"))

    def read_beside(self) -> int:
        return int(self.execute("HLEN", "orders"))

    def write(self) -> None:
        self.execute("HSET", "orders", "1", "1")

    def work(self, seconds: float) -> None:
        self.execute("XREAD", "BLOCK", int(seconds * 1000), "STREAMS", "news", "$")

    def is_alive(self) -> bool:
        try:
            return self.is_open and bool(self.execute("PING"))
        except (RedisError, OSError):
            self.close()
            return False

    def close(self) -> None:
        self.is_open = False
        self.connection.disconnect()


class EngineHarness:
    """A private Valkey with a bot. Implements ``adapters.contract.EngineHarness``."""

    reading, writing = Level(name="readonly", roles=("readonly",)), Level(name="write", roles=("readwrite",))
    narrow = reading
    admin_secrets = (PASSWORD,)
    counts_idle_sessions = True
    prefix, ledger = "j_", "exampleledger"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.passwords: dict[str, str] = {}
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = int(s.getsockname()[1])
        users = [
            f"user {ADMIN} on >{PASSWORD} ~* &* +@all",
            "user default off resetpass -@all",
            self.bot_rules(BOT, NAMES),
        ]
        (folder / "users.acl").write_text("\n".join(users) + "\n")
        self.start()

    @staticmethod
    def bot_rules(name: str, rights: list[str]) -> str:
        return f"user {name} on >{PASSWORD} resetchannels -@all {' '.join(f'+{right}' for right in [*rights, 'acl|dryrun'])}"

    def start(self) -> None:
        command = [*shlex.split(os.environ["VALKEY_SERVER"]), "--port", str(self.port), "--dir", str(self.folder)]
        command += ["--aclfile", str(self.folder / "users.acl"), "--slowlog-log-slower-than", "0"]
        command += ["--slowlog-max-len", "20000", "--save", ""]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TZ": "America/New_York"})
        log.close()
        deadline = time.monotonic() + 20
        while True:
            try:
                self.run("PING")
            except RedisError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                break
        for key in ("customers", "orders"):
            self.run("HSET", key, *(str(n) for n in range(20)))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def run(self, *arguments: str) -> Any:
        with redis.Redis(port=self.port, username=ADMIN, password=PASSWORD, decode_responses=True) as client:
            return client.execute_command(*arguments)

    def adapter(self, *, ledger: str | None = None, identity: str | None = None, bot: str = BOT) -> Valkey:
        target = Target(
            name="cache", engine="valkey", admin_url="env:UNUSED", prefix=self.prefix, ledger=ledger or self.ledger,
            tls=Tls(mode="prefer"), identity=identity,
        )  # fmt: skip
        return Valkey(target, Secrets(admin_url=f"redis://{bot}:{PASSWORD}@127.0.0.1:{self.port}"))

    def lacking(self) -> dict[str, Valkey]:
        found = {}
        for right in NAMES:
            bot = f"bot_{secrets.token_hex(4)}"
            arguments = self.bot_rules(bot, [name for name in NAMES if name != right]).split()
            self.run("ACL", "SETUSER", *arguments[1:])
            if right not in ("acl|users", "info"):  # without one of these two, check itself is Rejected
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

    def login(self, username: str, password: str) -> Session:
        with redis.Redis(
            port=self.port,
            username=username,
            password=password,
            protocol=2,
            decode_responses=True,
            retry=None,
            driver_info=None,
        ) as client:
            connection = client.connection_pool.make_connection()
        try:
            connection.connect()
        except RedisError as error:
            raise LoginRefused(str(error)) from None
        return Session(connection)

    def login_by(self, command: str) -> str:
        """valkey-cli may be missing on this machine, so the command is only parsed: which user it names, and where."""
        arguments = shlex.split(command)
        assert arguments[0] == "valkey-cli"
        assert arguments[arguments.index("-p") + 1] == str(self.port)
        assert "--askpass" in arguments
        return (
            str(self.run("ACL", "GETUSER", arguments[arguments.index("--user") + 1]))
            + arguments[arguments.index("--user") + 1]
        )

    def make_foreign_user(self, username: str, password: str) -> None:
        self.run("ACL", "SETUSER", username, "on", f">{password}", "~*", "+@all")

    def has_user(self, username: str) -> bool:
        return username in self.run("ACL", "USERS")

    def log_text(self) -> str:
        slow = self.run("SLOWLOG", "GET", "-1")
        return (self.folder / "log").read_text() + "\n".join(str(entry) for entry in slow)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineHarness]:
    made = EngineHarness(tmp_path_factory.mktemp("valkey"))
    yield made
    made.stop()


class TestValkey(AdapterContract):
    """The whole contract, except for narrow levels: this engine has presets only."""

    @pytest.fixture
    def harness(self, server: EngineHarness) -> EngineHarness:
        return server

    test_narrow_level_reads_only_its_own_objects = None  # type: ignore[assignment]

    def test_no_secret_in_errors_or_in_the_servers_log(self, harness: Any, adapter: Any, user_specs: Any) -> None:
        """As in the suite, but without the username: Valkey's log shows ``(redacted)`` in its place."""
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        adapter.drop_user(spec.username, spec.level)
        seen = harness.log_text()
        assert "SETUSER" in seen
        assert "DELUSER" in seen
        seen += "".join(everything_on(error) for error in self._provoke_errors(harness, user_specs))
        assert not [secret for secret in (spec.password, *harness.admin_secrets) if secret in seen]

    def test_killed_login_stays_dead(self, harness: EngineHarness, adapter: Any, user_specs: Any) -> None:
        """The driver connects again by itself, and that must not count."""
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        login = adapter.login(spec.username, spec.password, spec.level)
        assert login.is_alive()
        harness.run("CLIENT", "KILL", "USER", spec.username)
        assert not login.is_alive()
        login.close()
        adapter.drop_user(spec.username, spec.level)

    def test_older_server_gets_no_new_users_and_still_drops_them(
        self, harness: EngineHarness, adapter: Any, user_specs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        monkeypatch.setattr("dbaccess_valkey.OLDEST_SUPPORTED", 99)
        (problem,) = adapter.check([harness.reading]).problems
        assert problem.remedy == "upgrade it to Valkey 99.0 or later"
        with pytest.raises(Rejected, match="upgrade it"):
            adapter.create_user(user_specs.new(harness.reading))
        assert [user.username for user in adapter.list_users()] == [spec.username]
        assert not adapter.drop_user(spec.username, spec.level).was_absent

    def test_end_on_a_server_that_lost_its_identity(self, harness: EngineHarness, user_specs: Any) -> None:
        """The user with the ledger's mark shows that it is the server of the grant. Without the user, it may be another one."""
        identity = harness.adapter().identity()
        adapter, spec = harness.adapter(identity=identity), user_specs.new(harness.reading)
        adapter.create_user(spec)
        harness.run(
            "ACL", "DELUSER", *(name for name in harness.run("ACL", "USERS") if name.startswith("dbaccess_id_"))
        )
        assert not adapter.drop_user(spec.username, spec.level).was_absent
        assert not harness.has_user(spec.username)
        with pytest.raises(WrongServer, match="without an identity"):
            adapter.drop_user(spec.username, spec.level)

    def test_receipt_names_an_account_that_is_new(self, harness: EngineHarness, adapter: Any, user_specs: Any) -> None:
        spec = user_specs.new(harness.reading)
        before = adapter.level_state(spec.level)
        adapter.create_user(spec)
        harness.run("ACL", "SETUSER", "friend", "on", ">FriendSecret0", "+@all")
        notes = adapter.drop_user(spec.username, spec.level, before).notes
        assert notes == ("Changed while the grant was live: accounts: new friend.",)
        harness.run("ACL", "DELUSER", "friend")
        assert adapter.drop_user(spec.username, spec.level, before).notes == ()
