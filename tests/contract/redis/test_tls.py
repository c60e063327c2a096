"""TLS between the bot and the server as ``tls`` configures it, and the command that the requester pastes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.base import Connect, Level, Rejected, Secrets, ServerDown, Tls
from adapters.redis import Redis, nodes
from tests.conftest import had
from tests.contract.redis.harness import BOT_PASSWORD, READING, EngineHarness
from tests.open_faults import open_fault
from tests.servers import certificates
from tests.servers import redis as servers
from tests.servers.certificates import Certificates
from tests.servers.postgresql import free_port
from tests.servers.redis import REDIS


class Secured:
    """A harness on a server with a plain port and a TLS port. Its certificate is for 127.0.0.1 and localhost."""

    def __init__(self, harness: EngineHarness, tls_port: int, ca: Path) -> None:
        self.harness, self.tls_port, self.ca = harness, tls_port, str(ca)

    def adapter(self, url: str, tls: Tls, **changes: object) -> Redis:
        """``{tls}`` and ``{plain}`` in ``url`` stand for the ports."""
        whole = url.replace("//", f"//{self.harness.bot}:{BOT_PASSWORD}@").format(
            tls=self.tls_port, plain=self.harness.server.port
        )
        return Redis(self.harness.target(tls=tls, **changes), Secrets(admin_url=whole))


@pytest.fixture(scope="module")
def pem() -> Iterator[Certificates]:
    with certificates.made() as found:
        yield found


@pytest.fixture(scope="module")
def secured(pem: Certificates) -> Iterator[Secured]:
    port = free_port()
    files = (("cert", pem.certificate), ("key", pem.key), ("ca-cert", pem.ca))
    extra = f"tls-port {port}\ntls-auth-clients no\n" + "".join(f"tls-{word}-file {path}\n" for word, path in files)
    for server in had(lambda: servers.start(REDIS, extra=extra)):
        yield Secured(EngineHarness((server,)), port, pem.ca)


@pytest.mark.parametrize(
    ("url", "mode", "with_ca"),
    [
        ("rediss://127.0.0.1:{tls}", "verify-full", True),
        ("rediss://localhost:{tls}", "verify-full", True),
        ("rediss://127.0.0.2:{tls}", "verify-ca", True),
        ("rediss://127.0.0.1:{tls}", "require", False),
        ("redis://127.0.0.1:{tls}", "require", False),
        ("redis://127.0.0.1:{tls}", "verify-full", True),
        ("rediss://127.0.0.1:{tls}", "prefer", False),
        ("redis://127.0.0.1:{plain}", "prefer", False),
        ("redis://127.0.0.1:{plain}", "disable", False),
    ],
)
def test_tls_mode_that_fits_the_server_connects(secured: Secured, url: str, mode: str, with_ca: bool) -> None:
    if "127.0.0.2" in url:
        secured.harness.server.run("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2")
    adapter = secured.adapter(url, Tls(mode=mode, ca=secured.ca if with_ca else None))
    assert adapter.check([READING]).problems == ()
    spec = secured.harness.spec(READING)
    adapter.create_user(spec)
    login = adapter.login(spec.username, spec.password, READING)
    assert login.is_alive()
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not login.is_alive()


@pytest.mark.parametrize(
    ("url", "mode", "ca"),
    [
        ("rediss://127.0.0.1:{tls}", "verify-full", None),
        ("rediss://127.0.0.1:{tls}", "verify-ca", None),
        ("rediss://127.0.0.2:{tls}", "verify-full", "ca"),
        ("rediss://127.0.0.1:{tls}", "disable", None),
        ("rediss://127.0.0.1:{tls}", "verify-full", "/nowhere/ca.pem"),
    ],
)
def test_tls_mode_that_does_not_fit_is_rejected(secured: Secured, url: str, mode: str, ca: str | None) -> None:
    secured.harness.server.run("CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2")
    with pytest.raises(Rejected):
        secured.adapter(url, Tls(mode=mode, ca=secured.ca if ca == "ca" else ca)).check()


@pytest.mark.parametrize(
    ("url", "mode"), [("redis://127.0.0.1:{plain}", "require"), ("rediss://127.0.0.1:{plain}", "prefer")]
)
def test_tls_to_a_plain_port_is_server_down_with_a_hint(
    secured: Secured, url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server waits for the end of a line that never comes."""
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 0.5)
    with pytest.raises(ServerDown, match="may not speak TLS"):
        secured.adapter(url, Tls(mode=mode)).check()


