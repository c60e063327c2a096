"""Hostile acts on MySQL and MariaDB: locks on accounts and tables, changes of the own account, prepared transactions, definers, full servers.

The harness's ``names`` are ``shop`` (the database with the tables ``customers`` and ``orders``), ``ops`` (the schema of the bot's events) and
``bot`` (the bot's account), all quoted.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from adapters.base import AdapterError, Level, LoginRefused
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, statements, writing
from adapters.harness import PATIENCE, wait_until

ME = "`{user}`@`%`"


def is_mariadb(scene: Scene) -> bool:
    return scene.adapter.label == "MariaDB"


def locking(*on_mysql: str, on_mariadb: tuple[str, ...]) -> Callable[[Scene], None]:
    """Hold a lock with the rights of a role for dumps, which an administrator gave after the user was created."""

    def perform(scene: Scene) -> None:
        give_rights_for_dumps(scene)
        chosen = on_mariadb if is_mariadb(scene) else on_mysql
        scene.session()
        scene.run(scene.session(), *chosen)

    return perform


def give_rights_for_dumps(scene: Scene) -> None:
    scene.as_administrator("GRANT SELECT, LOCK TABLES, RELOAD ON *.* TO {role}")
    if not is_mariadb(scene):
        scene.as_administrator("GRANT BACKUP_ADMIN ON *.* TO {role}")


def lock_accounts_again(scene: Scene) -> None:
    give_rights_for_dumps(scene)
    table = "mysql.global_priv" if is_mariadb(scene) else "mysql.user"

    def once() -> None:
        session = scene.session()
        session.run(f"LOCK TABLES {table} READ")
        wait_until(lambda: scene.is_over.is_set() or not session.is_alive())

    for _ in range(3):
        scene.in_background(once)
    wait_until(lambda: len(scene.sessions) > 1)


def locking_tables(scene: Scene) -> Level:
    """A level whose role may lock the tables of the shop."""
    role = scene.harness.writing.roles[0]
    database = scene.harness.names["shop"].replace("_", "\\_")
    scene.as_administrator(f"GRANT LOCK TABLES ON {database}.* TO {role}")
    return scene.harness.writing


def change_password_again(scene: Scene) -> None:
    """The password stays the same, so each session can log in."""

    def once() -> None:
        session = scene.session()
        while True:
            session.run(f"ALTER USER USER() IDENTIFIED BY '{scene.spec.password}'")

    for _ in range(3):
        scene.in_background(once)
    wait_until(lambda: len(scene.sessions) > 1)


def sending(text: str) -> Callable[[Scene], None]:
    """Send a statement and do not read its answer."""

    def perform(scene: Scene) -> None:
        session = scene.session()
        scene.succeeds(session, "SET SESSION cte_max_recursion_depth = 4294967295")
        session.send(scene.filled(text))
        time.sleep(0.3)  # until the statement is under way, which no server shows

    return perform


# B: the account.

ATTRIBUTES = (
    "ALTER USER " + ME + " IDENTIFIED BY 'Abc0Password' ATTRIBUTE '{{\"dbaccess\": null}}'",
    "ALTER USER "
    + ME
    + ' IDENTIFIED BY \'Abc0Password\' ATTRIBUTE \'{{"dbaccess": {{"ledger": "anotherledgr", "request": 1}}}}\'',
    "ALTER USER " + ME + " COMMENT 'x'",
)
FORBIDDEN = (
    "ALTER USER " + ME + " ACCOUNT UNLOCK",
    "ALTER USER " + ME + " WITH MAX_USER_CONNECTIONS 0",
    "RENAME USER " + ME + " TO `zz`@`%`",
    "DROP USER " + ME,
    "GRANT {role} TO `{friend}`@`%`",
    "DROP EVENT {ops}.`{user}`",
    "ALTER EVENT {ops}.`{user}` DISABLE",
    "SET GLOBAL event_scheduler = OFF",
)
PASSWORDS = (
    "ALTER USER " + ME + " IDENTIFIED BY 'Abc0Password' RETAIN CURRENT PASSWORD",
    "ALTER USER " + ME + " IDENTIFIED WITH sha256_password BY 'Abc0Password'",
    "SET PASSWORD = PASSWORD('Abc0Password')",
    "SET PASSWORD = 'Abc0Password'",
    "ALTER USER " + ME + " DEFAULT ROLE NONE",
    "SET DEFAULT ROLE NONE",
)


def change_own_account(scene: Scene) -> None:
    scene.friend_session()
    scene.passwords.append("Abc0Password")
    session = scene.session()
    if accepted := [text for text in FORBIDDEN if scene.succeeds(session, text)]:
        raise NotPerformed(f"the server accepts this now: {accepted}")
    for text in (*ATTRIBUTES, *PASSWORDS):
        scene.succeeds(session, text)


def give_proxy(scene: Scene) -> list[Probe]:
    """Let the level's role and a friend act as the user. A level whose role may act as somebody is refused."""
    scene.friend_session()
    session, level = scene.session(), scene.spec.level
    for taker in ("{role}", "`{friend}`@`%`", "{bot}"):
        scene.succeeds(session, f"GRANT PROXY ON {ME} TO {taker}")

    def is_refused() -> bool:
        try:
            scene.user(level)
        except AdapterError:
            return True
        return False

    return [Probe(name="PROXY", is_alive=is_refused)]


