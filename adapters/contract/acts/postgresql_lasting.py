"""Hostile acts on PostgreSQL that outlive the user: members, rights, and code on the tables of the team. See ``adapters.contract.acts.postgresql`` for the names."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from adapters.base import Level, PrivilegeGrant
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, writing
from adapters.harness import RawSession

WRITES = "UPDATE {orders} SET customer = 666 WHERE id = 1"


def owning(scene: Scene) -> Level:
    """A level of the role that owns the tables."""
    scene.as_administrator(
        "GRANT {owner} TO {granter} WITH ADMIN OPTION", 'GRANT CONNECT ON DATABASE "{database}" TO {owner}'
    )
    return Level(name="own", roles=(scene.harness.names["owner"],))


def asked(scene: Scene, query: str) -> list[tuple[Any, ...]]:
    """The rows of the query, as the administrator."""
    administrator = scene.administrator()
    rows: list[tuple[Any, ...]] = administrator.run(scene.filled(query))
    administrator.close()
    return rows


def friend_runs(scene: Scene, name: str, statement: str) -> Probe:
    """A probe: the friend runs the statement, which it could not without the user."""
    friend = scene.friend_session()
    if scene.succeeds(friend, statement):
        raise NotPerformed(f"the friend needs no help for {statement}")
    return Probe(name=scene.filled(name), is_alive=lambda: scene.succeeds(friend, statement))


def exists(scene: Scene, name: str, query: str) -> Probe:
    """A probe: the query has rows now, and had none before."""
    return Probe(name=name, is_alive=lambda: bool(asked(scene, query)))


# C: members of the user.


def have_a_member(scene: Scene) -> list[Probe]:
    """An administrator made the friend a member of the user. The friend acts as the level's role where it may."""
    friend = scene.friend_session()
    scene.as_administrator("GRANT {user} TO {friend}")
    scene.succeeds(friend, "SET ROLE {role}")
    scene.run(friend, WRITES)
    return [session_writes(scene, friend)]


def have_a_member_with_an_open_transaction(scene: Scene) -> list[Probe]:
    friend = scene.friend_session()
    scene.as_administrator("GRANT {user} TO {friend}")
    scene.run(friend, "SET ROLE {user}", "BEGIN", "CREATE TABLE {schema}.held (id int)")
    return [session_writes(scene, friend)]


def session_writes(scene: Scene, session: RawSession) -> Probe:
    return Probe(name=scene.filled("{friend}"), is_alive=lambda: scene.succeeds(session, WRITES))


def login_role(scene: Scene) -> Level:
    """A level whose role can log in, as an application does."""
    name = f"app_{secrets.token_hex(3)}"
    scene.as_administrator(
        f"CREATE ROLE {name} LOGIN PASSWORD 'AppSecret0Login' IN ROLE {scene.harness.writing.roles[0]}",
        f"GRANT {name} TO {{granter}} WITH ADMIN OPTION",
    )
    return Level(name="app", roles=(name,))


def become_the_login_role(scene: Scene) -> list[Probe]:
    role, session = scene.spec.level.roles[0], scene.session()
    scene.succeeds(session, "SET ROLE {role}")
    scene.succeeds(session, "ALTER ROLE {role} PASSWORD 'StolenSecret0Login'")

    def logs_in() -> bool:
        try:
            scene.harness.raw_session(role, "StolenSecret0Login").close()
        except Exception:  # noqa: BLE001 - any error is a refused login
            return False
        return True

    return [Probe(name=role, is_alive=logs_in)]


# C: what the level's role made, or gave to others.


def as_role(*texts: str, probes: Callable[[Scene], list[Probe]]) -> Callable[[Scene], list[Probe]]:
    """Run the statements as the level's role where the user may, else as the user. Some of them may be refused then."""

    def perform(scene: Scene) -> list[Probe]:
        found, session = probes(scene), scene.session()
        scene.succeeds(session, "SET ROLE {role}")
        for text in texts:
            scene.succeeds(session, text)
        return found

    return perform


def as_member(*texts: str, probes: Callable[[Scene], list[Probe]]) -> Callable[[Scene], list[Probe]]:
    """Run the statements as a member of the level's role. Each must work."""

    def perform(scene: Scene) -> list[Probe]:
        found = probes(scene)
        scene.run(scene.session(), *texts)
        return found

    return perform


DOOR = """CREATE FUNCTION {schema}.door() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS
  $$ BEGIN UPDATE {orders} SET customer = 13 WHERE id = 2; RETURN 1; END $$"""
SETTINGS_OF_ROLE = "SELECT 1 FROM pg_db_role_setting WHERE setrole = '{role}'::regrole"
DEFAULTS_OF_ROLE = "SELECT 1 FROM pg_default_acl WHERE defaclrole = '{role}'::regrole"


def set_role_setting(scene: Scene) -> list[Probe]:
    scene.stack.callback(scene.as_administrator, f"ALTER ROLE {scene.spec.level.roles[0]} RESET ALL")
    return as_role(
        "ALTER ROLE {role} SET search_path = 'trap'",
        probes=lambda scene: [exists(scene, scene.spec.level.roles[0], SETTINGS_OF_ROLE)],
    )(scene)


# C: code of the user on the team's tables.


def following(scene: Scene) -> Level:
    """A level that may create triggers on a table, and functions for them."""
    scene.as_administrator(
        "GRANT TRIGGER, SELECT ON {orders} TO {granter} WITH GRANT OPTION",
        "GRANT CREATE ON SCHEMA {schema} TO {granter} WITH GRANT OPTION",
    )
    names = scene.harness.names
    table = PrivilegeGrant(on=(names["orders"],), privileges=("TRIGGER", "SELECT"))
    return Level(name="follow", grants=(table, PrivilegeGrant(on=(names["schema"],), privileges=("CREATE",))))