def test_plain_connection_to_a_tls_port_is_server_down(secured: Secured) -> None:
    with pytest.raises(ServerDown):
        secured.adapter("redis://127.0.0.1:{tls}", Tls(mode="prefer")).check()


@pytest.mark.parametrize(("mode", "with_ca"), [("verify-full", True), ("require", False)])
def test_pasted_command_logs_in_over_tls(secured: Secured, mode: str, with_ca: bool) -> None:
    adapter = secured.adapter("rediss://127.0.0.1:{tls}", Tls(mode=mode, ca=secured.ca if with_ca else None))
    spec = secured.harness.spec(READING)
    adapter.create_user(spec)
    secured.harness.passwords[spec.username] = spec.password
    command = adapter.endpoint(READING).paste(spec.username, spec.password)
    assert spec.password not in command
    assert f"user={spec.username}" in secured.harness.login_by(command)
    adapter.drop_user(spec.username, READING)


@open_fault("U7", "the command names the CA file of the bot's machine, which no other machine has")
def test_pasted_command_logs_in_from_a_machine_without_the_bots_files(secured: Secured, tmp_path: Path) -> None:
    ca = tmp_path / "bot-ca.pem"
    shutil.copy(secured.ca, ca)
    adapter = secured.adapter("rediss://127.0.0.1:{tls}", Tls(mode="verify-full", ca=str(ca)))
    spec = secured.harness.spec(READING)
    adapter.create_user(spec)
    secured.harness.passwords[spec.username] = spec.password
    command = adapter.endpoint(READING).paste(spec.username, spec.password)
    ca.rename(ca.with_name("elsewhere.pem"))
    answer = secured.harness.login_by(command)
    ca.with_name("elsewhere.pem").rename(ca)
    adapter.drop_user(spec.username, READING)
    assert f"user={spec.username}" in answer, answer


def test_pasted_command_has_host_port_database_and_tls(secured: Secured) -> None:
    def command(level: Level = READING, url: str = "redis://127.0.0.1:{plain}/2", **changes: object) -> str:
        return secured.adapter(url, Tls(mode="prefer"), **changes).endpoint(level).command

    port = secured.harness.server.port
    assert command() == f"redis-cli --user {{username}} -h 127.0.0.1 -p {port} -n 2 --askpass"
    other = Level(name="x", roles=("readonly",), database="7")
    assert " -n 7 " in command(other)
    connect = Connect(host="cache.internal; rm -rf /", port=1, database="0", tls="verify-full", note="VPN")
    assert command(connect=connect) == (
        "redis-cli --user {username} -h 'cache.internal; rm -rf /' -p 1 --tls --askpass"
    )
    with pytest.raises(Rejected):
        command(Level(name="x", roles=("readonly",), database="orders"))


def test_login_selects_the_database_of_the_level(secured: Secured) -> None:
    adapter = secured.adapter("redis://127.0.0.1:{plain}", Tls(mode="prefer"))
    level = Level(name="x", roles=("readonly",), database="7")
    spec = secured.harness.spec(level)
    adapter.create_user(spec)
    login = adapter.login(spec.username, spec.password, level)
    assert "db=7" in str(secured.harness.server.run("CLIENT", "LIST"))
    login.close()
    adapter.drop_user(spec.username, level)
