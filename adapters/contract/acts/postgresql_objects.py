"""Hostile acts on PostgreSQL with objects that the user leaves: code that runs with rights, very many objects, rare ones. See ``adapters.contract.acts.postgresql``."""

from __future__ import annotations

from functools import partial

from adapters.base import Level
from adapters.contract.acts.postgresql_lasting import RAN, as_member, asked, exists
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, writing


def creating_schemas(scene: Scene) -> Level:
    """A level that may create schemas in the database."""
    scene.as_administrator(f'GRANT CREATE ON DATABASE "{{database}}" TO {scene.harness.writing.roles[0]}')
    return scene.harness.writing


# G: code that runs with its owner's rights.

PEEK = (
    "CREATE FUNCTION {schema}.peek() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN RETURN (SELECT count(*) FROM {customers}); END $$",
    "CREATE VIEW {schema}.peeking AS SELECT * FROM {customers}",
    "GRANT SELECT ON {schema}.peeking TO PUBLIC",
)


def leave_doors_of_its_own(scene: Scene) -> list[Probe]:
    """No name can excuse these: whoever may run them reads what only the level may read."""
    scene.friend_session()
    scene.run(scene.session(), *PEEK)
    friend = scene.friend_session()
    queries = ("SELECT {schema}.peek()", "SELECT * FROM {schema}.peeking")
    if not all(scene.succeeds(friend, query) for query in queries):
        raise NotPerformed("the doors are closed while the user lives")
    return [Probe(name=f"«{query}»", is_alive=partial(scene.succeeds, friend, query)) for query in queries]


TRAP = (
    "CREATE SCHEMA trap",
    "GRANT USAGE ON SCHEMA trap TO PUBLIC",
    "CREATE TABLE trap.loot (who text, words text)",
    "GRANT SELECT, INSERT ON trap.loot TO PUBLIC",
    """CREATE FUNCTION trap.steal() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO trap.loot SELECT current_user, words FROM priv.private; RETURN 1;
    EXCEPTION WHEN insufficient_privilege THEN RETURN 0; END $$""",
    "CREATE TABLE trap.parent (id int PRIMARY KEY)",
    "INSERT INTO trap.parent VALUES (1), (2)",
    "GRANT SELECT, DELETE ON trap.parent TO PUBLIC",
    "CREATE TABLE trap.child (id int REFERENCES trap.parent ON DELETE CASCADE)",
    "INSERT INTO trap.child VALUES (1), (2)",
    "CREATE FUNCTION trap.on_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM trap.steal(); RETURN old; END $$",
    "CREATE TRIGGER on_delete BEFORE DELETE ON trap.child FOR EACH ROW EXECUTE FUNCTION trap.on_delete()",
)


def set_a_trap_for_left_behind_tables(scene: Scene) -> list[Probe]:
    """Another user left a private table behind. The trigger runs as the owner of the table that it is on."""
    victim = scene.user(scene.spec.level)
    other = scene.session_of(victim)
    scene.run(other, "CREATE SCHEMA priv", "CREATE TABLE priv.private AS SELECT 'secret'::text AS words")
    scene.adapter.drop_user(victim.username, victim.level)
    scene.run(scene.session(), *TRAP)

    def takes() -> bool:
        scene.run(scene.friend_session(), "DELETE FROM trap.parent WHERE id = 1")
        return bool(asked(scene, "SELECT 1 FROM trap.loot"))

    return [Probe(name="«loot»", is_alive=takes)]


def open_to_all(scene: Scene) -> Level:
    scene.as_administrator("GRANT CREATE ON SCHEMA public TO PUBLIC", RAN)
    return scene.harness.reading


PLANTED = """
CREATE FUNCTION public.planted_eq(oid, int) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN false; END $$;
CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.planted_eq);
CREATE FUNCTION public.pg_terminate_backend(int) RETURNS boolean LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN true; END $$;
CREATE VIEW public.pg_roles AS SELECT 1::oid AS oid, 'nobody'::name AS rolname;
CREATE VIEW public.pg_stat_activity AS SELECT 1 AS pid WHERE false
"""


def plant_catalogs(scene: Scene) -> list[Probe]:
    scene.run(scene.session(), PLANTED)
    return [exists(scene, "«ran»", "SELECT 1 FROM public.ran WHERE who <> '{user}'")]


# E: many objects, and rare ones.


def make_many(scene: Scene) -> None:
    session = scene.session()
    scene.run(session, "SELECT count(lo_create(0)) FROM generate_series(1, 3000)")
    for first in range(0, 600, 200):
        numbers = range(first, first + 200)
        views = ";".join(f"CREATE VIEW {{schema}}.v_{n} AS SELECT 1 AS a" for n in numbers)
        scene.run(session, f"BEGIN;{views};COMMIT")
    scene.run(session, *(f"CREATE TABLE {{schema}}.{'long_' * 11}{n} (a int)" for n in range(40)))


THINGS = (
    "CREATE SCHEMA mine",
    "CREATE TABLE mine.t (id serial PRIMARY KEY)",
    "CREATE PUBLICATION p FOR TABLE mine.t",
    "CREATE STATISTICS mine.st ON (id + 1), (id + 2) FROM mine.t",
    "CREATE POLICY pol ON mine.t TO {user} USING (true)",
    'CREATE COLLATION mine.co FROM "C"',
    "CREATE TEXT SEARCH DICTIONARY mine.d (template = simple)",
    "CREATE CONVERSION mine.cv FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
    "CREATE FUNCTION mine.eq(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR mine.=== (leftarg = int, rightarg = int, function = mine.eq)",
    "CREATE TYPE mine.rng AS RANGE (subtype = float8)",
    "CREATE DOMAIN mine.dom AS int",
    "CREATE CAST (mine.dom AS text) WITH INOUT",
    "CREATE TABLE mine.parted (a int) PARTITION BY RANGE (a)",
    "CREATE TABLE mine.part PARTITION OF mine.parted FOR VALUES FROM (1) TO (2)",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA mine GRANT ALL ON TABLES TO PUBLIC",
)


OBJECT_ACTS = [
    HostileAct(kind="G", name="leaves doors that it owns", perform=leave_doors_of_its_own, level=writing),
    HostileAct(
        kind="G1",
        name="sets a trap for tables of ended users",
        perform=set_a_trap_for_left_behind_tables,
        level=creating_schemas,
    ),
    HostileAct(kind="G", name="plants functions with names of the catalog", perform=plant_catalogs, level=open_to_all),
    HostileAct(kind="E", name="makes many objects with long names", perform=make_many, level=writing),
    HostileAct(
        kind="E",
        name="makes objects of rare kinds",
        perform=as_member(
            *THINGS,
            probes=lambda scene: [exists(scene, "mine.t", "SELECT 1 FROM pg_class WHERE relname = 't'")],
        ),
        level=creating_schemas,
    ),
]
