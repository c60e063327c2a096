"""Code that an ended user left behind reads nothing that another ended user left behind, whatever runs it later."""

from __future__ import annotations

import pytest

from adapters.contract import wait_until
from tests.contract.postgresql.attacks import Attack, run_setup, succeeds
from tests.contract.postgresql.harness import writer
from tests.open_faults import require

SETTINGS = "autovacuum_naptime = 1s\n"
AUTOVACUUM = 60.0
"""Seconds within which autovacuum runs, also on a busy machine."""

PRIVATE = "CREATE SCHEMA priv; CREATE TABLE priv.private AS SELECT 'secret'::text AS words"
TRAP = """
CREATE SCHEMA trap;
GRANT USAGE ON SCHEMA trap TO PUBLIC;
CREATE TABLE trap.loot (who text, words text);
GRANT SELECT, INSERT ON trap.loot TO PUBLIC;
CREATE FUNCTION trap.steal() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO trap.loot SELECT current_user, words FROM priv.private;
  GRANT USAGE ON SCHEMA priv TO PUBLIC;
  GRANT ALL ON priv.private TO PUBLIC;
  RETURN 1;
EXCEPTION WHEN insufficient_privilege THEN RETURN 0; END $$;
"""
CASCADE = """
CREATE TABLE trap.parent (id int PRIMARY KEY);
INSERT INTO trap.parent VALUES (1), (2);
GRANT SELECT, DELETE ON trap.parent TO PUBLIC;
CREATE TABLE trap.child (id int REFERENCES trap.parent ON DELETE CASCADE);
INSERT INTO trap.child VALUES (1), (2);
CREATE FUNCTION trap.on_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.steal(); RETURN old; END $$;
CREATE TRIGGER on_delete BEFORE DELETE ON trap.child FOR EACH ROW EXECUTE FUNCTION trap.on_delete();
"""
INDEX = """
CREATE TABLE trap.bait (id int) WITH (autovacuum_enabled = false);
CREATE FUNCTION trap.same(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM trap.steal(); RETURN n; END $$;
CREATE INDEX ON trap.bait (trap.same(id));
INSERT INTO trap.bait SELECT generate_series(1, 300);
"""
ANALYSED = "SELECT 1 FROM pg_stat_all_tables WHERE relname = 'bait' AND last_autoanalyze IS NOT NULL"


@pytest.fixture
def team(attack: Attack) -> Attack:
    """A team whose level may create schemas."""
    attack.make_friend()
    attack.as_superuser(f'GRANT CREATE ON DATABASE "{attack.harness.database}" TO shop_writer')
    return attack


def both_ended(team: Attack, *trap: str) -> None:
    """Two ended users: one left a private table behind, the other left a trap."""
    victim, thief = team.user(writer()), team.user(writer())
    run_setup(team.session(victim), PRIVATE)
    for statements in trap:
        run_setup(team.session(thief), statements)
    for spec in (victim, thief):
        end = team.end(spec)
        require(end.removal, end.error)


def assert_nothing_taken(team: Attack) -> None:
    assert team.query("SELECT DISTINCT who, words FROM trap.loot") == []
    assert not succeeds(team.friends_session(), "SELECT words FROM priv.private"), "everybody reads the table"


def test_a_left_behind_trigger_reads_no_left_behind_table(team: Attack) -> None:
    both_ended(team, TRAP, CASCADE)
    run_setup(team.friends_session(), "DELETE FROM trap.parent WHERE id = 1")
    assert_nothing_taken(team)


def test_a_left_behind_index_function_reads_no_left_behind_table(team: Attack) -> None:
    both_ended(team, TRAP, INDEX)
    team.as_superuser("ALTER TABLE trap.bait SET (autovacuum_enabled = true)")
    wait_until(lambda: team.query(ANALYSED), within=AUTOVACUUM)
    assert_nothing_taken(team)