# C: what outlives the user.


def prepare_transaction(scene: Scene) -> list[Probe]:
    xid = f"x{secrets.token_hex(4)}"
    session = scene.session()
    scene.run(
        session,
        f"XA START '{xid}','b'",
        "UPDATE {shop}.orders SET customer = 666 WHERE id = 1",
        f"XA END '{xid}','b'",
        f"XA PREPARE '{xid}','b'",
    )
    session.close()

    def roll_back() -> None:
        with suppress(Exception):
            scene.as_administrator(f"XA ROLLBACK '{xid}','b'")

    scene.stack.callback(roll_back)
    shown = xid if is_mariadb(scene) else xid.encode().hex()
    return [Probe(name=shown, is_alive=lambda: xid in str(scene.administrator().run("XA RECOVER")))]


def defining(right: str, *texts: str, uses: str) -> HostileAct:
    """An act that leaves an object defined by the level's role (MariaDB) or the user. A friend uses it with ``uses``."""

    def perform(scene: Scene) -> list[Probe]:
        friend = scene.friend_session()
        scene.as_administrator(f"GRANT SELECT, EXECUTE, INSERT ON {scratch(scene)}.* TO `{{friend}}`@`%`")
        definer = "DEFINER=CURRENT_ROLE" if is_mariadb(scene) else ""
        session = scene.session()
        for text in texts:
            scene.run(session, text.replace("{scratch}", scratch(scene)).replace("{definer}", definer))
        statement = uses.replace("{scratch}", scratch(scene))
        if not scene.succeeds(friend, statement):
            raise NotPerformed(f"the friend cannot run {statement} while the user lives")
        return [Probe(name="left_one", is_alive=lambda: scene.succeeds(friend, statement))]

    def level(scene: Scene) -> Level:
        role = scene.harness.writing.roles[0]
        scene.as_administrator(
            f"CREATE DATABASE {scratch(scene)}", f"GRANT SELECT, EXECUTE, {right} ON {scratch(scene)}.* TO {role}"
        )
        if not is_mariadb(scene):
            allow_triggers(scene)
        return scene.harness.writing

    return HostileAct(kind="C4", name=f"defines a {right.rsplit(maxsplit=1)[-1].lower()}", perform=perform, level=level)


def allow_triggers(scene: Scene) -> None:
    """MySQL with a binary log allows triggers and functions of users only with this setting."""
    scene.as_administrator("SET GLOBAL log_bin_trust_function_creators = 1")
    scene.stack.callback(scene.as_administrator, "SET GLOBAL log_bin_trust_function_creators = 0")


def scratch(scene: Scene) -> str:
    """A schema in which the level may create objects."""
    return f"scratch{scene.harness.ledger}"


def schedule(scene: Scene) -> list[Probe]:
    """An event of the user that writes every second."""
    place = scratch(scene)
    definer = "DEFINER=CURRENT_ROLE" if is_mariadb(scene) else ""
    scene.run(
        scene.session(),
        f"CREATE TABLE {place}.ran (at DATETIME(6))",
        f"CREATE {definer} EVENT {place}.left_one ON SCHEDULE EVERY 1 SECOND DO INSERT INTO {place}.ran VALUES (NOW(6))",
    )

    def count() -> int:
        ((number,),) = scene.administrator().run(f"SELECT COUNT(*) FROM {place}.ran")
        return int(number)

    wait_until(lambda: count() > 0)

    def runs() -> bool:
        before = count()
        time.sleep(2.5)
        return count() > before

    return [Probe(name="left_one", is_alive=runs)]


def scheduling(scene: Scene) -> Level:
    role = scene.harness.writing.roles[0]
    scene.as_administrator(
        f"CREATE DATABASE {scratch(scene)}", f"GRANT SELECT, INSERT, CREATE, EVENT ON {scratch(scene)}.* TO {role}"
    )
    return scene.harness.writing


# F: locks that anybody may take.

LOCK_CALL = re.compile(r"GET_LOCK\('([^']+)'")


def take_the_bots_locks(scene: Scene, *, waiting: int = 0) -> None:
    """The names are read from the server's log while the bot creates and ends users. Further sessions wait for each lock."""
    before = len(scene.harness.log_text())
    spec = scene.user(scene.harness.narrow)
    scene.adapter.drop_user(spec.username, spec.level)
    for name in set(LOCK_CALL.findall(scene.harness.log_text()[before:])):
        scene.run(scene.session(), f"SELECT GET_LOCK('{name}', 0)")
        for _ in range(waiting):
            scene.session().send(f"SELECT GET_LOCK('{name}', 600)")


