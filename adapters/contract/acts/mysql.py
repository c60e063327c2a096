"""Hostile acts on MySQL and MariaDB: locks on accounts and tables, changes of the own account, full servers.

The harness's ``names`` are ``shop`` (the database with the tables ``customers`` and ``orders``), ``ops`` (the schema of the bot's events) and
``bot`` (the bot's account), all quoted.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from adapters.base import AdapterError, Level, LoginRefused
from adapters.contract.acts.mysql_lasting import LASTING_ACTS, is_mariadb
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, statements, writing
from adapters.harness import PATIENCE, wait_until

ME = "`{user}`@`%`"


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
    scene.friend_session().close()
    scene.session()
    for _ in range(int(limit) + 5):
        line = socket.create_connection(scene.harness.address, timeout=PATIENCE)
        scene.stack.callback(line.close)
        scene.to_reopen.append(line.close)
    wait_until(lambda: not is_open(scene))
    scene.to_reopen.insert(0, lambda: wait_until(lambda: is_open(scene)))


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
    *LASTING_ACTS,
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
    HostileAct(
        kind="H", name="fills the server with half-open logins", perform=fill_with_half_open_logins, closes_server=True
    ),
]
