"""Access that could outlive a user: its members, code and rights created as the level's role, and roles that no user should get."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from adapters.base import Level, PrivilegeGrant, UserSpec
from adapters.postgresql.level.grants import managed_role
from tests.contract.postgresql.attacks import Attack, Session, refusal, run_setup, succeeds
from tests.contract.postgresql.harness import acting_writer, readonly, support, writer
from tests.open_faults import require

WRITES = "UPDATE shop.orders SET customer = 666 WHERE id = 1"
READS = "SELECT count(*) FROM shop.orders"
TOO_OLD = 14
SETS_FALSE = 16
"""The first version where a membership can exclude SET ROLE."""
APPS_PASSWORD, STOLEN_PASSWORD = "AppSecret0Login", "StolenSecret0Login"
VERIFIERS = re.compile("password|verifier|pg_authid", re.IGNORECASE)

DOOR = """
CREATE FUNCTION shop.door() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
  $$ BEGIN UPDATE shop.orders SET customer = 13 WHERE id = 2; RETURN 1; END $$
"""
FOLLOWING = """
CREATE FUNCTION shop.following() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO shop.ran VALUES (current_user::text); RETURN new; END $$;
CREATE TRIGGER follow_orders BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.following()
"""


# Members of the user's role.


def member_of(attack: Attack, spec: UserSpec, role: str) -> Session:
    """A colleague made the friend a member of the user, and the friend acts as ``role``."""
    attack.make_friend()
    attack.as_superuser(f"GRANT pg_signal_backend TO {attack.harness.owner or attack.harness.bot}")
    attack.as_superuser(f"GRANT {spec.username} TO {attack.friend}")
    friend = attack.friends_session()
    run_setup(friend, f"SET ROLE {role}")
    return friend


def test_a_member_of_the_ended_user_loses_its_rights(attack: Attack) -> None:
    spec = attack.user(acting_writer())
    friend = member_of(attack, spec, "shop_writer")
    require(succeeds(friend, WRITES), "the friend writes as the level")
    attack.assert_ended(spec, attack.end(spec))
    assert not succeeds(friend, WRITES), "the friend still writes as the level"


def test_an_open_transaction_of_a_member_does_not_delay_the_revocation(attack: Attack) -> None:
    spec = attack.user(writer())
    friend = member_of(attack, spec, spec.username)
    for statement in ("BEGIN", "CREATE TABLE shop.held (id int)"):
        run_setup(friend, statement)
    attack.assert_ended(spec, attack.end(spec))
    assert not succeeds(friend), "the friend's session lives on"


def test_sessions_of_members_are_named_where_the_bot_may_not_end_them(attack: Attack) -> None:
    spec = attack.user(acting_writer())
    friend = member_of(attack, spec, "shop_writer")
    attack.as_superuser(f"REVOKE pg_signal_backend FROM {attack.harness.owner or attack.harness.bot}")
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert f"WHERE usename = '{attack.friend}'" in end.report_text
    friend.close()


# A version that is not supported: a user can grant its own role to others there. The driver reports an older version than it is.


@pytest.fixture
def unsupported(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, the server reports a version that is too old."""

    def report_old_version() -> None:
        too_old = property(lambda _: TOO_OLD * 10_000 + 11)
        monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", too_old)

    return report_old_version


def test_check_reports_an_unsupported_version(attack: Attack, unsupported: Callable[[], None]) -> None:
    unsupported()
    (problem,) = attack.harness.adapter().check([readonly()]).problems
    assert problem.what == f"PostgreSQL {TOO_OLD} is too old: a user can grant its own role to others there"
    assert problem.remedy == "upgrade the server to PostgreSQL 15 or later"


@pytest.mark.parametrize("level", [readonly(), support()], ids=["role", "grants"])
def test_no_user_is_created_on_an_unsupported_version(
    attack: Attack, unsupported: Callable[[], None], level: Level
) -> None:
    unsupported()
    spec = attack.harness.spec(level)
    refused = refusal(lambda: attack.harness.adapter().create_user(spec))
    assert refused is not None
    assert f"PostgreSQL {TOO_OLD} is too old" in refused
    assert "PostgreSQL 15 or later" in refused
    assert not attack.harness.role_exists(spec.username)
    managed = managed_role(attack.harness.target(), level)
    assert managed is None or not attack.harness.role_exists(managed)


def test_no_grant_is_prolonged_on_an_unsupported_version(attack: Attack, unsupported: Callable[[], None]) -> None:
    """Neither the password nor the expiry changes."""
    spec, adapter = attack.user(readonly()), attack.harness.adapter()
    before = adapter.list_users()
    unsupported()
    for verb in (
        lambda: adapter.set_password(spec.username, STOLEN_PASSWORD),
        lambda: adapter.set_expiry(spec.username, 3600.0),
    ):
        assert f"PostgreSQL {TOO_OLD} is too old" in str(refusal(verb))
    assert adapter.list_users() == before
    assert attack.may_log_in(spec)


