"""Changes that a user can make to its own account, or through it to others. None of them changes which ledger the user belongs to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pymysql
import pytest

from adapters.base import ForeignUser, Level, ManagedUser, Rejected
from adapters.harness import wait_until
from bot.trial import Step, run_trial
from tests.conftest import had
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.contract.mysql.hostile import (
    assert_ended,
    can_log_in,
    closed_after_test,
    connect,
    create_user,
    run,
    succeeds,
)
from tests.open_faults import require
from tests.servers import mysql as servers

OTHERS = '{"dbaccess": {"ledger": "anotherledgr", "request": 1}}'

PASSWORD = "ALTER USER {me} IDENTIFIED BY 'Abc0Password'"
OF_ITSELF = {
    "mark-gone": (f"{PASSWORD} ATTRIBUTE '{{{{\"dbaccess\": null}}}}'",),
    "mark-of-another": (f"{PASSWORD} ATTRIBUTE '{OTHERS.replace('{', '{{').replace('}', '}}')}'",),
    "mark-alone": (
        "ALTER USER USER() ATTRIBUTE '{{\"dbaccess\": null}}'",
        "ALTER USER {me} COMMENT 'x'",
        f"{PASSWORD} COMMENT 'x'",
    ),
    "limits": (
        f"{PASSWORD} ACCOUNT UNLOCK",
        f"{PASSWORD} WITH MAX_USER_CONNECTIONS 0",
        f"{PASSWORD} PASSWORD EXPIRE NEVER WITH MAX_USER_CONNECTIONS 0",
        f"{PASSWORD} REQUIRE NONE",
        "ALTER USER {me} ACCOUNT UNLOCK",
        "RENAME USER {me} TO `zz`@`%`",
        "DROP USER {me}",
        "GRANT {writer} TO {bot}",
    ),
    "passwords": (
        f"{PASSWORD} RETAIN CURRENT PASSWORD",
        "ALTER USER USER() IDENTIFIED BY 'Abc0Password' RETAIN CURRENT PASSWORD",
        "ALTER USER {me} IDENTIFIED WITH sha256_password BY 'Abc0Password'",
        "ALTER USER {me} IDENTIFIED VIA mysql_native_password USING '*6C8989366EAF75BB670AD8EA7A7FC1176A95CEF4'",
        "ALTER USER USER() ADD 2 FACTOR IDENTIFIED WITH caching_sha2_password BY 'x'",
        "SET PASSWORD = PASSWORD('Abc0Password')",
        "SET PASSWORD = 'Abc0Password'",
    ),
    "expired": (f"{PASSWORD} PASSWORD EXPIRE",),
    "roles": (
        "ALTER USER {me} DEFAULT ROLE NONE",
        "SET DEFAULT ROLE NONE TO CURRENT_USER()",
        "SET DEFAULT ROLE NONE",
        "GRANT PROXY ON {me} TO {bot}",
        "GRANT PROXY ON CURRENT_USER() TO {bot} WITH GRANT OPTION",
    ),
    "event": ("DROP EVENT {event}", "ALTER EVENT {event} COMMENT 'x'", "ALTER EVENT {event} DISABLE"),
}
REFUSED = (
    "RENAME USER",
    "DROP EVENT",
    "ALTER EVENT",
    "DROP USER",
    "GRANT {writer}",
    "ACCOUNT UNLOCK",
    "MAX_USER_CONNECTIONS",
)


def filled(harness: EngineHarness, username: str, statement: str) -> str:
    return statement.format(
        me=f"`{username}`@`%`",
        bot=f"`{harness.bot}`@`%`",
        writer=harness.writer,
        event=f"`{harness.ops_schema}`.`{username}`",
    )


def listed(harness: EngineHarness, username: str) -> ManagedUser:
    return next(user for user in harness.adapter().list_users() if user.username == username)


def as_bot(harness: EngineHarness) -> pymysql.Connection[object]:
    """A connection as the bot: it could not change an event with another definer any more."""
    return closed_after_test(harness.server.connect(harness.bot, BOT_PASSWORD))


def mark(harness: EngineHarness, username: str) -> str:
    rows = harness.server.query("SELECT event_comment FROM information_schema.events WHERE event_name = %s", username)
    return str(rows[0][0])


@pytest.mark.parametrize("what", OF_ITSELF)
def test_user_that_changes_its_own_account_is_ended(harness: EngineHarness, what: str) -> None:
    """After set_password only the new password works, whatever the user did to its passwords."""
    spec = create_user(harness, harness.writing)
    session = connect(harness, spec)
    accepted = [s for s in OF_ITSELF[what] if succeeds(session, filled(harness, spec.username, s))]
    assert not [s for s in accepted if any(part in s for part in REFUSED)], (
        "the server accepts it now: check the consequences"
    )
    known = listed(harness, spec.username)
    assert (known.ledger, known.request_id) == (harness.ledger, spec.request_id)
    harness.adapter().set_password(spec.username, "Another0Password0Long")
    for password in (spec.password, "Abc0Password"):
        assert not can_log_in(harness, spec.username, password)
    assert can_log_in(harness, spec.username, "Another0Password0Long")
    harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(harness, spec, session)


def test_mark_is_in_the_event_and_not_in_the_account(harness: EngineHarness) -> None:
    spec = create_user(harness, harness.reading)
    assert mark(harness, spec.username) == f"dbaccess ledger={harness.ledger} request={spec.request_id}"
    if not harness.is_mariadb:
        assert "ATTRIBUTE" not in harness.server.query(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    harness.adapter().drop_user(spec.username, spec.level)


def test_mark_of_another_ledger_counts_only_in_the_event(own_harness: EngineHarness) -> None:
    """The user can write its attribute; only the bot can write the event."""
    spec, other = create_user(own_harness, own_harness.reading), create_user(own_harness, own_harness.reading)
    if not own_harness.is_mariadb:
        own_harness.server.run(f"ALTER USER `{spec.username}`@`%` ATTRIBUTE '{OTHERS}'")
    event = f"`{own_harness.ops_schema}`.`{other.username}`"
    run(as_bot(own_harness), f"ALTER EVENT {event} COMMENT 'dbaccess ledger=anotherledgr request=1'")
    session, other_session = connect(own_harness, spec), connect(own_harness, other)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)
    with pytest.raises(ForeignUser, match="another ledger"):
        own_harness.adapter().drop_user(other.username, other.level)
    assert succeeds(other_session, "SELECT 1")
    assert can_log_in(own_harness, other.username, other.password)
    own_harness.adapter(ledger="anotherledgr").drop_user(other.username, other.level)


def test_user_without_an_event_is_ended(own_harness: EngineHarness) -> None:
    """A dump without --events was restored. The user gets no new password, because no mark shows its ledger."""
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    own_harness.server.run(f"DROP EVENT `{own_harness.ops_schema}`.`{spec.username}`")
    assert listed(own_harness, spec.username).ledger is None
    for change in (
        lambda: own_harness.adapter().set_password(spec.username, "Another0Password0Long"),
        lambda: own_harness.adapter().set_expiry(spec.username, 600.0),
        lambda: own_harness.adapter().create_user(spec),
    ):
        with pytest.raises(ForeignUser):
            change()
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)


def test_mark_of_an_older_dbaccess_is_recognised(own_harness: EngineHarness) -> None:
    """The attribute of the account is read where the user has no event any more."""
    if own_harness.is_mariadb:
        pytest.skip("on MariaDB the mark always was in the event")
    spec = create_user(own_harness, own_harness.reading)
    older = {"dbaccess": {"ledger": own_harness.ledger, "request": spec.request_id}}
    own_harness.server.run(
        f"DROP EVENT `{own_harness.ops_schema}`.`{spec.username}`",
        f"ALTER USER `{spec.username}`@`%` ATTRIBUTE '{json.dumps(older)}'",
    )
    known = listed(own_harness, spec.username)
    assert (known.ledger, known.request_id) == (own_harness.ledger, spec.request_id)
    own_harness.adapter().set_expiry(spec.username, 600.0)
    assert mark(own_harness, spec.username) == f"dbaccess ledger={own_harness.ledger} request={spec.request_id}"
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


def test_event_of_an_older_dbaccess_gets_the_current_body_when_the_end_moves(harness: EngineHarness) -> None:
    spec = create_user(harness, harness.reading)
    event = f"`{harness.ops_schema}`.`{spec.username}`"
    run(as_bot(harness), f"ALTER EVENT {event} DO BEGIN ALTER USER IF EXISTS x ACCOUNT LOCK; END")
    harness.adapter().set_expiry(spec.username, 1.0)
    wait_until(lambda: not harness.has_user(spec.username), within=60)
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent, (
        "the receipt says that the event ended the user"
    )


def test_account_with_another_host_does_not_hold_up_the_end(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    own_harness.server.run(f"CREATE USER `{spec.username}`@`10.1.2.3` IDENTIFIED BY 'Known0Password'")
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert own_harness.server.query("SELECT host FROM mysql.user WHERE user = %s", spec.username) == [("10.1.2.3",)]
    assert not succeeds(session, "SELECT 1")
    assert not can_log_in(own_harness, spec.username, spec.password)
    own_harness.server.run(f"DROP USER `{spec.username}`@`10.1.2.3`")


def test_trial_does_not_touch_a_user_that_exists_already(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial uses a random name, and no ledger records it."""
    name = own_harness.spec(own_harness.reading).username
    own_harness.make_foreign_user(name, "Known0Password")
    monkeypatch.setattr("bot.trial.make_username", lambda *_, **__: name)
    steps = list[Step]()
    adapter, level = own_harness.adapter(), own_harness.reading
    assert not run_trial(adapter, level, prefix=own_harness.prefix, report=steps.append, stop=threading.Event())
    assert [step.name for step in steps] == ["create"]
    assert can_log_in(own_harness, name, "Known0Password")


