"""The contract of ``set_password`` and ``set_expiry``, and of the end that a server enforces by itself."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from adapters.base import Adapter, Enforced, LoginRefused, Rejected, UserSpec
from adapters.harness import ABOUT_NOW, EngineHarness, Session, UserSpecs, can_log_in, wait_until

SHORT_LIVES_SECONDS = (1.5, 6.0, 24.0)


class ChangingContract:
    """Part of ``AdapterContract``."""

    def test_set_password_replaces_the_password_and_keeps_sessions(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec, fresh = user_specs.new(harness.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        adapter.set_password(spec.username, fresh)
        with pytest.raises(LoginRefused):
            harness.login(spec.username, spec.password)
        harness.login(spec.username, fresh).close()
        assert session.is_alive()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_changing_an_absent_user_is_rejected_and_creates_nothing(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        with pytest.raises(Rejected):
            adapter.set_password(spec.username, spec.password)
        with pytest.raises(Rejected):
            adapter.set_expiry(spec.username, 60)
        assert not harness.has_user(spec.username)

    def test_server_enforces_the_end_as_check_says(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        enforced = adapter.check().enforced
        if enforced is Enforced.NOTHING:
            pytest.skip("this server ends nothing by itself")
        spec, session = self._log_in_shortly_before_the_end(harness, adapter, user_specs)
        wait_until(lambda: not can_log_in(harness, spec))
        if enforced is Enforced.SESSIONS:
            wait_until(lambda: not session.is_alive())
            wait_until(lambda: not harness.has_user(spec.username))
        session.close()
        removal = adapter.drop_user(spec.username, spec.level)
        assert not removal.was_absent, "an end by the server itself is not reported as a missing user"

    @staticmethod
    def _log_in_shortly_before_the_end(
        harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> tuple[UserSpec, Session]:
        """A session of a user that soon expires. On a busy machine the first lifetimes may be too short to log in."""
        for remaining in SHORT_LIVES_SECONDS:
            spec = user_specs.new(harness.reading, remaining=remaining)
            adapter.create_user(spec)
            try:
                return spec, harness.login(spec.username, spec.password)
            except LoginRefused:
                adapter.drop_user(spec.username, spec.level)
        pytest.fail(f"no login within {SHORT_LIVES_SECONDS[-1]} s")

    def test_expiry_moves_and_sessions_stay(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading, remaining=60)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        adapter.set_expiry(spec.username, 3600)
        self._assert_ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.set_expiry(spec.username, 1800)
        self._assert_ends_in(adapter, spec.username, timedelta(minutes=30))
        assert session.is_alive()
        adapter.set_expiry(spec.username, -1)
        if adapter.check().enforced is not Enforced.NOTHING:
            wait_until(lambda: not can_log_in(harness, spec))
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_expiry_does_not_depend_on_the_servers_time_zone(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading, remaining=3600)
        adapter.create_user(spec)
        self._assert_ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.drop_user(spec.username, spec.level)

    @staticmethod
    def _assert_ends_in(adapter: Adapter, username: str, remaining: timedelta) -> None:
        found = next(u for u in adapter.list_users() if u.username == username)
        assert found.expires_at is not None
        assert abs(found.expires_at - datetime.now(UTC) - remaining) < ABOUT_NOW
