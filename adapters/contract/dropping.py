"""The contract of ``drop_user``: every session ends within a second, the user is gone, and a crash at any step leaves nothing that a repeat cannot end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from adapters.base import Adapter, LoginRefused
from adapters.harness import (
    ABOUT_NOW,
    PATIENCE,
    Died,
    EngineHarness,
    Session,
    UserSpecs,
    can_log_in,
    expect_within,
    wait_until,
)

SESSION_ENDS_WITHIN_SECONDS = 1.0
STORM_THREADS = 8
PARALLEL_USERS = 16
STATEMENT_SECONDS = 20.0


class DroppingContract:
    """Part of ``AdapterContract``."""

    def test_drop_ends_open_sessions(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> None:
        expect_within(SESSION_ENDS_WITHIN_SECONDS, lambda: self._drop_with_open_sessions(harness, adapter, user_specs))

    def _drop_with_open_sessions(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> float:
        """The duration of the drop in seconds."""
        spec = user_specs.new(harness.writing)
        adapter.create_user(spec)
        sessions = [harness.login(spec.username, spec.password) for _ in range(3)]
        began = time.monotonic()
        removal = adapter.drop_user(spec.username, spec.level)
        took = time.monotonic() - began
        assert not any(session.is_alive() for session in sessions)
        for session in sessions:
            session.close()
        if harness.counts_idle_sessions:
            assert removal.sessions_ended == len(sessions)
        assert not removal.was_absent
        assert abs(removal.read_back_at - datetime.now(UTC)) < ABOUT_NOW
        assert not harness.has_user(spec.username)
        assert not can_log_in(harness, spec)
        return took

    def test_drop_ends_a_running_statement(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        expect_within(
            SESSION_ENDS_WITHIN_SECONDS, lambda: self._drop_with_a_running_statement(harness, adapter, user_specs)
        )

    def _drop_with_a_running_statement(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> float:
        """The duration of the drop in seconds."""
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        with ThreadPoolExecutor(1) as pool:
            statement = pool.submit(session.work, STATEMENT_SECONDS)
            wait_until(lambda: adapter.activity([spec.username])[0].sessions > 0)
            time.sleep(0.2)  # the statement must have begun, which no adapter can tell
            began = time.monotonic()
            removal = adapter.drop_user(spec.username, spec.level)
            with pytest.raises(Exception, match=r"."):
                statement.result(timeout=PATIENCE)
            took = time.monotonic() - began
        assert removal.sessions_ended == 1
        assert not session.is_alive()
        session.close()
        return took

    def test_create_can_be_repeated_or_dropped_after_a_crash_at_each_step(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        first = user_specs.new(harness.narrow)
        steps = self._count_steps(harness, lambda: adapter.create_user(first))
        adapter.drop_user(first.username, first.level)
        for step in range(1, steps + 1):
            spec = user_specs.new(harness.narrow)
            with harness.dies_after(step), pytest.raises(Died):
                harness.adapter().create_user(spec)
            retry = user_specs.new(harness.narrow, username=spec.username)
            if step % 2:
                adapter.create_user(retry)
                harness.login(retry.username, retry.password).close()
            adapter.drop_user(spec.username, spec.level)
            assert not harness.has_user(spec.username), f"after step {step}"
            assert not can_log_in(harness, retry)

    def test_drop_can_be_repeated_after_a_crash_at_each_step(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        first = user_specs.new(harness.narrow)
        adapter.create_user(first)
        steps = self._count_steps(harness, lambda: adapter.drop_user(first.username, first.level))
        for step in range(1, steps + 1):
            spec = user_specs.new(harness.narrow)
            adapter.create_user(spec)
            session = harness.login(spec.username, spec.password)
            with harness.dies_after(step), pytest.raises(Died):
                harness.adapter().drop_user(spec.username, spec.level)
            adapter.drop_user(spec.username, spec.level)
            assert not harness.has_user(spec.username), f"after step {step}"
            assert not session.is_alive(), f"after step {step}"
            session.close()

    @staticmethod
    def _count_steps(harness: EngineHarness, verb: Callable[[], object]) -> int:
        with harness.dies_after(None) as ran:
            verb()
        assert ran, "the verb sent nothing to the server"
        return len(ran)

    def test_dropping_an_absent_user_succeeds_and_says_so(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        assert adapter.drop_user(spec.username, spec.level).was_absent
        adapter.create_user(spec)
        assert not adapter.drop_user(spec.username, spec.level).was_absent
        second = adapter.drop_user(spec.username, spec.level)
        assert second.was_absent
        assert second.sessions_ended == 0

    def test_drop_during_a_storm_of_logins_leaves_no_session(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        is_over, lock, opened = threading.Event(), threading.Lock(), list[Session]()

        def log_in_repeatedly() -> None:
            while not is_over.is_set():
                try:
                    session = harness.login(spec.username, spec.password)
                except LoginRefused:
                    continue
                with lock:
                    opened.append(session)

        threads = [threading.Thread(target=log_in_repeatedly) for _ in range(STORM_THREADS)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(opened) > 1)
            adapter.drop_user(spec.username, spec.level)
            with lock:
                assert not any(session.is_alive() for session in opened)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert not any(session.is_alive() for session in opened)
        for session in opened:
            session.close()
        assert not harness.has_user(spec.username)

    def test_parallel_creates_and_drops_all_succeed(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        specs = [user_specs.new(harness.reading if n % 2 else harness.writing) for n in range(PARALLEL_USERS)]
        with ThreadPoolExecutor(PARALLEL_USERS) as pool:
            list(pool.map(adapter.create_user, specs))
            for spec in specs:
                harness.login(spec.username, spec.password).close()
            list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
        assert not any(harness.has_user(spec.username) for spec in specs)
