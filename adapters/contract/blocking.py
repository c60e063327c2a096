"""The contract of ``block_users``, ``drop_blocked_users`` and ``end_by_hand``: ends that fall together are blocked over one connection, and no user delays another."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from adapters.base import Adapter, AdapterError, LoginRefused, Rejected, UserSpec, UserToDrop, WrongServer
from adapters.contract.scene import HostileAct, Scene
from adapters.harness import TRIES, EngineHarness, Session, UserSpecs, can_log_in, everything_on, expect_within

USERS_TOGETHER = 12
BLOCKED_WITHIN_SECONDS = 3.0
"""For all of them together. Far above what it takes, and below what waiting for a lock of each would take."""
OTHERS_BESIDE = 3
BLOCKED_BESIDE_SECONDS = 5.0
"""For the users beside a hostile one. Below the time limit of a statement: a call that waits for the hostile user is slower."""


class BlockingContract:
    """Part of ``AdapterContract``."""

    def test_block_ends_sessions_and_refuses_logins_of_the_named_users_alone(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        named, other = _users(adapter, user_specs, harness, 2), _users(adapter, user_specs, harness, 1)[0]
        sessions = [harness.login(spec.username, spec.password) for spec in named for _ in range(2)]
        beside = harness.login(other.username, other.password)
        assert adapter.block_users([spec.username for spec in named]) == {spec.username for spec in named}
        assert not any(session.is_alive() for session in sessions)
        assert not any(can_log_in(harness, spec) for spec in named)
        assert all(harness.has_user(spec.username) for spec in named), "nothing is dropped"
        assert beside.is_alive()
        fresh = secrets.token_hex(16)
        adapter.set_expiry(other.username, 3600)
        adapter.set_password(other.username, fresh)
        harness.login(other.username, fresh).close()
        assert beside.read() > 0
        _close_and_drop(adapter, [*named, other], [*sessions, beside])

    def test_block_counts_absent_users_as_blocked(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        (spec,) = _users(adapter, user_specs, harness, 1)
        absent = user_specs.new(harness.reading)
        assert adapter.block_users([]) == frozenset()
        assert adapter.block_users([absent.username]) == {absent.username}
        assert not harness.has_user(absent.username)
        both = {absent.username, spec.username}
        assert adapter.block_users(sorted(both)) == both
        adapter.drop_user(spec.username, spec.level)
        assert adapter.block_users([spec.username]) == {spec.username}, "it was dropped"

    def test_block_leaves_the_user_of_another_ledger(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        other, (own,) = harness.adapter(ledger="anotherledgr"), _users(adapter, user_specs, harness, 1)
        foreign = user_specs.new(harness.reading)
        other.create_user(foreign)
        session = harness.login(foreign.username, foreign.password)
        assert adapter.block_users([foreign.username, own.username]) == {own.username}
        assert session.is_alive()
        assert can_log_in(harness, foreign)
        session.close()
        other.drop_user(foreign.username, foreign.level)
        adapter.drop_user(own.username, own.level)

    def test_drop_succeeds_after_a_block_that_was_repeated(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        specs = [user_specs.new(level) for level in (harness.reading, harness.writing, harness.narrow)]
        for spec in specs:
            adapter.create_user(spec)
        names = [spec.username for spec in specs]
        sessions = [harness.login(spec.username, spec.password) for spec in specs]
        for _ in range(2):
            assert adapter.block_users(names) == set(names)
        for spec in specs:
            removal = adapter.drop_user(spec.username, spec.level)
            assert not removal.was_absent
            assert removal.sessions_ended == 0, "the block had ended them"
            assert not harness.has_user(spec.username)
        assert not any(session.is_alive() for session in sessions)
        _close_and_drop(adapter, [], sessions)

    def test_blocked_user_can_be_created_again(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        (spec,) = _users(adapter, user_specs, harness, 1)
        assert adapter.block_users([spec.username]) == {spec.username}
        again = user_specs.new(harness.reading, username=spec.username)
        adapter.create_user(again)
        session = harness.login(again.username, again.password)
        assert session.read() > 0
        _close_and_drop(adapter, [again], [session])

    def test_block_of_users_that_end_together_is_fast(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        expect_within(BLOCKED_WITHIN_SECONDS, lambda: self._block_together(harness, adapter, user_specs))

    @staticmethod
    def _block_together(harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> float:
        specs = _users(adapter, user_specs, harness, USERS_TOGETHER)
        sessions = [harness.login(spec.username, spec.password) for spec in specs]
        began = time.monotonic()
        blocked = adapter.block_users([spec.username for spec in specs])
        took = time.monotonic() - began
        assert blocked == {spec.username for spec in specs}
        assert not any(session.is_alive() for session in sessions)
        _close_and_drop(adapter, specs, sessions)
        return took

    def test_block_checks_the_identity(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> None:
        adapter.identity()  # a server without a mark is the right one if it has the user
        (spec,) = _users(adapter, user_specs, harness, 1)
        with pytest.raises(WrongServer):
            harness.adapter(identity="another server").block_users([spec.username])
        assert can_log_in(harness, spec)
        adapter.drop_user(spec.username, spec.level)

    def test_quick_drop_leaves_nothing_of_whom_it_returns(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        specs = [user_specs.new(level) for level in (harness.reading, harness.writing, harness.narrow)]
        for spec in specs:
            adapter.create_user(spec)
        session = harness.login(specs[0].username, specs[0].password)
        assert adapter.block_users([spec.username for spec in specs]) == {spec.username for spec in specs}
        removals = adapter.drop_blocked_users([UserToDrop(username=one.username, level=one.level) for one in specs])
        for spec in specs:
            assert harness.has_user(spec.username) is (spec.username not in removals)
            assert not can_log_in(harness, spec)
        assert not any(one.was_absent or one.left_behind for one in removals.values())
        for spec in specs:
            assert adapter.drop_user(spec.username, spec.level).was_absent is (spec.username in removals)
        _close_and_drop(adapter, [], [session])

    def test_quick_drop_leaves_whoever_was_not_blocked(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        """A user that can log in, one with a session, an absent one, and the user of another ledger, even where it is blocked."""
        other, (own,) = harness.adapter(ledger="anotherledgr"), _users(adapter, user_specs, harness, 1)
        foreign, absent = user_specs.new(harness.reading), user_specs.new(harness.reading)
        other.create_user(foreign)
        other.block_users([foreign.username])
        session = harness.login(own.username, own.password)
        users = [UserToDrop(username=one.username, level=one.level) for one in (own, foreign, absent)]
        assert dict(adapter.drop_blocked_users(users)) == {}
        assert dict(adapter.drop_blocked_users([])) == {}
        assert session.is_alive()
        assert can_log_in(harness, own)
        assert harness.has_user(foreign.username)
        other.drop_user(foreign.username, foreign.level)
        _close_and_drop(adapter, [own], [session])

    def test_end_by_hand_names_the_user_and_no_secret(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        statements = adapter.end_by_hand(spec.username)
        assert statements
        assert any(spec.username in statement for statement in statements)
        assert not any(secret in statement for secret in harness.admin_secrets for statement in statements)

    def test_hostile_user_delays_no_other_block(self, scene: Scene, delaying_act: HostileAct) -> None:
        """The hostile user may be left out. The others are blocked in time, and whoever is returned has no login and no session."""
        adapter, harness = scene.adapter, scene.harness
        try:
            scene.spec = scene.user(delaying_act.level(scene))
        except Rejected:
            return  # no user of this level, no act
        beside = [[scene.user(harness.reading) for _ in range(OTHERS_BESIDE)] for _ in range(TRIES)]
        delaying_act.perform(scene)
        expect_within(BLOCKED_BESIDE_SECONDS, lambda: _block_beside(scene, beside.pop()))
        blocked = _without_error(lambda: adapter.block_users([scene.spec.username]))
        if scene.spec.username in blocked:
            assert not any(session.is_alive() for session in scene.sessions)
            assert not can_log_in(harness, scene.spec)


def _users(adapter: Adapter, user_specs: UserSpecs, harness: EngineHarness, number: int) -> list[UserSpec]:
    specs = [user_specs.new(harness.reading) for _ in range(number)]
    for spec in specs:
        adapter.create_user(spec)
    return specs


def _close_and_drop(adapter: Adapter, specs: list[UserSpec], sessions: list[Session]) -> None:
    for session in sessions:
        session.close()
    for spec in specs:
        adapter.drop_user(spec.username, spec.level)


def _block_beside(scene: Scene, specs: list[UserSpec]) -> float:
    """The duration of one call with the hostile user among ``specs``, which are all blocked by it. An act may end the grants of their level, so they were created before it."""
    names = [spec.username for spec in specs]
    with ExitStack() as stack:
        sessions = [scene.harness.login(spec.username, spec.password) for spec in specs]
        for session in sessions:
            stack.callback(session.close)
        began = time.monotonic()
        blocked = _without_error(lambda: scene.adapter.block_users([*names[:1], scene.spec.username, *names[1:]]))
        took = time.monotonic() - began
        assert blocked >= set(names), "the others are blocked"
        assert not any(session.is_alive() for session in sessions)
    for spec in specs:
        with pytest.raises(LoginRefused):
            scene.harness.login(spec.username, spec.password)
        scene.adapter.drop_user(spec.username, spec.level)
    return took


def _without_error(verb: Callable[[], frozenset[str]]) -> frozenset[str]:
    try:
        return verb()
    except AdapterError as error:
        pytest.fail(f"{type(error).__name__}: {everything_on(error)[:400]}")