# H: the server is full.


def is_open(scene: Scene) -> bool:
    """Whether the friend can log in, who has no right to a reserved connection."""
    try:
        scene.friend_session().close()
    except LoginRefused:
        return False
    return True


def fill_with_sessions(scene: Scene) -> None:
    scene.friend_session().close()
    scene.stack.callback(wait_until, lambda: is_open(scene))
    with suppress(LoginRefused):
        while True:
            scene.session()


def fill_with_half_open_logins(scene: Scene) -> None:
    """Connections that never answer the server's greeting. The server closes each after its connect_timeout."""
    ((limit,),) = scene.administrator().run("SELECT @@max_connections")
    scene.session()
    for _ in range(int(limit) + 5):
        line = socket.create_connection(scene.harness.address, timeout=PATIENCE)
        scene.stack.callback(line.close)


LOCKED = ("LOCK TABLES mysql.user READ",)

ACTS = [
    HostileAct(
        kind="A2",
        name="locks the accounts",
        perform=locking(*LOCKED, on_mariadb=("LOCK TABLES mysql.global_priv READ",)),
    ),
    HostileAct(
        kind="A2",
        name="locks all tables",
        perform=locking("FLUSH TABLES WITH READ LOCK", on_mariadb=("FLUSH TABLES WITH READ LOCK",)),
    ),
    HostileAct(
        kind="A2",
        name="locks the instance for a backup",
        perform=locking(
            "LOCK INSTANCE FOR BACKUP",
            on_mariadb=("BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE BLOCK_COMMIT"),
        ),
    ),
    HostileAct(kind="A2", name="locks the accounts again and again", perform=lock_accounts_again),
    HostileAct(kind="A", name="changes its password again and again", perform=change_password_again),
    HostileAct(
        kind="A",
        name="leaves an answer unread",
        perform=sending(
            "SELECT REPEAT('x', 100000) FROM {shop}.customers a, {shop}.customers b, {shop}.customers c, {shop}.customers d"
        ),
    ),
    HostileAct(
        kind="A",
        name="computes without end",
        perform=sending("SELECT BENCHMARK(1000000000000, SHA2(REPEAT('x', 1000), 512))"),
    ),
    statements(
        "A",
        "keeps a transaction, a handler and a prepared statement open",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        "UPDATE {shop}.orders SET customer = 666",
        "PREPARE p FROM 'SELECT 1'",
        level=writing,
    ),
    statements(
        "A",
        "keeps an unfinished XA transaction",
        "XA START 'unfinished'",
        "UPDATE {shop}.orders SET customer = 666",
        "XA END 'unfinished'",
        level=writing,
    ),
    HostileAct(
        kind="B1", name="changes its mark, its limits and its passwords", perform=change_own_account, level=writing
    ),
    HostileAct(kind="B2", name="lets others act as itself", perform=give_proxy),
    HostileAct(kind="C3", name="prepares a transaction", perform=prepare_transaction, level=writing),
    defining(
        "CREATE VIEW",
        "CREATE {definer} VIEW {scratch}.left_one AS SELECT * FROM {shop}.customers",
        uses="SELECT * FROM {scratch}.left_one",
    ),
    defining(
        "CREATE ROUTINE",
        "CREATE {definer} PROCEDURE {scratch}.left_one() SQL SECURITY DEFINER UPDATE {shop}.orders SET customer = 777 WHERE id = 2",
        uses="CALL {scratch}.left_one()",
    ),
    defining(
        "CREATE, TRIGGER",
        "CREATE TABLE {scratch}.t (id INT)",
        "CREATE {definer} TRIGGER {scratch}.left_one BEFORE INSERT ON {scratch}.t FOR EACH ROW DELETE FROM {shop}.orders",
        uses="INSERT INTO {scratch}.t VALUES (1)",
    ),
    HostileAct(kind="C4", name="schedules an event", perform=schedule, level=scheduling),
    HostileAct(kind="F1", name="takes the locks of the bot", perform=take_the_bots_locks),
    HostileAct(
        kind="F1", name="waits for the locks of the bot", perform=lambda scene: take_the_bots_locks(scene, waiting=4)
    ),
    statements(
        "F",
        "locks the tables of its level",
        "LOCK TABLES {shop}.customers WRITE, {shop}.orders WRITE",
        level=locking_tables,
    ),
    HostileAct(kind="H", name="fills the server with sessions", perform=fill_with_sessions, level=writing),
    HostileAct(kind="H", name="fills the server with half-open logins", perform=fill_with_half_open_logins),
]