RAN = "CREATE TABLE public.ran (who text); GRANT INSERT ON public.ran TO PUBLIC"
FOLLOW = """CREATE FUNCTION {schema}.following() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN new; END $$"""
TRIGGER = "CREATE TRIGGER follow_orders BEFORE UPDATE ON {orders} FOR EACH ROW EXECUTE FUNCTION {schema}.following()"
DEFAULT_CODE = """CREATE FUNCTION {schema}.counted() RETURNS int LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.ran VALUES (current_user::text); RETURN 1; END $$"""

INDEX_CODE = """CREATE FUNCTION {schema}.indexed(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
  $$ BEGIN PERFORM {schema}.counted(); RETURN n; END $$"""


def ran_as_another(scene: Scene, name: str, statement: str) -> Probe:
    """A probe: the statement of the administrator runs code of the user."""

    def is_alive() -> bool:
        scene.as_administrator(statement)
        return bool(asked(scene, "SELECT 1 FROM public.ran WHERE who <> '{user}'"))

    return Probe(name=name, is_alive=is_alive)


def leave_code(*texts: str, name: str, statement: str) -> Callable[[Scene], list[Probe]]:
    def perform(scene: Scene) -> list[Probe]:
        scene.as_administrator(RAN)
        scene.run(scene.session(), *texts)
        return [ran_as_another(scene, scene.filled(name), statement)]

    return perform


ROLE_DEFAULTS = "ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT ALL ON TABLES TO PUBLIC"

LASTING_ACTS = [
    HostileAct(kind="C1", name="has a friend as a member", perform=have_a_member, level=writing),
    HostileAct(
        kind="C1",
        name="has a member with an open transaction",
        perform=have_a_member_with_an_open_transaction,
        level=writing,
    ),
    HostileAct(
        kind="C2", name="sets the password of its level's role", perform=become_the_login_role, level=login_role
    ),
    HostileAct(
        kind="C5",
        name="makes a function as the role of its level",
        perform=as_role(DOOR, probes=lambda scene: [friend_runs(scene, "{schema}.door", "SELECT {schema}.door()")]),
        level=writing,
    ),
    HostileAct(
        kind="C5",
        name="changes the default privileges of its level's role",
        perform=as_role(ROLE_DEFAULTS, probes=lambda scene: [exists(scene, "default privileges", DEFAULTS_OF_ROLE)]),
        level=writing,
    ),
    HostileAct(kind="C5", name="changes a setting of its level's role", perform=set_role_setting, level=writing),
    HostileAct(
        kind="C5",
        name="grants the rights of its level on a table to a friend",
        perform=as_member(
            "GRANT SELECT ON {orders} TO {friend}",
            probes=lambda scene: [friend_runs(scene, "{friend}", "SELECT id FROM {orders} LIMIT 1")],
        ),
        level=owning,
    ),
    HostileAct(
        kind="C5",
        name="grants the rights of its level on a column to a friend",
        perform=as_member(
            "GRANT SELECT (id) ON {orders} TO {friend}",
            probes=lambda scene: [friend_runs(scene, "{friend}", "SELECT id FROM {orders} LIMIT 1")],
        ),
        level=owning,
    ),
    HostileAct(
        kind="C5",
        name="grants the rights of its level on a schema to a friend",
        perform=as_member(
            "GRANT CREATE ON SCHEMA {schema} TO {friend}",
            probes=lambda scene: [friend_runs(scene, "{friend}", "CREATE TABLE {schema}.friends (id int)")],
        ),
        level=owning,
    ),
    HostileAct(
        kind="C5",
        name="opens a table of its level by a policy",
        perform=as_member(
            "CREATE POLICY everybody ON {orders} USING (true)",
            probes=lambda scene: [exists(scene, "everybody", "SELECT 1 FROM pg_policy WHERE polname = 'everybody'")],
        ),
        level=owning,
    ),
    HostileAct(
        kind="C5",
        name="adds a rule to a table of its level",
        perform=as_member(
            "CREATE RULE nothing AS ON DELETE TO {orders} DO INSTEAD NOTHING",
            probes=lambda scene: [exists(scene, "nothing", "SELECT 1 FROM pg_rewrite WHERE rulename = 'nothing'")],
        ),
        level=owning,
    ),
    HostileAct(
        kind="C6",
        name="leaves a trigger on a table of the team",
        perform=leave_code(
            FOLLOW, TRIGGER, name="follow_orders", statement="UPDATE {orders} SET customer = 1 WHERE id = 3"
        ),
        level=following,
    ),
    HostileAct(
        kind="C6",
        name="leaves code in a default of a table of the team",
        perform=leave_code(
            DEFAULT_CODE,
            "ALTER TABLE {orders} ALTER COLUMN customer SET DEFAULT {schema}.counted()",
            name="{orders}",
            statement="INSERT INTO {orders} (id) SELECT 100000 + count(*) FROM {orders}",
        ),
        level=owning,
    ),
    HostileAct(
        kind="C6",
        name="leaves code in an index of a table of the team",
        perform=leave_code(
            DEFAULT_CODE,
            INDEX_CODE,
            "CREATE INDEX trap ON {orders} ({schema}.indexed(customer))",
            name="trap",
            statement="INSERT INTO {orders} (id) SELECT 100000 + count(*) FROM {orders}",
        ),
        level=owning,
    ),
]
