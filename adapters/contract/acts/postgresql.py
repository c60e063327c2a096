"""Hostile acts on PostgreSQL: locks, sessions, members, code and objects of a temporary user.

The harness's ``names`` are ``database``, ``schema``, ``customers`` and ``orders`` (tables), ``owner`` (the role that owns them), ``bot`` (the
bot's login) and ``granter`` (the role that grants the levels' roles).
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct

from adapters.contract.acts.postgresql_lasting import LASTING_ACTS, exists, owning
from adapters.contract.acts.postgresql_objects import OBJECT_ACTS
from adapters.contract.acts.postgresql_settings import SETTING_ACTS
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, statements, writing
from adapters.harness import wait_until

LOCK_ITSELF = "ALTER ROLE {user} PASSWORD 'x'"
PROTOCOL_3 = 196_608


# A: the user delays its own end.


def queue_for_own_row(scene: Scene) -> None:
    scene.run(scene.session(), "BEGIN", LOCK_ITSELF)
    for _ in range(3):
        scene.session().send(scene.filled(LOCK_ITSELF))


def prepare(scene: Scene, *texts: str, as_role: bool = False) -> None:
    """Prepare a transaction, on 16 and later as the user itself where it may not act as the level's role, and leave."""
    session = scene.session()
    scene.run(session, "BEGIN", *texts)
    if as_role:
        scene.run(session, "SAVEPOINT s")
        if not scene.succeeds(session, "SET ROLE {role}"):
            scene.run(session, "ROLLBACK TO s")
    scene.run(session, "PREPARE TRANSACTION 'held by {user}'")
    session.close()


def take_own_row_again(scene: Scene) -> None:
    def once() -> None:
        session = scene.session()
        session.run("BEGIN")
        session.run(scene.filled(LOCK_ITSELF))
        wait_until(lambda: scene.is_over.is_set() or not session.is_alive())

    for _ in range(3):
        scene.in_background(once)
    wait_until(lambda: len(scene.sessions) > 1)


def prepare_lock_on_own_table(scene: Scene) -> None:
    scene.run(scene.session(), "CREATE TABLE {schema}.mine (id int)")
    prepare(scene, "SELECT * FROM {schema}.mine", as_role=True)


def be_given_a_right(scene: Scene) -> None:
    other = scene.session_of(scene.user(scene.harness.writing))
    scene.run(other, "BEGIN", "CREATE TABLE {schema}.theirs (id int)", "GRANT SELECT ON {schema}.theirs TO {user}")


def let_a_friend_lock_own_table(scene: Scene) -> None:
    friend = scene.friend_session()
    scene.run(scene.session(), "CREATE TABLE {schema}.mine (id int)", "GRANT ALL ON {schema}.mine TO {friend}")
    scene.run(friend, "BEGIN", "LOCK TABLE {schema}.mine IN ACCESS EXCLUSIVE MODE")


def let_a_friend_give_a_right(scene: Scene) -> None:
    """A permanent account grants a right to the user and does not commit."""
    friend = scene.friend_session()
    scene.as_administrator("CREATE SCHEMA friends AUTHORIZATION {friend}")
    scene.run(friend, "CREATE TABLE friends.t (id int)", "BEGIN", "GRANT SELECT ON friends.t TO {user}")


def be_given_a_right_by_a_friend(scene: Scene) -> None:
    """A permanent account grants a right on its own table."""
    friend = scene.friend_session()
    scene.as_administrator("CREATE SCHEMA friends AUTHORIZATION {friend}")
    scene.run(friend, "CREATE TABLE friends.t (id int)", "GRANT SELECT ON friends.t TO {user}")


def prepare_a_write(scene: Scene) -> list[Probe]:
    prepare(scene, "UPDATE {orders} SET customer = 666 WHERE id = 1", as_role=True)
    return [
        exists(scene, scene.filled("held by {user}"), "SELECT 1 FROM pg_prepared_xacts WHERE gid = 'held by {user}'")
    ]


