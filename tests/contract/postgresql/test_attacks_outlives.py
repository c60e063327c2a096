"""What outlives a user: friends who act as it or as its level, code and rights left as the level, and roles nobody should get."""

from __future__ import annotations

import re
import secrets

import psycopg
import pytest

from adapters.base import Grant, Level, UserSpec
from tests.contract.postgresql.attacks import Attack, Session, can, must, refusal
from tests.contract.postgresql.harness import readonly, writer
from tests.open_faults import open_fault, require

WRITES = "UPDATE shop.orders SET customer = 666 WHERE id = 1"
READS = "SELECT count(*) FROM shop.orders"
TOO_OLD = 14
SETS_FALSE = 16
"""From this version on a member may be kept from becoming the role."""
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


# Friends who are members of the user.


def member_of(attack: Attack, spec: UserSpec, role: str) -> Session:
    """A colleague made the friend a member of the user, and the friend acts as ``role``."""
    attack.make_friend()
    attack.as_superuser(f"GRANT {spec.username} TO {attack.friend}")
    friend = attack.friends_session()
    must(friend, f"SET ROLE {role}")
    return friend


@open_fault("C1", "the friend's session goes on with the level's rights after a clean receipt")
def test_a_member_of_the_user_keeps_nothing(attack: Attack) -> None:
    spec = attack.user(writer())
    friend = member_of(attack, spec, "shop_writer")
    require(can(friend, WRITES), "the friend writes as the level")
    attack.assert_ended(spec, attack.end(spec))
    assert not can(friend, WRITES), "the friend still writes as the level"


@open_fault("C1", "the friend's open transaction is named and holds up the end, for as long as it is open")
def test_a_member_of_the_user_does_not_hold_up_the_end(attack: Attack) -> None:
    spec = attack.user(writer())
    friend = member_of(attack, spec, spec.username)
    for statement in ("BEGIN", "CREATE TABLE shop.held (id int)"):
        must(friend, statement)
    attack.assert_ended(spec, attack.end(spec))
    assert not can(friend), "the friend's session lives on"


# A server on which a user can pass its own role on. There is none here: the driver says that this one is older than it is.


def seems_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg.ConnectionInfo, "server_version", property(lambda _: TOO_OLD * 10_000 + 11))


