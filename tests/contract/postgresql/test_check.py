"""``check`` reports each problem with its text, and with a remedy that works when it is run as printed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest
from psycopg import sql

from adapters.base import Finding, Level, PrivilegeGrant, Rejected
from adapters.contract import wait_until
from tests.contract.postgresql.harness import EngineHarness, make_login, readonly, support, writer
from tests.servers.postgresql import PostgresServer, binaries


def found(harness: EngineHarness, text: str, *levels: Level, **changes: object) -> list[Finding]:
    health = harness.adapter(**changes).check(levels or (readonly(), writer(), support()))
    return [finding for finding in (*health.problems, *health.warnings) if text in finding.what]


def run(harness: EngineHarness, statements: str, database: str | None = None) -> None:
    with harness.superuser(database) as c:
        c.execute(statements.encode())


def roles_filled(harness: EngineHarness, text: str) -> str:
    names = {
        "{bot}": harness.bot,
        "{owner}": harness.owner or harness.bot,
        "{db}": harness.database,
        "{other}": harness.other,
    }
    for name, value in names.items():
        text = text.replace(name, value)
    return text


SPOILED = [
    ("ALTER ROLE {owner} NOCREATEROLE", "CREATEROLE is missing", True),
    ("GRANT CONNECT ON DATABASE {db} TO PUBLIC", "open to PUBLIC (CONNECT)", False),
    ("GRANT TEMPORARY ON DATABASE {db} TO PUBLIC", "open to PUBLIC (TEMPORARY)", False),
    ("GRANT CONNECT ON DATABASE {other} TO PUBLIC", "can also connect to", False),
    ("GRANT CREATE ON SCHEMA public TO PUBLIC", "everybody may create in the schema public", False),
    ("REVOKE CONNECT ON DATABASE {db} FROM shop_reader", "shop_reader may not connect", True),
    ("REVOKE SELECT ON shop.customers FROM {owner}", "cannot give SELECT ON TABLE shop.customers", True),
    ("REVOKE USAGE ON SCHEMA shop FROM {owner}", "cannot give USAGE ON SCHEMA shop", True),
    (
        "REVOKE CONNECT ON DATABASE {db} FROM {owner}; GRANT CONNECT ON DATABASE {db} TO {bot}",
        "let its users connect",
        True,
    ),
    ("CREATE ROLE dbaccess_graveyard", "dbaccess_graveyard owns 0 objects", False),
    ("ALTER ROLE {bot} CONNECTION LIMIT 3", "may have 3 connections", False),
    ("ALTER ROLE shop_writer BYPASSRLS", "BYPASSRLS", False),
    ("GRANT shop_owner TO shop_writer", "leave things behind", False),
]


def test_check_of_a_complete_setup_finds_no_problem(own_harness: EngineHarness) -> None:
    health = own_harness.adapter().check((readonly(), writer(), support()))
    assert health.problems == ()
    elsewhere = ("can also connect", "reach other databases")
    assert [f.what for f in health.warnings if not any(text in f.what for text in elsewhere)] == [
        "level write: its users can leave tables and functions in the schema shop behind (CREATE)"
    ]
    assert health.version.startswith(f"PostgreSQL {own_harness.server.version}")


@pytest.mark.parametrize(("spoil", "text", "is_fatal"), SPOILED, ids=[text for _, text, _ in SPOILED])
def test_check_finds_the_problem_and_its_remedy_works(
    own_harness: EngineHarness, spoil: str, text: str, *, is_fatal: bool
) -> None:
    run(own_harness, "REVOKE CONNECT, TEMPORARY ON DATABASE postgres FROM PUBLIC")
    with own_harness.superuser() as c:
        for (name,) in c.execute(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
        ).fetchall():
            c.execute(sql.SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
    run(own_harness, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    assert found(own_harness, text) == []
    run(own_harness, roles_filled(own_harness, spoil))
    try:
        findings = found(own_harness, text)
        assert findings
        assert all(finding.is_fatal == is_fatal for finding in findings)
        if findings[0].remedy is not None:
            run(own_harness, " ".join(finding.remedy or "" for finding in findings))
            assert found(own_harness, text) == []
    finally:
        run(
            own_harness,
            "DROP ROLE IF EXISTS dbaccess_graveyard; ALTER ROLE shop_writer NOBYPASSRLS; REVOKE shop_owner FROM shop_writer",
        )


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (Level(name="x", roles=("no_such",)), "no_such does not exist"),
        (Level(name="x", roles=("postgres",)), "postgres has SUPERUSER"),
        (Level(name="x", roles=("pg_read_server_files",)), "a shell"),
        (
            Level(name="x", grants=(PrivilegeGrant(on=("shop.nothing",), privileges=("SELECT",)),)),
            "no table shop.nothing",
        ),
        (Level(name="x", grants=(PrivilegeGrant(on=("nowhere",), privileges=("USAGE",)),)), "no schema nowhere"),
        (Level(name="x", grants=(PrivilegeGrant(on=("shop.orders",), privileges=("EAT",)),)), "EAT is no privilege"),
        (Level(name="x", roles=("shop_reader",), database="no_such_db"), "no database no_such_db"),
    ],
)
def test_check_refuses_levels_that_cannot_be_given(harness: EngineHarness, level: Level, text: str) -> None:
    (finding, *_) = found(harness, text, level)
    assert finding.is_fatal


def test_the_remedy_for_a_role_that_the_bot_may_not_give_works(
    postgresql: PostgresServer, own_harness: EngineHarness
) -> None:
    if postgresql.version < 16:
        pytest.skip("before 16 CREATEROLE may give every role that is no superuser's")
    run(own_harness, f"REVOKE ADMIN OPTION FOR shop_reader FROM {own_harness.owner}")
    (finding,) = found(own_harness, "may not give the role shop_reader")
    spec = own_harness.spec(readonly())
    with pytest.raises(Rejected, match="cannot give the role shop_reader") as rejected:
        own_harness.adapter().create_user(spec)
    assert rejected.value.remedy == finding.remedy
    run(own_harness, finding.remedy or "")
    own_harness.adapter().create_user(spec)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_the_remedy_for_a_missing_createrole_works(own_harness: EngineHarness) -> None:
    run(own_harness, f"ALTER ROLE {own_harness.owner} NOCREATEROLE")
    with pytest.raises(Rejected, match="may not create users") as rejected:
        own_harness.adapter().create_user(own_harness.spec(readonly()))
    run(own_harness, rejected.value.remedy or "")
    spec = own_harness.spec(readonly())
    own_harness.adapter().create_user(spec)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_a_superuser_works_with_a_warning(own_harness: EngineHarness) -> None:
    run(own_harness, f"ALTER ROLE {own_harness.owner} SUPERUSER")
    assert found(own_harness, "is a superuser")
    spec = own_harness.spec(support())
    own_harness.adapter().create_user(spec)
    with own_harness.login(spec) as c:
        c.execute("SELECT lo_create(0)")
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert len(removal.left_behind) == 1
    assert [note for note in removal.notes if "REASSIGN OWNED" not in note] == []


def test_an_unnamed_standby_is_reported(postgresql15: PostgresServer, tmp_path: Any) -> None:
    """The primary does not see the sessions of an unnamed standby: ``check`` and every receipt say so."""
    from tests.contract.postgresql.conftest import harness_of
    from tests.servers.postgresql import PASSWORD, SUPERUSER, unprivileged

    harness = harness_of(postgresql15, with_owner=True)
    tmp_path.chmod(0o777)
    folder = postgresql15.folder / "wal"
    command = [
        binaries(15) / "pg_receivewal",
        "-h",
        "127.0.0.1",
        "-p",
        str(postgresql15.port),
        "-U",
        SUPERUSER,
        "-D",
        str(folder),
    ]
    subprocess.run(["mkdir", folder], check=True, **unprivileged())  # type: ignore[call-overload]
    log = subprocess.DEVNULL
    process = subprocess.Popen(command, env={"PGPASSWORD": PASSWORD}, stdout=log, stderr=log, **unprivileged())  # type: ignore[call-overload]
    try:
        wait_until(lambda: bool(found(harness, "1 standby servers are attached")))
        spec = harness.spec(readonly())
        harness.adapter().create_user(spec)
        assert any("standby" in note for note in harness.adapter().drop_user(spec.username, spec.level).notes)
    finally:
        process.terminate()
        process.wait()


def test_another_login_of_the_bot_ends_users_by_the_admin_role(own_harness: EngineHarness) -> None:
    spec = own_harness.spec(support())
    own_harness.adapter().create_user(spec)
    with own_harness.login(spec) as c:
        c.execute("SELECT lo_create(0)")
    second = f"second_{own_harness.bot}"
    with own_harness.superuser() as c:
        make_login(c, second)
    run(own_harness, f"GRANT {own_harness.owner} TO {second}")
    rotated = replace(own_harness, bot=second)
    removal = rotated.adapter().drop_user(spec.username, spec.level)
    assert len(removal.left_behind) == 1
    assert [note for note in removal.notes if "REASSIGN OWNED" not in note] == []
    assert not own_harness.role_exists(spec.username)


def test_another_login_without_an_admin_role_names_the_remedy(postgresql18: PostgresServer) -> None:
    from tests.contract.postgresql.harness import build

    harness = build(postgresql18, with_owner=False)
    spec = harness.spec(readonly())
    harness.adapter().create_user(spec)
    second = f"second_{harness.bot}"
    with harness.superuser() as c:
        make_login(c, second)
    run(harness, f"ALTER ROLE {second} CREATEROLE; GRANT CONNECT ON DATABASE {harness.database} TO {second}")
    with pytest.raises(Rejected) as rejected:
        replace(harness, bot=second).adapter().drop_user(spec.username, spec.level)
    assert rejected.value.remedy == f"GRANT {spec.username} TO {second} WITH ADMIN OPTION;"
    run(harness, rejected.value.remedy)
    replace(harness, bot=second).adapter().drop_user(spec.username, spec.level)
    assert not harness.role_exists(spec.username)