def ignore_cancellation(scene: Scene) -> None:
    scene.session().send(
        "DO $$ BEGIN LOOP BEGIN PERFORM pg_sleep(1000); EXCEPTION WHEN OTHERS OR query_canceled THEN NULL; END; END LOOP; END $$"
    )


def leave_an_answer_unread(scene: Scene) -> None:
    scene.session().send("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT")


# B: the mark.

FORBIDDEN = (
    "COMMENT ON ROLE {user} IS 'mine'",
    "ALTER ROLE {user} RENAME TO somebody",
    "ALTER ROLE {user} VALID UNTIL 'infinity'",
    "ALTER ROLE {user} CONNECTION LIMIT -1",
    "ALTER ROLE {user} CREATEROLE",
    "SECURITY LABEL ON ROLE {user} IS 'x'",
    "GRANT {user} TO {friend}",
    "GRANT {role} TO {friend}",
    "REASSIGN OWNED BY {user} TO {bot}",
    "SET SESSION AUTHORIZATION {bot}",
    "ALTER ROLE {bot} SET search_path = 'x'",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
    "SELECT pg_create_logical_replication_slot('x', 'pgoutput')",
)


def change_mark_and_limits(scene: Scene) -> None:
    scene.friend_session()
    session = scene.session()
    if accepted := [text for text in FORBIDDEN if scene.succeeds(session, text)]:
        raise NotPerformed(f"the server accepts this now: {accepted}")


def change_own_settings(scene: Scene) -> None:
    session = scene.session()
    scene.passwords.append("ItsOwn0Password")
    scene.run(
        session,
        "ALTER ROLE {user} SET search_path = 'public'",
        'ALTER ROLE {user} IN DATABASE "{database}" SET statement_timeout = 0',
        "ALTER ROLE {user} SET default_transaction_read_only = on",
        "ALTER ROLE {user} PASSWORD 'ItsOwn0Password'",
    )
    scene.succeeds(session, "ALTER ROLE {user} SET role = '{role}'")


# F: locks that anybody may take.

LOCK_CALL = re.compile(
    r"pg_(?:try_)?advisory_(?:xact_)?lock(?:_shared)?\(([^)]*)\)[^\n]*\n[^\n]*?DETAIL: +(?:P|p)arameters: ([^\n]*)"
)


def take_the_bots_advisory_locks(scene: Scene) -> None:
    """The keys are read from the server's log while the bot creates and ends users."""
    before = len(scene.harness.log_text())
    for level in (scene.harness.narrow, scene.harness.writing):
        spec = scene.user(level)
        with contextlib.closing(scene.session_of(spec)) as other:
            scene.succeeds(other, "CREATE TABLE {schema}.seen (id int)")
        scene.adapter.drop_user(spec.username, spec.level)
    session = scene.session()
    for arguments, values in set(LOCK_CALL.findall(scene.harness.log_text()[before:])):
        scene.run(session, f"SELECT pg_advisory_lock({with_values(arguments, values)})")


def with_values(arguments: str, values: str) -> str:
    """The arguments of a call with the values that the log has for ``$1`` and so on."""
    given = dict(re.findall(r"(\$\d+) = '([^']*)'", values))
    return re.sub(r"\$\d+", lambda found: given[found[0]], arguments)


def lock_the_levels_tables(scene: Scene) -> None:
    scene.run(scene.session(), "BEGIN", "LOCK TABLE {customers}, {orders} IN ACCESS EXCLUSIVE MODE")


# H: the server is full.

PORTIONS = (20_000, 1_000, 100, 10, 1, 1, 1, 1)


def fill_the_lock_table(scene: Scene) -> None:
    session = scene.session()
    for number, count in enumerate(PORTIONS):
        locks = f"SELECT count(pg_advisory_lock({number * 100_000} + g)) FROM generate_series(1, {count}) g"
        scene.succeeds(session, locks)
    scene.stack.callback(wait_until, lambda: is_open(scene))
    scene.stack.callback(session.close)


def is_open(scene: Scene) -> bool:
    """Whether the administrator can connect."""
    try:
        scene.harness.administrator().close()
    except Exception:  # noqa: BLE001 - any error is a closed server
        return False
    return True