@open_fault("C1", "PostgreSQL 14 passes for good")
def test_the_doctor_refuses_a_server_that_is_too_old(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    seems_old(monkeypatch)
    problems = attack.harness.adapter().check([readonly()]).problems
    assert [p for p in problems if f"PostgreSQL {TOO_OLD}" in p.what], problems


@open_fault("C1", "users are made on PostgreSQL 14")
def test_no_user_is_made_on_a_server_that_is_too_old(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    seems_old(monkeypatch)
    spec = attack.harness.spec(readonly())
    refused = refusal(lambda: attack.harness.adapter().create_user(spec))
    assert refused is not None
    assert f"PostgreSQL {TOO_OLD}" in refused
    assert not attack.harness.role_exists(spec.username)


def test_users_are_ended_on_a_server_that_is_too_old(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is refused there, an end is not."""
    spec = attack.user(writer())
    session = attack.session(spec)
    must(session, "CREATE TABLE shop.mine (id int)")
    seems_old(monkeypatch)
    attack.assert_ended(spec, attack.end(spec, tries=1), session)


# A level whose role can log in, and becoming a level's role at all.


def application(attack: Attack) -> Level:
    """A team gave its application's own login as a level."""
    name, holder = f"app_{secrets.token_hex(3)}", attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"CREATE ROLE {name} LOGIN PASSWORD '{APPS_PASSWORD}' IN ROLE shop_writer")
    attack.as_superuser(f"GRANT {name} TO {holder} WITH ADMIN OPTION")
    return Level(name="app", roles=(name,))


@open_fault("C2", "the doctor has nothing to say against a level's role that can log in")
def test_the_doctor_refuses_a_role_that_can_log_in(attack: Attack) -> None:
    level = application(attack)
    problems = attack.harness.adapter().check([level]).problems
    assert [p for p in problems if level.roles[0] in p.what and "log in" in p.what], problems


@open_fault("C2", "the user sets the role's password, logs in as it after its end, and the application is locked out")
def test_a_role_that_can_log_in_is_not_given(attack: Attack) -> None:
    level = application(attack)
    (role,) = level.roles
    spec = attack.harness.spec(level)
    refused = refusal(lambda: attack.harness.adapter().create_user(spec))
    if refused is None:
        with attack.harness.login(spec) as session:
            can(session, f"SET ROLE {role}")
            can(session, f"ALTER ROLE {role} PASSWORD '{STOLEN_PASSWORD}'")
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


@open_fault("C2", "the user becomes the level's role with SET ROLE")
def test_a_user_works_with_its_level_and_does_not_become_it(attack: Attack) -> None:
    if attack.harness.server.version < SETS_FALSE:
        pytest.skip("PostgreSQL 15 cannot tell using a role from becoming it")
    spec = attack.user(writer())
    session = attack.session(spec)
    for statement in (READS, WRITES, "CREATE TABLE shop.mine (id int)"):
        must(session, statement)
    assert not can(session, "SET ROLE shop_writer")


# What is left as the level's role.


@open_fault("C5", "a function that runs as the level's role stays, and the receipt is silent")
def test_a_function_left_as_the_level_is_closed_or_told(attack: Attack) -> None:
    attack.make_friend()
    spec = attack.user(writer())
    session = attack.session(spec)
    can(session, "SET ROLE shop_writer")
    must(session, DOOR)
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    opens = can(attack.friends_session(), "SELECT shop.door()")
    assert not opens or "shop.door" in end.told, "the friend writes through it"


@open_fault("C5", "default privileges of the level's role stay, and the receipt is silent")
def test_default_privileges_of_the_level_are_undone_or_told(attack: Attack) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    can(session, "ALTER DEFAULT PRIVILEGES FOR ROLE shop_writer GRANT ALL ON TABLES TO PUBLIC")
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    left = attack.ask("SELECT defaclacl::text FROM pg_default_acl WHERE defaclrole = 'shop_writer'::regrole")
    assert not left or "default privileges" in end.told.lower(), left


def owner(attack: Attack) -> Level:
    """A level for people who change tables."""
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT shop_owner TO {holder} WITH ADMIN OPTION")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{attack.harness.database}" TO shop_owner')
    return Level(name="own", roles=("shop_owner",))


@open_fault("C5", "what the user gave a friend as the owner of a table stays, and the receipt is silent")
@pytest.mark.parametrize("privilege", ["SELECT", "SELECT (id)"])
def test_rights_given_to_a_friend_are_undone_or_told(attack: Attack, privilege: str) -> None:
    """No SET ROLE is needed for it: being a member of the owner is enough."""
    attack.make_friend()
    friend, look = attack.friends_session(), "SELECT id FROM shop.orders LIMIT 1"
    require(not can(friend, look), "the friend has no right of its own")
    spec = attack.user(owner(attack))
    must(attack.session(spec), f"GRANT {privilege} ON shop.orders TO {attack.friend}")
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert not can(friend, look) or attack.friend in end.told, "the friend reads on"


def test_rights_given_to_another_temporary_user_end_with_it(attack: Attack) -> None:
    member_for_own_end, taker = attack.user(owner(attack)), attack.user(readonly())
    must(attack.session(member_for_own_end), f"GRANT UPDATE ON shop.orders TO {taker.username}")
    session = attack.session(taker)
    require(can(session, WRITES), "the other user writes by it")
    attack.assert_ended(member_for_own_end, attack.end(member_for_own_end))
    attack.assert_ended(taker, attack.end(taker), session)


# A trigger on the team's table.


def follower(attack: Attack) -> Level:
    """A level that may put triggers on a table, and make functions for them."""
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT TRIGGER, SELECT ON shop.orders TO {holder} WITH GRANT OPTION")
    attack.as_superuser(f"GRANT CREATE ON SCHEMA shop TO {holder} WITH GRANT OPTION")
    attack.as_superuser("CREATE TABLE shop.ran (who text); GRANT INSERT ON shop.ran TO PUBLIC")
    orders = Grant(on=("shop.orders",), privileges=("TRIGGER", "SELECT"))
    return Level(name="follow", grants=(orders, Grant(on=("shop",), privileges=("CREATE",))))


@open_fault("C6", "the ended user's trigger runs as whoever writes, and the receipt is silent")
def test_a_trigger_on_a_table_of_the_team_is_removed_or_told(attack: Attack) -> None:
    spec = attack.user(follower(attack))
    session = attack.session(spec)
    must(session, FOLLOWING)
    end = attack.end(spec)
    attack.assert_ended(spec, end, session)
    attack.as_superuser("UPDATE shop.orders SET customer = 1 WHERE id = 3")
    ran = attack.ask("SELECT who FROM shop.ran")
    assert not ran or "follow_orders" in end.told, f"code of the ended user ran as {ran}"


@open_fault("C6", "the doctor has nothing to say about TRIGGER")
def test_the_doctor_warns_of_triggers(attack: Attack) -> None:
    level = follower(attack)
    troubles = attack.troubles(level)
    assert [t for t in troubles if f"level {level.name}" in t.what and "trigger" in t.what.lower()], troubles


# Verifiers of passwords.


@open_fault("C7", "the doctor has nothing to say about pg_read_all_data")
def test_the_doctor_names_a_level_that_reads_verifiers(attack: Attack) -> None:
    holder = attack.harness.owner or attack.harness.bot
    attack.as_superuser(f"GRANT pg_read_all_data TO {holder} WITH ADMIN OPTION")
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{attack.harness.database}" TO PUBLIC')
    level = Level(name="all", roles=("pg_read_all_data",))
    session = attack.session(attack.user(level))
    require(can(session, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL"), "it reads verifiers")
    troubles = attack.troubles(level)
    assert [t for t in troubles if f"level {level.name}" in t.what and VERIFIERS.search(t.what)], troubles