# A scheduler that is off.


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def disabled(request: pytest.FixtureRequest) -> Iterator[EngineHarness]:
    """A server of its own, which tests restart without its event scheduler."""
    flavour = servers.MYSQL if request.param == "mysql" else servers.MARIADB
    for server in had(lambda: servers.start(flavour)):
        yield build(server)


@pytest.mark.parametrize("scheduler", ["OFF", "DISABLED"])
def test_user_is_ended_without_an_event_scheduler(disabled: EngineHarness, scheduler: str) -> None:
    """With DISABLED, MariaDB shows no events and drops none."""
    server, extra = disabled.server, disabled.server.extra
    spec = create_user(disabled, disabled.reading)
    session = connect(disabled, spec)
    succeeds(
        session, f"ALTER USER `{spec.username}`@`%` IDENTIFIED BY '{spec.password}' ATTRIBUTE '{{\"dbaccess\": null}}'"
    )
    server.stop()
    server.extra = (*extra, f"--event-scheduler={scheduler}")
    server.start()
    try:
        session = connect(disabled, spec)
        assert listed(disabled, spec.username).ledger == disabled.ledger
        removal = disabled.adapter().drop_user(spec.username, spec.level)
        assert_ended(disabled, spec, session)
        notes = [note for note in removal.notes if "its event was left" in note]
        assert bool(notes) is (disabled.is_mariadb and scheduler == "DISABLED")
        if notes:
            expect_no_grants(disabled)
    finally:
        server.stop()
        server.extra = extra
        server.start()