@pytest.mark.parametrize("level", [writer(), support()], ids=["role", "grants"])
def test_users_are_listed_and_ended_on_an_unsupported_version(
    attack: Attack, unsupported: Callable[[], None], level: Level
) -> None:
    """The version refuses new grants only."""
    spec, adapter = attack.user(level), attack.harness.adapter()
    session = attack.session(spec)
    unsupported()
    assert [user.username for user in adapter.list_users()] == [spec.username]
    assert [activity.sessions for activity in adapter.activity([spec.username])] == [1]
    attack.assert_ended(spec, attack.end(spec, tries=1), session)


def test_left_behind_views_reach_nothing_else_on_an_unsupported_version(
    attack: Attack, unsupported: Callable[[], None]
) -> None:
    """The view runs as the role that was left, which has no privileges."""
    attack.make_friend()
    spec = attack.user(writer())
    session, friend = attack.session(spec), attack.friends_session()
    run_setup(session, "CREATE VIEW shop.view_of_theirs AS SELECT * FROM shop.customers")
    run_setup(session, f"GRANT SELECT ON shop.view_of_theirs TO PUBLIC, {attack.friend}")
    require(succeeds(friend, "SELECT * FROM shop.view_of_theirs"), "the friend reads the view")
    unsupported()
    attack.assert_ended(spec, attack.end(spec, tries=1), session)
    assert not succeeds(friend, "SELECT * FROM shop.view_of_theirs")


def test_a_copy_that_the_user_gave_to_others_is_named(attack: Attack) -> None:
    """The copy belongs to the user's own role, so the receipt names the table and the role that owns it now."""
    attack.make_friend()
    spec = attack.user(writer())
    session, friend = attack.session(spec), attack.friends_session()
    run_setup(session, "CREATE TABLE shop.copy_of_theirs AS SELECT * FROM shop.customers")
    run_setup(session, f"GRANT SELECT ON shop.copy_of_theirs TO {attack.friend}")
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    assert end.removal is not None
    assert end.removal.left_behind == ("shop.copy_of_theirs (table)",)
    assert end.removal.left_with is not None
    assert f"REASSIGN OWNED BY {end.removal.left_with}" in end.report_text
    assert succeeds(friend, "SELECT count(*) FROM shop.copy_of_theirs"), "a fact that the documentation names"


# A level whose role can log in, and SET ROLE to a level's role.


def application(attack: Attack) -> Level:
    """A level whose role is the login of a team's application."""
    name, holder = f"app_{secrets.token_hex(3)}", attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"CREATE ROLE {name} LOGIN PASSWORD '{APPS_PASSWORD}' IN ROLE shop_writer")
    attack.as_superuser(f"GRANT {name} TO {holder} WITH ADMIN OPTION")
    return Level(name="app", roles=(name,))


def test_check_refuses_a_level_role_that_can_log_in(attack: Attack) -> None:
    level = application(attack)
    problems = attack.harness.adapter().check([level]).problems
    assert [p for p in problems if level.roles[0] in p.what and "log in" in p.what], problems


def test_a_level_role_that_can_log_in_is_not_given(attack: Attack) -> None:
    level = application(attack)
    (role,) = level.roles
    spec = attack.harness.spec(level)
    refused = refusal(lambda: attack.harness.adapter().create_user(spec))
    if refused is None:
        with attack.harness.login(spec) as session:
            succeeds(session, f"SET ROLE {role}")
            succeeds(session, f"ALTER ROLE {role} PASSWORD '{STOLEN_PASSWORD}'")
        attack.end(spec)
    assert not logs_in(attack, role, STOLEN_PASSWORD), "the ended user logs in as the role"
    assert logs_in(attack, role, APPS_PASSWORD), "the application is locked out"
    assert refused is not None
    assert role in refused


