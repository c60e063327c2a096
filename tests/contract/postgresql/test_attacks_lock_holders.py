"""A user, or another one, holds a lock that the revocation needs: the revocation does not wait for it, or names the holder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg

from adapters.base import UserSpec
from tests.contract.postgresql.attacks import Attack, Session, refusal, run_setup
from tests.contract.postgresql.harness import acting_writer, readonly, writer
from tests.open_faults import require

HIDDEN = "held_behind_the_level"
SOON, LATE = 10.0, 300.0
"""Seconds until the expiry."""


def own_role_held(attack: Attack, spec: UserSpec) -> Session:
    """A session that changes the user's own password and does not commit."""
    session = attack.transaction(spec)
    run_setup(session, f"ALTER ROLE {spec.username} PASSWORD 'x'")
    return session


def prepared_as_the_level(attack: Attack, spec: UserSpec, *statements: str) -> None:
    """Prepare a transaction as the level's role, and close its session."""
    with contextlib.closing(
        psycopg.connect(attack.harness.server.url(spec.username, spec.password, attack.harness.database))
    ) as c:
        for statement in (*statements, "SET ROLE shop_writer", f"PREPARE TRANSACTION '{HIDDEN}'"):
            run_setup(c, statement)
    attack.stack.callback(forget_prepared, attack)


def forget_prepared(attack: Attack) -> None:
    for (gid,) in attack.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        attack.as_superuser(f"ROLLBACK PREPARED '{gid}'")


def seconds_left(attack: Attack, spec: UserSpec) -> float:
    query = "SELECT extract(epoch FROM rolvaliduntil - clock_timestamp())::float FROM pg_roles WHERE rolname = %s"
    ((left,),) = attack.query(query, spec.username)
    return float(left)


def can_log_in_with(attack: Attack, spec: UserSpec, password: str) -> bool:
    try:
        attack.harness.login(spec, password=password).close()
    except psycopg.OperationalError:
        return False
    return True


def test_set_password_does_not_wait_for_a_lock_of_the_user(attack: Attack) -> None:
    spec = attack.user(readonly())
    own_role_held(attack, spec)
    refused = refusal(lambda: attack.harness.adapter().set_password(spec.username, "NewSecret0Word"))
    assert can_log_in_with(attack, spec, "NewSecret0Word"), f"the new password does not log in: {refused}"


def test_set_expiry_does_not_wait_for_a_lock_of_the_user(attack: Attack) -> None:
    spec = attack.user(readonly())
    require(seconds_left(attack, spec) > SOON, "the end is far away at first")
    own_role_held(attack, spec)
    refused = refusal(lambda: attack.harness.adapter().set_expiry(spec.username, SOON))
    assert seconds_left(attack, spec) <= SOON, refused


def test_a_lock_of_a_transaction_prepared_as_the_level_is_released_or_named(attack: Attack) -> None:
    """The prepared transaction belongs to the level's role and holds a lock on the user's table."""
    spec = attack.user(acting_writer())
    run_setup(attack.session(spec), "CREATE TABLE shop.mine (id int)")
    prepared_as_the_level(attack, spec, "SELECT * FROM shop.mine")
    end = attack.end(spec)
    attack.assert_locked_out(spec, end)
    assert end.removal is not None or HIDDEN in end.error, end.error


def given_by_another(attack: Attack, spec: UserSpec, finish: Callable[[Session], object]) -> UserSpec:
    other = attack.user(writer())
    session = attack.transaction(other)
    run_setup(session, "CREATE TABLE shop.theirs (id int)")
    session.commit()
    run_setup(session, f"GRANT SELECT ON shop.theirs TO {spec.username}")
    finish(session)
    return other


def test_an_open_grant_of_another_user_is_ended_or_named(attack: Attack) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    other = given_by_another(attack, spec, lambda _: None)
    end = attack.end(spec)
    attack.assert_locked_out(spec, end, session)
    assert end.removal is not None or other.username in end.error, end.error


def test_a_user_with_rights_from_another_user_is_ended(attack: Attack) -> None:
    spec = attack.user(acting_writer())
    session = attack.session(spec)
    other = given_by_another(attack, spec, lambda session: session.commit())
    attack.assert_ended(spec, attack.end(spec, tries=1), session)
    attack.assert_ended(other, attack.end(other, tries=1))
