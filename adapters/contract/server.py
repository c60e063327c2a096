"""The contract of ``check``, ``identity`` and errors: the server is healthy, another one, stopped, or lacks a right of the bot."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

import pytest

from adapters.base import Adapter, AdapterError, Level, ServerDown, WrongServer
from adapters.harness import EngineHarness, UserSpecs, everything_on


class ServerContract:
    """Part of ``AdapterContract``."""

    def test_every_changing_verb_checks_the_identity(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        assert adapter.identity() == adapter.check().identity
        spec, wrong = user_specs.new(harness.reading), harness.adapter(identity="another server")
        adapter.create_user(spec)
        verbs: tuple[Callable[[], object], ...] = (
            lambda: wrong.create_user(spec),
            lambda: wrong.set_password(spec.username, "x" * 20),
            lambda: wrong.set_expiry(spec.username, 1),
            lambda: wrong.drop_user(spec.username, spec.level),
        )
        for verb in verbs:
            with pytest.raises(WrongServer):
                verb()
        harness.login(spec.username, spec.password).close()
        harness.adapter(identity=adapter.identity()).drop_user(spec.username, spec.level)

    def test_healthy_server_has_no_problems(self, harness: EngineHarness, adapter: Adapter) -> None:
        health = adapter.check([harness.reading, harness.writing])
        assert health.problems == ()
        assert re.search(r"\d", health.version)

    def test_check_names_each_missing_right_and_its_remedy(self, harness: EngineHarness) -> None:
        lacking = harness.lacking()
        assert lacking
        for right, adapter in lacking.items():
            problems = adapter.check([harness.reading, harness.narrow]).problems
            findings = [f for f in problems if right in f"{f.what} {f.remedy}"]
            assert findings, f"check does not name {right}"
            assert any(f.remedy for f in findings), f"check does not say how to give {right}"

    def test_stopped_server_is_server_down_and_a_later_drop_succeeds(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        harness.stop()
        try:
            for verb in (adapter.check, lambda: adapter.drop_user(spec.username, spec.level)):
                with pytest.raises(ServerDown):
                    verb()
        finally:
            harness.start()
        assert not adapter.drop_user(spec.username, spec.level).was_absent

    def test_no_secret_in_errors_or_in_the_servers_log(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec, fresh = user_specs.new(harness.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        adapter.set_password(spec.username, fresh)
        adapter.drop_user(spec.username, spec.level)
        seen = harness.log_text()
        assert spec.username in seen, "the log must contain the adapter's statements, or the test proves nothing"
        for error in self._provoke_errors(harness, user_specs):
            seen += everything_on(error)
        for secret in (spec.password, fresh, *harness.admin_secrets):
            assert secret not in seen

    @staticmethod
    def _provoke_errors(harness: EngineHarness, user_specs: UserSpecs) -> list[AdapterError]:
        """Errors of calls that were given a password: an absent user, another server, an unknown role."""
        found: list[AdapterError] = []
        spec = user_specs.new(harness.reading)
        adapter, wrong = harness.adapter(), harness.adapter(identity="another server")
        verbs: tuple[Callable[[], object], ...] = (
            lambda: adapter.set_password(spec.username, spec.password),
            lambda: wrong.create_user(spec),
            lambda: adapter.create_user(user_specs.new(Level(name="x", roles=("no_such_role",)))),
        )
        for verb in verbs:
            with pytest.raises(AdapterError) as caught:
                verb()
            found.append(caught.value)
        return found
