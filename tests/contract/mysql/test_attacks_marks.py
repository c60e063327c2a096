"""What a user may change of itself, and of others through itself, and that none of it decides whose the user is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pymysql
import pytest

from adapters.base import ForeignUser, Level, ManagedUser, Rejected
from adapters.harness import wait_until
from bot.trial import Step, try_level
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
    """An event whose definer is somebody else could not be changed by the bot any more."""
    return closed_after_test(harness.server.connect(harness.bot, BOT_PASSWORD))


def mark(harness: EngineHarness, username: str) -> str:
    rows = harness.server.query("SELECT event_comment FROM information_schema.events WHERE event_name = %s", username)
    return str(rows[0][0])


@pytest.mark.parametrize("what", OF_ITSELF)
def test_what_a_user_changes_of_itself_does_not_keep_it(harness: EngineHarness, what: str) -> None:
    """In whatever way it came to its password, the bot's next one is the only one."""
    spec = create_user(harness, harness.writing)
    session = connect(harness, spec)
    passed = [s for s in OF_ITSELF[what] if succeeds(session, filled(harness, spec.username, s))]
    assert not [s for s in passed if any(words in s for words in REFUSED)], (
        "the server lets it pass now: look what follows"
    )
    known = listed(harness, spec.username)
    assert (known.ledger, known.request_id) == (harness.ledger, spec.request_id)
    harness.adapter().set_password(spec.username, "Another0Password0Long")
    for password in (spec.password, "Abc0Password"):
        assert not can_log_in(harness, spec.username, password)
    assert can_log_in(harness, spec.username, "Another0Password0Long")
    harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(harness, spec, session)


def test_the_mark_is_where_no_user_writes(harness: EngineHarness) -> None:
    spec = create_user(harness, harness.reading)
    assert mark(harness, spec.username) == f"dbaccess ledger={harness.ledger} request={spec.request_id}"
    if not harness.is_mariadb:
        assert "ATTRIBUTE" not in harness.server.query(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    harness.adapter().drop_user(spec.username, spec.level)


def test_a_mark_that_names_another_ledger_is_obeyed_in_the_event_alone(own_harness: EngineHarness) -> None:
    """The attribute is the user's to write; nobody but the bot writes the event."""
    spec, other = create_user(own_harness, own_harness.reading), create_user(own_harness, own_harness.reading)
    if not own_harness.is_mariadb:
        own_harness.server.run(f"ALTER USER `{spec.username}`@`%` ATTRIBUTE '{OTHERS}'")
    event = f"`{own_harness.ops_schema}`.`{other.username}`"
    run(as_bot(own_harness), f"ALTER EVENT {event} COMMENT 'dbaccess ledger=anotherledgr request=1'")
    session, others = connect(own_harness, spec), connect(own_harness, other)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)
    with pytest.raises(ForeignUser, match="another ledger"):
        own_harness.adapter().drop_user(other.username, other.level)
    assert succeeds(others, "SELECT 1")
    assert can_log_in(own_harness, other.username, other.password)
    own_harness.adapter(ledger="anotherledgr").drop_user(other.username, other.level)


def test_a_user_whose_event_is_gone_is_ended(own_harness: EngineHarness) -> None:
    """A dump without --events was restored. It is refused a new password, for nobody can say whose it is."""
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    own_harness.server.run(f"DROP EVENT `{own_harness.ops_schema}`.`{spec.username}`")
    assert listed(own_harness, spec.username).ledger is None
    for verb in (
        lambda: own_harness.adapter().set_password(spec.username, "Another0Password0Long"),
        lambda: own_harness.adapter().set_expiry(spec.username, 600.0),
        lambda: own_harness.adapter().create_user(spec),
    ):
        with pytest.raises(ForeignUser):
            verb()
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)


def test_a_user_that_an_older_version_marked_is_known(own_harness: EngineHarness) -> None:
    """By its attribute, where it has no event any more."""
    if own_harness.is_mariadb:
        pytest.skip("there the event always was the mark")
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


def test_an_event_that_an_older_version_made_gets_the_new_body_when_the_end_moves(harness: EngineHarness) -> None:
    spec = create_user(harness, harness.reading)
    event = f"`{harness.ops_schema}`.`{spec.username}`"
    run(as_bot(harness), f"ALTER EVENT {event} DO BEGIN ALTER USER IF EXISTS x ACCOUNT LOCK; END")
    harness.adapter().set_expiry(spec.username, 1.0)
    wait_until(lambda: not harness.has_user(spec.username), within=60)
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent, (
        "the event's own end is on the receipt"
    )


