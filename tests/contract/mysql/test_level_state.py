"""The state of a level before and after a grant, and what nobody needs any more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.base import Level
from adapters.mysql.levels import managed_role
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness
from tests.contract.mysql.hostile import closed_after_test, connect, create_user, run


def test_grants_of_others_are_no_change_of_the_level(own_harness: EngineHarness) -> None:
    """Other temporary users come and go, of this ledger and of another one, and managed roles with them."""
    adapter, other = own_harness.adapter(), own_harness.adapter(ledger="anotherledgr", prefix=f"{own_harness.prefix}x_")
    for level in (own_harness.reading, own_harness.narrow):
        early = create_user(own_harness, level)
        before = adapter.level_state(level)
        spec = create_user(own_harness, level)
        late = create_user(own_harness, level)
        foreign = own_harness.spec(level, username=f"{own_harness.prefix}x_1_ada_abcd")
        other.create_user(foreign)
        adapter.drop_user(early.username, level)
        removal = adapter.drop_user(spec.username, level, before)
        assert not [note for note in removal.notes if "Changed" in note]
        adapter.drop_user(late.username, level)
        other.drop_user(foreign.username, level)
        assert adapter.level_state(level) == before


def test_changes_of_the_level_are_on_the_receipt(own_harness: EngineHarness) -> None:
    """Whoever made them."""
    server, adapter, level = own_harness.server, own_harness.adapter(), own_harness.writing
    role = own_harness.server_role(own_harness.writer)
    before = adapter.level_state(level)
    spec = create_user(own_harness, level)
    friend = f"friend_{own_harness.bot}"
    server.run(
        f"CREATE USER {friend} IDENTIFIED BY 'Known0Password'",
        f"GRANT {own_harness.writer} TO {friend}",
        f"GRANT SELECT (Name) ON mysql.time_zone_name TO {role}",
        f"CREATE VIEW {own_harness.database}.trap AS SELECT 1",
    )
    notes = adapter.drop_user(spec.username, level, before).notes
    changed = {note.partition(": ")[2].partition(":")[0]: note for note in notes if note.startswith("Changed")}
    assert f"new {own_harness.writer}: {friend}" in changed["members of the level's roles"]
    assert "time_zone_name" in changed["grants of the level's roles"]
    new = f"new {own_harness.database}.trap (view) of tester@"
    assert new in changed["views, routines, triggers and events in the level's database"]


def test_state_that_cannot_be_read_is_a_fact_and_no_error(own_harness: EngineHarness) -> None:
    own_harness.server.run(f"REVOKE SELECT ON mysql.* FROM `{own_harness.bot}`@`%`")
    if not own_harness.is_mariadb:
        own_harness.server.run(f"REVOKE XA_RECOVER_ADMIN ON *.* FROM `{own_harness.bot}`@`%`")
    state = own_harness.adapter().level_state(Level(name="none"))
    assert ("could not be read",) in state.kinds.values()


def test_prepared_transaction_of_a_live_session_is_rolled_back(own_harness: EngineHarness) -> None:
    """The server still shows whose it is. One that is older than the grant is not named."""
    if own_harness.is_mariadb:
        pytest.skip("MariaDB does not show whose a transaction is")
    writer, name = own_harness.writing, own_harness.bot
    with own_harness.server.admin() as admin:
        for statement in (f"XA START 'old{name}'", f"XA END 'old{name}'", f"XA PREPARE 'old{name}'"):
            run(admin, statement)
    before = own_harness.adapter().level_state(writer)
    spec = create_user(own_harness, writer)
    session = connect(own_harness, spec)
    for step in ("START", "END", "PREPARE"):
        run(session, f"XA {step} 'mine{name}','b',7")
        if step == "START":
            run(session, f"UPDATE {own_harness.database}.orders SET customer = 666 WHERE id = 3")
    notes = own_harness.adapter().drop_user(spec.username, writer, before).notes
    assert f"its prepared XA transaction was rolled back: 'mine{name}','b',7" in notes
    assert not [note for note in notes if "perhaps of this user" in note]
    assert own_harness.server.query(f"SELECT customer FROM {own_harness.database}.orders WHERE id = 3") == [(3,)]
    own_harness.server.run(f"XA ROLLBACK 'old{name}'")


# Leftovers.


def test_leftovers_are_dropped(own_harness: EngineHarness) -> None:
    """Managed roles without a user, and events of users that are gone. What is in use stays."""
    server, adapter, level = own_harness.server, own_harness.adapter(), own_harness.narrow
    spec = create_user(own_harness, level)
    role = str(managed_role(own_harness.target(), level))
    unused = str(managed_role(own_harness.target(), replace(level, name="unused")))
    run(closed_after_test(server.connect(own_harness.bot, BOT_PASSWORD)), f"CREATE ROLE `{unused}`")
    past = "ON SCHEDULE EVERY 10 SECOND STARTS '2020-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE"
    bot = closed_after_test(server.connect(own_harness.bot, BOT_PASSWORD))
    run(bot, "SET time_zone = '+00:00'")
    ledgers = {f"{own_harness.prefix}8_ada_abcd": own_harness.ledger, f"{own_harness.prefix}9_ada_abcd": "anotherledgr"}
    for name, ledger in ledgers.items():
        comment = f"COMMENT 'dbaccess ledger={ledger} request=8'"
        run(bot, f"CREATE EVENT `{own_harness.ops_schema}`.`{name}` {past} {comment} DO SELECT 1")
    gone, others = ledgers
    done = adapter.drop_leftovers()
    assert f"the event of {gone}, who is gone, was dropped" in done
    assert f"the managed role {unused}, which no user has, was dropped" in done
    events = "SELECT event_name FROM information_schema.events WHERE event_schema = %s"
    assert {row[0] for row in server.query(events, own_harness.ops_schema)} == {spec.username, others}
    assert own_harness.has_user(role)
    assert not own_harness.has_user(unused)
    adapter.drop_user(spec.username, level)
