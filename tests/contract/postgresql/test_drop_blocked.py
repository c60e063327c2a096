"""``drop_blocked_users``: users that have nothing are dropped together and read back; whoever has more is left to ``drop_user``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from adapters.base import Level, Removal, UserSpec, UserToDrop
from adapters.postgresql import PostgreSQL, drop_blocked
from adapters.postgresql.level import level_state as adapter_level_state
from tests.contract.postgresql.harness import EngineHarness, readonly, support, writer
from tests.contract.postgresql.test_block import made
from tests.contract.postgresql.test_locked_role import prepare_itself

TOGETHER = 30


def quick(adapter: PostgreSQL, specs: Sequence[UserSpec]) -> dict[str, Removal]:
    return dict(adapter.drop_blocked_users([UserToDrop(username=one.username, level=one.level) for one in specs]))


def blocked(harness: EngineHarness, number: int = 2, level: Level | None = None) -> list[UserSpec]:
    specs = [harness.spec(level or readonly()) for _ in range(number)]
    for spec in specs:
        harness.adapter().create_user(spec)
    assert harness.adapter().block_users([one.username for one in specs]) == {one.username for one in specs}
    return specs


@pytest.mark.parametrize("level", [readonly(), writer(), support()], ids=["reader", "writer", "grants"])
def test_users_without_anything_are_dropped_together(own_harness: EngineHarness, level: Level) -> None:
    """All of them in one transaction, with the managed role of their level where it has no other user."""
    specs = blocked(own_harness, TOGETHER, level)
    with own_harness.superuser() as c:
        before = c.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        removals = quick(own_harness.adapter(), specs)
        after = c.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        assert c.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'dbaccess_lvl%%'").fetchall() == []
    assert set(removals) == {one.username for one in specs}
    assert not any(own_harness.role_exists(one.username) for one in specs)
    assert before is not None
    assert after is not None
    assert int(str(after[0])) - int(str(before[0])) < TOGETHER


def test_a_managed_role_with_another_user_stays(own_harness: EngineHarness) -> None:
    live, ended = own_harness.spec(support()), own_harness.spec(support())
    for spec in (live, ended):
        own_harness.adapter().create_user(spec)
    own_harness.adapter().block_users([ended.username])
    removal = quick(own_harness.adapter(), [ended])[ended.username]
    assert removal.notes == ()
    with own_harness.login(live) as session:
        assert session.execute("SELECT count(*) FROM shop.customers").fetchone() is not None
    own_harness.adapter().drop_user(live.username, live.level)


def own_table(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser(harness.database) as c:
        c.execute(
            f"CREATE TABLE public.left_{spec.request_id} (); ALTER TABLE public.left_{spec.request_id} OWNER TO {spec.username}".encode()
        )


def gets_privilege(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser(harness.database) as c:
        c.execute(f"GRANT SELECT ON shop.orders TO {spec.username}".encode())


def gets_member(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser() as c:
        c.execute(f"CREATE ROLE friend_{spec.request_id}; GRANT {spec.username} TO friend_{spec.request_id}".encode())


def loses_mark(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser() as c:
        c.execute(f"COMMENT ON ROLE {spec.username} IS NULL".encode())


def becomes_admin(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser() as c:
        c.execute(f"ALTER ROLE {spec.username} CREATEDB".encode())


def may_log_in_again(harness: EngineHarness, spec: UserSpec) -> None:
    with harness.superuser() as c:
        c.execute(f"ALTER ROLE {spec.username} LOGIN".encode())


@pytest.mark.parametrize(
    "change", [own_table, gets_privilege, gets_member, loses_mark, becomes_admin, may_log_in_again]
)
def test_a_user_that_has_more_is_left_and_the_others_are_dropped(
    own_harness: EngineHarness, change: Callable[[EngineHarness, UserSpec], None]
) -> None:
    first, other, last = blocked(own_harness, 3)
    change(own_harness, other)
    removals = quick(own_harness.adapter(), [first, other, last])
    assert set(removals) == {first.username, last.username}
    assert own_harness.role_exists(other.username)
    own_harness.adapter().drop_user(other.username, other.level)
    assert not own_harness.role_exists(other.username)


def transactions(harness: EngineHarness) -> int:
    """The number of the next transaction of the server."""
    with harness.superuser() as c:
        row = c.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    return int(str(row[0]))


def test_a_user_that_has_more_costs_the_others_nothing(own_harness: EngineHarness) -> None:
    """It is left out before the drop, so the others are still dropped in one transaction."""
    specs = blocked(own_harness, TOGETHER)
    own_table(own_harness, specs[0])
    before = transactions(own_harness)
    assert set(quick(own_harness.adapter(), specs)) == {one.username for one in specs[1:]}
    assert transactions(own_harness) - before < TOGETHER
    own_harness.adapter().drop_user(specs[0].username, specs[0].level)


def test_a_user_with_a_session_is_left(own_harness: EngineHarness) -> None:
    """It logged in while its login was open again: the full drop ends what it does."""
    other, busy = blocked(own_harness, 2)
    with own_harness.superuser() as c:
        again = f"ALTER ROLE {busy.username} LOGIN PASSWORD '{busy.password}' VALID UNTIL 'infinity' CONNECTION LIMIT 5"
        c.execute(again.encode())
    with own_harness.login(busy):
        with own_harness.superuser() as c:
            c.execute(f"ALTER ROLE {busy.username} NOLOGIN".encode())
        assert set(quick(own_harness.adapter(), [other, busy])) == {other.username}
    own_harness.adapter().drop_user(busy.username, busy.level)


def test_logins_that_wait_leave_everybody_to_the_full_drop(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them may be a user's, and would be in after the drop."""
    specs = blocked(own_harness)
    monkeypatch.setattr(drop_blocked, "WAITING_LOGINS", "SELECT 1")
    assert quick(own_harness.adapter(), specs) == {}
    assert all(own_harness.role_exists(one.username) for one in specs)
    monkeypatch.undo()
    assert set(quick(own_harness.adapter(), specs)) == {one.username for one in specs}


