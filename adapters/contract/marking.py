"""The contract of marks: which users an adapter may change, drop and list."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from adapters.base import Adapter, ForeignUser, Rejected, UserSpec
from adapters.harness import EngineHarness, UserSpecs


class MarkingContract:
    """Part of ``AdapterContract``."""

    def test_user_without_a_mark_is_never_changed_but_can_be_dropped(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        """The drop may be Rejected where the server lets the bot drop only users that the bot made. The error then has a remedy."""
        spec, password = user_specs.new(harness.reading), secrets.token_hex(12)
        harness.make_foreign_user(spec.username, password)
        session = harness.login(spec.username, password)
        self._assert_cannot_be_changed(adapter, spec)
        assert session.is_alive()
        harness.login(spec.username, password).close()
        refused = self._try_to_drop(adapter, spec)
        if refused is None:
            assert not session.is_alive()
            assert not harness.has_user(spec.username)
        else:
            assert refused.remedy
        session.close()

    def test_user_of_another_ledger_is_neither_changed_nor_dropped(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        other, spec = harness.adapter(ledger="anotherledgr"), user_specs.new(harness.reading)
        other.create_user(spec)
        self._assert_cannot_be_changed(adapter, user_specs.new(harness.writing, username=spec.username))
        with pytest.raises(ForeignUser):
            adapter.drop_user(spec.username, spec.level)
        harness.login(spec.username, spec.password).close()
        found = next(u for u in adapter.list_users() if u.username == spec.username)
        assert (found.ledger, found.request_id) == ("anotherledgr", spec.request_id)
        other.drop_user(spec.username, spec.level)

    def test_user_of_another_prefix_is_not_touched_or_listed(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        spec, password = user_specs.new(harness.reading), secrets.token_hex(12)
        other = replace(spec, username=f"k{spec.username}"[:32])
        harness.make_foreign_user(other.username, password)
        for verb in (
            lambda: adapter.create_user(other),
            lambda: adapter.set_password(other.username, password),
            lambda: adapter.drop_user(other.username, other.level),
        ):
            with pytest.raises((Rejected, ForeignUser)):
                verb()
        assert other.username not in {user.username for user in adapter.list_users()}
        harness.login(other.username, password).close()

    @staticmethod
    def _try_to_drop(adapter: Adapter, spec: UserSpec) -> Rejected | None:
        """The error of a drop that the server does not allow, or None."""
        try:
            adapter.drop_user(spec.username, spec.level)
        except Rejected as error:
            return error
        return None

    @staticmethod
    def _assert_cannot_be_changed(adapter: Adapter, spec: UserSpec) -> None:
        with pytest.raises(ForeignUser):
            adapter.create_user(spec)
        with pytest.raises(ForeignUser):
            adapter.set_password(spec.username, spec.password)
        with pytest.raises(ForeignUser):
            adapter.set_expiry(spec.username, 1)

    @pytest.mark.parametrize(
        "name",
        ["admin", 'x"; DROP TABLE t; --', "{p}1_a'b_0000", "{p}1_\U0001f600_0000", "{p}0_a_0000", "{p}1_a_0000\n", ""],
    )
    def test_create_rejects_a_name_that_does_not_match_the_pattern(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs, name: str
    ) -> None:
        spec = user_specs.new(harness.reading, username=name.replace("{p}", harness.prefix) or " ")
        with pytest.raises(Rejected):
            adapter.create_user(spec)
        assert not harness.has_user(spec.username)

    def test_list_users_and_activity_show_live_users_only(
        self, harness: EngineHarness, adapter: Adapter, user_specs: UserSpecs
    ) -> None:
        active, idle = user_specs.new(harness.reading), user_specs.new(harness.reading)
        for spec in (active, idle):
            adapter.create_user(spec)
        session = harness.login(active.username, active.password)
        found = {user.username: user for user in adapter.list_users()}
        assert (found[active.username].ledger, found[active.username].request_id) == (
            harness.ledger,
            active.request_id,
        )
        activity = {a.username: a for a in adapter.activity([active.username, idle.username])}
        if harness.counts_idle_sessions:
            assert activity[active.username].sessions == 1
        assert activity[idle.username].sessions == 0
        session.close()
        for spec in (active, idle):
            adapter.drop_user(spec.username, spec.level)
        assert not {active.username, idle.username} & {user.username for user in adapter.list_users()}