def expect_no_grants(harness: EngineHarness) -> None:
    spec = harness.spec(harness.reading)
    with pytest.raises(Rejected, match="event_scheduler = DISABLED"):
        harness.adapter().create_user(spec)
    assert not harness.has_user(spec.username)
    assert [f for f in harness.adapter().check([harness.reading]).problems if "scheduler is disabled" in f.what]


# PROXY.


def proxies(harness: EngineHarness, user: str) -> list[tuple[object, ...]]:
    return harness.server.query("SELECT proxied_user FROM mysql.proxies_priv WHERE user = %s", user)


def root(harness: EngineHarness) -> pymysql.Connection[object]:
    """A connection as root, who may grant PROXY on everybody."""
    return closed_after_test(
        pymysql.connect(unix_socket=str(harness.server.folder / "s"), user="root", autocommit=True)
    )


@pytest.mark.parametrize("whom", ["`{me}`@`%`", "CURRENT_USER()"])
@pytest.mark.parametrize("is_managed", [False, True])
def test_proxy_granted_to_a_role_does_not_make_its_level_unsafe(
    own_harness: EngineHarness, whom: str, is_managed: bool
) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB grants PROXY to no role")
    level = own_harness.narrow if is_managed else own_harness.writing
    spec = create_user(own_harness, level)
    session = connect(own_harness, spec)
    role = str(run(session, "SELECT CURRENT_ROLE()")[0][0]).split("@")[0].strip("`")
    run(session, f"GRANT PROXY ON {whom.replace('{me}', spec.username)} TO `{role}`@`%` WITH GRANT OPTION")
    require(proxies(own_harness, role), "the role has PROXY")
    second = create_user(own_harness, level)
    removal = own_harness.adapter().drop_user(spec.username, level)
    assert [note for note in removal.notes if f"the user granted PROXY to {role}: REVOKE PROXY ON" in note]
    assert can_log_in(own_harness, second.username, second.password)
    if not is_managed:
        expect_named_and_removed(own_harness, level, role)
    own_harness.adapter().drop_user(second.username, level)
    third = create_user(own_harness, level)
    own_harness.adapter().drop_user(third.username, level)