def test_a_prepared_transaction_leaves_everybody_to_the_full_drop(own_harness: EngineHarness) -> None:
    """The server does not say on which roles it holds locks."""
    (holder,) = made(own_harness, 1)
    specs = blocked(own_harness)
    prepare_itself(own_harness, holder)
    assert quick(own_harness.adapter(), specs) == {}
    for spec in (holder, *specs):
        own_harness.adapter().drop_user(spec.username, spec.level)


def test_a_locked_role_is_left_after_a_short_wait(own_harness: EngineHarness) -> None:
    first, held, last = blocked(own_harness, 3)
    with own_harness.superuser() as c:
        with c.transaction():
            c.execute(f"ALTER ROLE {held.username} CONNECTION LIMIT 3".encode())
            removals = quick(own_harness.adapter(), [first, held, last])
        assert set(removals) == {first.username, last.username}
    assert set(quick(own_harness.adapter(), [held])) == {held.username}


def test_changes_of_the_level_are_in_the_receipts(own_harness: EngineHarness) -> None:
    adapter, level = own_harness.adapter(), writer()
    before = adapter.level_state(level)
    specs = blocked(own_harness, 2, level)
    with own_harness.superuser(own_harness.database) as c:
        c.execute(f"CREATE TABLE shop.younger (); ALTER TABLE shop.younger OWNER TO {level.roles[0]}".encode())
    users = [UserToDrop(username=one.username, level=level, before=before) for one in specs]
    removals = adapter.drop_blocked_users(users)
    assert all(any("younger" in note for note in removals[one.username].notes) for one in specs)


def test_names_of_changes_are_read_once_for_equal_states(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a level that changed while many grants were live would delay the receipts of all of them."""
    adapter, level = own_harness.adapter(), writer()
    before = adapter.level_state(level)
    specs = blocked(own_harness, 10, level)
    with own_harness.superuser(own_harness.database) as c:
        c.execute(f"CREATE TABLE shop.later (); ALTER TABLE shop.later OWNER TO {level.roles[0]}".encode())
    readings = list[object]()
    read = adapter_level_state._state

    def counted(*arguments: Any, **named: Any) -> Any:
        readings.append(named.get("before"))
        return read(*arguments, **named)

    monkeypatch.setattr(adapter_level_state, "_state", counted)
    users = [UserToDrop(username=one.username, level=level, before=before) for one in specs]
    removals = adapter.drop_blocked_users(users)
    assert all(any("later" in note for note in removals[one.username].notes) for one in specs)
    assert len(readings) == 2


def test_names_of_changes_delay_no_group(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time for the names, the receipts still say what kind of thing has changed."""
    adapter, level = own_harness.adapter(), writer()
    before = adapter.level_state(level)
    (spec,) = blocked(own_harness, 1, level)
    with own_harness.superuser(own_harness.database) as c:
        c.execute(f"CREATE TABLE shop.latest (); ALTER TABLE shop.latest OWNER TO {level.roles[0]}".encode())
    monkeypatch.setattr(adapter_level_state, "NAMES_SECONDS", -1.0)
    removals = adapter.drop_blocked_users([UserToDrop(username=spec.username, level=level, before=before)])
    assert any("Changed while" in note for note in removals[spec.username].notes)