def test_an_account_of_another_host_does_not_keep_ours(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    own_harness.server.run(f"CREATE USER `{spec.username}`@`10.1.2.3` IDENTIFIED BY 'Known0Password'")
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert own_harness.server.query("SELECT host FROM mysql.user WHERE user = %s", spec.username) == [("10.1.2.3",)]
    assert not succeeds(session, "SELECT 1")
    assert not can_log_in(own_harness, spec.username, spec.password)
    own_harness.server.run(f"DROP USER `{spec.username}`@`10.1.2.3`")


def test_the_trial_leaves_a_user_alone_that_was_there_before(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is made at random, and no ledger has it on record."""
    name = own_harness.spec(own_harness.reading).username
    own_harness.make_foreign_user(name, "Known0Password")
    monkeypatch.setattr("bot.trial.make_username", lambda *_, **__: name)
    steps = list[Step]()
    adapter, level = own_harness.adapter(), own_harness.reading
    assert not try_level(adapter, level, prefix=own_harness.prefix, report=steps.append, stop=threading.Event())
    assert [step.name for step in steps] == ["create"]
    assert can_log_in(own_harness, name, "Known0Password")


# A scheduler that is off.


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def disabled(request: pytest.FixtureRequest) -> Iterator[EngineHarness]:
    """A server that starts its event scheduler, until a test restarts it without."""
    flavour = servers.MYSQL if request.param == "mysql" else servers.MARIADB
    for server in had(lambda: servers.start(flavour)):
        yield build(server)


@pytest.mark.parametrize("scheduler", ["OFF", "DISABLED"])
def test_without_a_scheduler_a_user_is_still_ended(disabled: EngineHarness, scheduler: str) -> None:
    """MariaDB says nothing about events where it is DISABLED, and drops none."""
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
        left = [note for note in removal.notes if "its event was left" in note]
        assert bool(left) is (disabled.is_mariadb and scheduler == "DISABLED")
        if left:
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
    """Who may give PROXY on everybody."""
    return closed_after_test(
        pymysql.connect(unix_socket=str(harness.server.folder / "s"), user="root", autocommit=True)
    )


@pytest.mark.parametrize("whom", ["`{me}`@`%`", "CURRENT_USER()"])
@pytest.mark.parametrize("is_kept", [False, True])
def test_proxy_that_a_user_gives_to_a_role_spoils_no_level(
    own_harness: EngineHarness, whom: str, is_kept: bool
) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB gives no role PROXY")
    level = own_harness.narrow if is_kept else own_harness.writing
    spec = create_user(own_harness, level)
    session = connect(own_harness, spec)
    role = str(run(session, "SELECT CURRENT_ROLE()")[0][0]).split("@")[0].strip("`")
    run(session, f"GRANT PROXY ON {whom.replace('{me}', spec.username)} TO `{role}`@`%` WITH GRANT OPTION")
    require(proxies(own_harness, role), "the role has it")
    second = create_user(own_harness, level)
    removal = own_harness.adapter().drop_user(spec.username, level)
    assert [note for note in removal.notes if f"it gave PROXY to {role}: REVOKE PROXY ON" in note]
    assert can_log_in(own_harness, second.username, second.password)
    if not is_kept:
        expect_named_and_removed(own_harness, level, role)
    own_harness.adapter().drop_user(second.username, level)
    third = create_user(own_harness, level)
    own_harness.adapter().drop_user(third.username, level)


def expect_named_and_removed(harness: EngineHarness, level: Level, role: str) -> None:
    """By doctor, with a statement that helps."""
    warned = [f for f in harness.adapter().check([level]).warnings if f"gave {role} PROXY" in f.what]
    assert warned
    for finding in warned:
        assert finding.remedy is not None
        run(root(harness), finding.remedy.rstrip(";"))
    assert not [f for f in harness.adapter().check([level]).warnings if "PROXY" in f.what]
    assert not proxies(harness, role)


def test_the_end_takes_proxy_back_where_the_bot_may(own_harness: EngineHarness) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB gives no role PROXY")
    run(root(own_harness), f"GRANT PROXY ON ''@'' TO `{own_harness.bot}`@`%` WITH GRANT OPTION")
    spec = create_user(own_harness, own_harness.writing)
    session = connect(own_harness, spec)
    run(session, f"GRANT PROXY ON `{spec.username}`@`%` TO {own_harness.server_role(own_harness.writer)}")
    require(proxies(own_harness, own_harness.writer), "the role has it")
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert not proxies(own_harness, own_harness.writer)
    assert not [note for note in removal.notes if "PROXY" in note]


def test_a_server_that_maps_proxy_users_gets_no_user(disabled: EngineHarness) -> None:
    """There a user could give PROXY on itself to the bot, and every login of the bot would be that user."""
    if disabled.is_mariadb:
        pytest.skip("MariaDB maps logins by special plugins alone")
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
