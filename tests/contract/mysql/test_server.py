"""The server's version and settings, admin URLs, and the procedure of MariaDB."""

from __future__ import annotations

import os
import secrets
import signal
import time

import pymysql
import pytest

from adapters.base import (
    Level,
    LoginRefused,
    Rejected,
    Secrets,
    ServerDown,
    Tls,
)
from adapters.harness import Died
from adapters.mysql.connection import MySQLConnection
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness
from tests.contract.mysql.hostile import assert_ended, connect, create_user, findings, is_locked

TOO_OLD = {"mysql": ("5.7.44-log", "8.0.36", "8.3.0"), "mariadb": ("10.6.18-MariaDB", "10.10.7-MariaDB-log", "9.9.9")}
SUPPORTED = {
    "mysql": ("8.4.0", "8.10.1", "9.7.4-debug"),
    "mariadb": ("10.11.1-MariaDB", "11.8.6-MariaDB-log", "12.0.2"),
}


def set_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Only the reading of the version is faked; the server is the real one."""
    monkeypatch.setattr(MySQLConnection, "server_version", property(lambda _: version))


@pytest.mark.parametrize("number", range(4))
def test_older_server_gets_no_new_user(harness: EngineHarness, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A version that cannot be read counts as too old."""
    version = (*TOO_OLD[harness.server.flavour.name], "unknown")[number]
    set_version(monkeypatch, version)
    label, oldest = harness.engine.label, "10.11" if harness.is_mariadb else "8.4"
    problems = {f.what: f.remedy for f in harness.adapter().check([harness.reading]).problems}
    assert list(problems.values()) == [f"upgrade the server to {label} {oldest} or later"]
    assert next(iter(problems)).startswith(f"{label} {version} is not supported: no grant is made on it")
    spec = harness.spec(harness.reading)
    with pytest.raises(Rejected, match=f"{version} is not supported.*upgrade the server to {label} {oldest} or later"):
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)


def test_server_without_an_identity_is_refused_with_a_remedy(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB 10.11.8 has no server_uid. A server that is too old for grants still gets its finding."""
    adapter = harness.adapter()
    monkeypatch.setattr(type(adapter.dialect), "identity", "@@no_such_variable")
    for call in (adapter.identity, adapter.check):
        with pytest.raises(Rejected, match=f"has no variable @@no_such_variable.*{adapter.dialect.identity_since}"):
            call()
    set_version(monkeypatch, TOO_OLD[harness.server.flavour.name][0])
    assert [f.remedy for f in adapter.check().problems if "is not supported" in f.what]


@pytest.mark.parametrize("number", range(3))
def test_supported_server_gets_users(harness: EngineHarness, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    set_version(monkeypatch, SUPPORTED[harness.server.flavour.name][number])
    assert harness.adapter().check([harness.reading]).problems == ()
    spec = create_user(harness, harness.reading)
    harness.adapter().drop_user(spec.username, spec.level)


def test_users_are_listed_and_ended_without_a_look_at_the_version(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may live on an older server: after a downgrade, or from before this version of dbaccess."""

    def read(_: MySQLConnection) -> str:
        raise Died

    spec = create_user(harness, harness.narrow)
    session = connect(harness, spec)
    monkeypatch.setattr(MySQLConnection, "server_version", property(read))
    with pytest.raises(Died):
        harness.adapter().check()
    harness.adapter().set_expiry(spec.username, 600.0)
    assert spec.username in {user.username for user in harness.adapter().list_users()}
    assert harness.adapter().activity([spec.username])[0].sessions == 1
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent
    assert_ended(harness, spec, session)


def test_read_only_server_is_refused(own_harness: EngineHarness) -> None:
    """A bot with CONNECTION_ADMIN could create users there that the primary does not know."""
    spec = own_harness.spec(own_harness.reading)
    own_harness.adapter().create_user(spec)
    own_harness.server.run("SET GLOBAL read_only = 1")
    try:
        assert findings(own_harness, "read-only")
        for change in (
            lambda: own_harness.adapter().create_user(own_harness.spec(own_harness.reading)),
            lambda: own_harness.adapter().drop_user(spec.username, spec.level),
        ):
            with pytest.raises(ServerDown, match="read-only"):
                change()
    finally:
        own_harness.server.run("SET GLOBAL read_only = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_password_never_expires_by_itself(own_harness: EngineHarness) -> None:
    """MariaDB lets a user with an expired password in, who can then set a new one."""
    own_harness.server.run("SET GLOBAL default_password_lifetime = 1")
    try:
        spec = own_harness.spec(own_harness.reading)
        own_harness.adapter().create_user(spec)
        assert "PASSWORD EXPIRE NEVER" in own_harness.server.query(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    finally:
        own_harness.server.run("SET GLOBAL default_password_lifetime = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_user_must_use_tls_where_the_target_requires_it(own_harness: EngineHarness) -> None:
    """MySQL creates a certificate for itself. MariaDB 10.11 has none here, so the bot itself is refused."""
    required = own_harness.adapter(tls=Tls(mode="require"))
    spec = own_harness.spec(own_harness.reading)
    if own_harness.is_mariadb:
        with pytest.raises(Rejected, match="tls"):
            required.create_user(spec)
        return
    required.create_user(spec)
    required.login(spec.username, spec.password, spec.level).close()
    with pytest.raises(LoginRefused):
        own_harness.adapter(tls=Tls(mode="disable")).login(spec.username, spec.password, spec.level)
    required.drop_user(spec.username, spec.level)
    authority = str(own_harness.server.folder / "data" / "ca.pem")
    assert own_harness.adapter(tls=Tls(mode="verify-ca", ca=authority)).identity()
    for mode, ca in (("verify-full", authority), ("verify-ca", None), ("verify-ca", "/no/such/file")):
        with pytest.raises(Rejected):
            own_harness.adapter(tls=Tls(mode=mode, ca=ca)).identity()


def test_call_to_a_frozen_server_times_out(own_harness: EngineHarness) -> None:
    process = own_harness.server.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(ServerDown):
            own_harness.adapter().identity()
        assert time.monotonic() - began < 60
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://",
        "postgresql://u:Pw0Secret@h/d",
        "mysql://u:Pw0Secret@h:port/d",
        "nonsense",
        "mysql://u:Pw0Secret@h/d?x=1",
    ],
)
def test_unreadable_admin_url_is_refused_without_its_password(harness: EngineHarness, url: str) -> None:
    with pytest.raises(Rejected, match="env:UNUSED cannot be read") as caught:
        harness.engine(harness.target(), Secrets(admin_url=url))
    assert "Pw0Secret" not in str(caught.value)


def test_wrong_password_of_the_bot_is_refused_with_a_remedy(harness: EngineHarness) -> None:
    wrong = harness.engine(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, "Wrong0Password")))
    with pytest.raises(Rejected, match="refused the bot's own login") as caught:
        wrong.identity()
    assert "Wrong0Password" not in str(caught.value)
    assert caught.value.remedy is not None


