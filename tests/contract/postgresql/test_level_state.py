"""The state of a level: what dbaccess itself does is no difference, large groups are counted, and triggers of an ended user are dropped."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from adapters.base import Level, Rejected
from adapters.postgresql.level.level_state import changes_of_level, level_state
from adapters.postgresql.triggers import disarm_triggers, triggers_of
from tests.contract.postgresql.attacks import Attack, run_setup, succeeds
from tests.contract.postgresql.harness import EngineHarness, acting_writer, readonly, support, writer

SETS_OPTIONS = 16
MANY = 300
SOON = 10.0
"""Seconds that naming may take. A table in use costs half a second."""

AUDITED = b"""
CREATE FUNCTION shop.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER audited BEFORE UPDATE ON shop.customers FOR EACH ROW EXECUTE FUNCTION shop.audit();
"""
FOLLOWING = """
CREATE FUNCTION shop.following() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN new; END $$;
CREATE TRIGGER "Follow orders" BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.following()
"""


def owning(attack: Attack) -> Level:
    holder, database = attack.harness.owner or attack.harness.bot, attack.harness.database
    attack.as_superuser(
        f'GRANT shop_owner TO {holder} WITH ADMIN OPTION; GRANT CONNECT ON DATABASE "{database}" TO shop_owner'
    )
    return Level(name="own", roles=("shop_owner",))


@pytest.mark.parametrize("level", [readonly(), writer(), support()], ids=["reader", "writer", "grants"])
def test_a_grant_and_its_end_are_no_difference(own_harness: EngineHarness, level: Level) -> None:
    """Neither the managed role nor another live user counts as a change."""
    adapter = own_harness.adapter()
    with own_harness.superuser() as c:
        c.execute(AUDITED)
    before = adapter.level_state(level)
    spec, other = own_harness.spec(level), own_harness.spec(level)
    for each in (spec, other):
        adapter.create_user(each)
    removal = adapter.drop_user(spec.username, level, before)
    assert not [note for note in removal.notes if "Changed while" in note]
    removal = adapter.drop_user(other.username, level, before)
    assert not [note for note in removal.notes if "Changed while" in note]


def test_a_level_of_an_owner_has_no_difference_after_another_grant(attack: Attack) -> None:
    level = owning(attack)
    first = attack.user(level)
    second = attack.user(level)
    for spec in (first, second):
        end = attack.end(spec)
        assert end.removal is not None
        assert not [note for note in end.removal.notes if "Changed while" in note]


def test_a_change_among_many_objects_is_named(attack: Attack) -> None:
    """Groups of many objects are stored as their number and a digest."""
    level, app = owning(attack), f"app_{attack.harness.bot}"
    attack.as_superuser(
        f"CREATE ROLE {app}; SET ROLE shop_owner; DO $$ BEGIN FOR i IN 1..{MANY} LOOP EXECUTE format('CREATE TABLE shop.many_%s (id int DEFAULT 1)', i);"
        f" EXECUTE format('GRANT SELECT, INSERT ON shop.many_%s TO {app}', i); END LOOP; END $$; GRANT SELECT ON shop.orders TO {app}; RESET ROLE"
    )
    spec = attack.user(level)
    assert len(str(attack.states[spec.username].to_json())) < 5000
    session = attack.session(spec)
    run_setup(session, f"GRANT INSERT ON shop.orders TO {app}")
    run_setup(session, "ALTER TABLE shop.customers ALTER name SET DEFAULT 'x'")
    end = attack.end(spec)
    assert f"table shop.orders (INSERT, SELECT to {app}, given by shop_owner)" in end.report_text
    assert "shop.customers.name" in end.report_text
    assert "many_" not in end.report_text
    assert len(end.report_text) < 2000


def test_rights_in_another_database_are_counted_and_named(attack: Attack) -> None:
    attack.make_friend()
    level, other = owning(attack), attack.harness.other
    attack.as_superuser(f'GRANT CONNECT, CREATE ON DATABASE "{other}" TO shop_owner')
    with attack.harness.superuser(other) as c:
        c.execute(
            b"CREATE SCHEMA annex AUTHORIZATION shop_owner; SET ROLE shop_owner; CREATE TABLE annex.bills (id int)"
        )
    spec = attack.user(level)
    run_setup(attack.session(spec, other), f"GRANT SELECT ON annex.bills TO {attack.friend}")
    report = attack.end(spec).report_text
    assert f"1 objects of shop_owner in {other} to {attack.friend}" in report


def test_a_level_that_cannot_be_read_is_a_note(attack: Attack) -> None:
    server, level = attack.harness.adapter().server, readonly()
    before = level_state(server, level)
    (note,) = changes_of_level(server, replace(level, database="no_such_database"), before)
    assert note.startswith("The roles of the level readonly were not compared with their state before the grant: ")
    assert changes_of_level(server, level, None) == []


# Triggers of an ended user.


def follower(attack: Attack) -> Level:
    attack.as_superuser("GRANT TRIGGER ON shop.orders TO shop_writer")
    return writer()


def test_a_trigger_on_a_table_of_the_bots_team_is_dropped(attack: Attack) -> None:
    """The bot is a member of the table's owner."""
    level = follower(attack)
    owning(attack)
    attack.as_superuser(f"GRANT shop_owner TO {attack.harness.owner}")
    spec = attack.user(level)
    run_setup(attack.session(spec), FOLLOWING)
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert "were dropped" in end.report_text
    assert "Follow orders on shop.orders" in end.report_text
    assert attack.query("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    assert attack.query("SELECT 1 FROM pg_proc WHERE proname = 'following'"), "the function stays"


@pytest.mark.parametrize("is_member", [False, True], ids=["no member of the owner", "the table is in use"])
def test_a_trigger_that_cannot_be_dropped_is_named_with_its_statement(attack: Attack, *, is_member: bool) -> None:
    level = follower(attack)
    if is_member:
        owning(attack)
        attack.as_superuser(f"GRANT shop_owner TO {attack.harness.owner}")
    spec = attack.user(level)
    run_setup(attack.session(spec), FOLLOWING)
    with attack.harness.superuser() as reader:
        reader.execute(b"BEGIN; SELECT count(*) FROM shop.orders")
        started = time.monotonic()
        end = attack.end(spec, tries=1)
        attack.assert_ended(spec, end)
        assert time.monotonic() - started < SOON
    statement = 'DROP TRIGGER "Follow orders" ON shop.orders;'
    assert statement in end.report_text
    attack.as_superuser(statement)


def test_other_uses_of_a_users_function_are_named(attack: Attack) -> None:
    spec = attack.user(writer())
    run_setup(attack.session(spec), "CREATE FUNCTION shop.evil() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    attack.as_superuser("ALTER TABLE shop.orders ALTER customer SET DEFAULT shop.evil()")
    report = attack.end(spec).report_text
    assert "are still called by: default value for shop.orders.customer" in report


def test_triggers_of_a_role_without_functions_are_none(attack: Attack) -> None:
    spec = attack.user(readonly())
    server = attack.harness.adapter().server
    with server.session() as connection:
        assert triggers_of(connection, attack.oids[spec.username]) == []
        assert disarm_triggers(server, connection, attack.oids[spec.username]) == []
    attack.end(spec)


# Memberships.


def test_a_membership_with_other_options_is_replaced_or_refused(attack: Attack) -> None:
    """A user that was created with SET loses it with the next create. A membership from somebody else is refused with a remedy."""
    if attack.harness.server.version < SETS_OPTIONS:
        pytest.skip("PostgreSQL 15 has no such options")
    adapter, spec = attack.harness.adapter(), attack.user(acting_writer())
    with attack.harness.login(spec) as session:
        assert succeeds(session, "SET ROLE shop_writer")
    adapter.create_user(replace(spec, level=writer()))
    with attack.harness.login(spec) as session:
        assert not succeeds(session, "SET ROLE shop_writer")
    attack.as_superuser(f"GRANT shop_writer TO {spec.username} WITH SET TRUE")
    with pytest.raises(Rejected, match="with options that its level does not give") as rejected:
        adapter.create_user(replace(spec, level=writer()))
    attack.as_superuser(str(rejected.value.remedy))
    adapter.create_user(replace(spec, level=writer()))
    attack.assert_ended(spec, attack.end(spec))
