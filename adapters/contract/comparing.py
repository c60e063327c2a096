"""The contract of ``compare_users`` and ``refresh_levels``: neither finds a difference where nobody changed anything."""

from __future__ import annotations

import secrets

from adapters.base import Adapter
from adapters.harness import EngineHarness, UserSpecs

SENTENCES_AT_MOST = 20
LONGEST_SENTENCE = 500


class ComparingContract:
    """Part of ``AdapterContract``."""

    def test_unchanged_and_absent_users_have_no_difference(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        specs = [user_specs.new(level) for level in (harness.reading, harness.writing, harness.narrow)]
        for spec in specs:
            adapter.create_user(spec)
        absent = user_specs.new(harness.reading)
        levels = {spec.username: spec.level for spec in (*specs, absent)}
        assert adapter.compare_users({}) == {}
        assert adapter.compare_users(levels) == {}
        changed = specs[0]
        adapter.set_expiry(changed.username, 3600)
        adapter.set_password(changed.username, fresh := secrets.token_hex(16))
        session = harness.login(changed.username, fresh)
        assert adapter.compare_users(levels) == {}, "passwords, expiries and sessions are not compared"
        session.close()
        for spec in specs:
            adapter.drop_user(spec.username, spec.level)

    def test_user_that_does_not_match_its_level_is_described(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        """Each user has one level and is compared with another."""
        wide, plain, narrow = (user_specs.new(level) for level in (harness.writing, harness.reading, harness.narrow))
        for spec in (wide, plain, narrow):
            adapter.create_user(spec)
        found = adapter.compare_users(
            {wide.username: harness.reading, plain.username: harness.reading, narrow.username: harness.writing}
        )
        assert found.keys() == {wide.username, narrow.username}
        for sentences in found.values():
            assert 0 < len(sentences) <= SENTENCES_AT_MOST
            assert all(sentence and len(sentence) <= LONGEST_SENTENCE for sentence in sentences)
        session = harness.login(wide.username, wide.password)
        session.write()
        session.close()
        for spec in (wide, plain, narrow):
            adapter.drop_user(spec.username, spec.level)

    def test_refresh_changes_nothing_where_levels_are_what_they_were(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        levels = [harness.narrow, harness.reading, harness.writing]
        assert adapter.refresh_levels([]) == []
        assert adapter.refresh_levels(levels) == [], "nobody has these levels"
        spec = user_specs.new(harness.narrow)
        adapter.create_user(spec)
        assert adapter.refresh_levels(levels) == []
        session = harness.login(spec.username, spec.password)
        assert session.read() > 0
        session.close()
        adapter.drop_user(spec.username, spec.level)
