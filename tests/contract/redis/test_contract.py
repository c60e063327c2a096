"""The contract of all engines, on Redis and Valkey, with the hostile acts."""

from __future__ import annotations

import secrets

import pytest

from adapters.base import Adapter
from adapters.contract import AdapterContract, UserSpecs, everything_on
from adapters.contract.acts import redis
from tests.contract.redis.harness import EngineHarness
from tests.contract.redis.hostile_harness import HostileHarness
from tests.servers.redis import REDIS


class TestRedis(AdapterContract):
    acts = redis.ACTS

    @pytest.fixture(params=["redis7", "valkey"])
    def hostile_harness(self, request: pytest.FixtureRequest) -> HostileHarness:
        return HostileHarness((request.getfixturevalue(request.param),))

    @pytest.fixture
    def harness(self, harness: EngineHarness) -> EngineHarness:
        return harness

    def test_no_secret_in_errors_or_in_the_servers_log(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:  # type: ignore[override]
        """Valkey and Redis 8 also redact the username in their log, so there the test looks for the redacted statements."""
        if harness.server.flavour is REDIS:
            super().test_no_secret_in_errors_or_in_the_servers_log(harness, adapter, user_specs)
            return
        spec, fresh = user_specs.new(harness.reading), secrets.token_hex(16)
        before = harness.log_text().count("ACL SETUSER (redacted)")
        adapter.create_user(spec)
        adapter.set_password(spec.username, fresh)
        adapter.drop_user(spec.username, spec.level)
        seen = harness.log_text()
        assert seen.count("ACL SETUSER (redacted)") == before + 2
        for error in self._provoke_errors(harness, user_specs):
            seen += everything_on(error)
        for secret in (spec.password, fresh, *harness.admin_secrets):
            assert secret not in seen