def expect_named_and_removed(harness: EngineHarness, level: Level, role: str) -> None:
    """``check`` warns of it, and its remedy removes it."""
    warnings = [f for f in harness.adapter().check([level]).warnings if f"gave {role} PROXY" in f.what]
    assert warnings
    for finding in warnings:
        assert finding.remedy is not None
        run(root(harness), finding.remedy.rstrip(";"))
    assert not [f for f in harness.adapter().check([level]).warnings if "PROXY" in f.what]
    assert not proxies(harness, role)


def test_end_revokes_proxy_where_the_bot_may(own_harness: EngineHarness) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB grants PROXY to no role")
    run(root(own_harness), f"GRANT PROXY ON ''@'' TO `{own_harness.bot}`@`%` WITH GRANT OPTION")
    spec = create_user(own_harness, own_harness.writing)
    session = connect(own_harness, spec)
    run(session, f"GRANT PROXY ON `{spec.username}`@`%` TO {own_harness.server_role(own_harness.writer)}")
    require(proxies(own_harness, own_harness.writer), "the role has PROXY")
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert not proxies(own_harness, own_harness.writer)
    assert not [note for note in removal.notes if "PROXY" in note]


def test_server_that_maps_proxy_users_is_refused(disabled: EngineHarness) -> None:
    """There a user could grant PROXY on itself to the bot, and every login of the bot would become that user."""
    if disabled.is_mariadb:
        pytest.skip("MariaDB maps logins only by special plugins")
    assert disabled.adapter().check([disabled.reading]).problems == ()
    disabled.server.run("SET GLOBAL check_proxy_users = ON")
    try:
        spec = disabled.spec(disabled.reading)
        with pytest.raises(Rejected, match="check_proxy_users"):
            disabled.adapter().create_user(spec)
        assert not disabled.has_user(spec.username)
        problems = disabled.adapter().check([disabled.reading]).problems
        assert [f.remedy for f in problems] == ["SET PERSIST check_proxy_users = OFF;"]
    finally:
        disabled.server.run("SET GLOBAL check_proxy_users = OFF")