def half_open_login(scene: Scene) -> socket.socket:
    """A login that never sends the password that the server asks for."""
    line = socket.create_connection(scene.harness.address)
    parameters = f"user\0{scene.spec.username}\0database\0{scene.harness.names['database']}\0\0".encode()
    line.sendall(struct.pack("!II", len(parameters) + 8, PROTOCOL_3) + parameters)
    scene.stack.callback(line.close)
    scene.to_reopen.append(line.close)
    return line


def fill_with_half_open_logins(scene: Scene) -> None:
    session = scene.session()
    ((limit,),) = session.run("SELECT current_setting('max_connections')::int")
    scene.stack.callback(wait_until, lambda: is_open(scene))
    for _ in range(limit):
        half_open_login(scene)
    wait_until(lambda: not is_open(scene) or not half_open_login(scene))
    scene.to_reopen.append(lambda: wait_until(lambda: is_open(scene)))


ACTS = [
    statements("A1", "holds the row of its own role", "BEGIN", LOCK_ITSELF),
    HostileAct(kind="A1", name="queues for the row of its own role", perform=queue_for_own_row),
    HostileAct(
        kind="A1",
        name="prepares a change of its own role",
        perform=lambda scene: prepare(scene, LOCK_ITSELF),
        level=writing,
    ),
    HostileAct(
        kind="A1",
        name="prepares a change of its own role as the role of its level",
        perform=lambda scene: prepare(scene, LOCK_ITSELF, as_role=True),
        level=writing,
    ),
    HostileAct(kind="A1", name="takes the row of its own role again and again", perform=take_own_row_again),
    statements(
        "A1",
        "changes its own settings in an open transaction",
        "BEGIN",
        "ALTER ROLE {user} SET work_mem = '5MB'",
        "ALTER ROLE {user} IN DATABASE \"{database}\" SET work_mem = '5MB'",
    ),
    HostileAct(kind="A3", name="prepares a lock on its own table", perform=prepare_lock_on_own_table, level=writing),
    HostileAct(kind="A3", name="is given a right in an open transaction of another user", perform=be_given_a_right),
    HostileAct(kind="A3", name="lets a friend lock its own table", perform=let_a_friend_lock_own_table, level=writing),
    HostileAct(
        kind="A3", name="is given a right in an open transaction of a friend", perform=let_a_friend_give_a_right
    ),
    HostileAct(kind="A3", name="is given a right by a friend", perform=be_given_a_right_by_a_friend),
    HostileAct(kind="C3", name="prepares a write as the role of its level", perform=prepare_a_write, level=writing),
    HostileAct(kind="A", name="ignores every cancellation", perform=ignore_cancellation),
    HostileAct(kind="A", name="leaves an answer unread", perform=leave_an_answer_unread),
    HostileAct(kind="B", name="changes its mark and its limits", perform=change_mark_and_limits, level=writing),
    HostileAct(kind="B", name="changes its own settings and password", perform=change_own_settings, level=writing),
    HostileAct(kind="F2", name="takes the advisory locks of the bot", perform=take_the_bots_advisory_locks),
    HostileAct(kind="F", name="locks the tables of its level", perform=lock_the_levels_tables, level=writing),
    statements(
        "F",
        "grants a right on a table of its level in an open transaction",
        "BEGIN",
        "GRANT SELECT ON {customers} TO PUBLIC",
        level=owning,
    ),
    statements(
        "F",
        "grants a right on the schema of its level in an open transaction",
        "BEGIN",
        "GRANT USAGE ON SCHEMA {schema} TO PUBLIC",
        level=owning,
    ),
    HostileAct(kind="H1", name="fills the lock table", perform=fill_the_lock_table, closes_server=True),
    HostileAct(
        kind="H2", name="fills the server with half-open logins", perform=fill_with_half_open_logins, closes_server=True
    ),
    *LASTING_ACTS,
    *OBJECT_ACTS,
    *SETTING_ACTS,
]
