"""``block_users`` and ``end_by_hand``: users whose logins cannot be blocked are left out, and delay nobody."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
import pytest

from adapters.base import LoginRefused, Secrets, ServerDown, UserSpec
from adapters.contract import expect_within, wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.attacks import Attack, succeeds
from tests.contract.postgresql.harness import ContractHarness, EngineHarness, readonly, writer
from tests.contract.postgresql.standby_pair import Pair, opened
from tests.contract.postgresql.test_attacks_exhaustion import (
    fill_lock_table,
    is_closed_to_logins,
    used_before,
)
from tests.contract.postgresql.test_locked_role import prepare_itself

LOCKED, FREE = 4, 8
WITHIN_SECONDS = 4.0
"""Well below one lock time-out of 4 s for each of the locked users."""


def made(harness: EngineHarness, number: int) -> list[UserSpec]:
    adapter, specs = harness.adapter(), [harness.spec(readonly()) for _ in range(number)]
    for spec in specs:
        adapter.create_user(spec)
    return specs


def refuses(harness: EngineHarness, spec: UserSpec) -> bool:
    with pytest.raises(psycopg.OperationalError) as refused:
        harness.login(spec)
    return "not permitted to log in" in str(refused.value) or "password authentication failed" in str(refused.value)


@pytest.fixture
def locked(own_harness: EngineHarness) -> Iterator[list[UserSpec]]:
    """Users whose role is locked by a prepared transaction: nothing but its rollback frees it."""
    specs = made(own_harness, LOCKED)
    for spec in specs:
        prepare_itself(own_harness, spec)
    yield specs
    for spec in specs:
        own_harness.adapter().drop_user(spec.username, spec.level)


def test_users_whose_role_is_locked_delay_and_undo_nobody(own_harness: EngineHarness, locked: list[UserSpec]) -> None:
    expect_within(WITHIN_SECONDS, lambda: block_among(own_harness, locked))


def block_among(harness: EngineHarness, locked: list[UserSpec]) -> float:
    free, adapter = made(harness, FREE), harness.adapter()
    mixed = [spec.username for pair in zip(locked, free, strict=False) for spec in pair]
    mixed += [spec.username for spec in free if spec.username not in mixed]
    began = time.monotonic()
    blocked = adapter.block_users(mixed)
    took = time.monotonic() - began
    assert blocked == {spec.username for spec in free}
    assert all(refuses(harness, spec) for spec in free)
    for spec in free:
        assert not adapter.drop_user(spec.username, spec.level).notes
    return took


def test_a_user_that_was_made_superuser_is_left_out(own_harness: EngineHarness) -> None:
    """The bot may neither end its sessions nor change it. The sessions of the others are ended all the same."""
    strong, weak = made(own_harness, 2)
    with own_harness.superuser() as c:
        c.execute(f"ALTER ROLE {strong.username} SUPERUSER".encode())
    with (
        contextlib.closing(own_harness.login(strong)) as left,
        contextlib.closing(own_harness.login(weak)) as ended,
    ):
        assert own_harness.adapter().block_users([strong.username, weak.username]) == {weak.username}
        assert succeeds(left)
        assert not succeeds(ended)
    assert refuses(own_harness, weak)
    with own_harness.superuser() as c:
        c.execute(f"ALTER ROLE {strong.username} NOSUPERUSER".encode())
    for spec in (strong, weak):
        own_harness.adapter().drop_user(spec.username, spec.level)


def test_a_bot_that_is_no_member_any_more_ends_the_sessions(own_harness: EngineHarness) -> None:
    (spec,) = made(own_harness, 1)
    with own_harness.superuser() as c:
        c.execute(f"REVOKE {spec.username} FROM {own_harness.owner} CASCADE".encode())
        if own_harness.server.version >= 16:
            c.execute(f"GRANT {spec.username} TO {own_harness.owner} WITH ADMIN TRUE, INHERIT FALSE".encode())
    with contextlib.closing(own_harness.login(spec)) as session:
        assert own_harness.adapter().block_users([spec.username]) == {spec.username}
        assert not succeeds(session)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_names_that_dbaccess_does_not_make_are_left_out(own_harness: EngineHarness) -> None:
    name = f"k{own_harness.username()}"[:32]
    ContractHarness(own_harness).make_foreign_user(name, "Foreign0Password")
    assert own_harness.adapter().block_users([name, own_harness.bot, "postgres"]) == frozenset()
    url = own_harness.server.url(name, "Foreign0Password", own_harness.database)
    psycopg.connect(url).close()


def test_a_standby_ends_its_own_sessions_and_blocks_nobody(paired: EngineHarness, pair: Pair) -> None:
    """A user that is absent there may be on the primary."""
    spec, session = opened(paired, pair)
    url = paired.secrets().admin_url.replace(f":{pair.primary.port}/", f":{pair.standby.port}/")
    on_standby = PostgreSQL(paired.target(replicas=()), Secrets(admin_url=url))
    with pytest.raises(ServerDown, match="standby"):
        on_standby.block_users([spec.username, paired.username()])
    wait_until(lambda: not session.is_alive())
    ContractHarness(paired).login(spec.username, spec.password).close()
    paired.adapter().drop_user(spec.username, spec.level)


def test_users_that_fill_the_server_are_blocked(attack: Attack) -> None:
    """No new connection gets in. The held one ends their sessions."""
    adapter = used_before(attack)
    full, quiet = attack.user(readonly(), adapter), attack.user(writer(), adapter)
    attack.wait_for_held_connection()
    attack.stack.callback(wait_until, lambda: not is_closed_to_logins(attack))
    session = attack.session(full)
    fill_lock_table(session)
    assert is_closed_to_logins(attack)
    assert adapter.block_users([quiet.username, full.username]) == {quiet.username, full.username}
    assert not succeeds(session)
    for spec in (full, quiet):
        assert not attack.may_log_in(spec)
        adapter.drop_user(spec.username, spec.level)


def test_statements_by_hand_end_the_user(own_harness: EngineHarness) -> None:
    (spec,) = made(own_harness, 1)
    with contextlib.closing(own_harness.login(spec)) as session:
        with own_harness.superuser() as c:
            for statement in own_harness.adapter().end_by_hand(spec.username):
                c.execute(statement.encode())
        wait_until(lambda: not succeeds(session))
    with pytest.raises(LoginRefused):
        ContractHarness(own_harness).login(spec.username, spec.password)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_statements_by_hand_quote_the_name(own_harness: EngineHarness) -> None:
    terminate, block, _ = own_harness.adapter().end_by_hand('it\'s "x"')
    assert "usename = 'it''s \"x\"';" in terminate
    assert block == 'ALTER ROLE "it\'s ""x""" NOLOGIN;'
