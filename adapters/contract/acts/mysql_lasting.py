"""Hostile acts on MySQL and MariaDB that outlive the user: prepared transactions, objects with a definer, events. See ``adapters.contract.acts.mysql``."""

from __future__ import annotations

import secrets
import time

import pytest

from adapters.base import Level
from adapters.contract.scene import HostileAct, NotPerformed, Probe, Scene, writing
from adapters.harness import wait_until


def is_mariadb(scene: Scene) -> bool:
    return scene.adapter.label == "MariaDB"


def prepare_transactions(scene: Scene, *, count: int = 1) -> list[Probe]:
    tag = secrets.token_hex(4)
    names = [f"x{tag}{n}" for n in range(count)]
    session = scene.session()
    scene.stack.callback(roll_back, scene, names)
    for n, xid in enumerate(names, 1):
        change = f"UPDATE {{shop}}.orders SET customer = 666 WHERE id = {n}"
        scene.run(session, f"XA START '{xid}','b'", change, f"XA END '{xid}','b'", f"XA PREPARE '{xid}','b'")
        session.close()
        session = scene.session()
    shown = tag if is_mariadb(scene) else tag.encode().hex()
    return [Probe(name=shown, is_alive=lambda: tag in str(scene.administrator().run("XA RECOVER")))]


def roll_back(scene: Scene, names: list[str]) -> None:
    administrator = scene.administrator()
    for xid in names:
        scene.succeeds(administrator, f"XA ROLLBACK '{xid}','b'")
    administrator.close()


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


def viewing(scene: Scene) -> Level:
    role = scene.harness.writing.roles[0]
    scene.as_administrator(
        f"CREATE DATABASE {scratch(scene)}", f"GRANT SELECT, CREATE VIEW ON {scratch(scene)}.* TO {role}"
    )
    return scene.harness.writing


def define_many_views(scene: Scene) -> None:
    session = scene.session()
    for n in range(60):
        scene.run(session, f"CREATE VIEW {scratch(scene)}.{'long_' * 11}{n} AS SELECT 1 AS a")


def allow_triggers(scene: Scene) -> None:
    """MySQL with a binary log allows triggers and functions of users only with this setting."""
    scene.as_administrator("SET GLOBAL log_bin_trust_function_creators = 1")
    scene.stack.callback(scene.as_administrator, "SET GLOBAL log_bin_trust_function_creators = 0")


def scratch(scene: Scene) -> str:
    """A schema in which the level may create objects."""
    return f"scratch{scene.harness.ledger}"


EVERY_SECOND = "EVERY 1 SECOND DO INSERT INTO {place}.ran VALUES (NOW(6))"
ENDLESS = (
    "AT CURRENT_TIMESTAMP DO BEGIN WHILE TRUE DO INSERT INTO {place}.ran VALUES (NOW(6)); DO SLEEP(0.2); END WHILE; END"
)


def schedule(scene: Scene, body: str = EVERY_SECOND, *, as_role: bool = True) -> list[Probe]:
    """An event of the level's role (MariaDB) or the user that writes."""
    if not as_role and is_mariadb(scene):
        pytest.skip("an event of the user itself has no rights there, because a user's rights come from its role")
    place, definer = scratch(scene), "DEFINER=CURRENT_ROLE" if is_mariadb(scene) else ""
    scene.run(
        scene.session(),
        f"CREATE TABLE {place}.ran (at DATETIME(6))",
        f"CREATE {definer} EVENT {place}.left_one ON SCHEDULE {body.format(place=place)}",
    )
    scene.stack.callback(scene.as_administrator, f"DROP EVENT IF EXISTS {place}.left_one")

    administrator = scene.administrator()

    def count() -> int:
        ((number,),) = administrator.run(f"SELECT COUNT(*) FROM {place}.ran")
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


LASTING_ACTS = [
    HostileAct(kind="C3", name="prepares a transaction", perform=prepare_transactions, level=writing),
    HostileAct(
        kind="C3",
        name="prepares many transactions",
        perform=lambda scene: prepare_transactions(scene, count=40),
        level=writing,
    ),
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
    HostileAct(
        kind="C4",
        name="is running an endless event",
        perform=lambda scene: schedule(scene, ENDLESS, as_role=False),
        level=scheduling,
    ),
    HostileAct(
        kind="C4",
        name="is running an endless event as the role of its level",
        perform=lambda scene: schedule(scene, ENDLESS),
        level=scheduling,
    ),
    HostileAct(kind="C4", name="defines many views", perform=define_many_views, level=viewing),
]
