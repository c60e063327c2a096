"""The contract of ``create_user``: the user can log in, has the rights of its level, and has no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adapters.base import Adapter, LoginRefused
from adapters.harness import Denied, EngineHarness, UserSpecs

SPECIAL_PASSWORDS = ("p'w\\x\"; DROP TABLE t; --", "%s{0}$1`id` \\'", "a:b@c/d?e#f&g=h+i>j<k!l~m")


class CreatingContract:
    """Part of ``AdapterContract``."""

    def test_read_level_reads_and_cannot_write(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        assert session.read() > 0
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_write_level_writes(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> None:
        spec = user_specs.new(harness.writing)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_narrow_level_reads_only_its_own_objects(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        wide, narrow = user_specs.new(harness.reading), user_specs.new(harness.narrow)
        for spec in (wide, narrow):
            adapter.create_user(spec)
        wide_session = harness.login(wide.username, wide.password)
        narrow_session = harness.login(narrow.username, narrow.password)
        assert wide_session.read_beside() > 0, "there are objects that the narrow level must not see"
        assert narrow_session.read() > 0
        with pytest.raises(Denied):
            narrow_session.read_beside()
        with pytest.raises(Denied):
            narrow_session.write()
        for session, spec in ((wide_session, wide), (narrow_session, narrow)):
            session.close()
            adapter.drop_user(spec.username, spec.level)

    def test_second_create_replaces_password_and_level(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        first = user_specs.new(harness.writing)
        adapter.create_user(first)
        second = user_specs.new(harness.reading, username=first.username)
        adapter.create_user(second)
        with pytest.raises(LoginRefused):
            harness.login(first.username, first.password)
        session = harness.login(second.username, second.password)
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(second.username, second.level)

    def test_password_with_special_characters_is_taken_literally(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        """The application's passwords are of letters, digits, ``-`` and ``_``, but an adapter must not rely on that."""
        for password in SPECIAL_PASSWORDS:
            spec = replace(user_specs.new(harness.reading), password=password)
            adapter.create_user(spec)
            harness.login(spec.username, password).close()
            adapter.set_password(spec.username, password[::-1])
            harness.login(spec.username, password[::-1]).close()
            adapter.drop_user(spec.username, spec.level)

    def test_pasted_command_logs_in(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> None:
        spec = user_specs.new(harness.reading)
        adapter.create_user(spec)
        answer = harness.login_by(adapter.endpoint(spec.level).paste(spec.username, spec.password))
        assert spec.username in answer
        adapter.drop_user(spec.username, spec.level)

    def test_adapter_logs_in_as_the_user(self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs) -> None:
        spec = user_specs.new(harness.reading)
        with pytest.raises(LoginRefused):
            adapter.login(spec.username, spec.password, spec.level)
        adapter.create_user(spec)
        with pytest.raises(LoginRefused):
            adapter.login(spec.username, "x" * 20, spec.level)
        login = adapter.login(spec.username, spec.password, spec.level)
        assert login.is_alive()
        adapter.drop_user(spec.username, spec.level)
        assert not login.is_alive()
        login.close()