def logs_in(attack: Attack, name: str, password: str) -> bool:
    try:
        psycopg.connect(attack.harness.server.url(name, password, attack.harness.database), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_user_cannot_set_role_to_its_levels_role(attack: Attack) -> None:
    if attack.harness.server.version < SETS_FALSE:
        pytest.skip("PostgreSQL 15 cannot tell using a role from becoming it")
    spec = attack.user(writer())
    session = attack.session(spec)
    for statement in (READS, WRITES, "CREATE TABLE shop.mine (id int)"):
        run_setup(session, statement)
    assert not succeeds(session, "SET ROLE shop_writer")


# Objects and rights created as the level's role.


@pytest.mark.parametrize("set_role", [False, True])
def test_a_function_created_as_the_levels_role_is_closed_or_reported(attack: Attack, *, set_role: bool) -> None:
    attack.make_friend()
    spec = attack.user(replace(writer(), set_role=set_role))
    session = attack.session(spec)
    succeeds(session, "SET ROLE shop_writer")
    run_setup(session, DOOR)
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    opens = succeeds(attack.friends_session(), "SELECT shop.door()")
    assert not opens or "shop.door" in end.report_text, "the friend writes through it"


@pytest.mark.parametrize("set_role", [False, True])
def test_default_privileges_of_the_levels_role_are_undone_or_reported(attack: Attack, *, set_role: bool) -> None:
    spec = attack.user(replace(writer(), set_role=set_role))
    session = attack.session(spec)
    succeeds(session, "ALTER DEFAULT PRIVILEGES FOR ROLE shop_writer GRANT ALL ON TABLES TO PUBLIC")
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    left = attack.query("SELECT defaclacl::text FROM pg_default_acl WHERE defaclrole = 'shop_writer'::regrole")
    assert not left or "default privileges" in end.report_text.lower(), left


def owner(attack: Attack) -> Level:
    """A level of the tables' owner."""
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT shop_owner TO {holder} WITH ADMIN OPTION")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{attack.harness.database}" TO shop_owner')
    return Level(name="own", roles=("shop_owner",))


@pytest.mark.parametrize("privilege", ["SELECT", "SELECT (id)"])
def test_rights_granted_to_a_friend_are_revoked_or_reported(attack: Attack, privilege: str) -> None:
    """A member of the owner needs no SET ROLE for it."""
    attack.make_friend()
    friend, read_orders = attack.friends_session(), "SELECT id FROM shop.orders LIMIT 1"
    require(not succeeds(friend, read_orders), "the friend has no right of its own")
    spec = attack.user(owner(attack))
    run_setup(attack.session(spec), f"GRANT {privilege} ON shop.orders TO {attack.friend}")
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert not succeeds(friend, read_orders) or attack.friend in end.report_text, "the friend still reads"


def test_rights_granted_to_another_temporary_user_end_with_it(attack: Attack) -> None:
    giver, taker = attack.user(owner(attack)), attack.user(readonly())
    run_setup(attack.session(giver), f"GRANT UPDATE ON shop.orders TO {taker.username}")
    session = attack.session(taker)
    require(succeeds(session, WRITES), "the other user writes by it")
    attack.assert_ended(giver, attack.end(giver))
    attack.assert_ended(taker, attack.end(taker), session)


# A trigger on a team's table.


def follower(attack: Attack) -> Level:
    """A level that may create triggers on a table, and functions for them."""
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT TRIGGER, SELECT ON shop.orders TO {holder} WITH GRANT OPTION")
    attack.as_superuser(f"GRANT CREATE ON SCHEMA shop TO {holder} WITH GRANT OPTION")
    attack.as_superuser("CREATE TABLE shop.ran (who text); GRANT INSERT ON shop.ran TO PUBLIC")
    orders = PrivilegeGrant(on=("shop.orders",), privileges=("TRIGGER", "SELECT"))
    return Level(name="follow", grants=(orders, PrivilegeGrant(on=("shop",), privileges=("CREATE",))))


def test_a_trigger_on_a_team_table_is_removed_or_reported(attack: Attack) -> None:
    spec = attack.user(follower(attack))
    session = attack.session(spec)
    run_setup(session, FOLLOWING)
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    attack.as_superuser("UPDATE shop.orders SET customer = 1 WHERE id = 3")
    ran = attack.query("SELECT who FROM shop.ran")
    assert not ran or "follow_orders" in end.report_text, f"code of the ended user ran as {ran}"


def test_check_warns_of_trigger_privileges(attack: Attack) -> None:
    level = follower(attack)
    bad_findings = attack.bad_findings(level)
    assert [t for t in bad_findings if f"level {level.name}" in t.what and "trigger" in t.what.lower()], bad_findings


# Password verifiers.


def test_check_warns_of_a_level_that_reads_password_verifiers(attack: Attack) -> None:
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT pg_read_all_data TO {holder} WITH ADMIN OPTION")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{attack.harness.database}" TO PUBLIC')
    level = Level(name="all", roles=("pg_read_all_data",))
    session = attack.session(attack.user(level))
    require(succeeds(session, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"), "it reads verifiers")
    bad_findings = attack.bad_findings(level)
    assert [t for t in bad_findings if f"level {level.name}" in t.what and VERIFIERS.search(t.what)], bad_findings