def test_procedure_sets_only_allowed_roles_for_temporary_users(own_harness: EngineHarness) -> None:
    """The procedure runs with all rights of the DBA and must not pass them on."""
    if not own_harness.is_mariadb:
        pytest.skip("MySQL needs no procedure")
    with own_harness.server.connect(own_harness.bot, BOT_PASSWORD) as connection, connection.cursor() as cursor:
        for user, role in (("root", own_harness.reader), (f"{own_harness.prefix}1_a_0000", "other_role")):
            with pytest.raises(pymysql.MySQLError, match="may not set this default role"):
                cursor.execute(f"CALL {own_harness.ops_schema}.set_default_role(%s, %s)", (user, role))
    own_harness.server.run(f"CREATE ROLE other_{own_harness.reader}")
    spec = own_harness.spec(Level(name="x", roles=(f"other_{own_harness.reader}",)))
    own_harness.server.run(f"GRANT other_{own_harness.reader} TO `{own_harness.bot}`@`%` WITH ADMIN OPTION")
    with pytest.raises(Rejected, match="does not allow the role"):
        own_harness.adapter().create_user(spec)
    assert is_locked(own_harness, spec.username)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_password_of_the_bot_is_in_no_error(own_harness: EngineHarness) -> None:
    """Also with special characters in the password of the admin URL."""
    password = f"p@ss/w:rd%{secrets.token_hex(4)}"
    own_harness.server.run(f"CREATE USER odd_{own_harness.bot} IDENTIFIED BY '{password}'")
    adapter = own_harness.engine(
        own_harness.target(),
        Secrets(
            admin_url=f"mysql://odd_{own_harness.bot}:{password.replace('%', '%25').replace('@', '%40').replace('/', '%2F').replace(':', '%3A')}@127.0.0.1:{own_harness.server.port}/"
        ),
    )
    assert adapter.identity()
    with pytest.raises(Rejected) as caught:
        adapter.create_user(own_harness.spec(own_harness.reading))
    assert password not in f"{caught.value!r} {caught.value.__context__!r}"
