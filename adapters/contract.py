"""What every adapter promises, as tests: they judge by logging in as the temporary user.

A package that brings an engine subclasses ``AdapterContract`` in its own tests and gives it a fixture ``harness``. Needs pytest,
a real server, and nothing of the application::

    class TestMine(AdapterContract):
        @pytest.fixture
        def bench(self) -> Bench: ...
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adapters.base import (
    Adapter,
    AdapterError,
    Enforced,
    ForeignUser,
    Level,
    LoginRefused,
    Rejected,
    ServerDown,
    UserSpec,
    WrongServer,
)
from adapters.harness import PATIENCE, Denied, Died, EngineHarness, Named, Session, expect_within, wait_until

__all__ = [
    "AdapterContract",
    "Denied",
    "Died",
    "EngineHarness",
    "LoginRefused",
    "Named",
    "Session",
    "everything_on",
    "expect_within",
    "wait_until",
]

SESSION_ENDS_WITHIN = 1.0
MOMENTS = (1.5, 6.0, 24.0)
ABOUT_NOW = timedelta(minutes=1)
"""What a busy machine may take between two looks; a clock or a time zone that is wrong is further off."""

STORM_THREADS = 8
PARALLEL = 16
WORK_SECONDS = 20.0
HOSTILE_PASSWORDS = ("p'w\\x\"; DROP TABLE t; --", "%s{0}$1`id` \\'", "a:b@c/d?e#f&g=h+i>j<k!l~m")


class AdapterContract:
    """The tests. ``harness`` is the subclass's own fixture."""

    @pytest.fixture
    def named(self, harness: EngineHarness) -> Named:
        return Named(harness)

    @pytest.fixture
    def adapter(self, harness: EngineHarness) -> Adapter:
        return harness.adapter()

    # Making.

    def test_create_reads_and_does_not_write(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        assert session.read() > 0
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_create_writes_where_the_level_does(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.writing)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_a_narrow_level_sees_only_its_own(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        wide, spec = named.spec(harness.reading), named.spec(harness.narrow)
        for one in (wide, spec):
            adapter.create_user(one)
        everything, session = harness.login(wide.username, wide.password), harness.login(spec.username, spec.password)
        assert everything.read_beside() > 0, "there must be something it could see"
        assert session.read() > 0
        with pytest.raises(Denied):
            session.read_beside()
        with pytest.raises(Denied):
            session.write()
        for login, one in ((everything, wide), (session, spec)):
            login.close()
            adapter.drop_user(one.username, one.level)

    def test_create_again_sets_password_and_level_anew(
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        first = named.spec(harness.writing)
        adapter.create_user(first)
        second = named.spec(harness.reading, username=first.username)
        adapter.create_user(second)
        with pytest.raises(LoginRefused):
            harness.login(first.username, first.password)
        session = harness.login(second.username, second.password)
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(second.username, second.level)

    def test_a_hostile_password_is_inert(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        """Ours are of letters, digits, ``-`` and ``_``; nothing relies on it."""
        for password in HOSTILE_PASSWORDS:
            spec = replace(named.spec(harness.reading), password=password)
            adapter.create_user(spec)
            harness.login(spec.username, password).close()
            adapter.set_password(spec.username, password[::-1])
            harness.login(spec.username, password[::-1]).close()
            adapter.drop_user(spec.username, spec.level)

    def test_the_pasted_command_logs_in(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
        adapter.create_user(spec)
        said = harness.login_by(adapter.endpoint(spec.level).paste(spec.username, spec.password))
        assert spec.username in said
        adapter.drop_user(spec.username, spec.level)

    # Changing.

    def test_set_password_ends_the_old_one_and_no_session(
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        spec, fresh = named.spec(harness.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        adapter.set_password(spec.username, fresh)
        with pytest.raises(LoginRefused):
            harness.login(spec.username, spec.password)
        harness.login(spec.username, fresh).close()
        assert session.is_alive()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_set_password_makes_nobody(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
        with pytest.raises(Rejected):
            adapter.set_password(spec.username, spec.password)
        with pytest.raises(Rejected):
            adapter.set_expiry(spec.username, 60)
        assert not harness.has_user(spec.username)

    def test_the_server_ends_the_login(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        enforced = adapter.check().enforced
        if enforced is Enforced.NOTHING:
            pytest.skip("this server ends nothing by itself")
        spec, session = self._in_for_a_moment(harness, adapter, named)
        wait_until(lambda: not self._lets_in(harness, spec))
        if enforced is Enforced.SESSIONS:
            wait_until(lambda: not session.is_alive())
            wait_until(lambda: not harness.has_user(spec.username))
        session.close()
        removal = adapter.drop_user(spec.username, spec.level)
        assert not removal.was_absent, "it ended as it should, which is no surprise"

    @staticmethod
    def _in_for_a_moment(harness: EngineHarness, adapter: Adapter, named: Named) -> tuple[UserSpec, Session]:
        """A session of a user whose end is near; not so near that a busy machine is too slow to log in before it."""
        for remaining in MOMENTS:
            spec = named.spec(harness.reading, remaining=remaining)
            adapter.create_user(spec)
            try:
                return spec, harness.login(spec.username, spec.password)
            except LoginRefused:
                adapter.drop_user(spec.username, spec.level)
        pytest.fail(f"no login within {MOMENTS[-1]} s")

    def test_the_end_moves(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading, remaining=60)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        adapter.set_expiry(spec.username, 3600)
        self._ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.set_expiry(spec.username, 1800)
        self._ends_in(adapter, spec.username, timedelta(minutes=30))
        assert session.is_alive()
        adapter.set_expiry(spec.username, -1)
        if adapter.check().enforced is not Enforced.NOTHING:
            wait_until(lambda: not self._lets_in(harness, spec))
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_the_end_is_by_the_servers_clock(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading, remaining=3600)
        adapter.create_user(spec)
        self._ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.drop_user(spec.username, spec.level)

    @staticmethod
    def _ends_in(adapter: Adapter, username: str, remaining: timedelta) -> None:
        found = next(u for u in adapter.list_users() if u.username == username)
        assert found.expires_at is not None
        assert abs(found.expires_at - datetime.now(UTC) - remaining) < ABOUT_NOW

    @staticmethod
    def _lets_in(harness: EngineHarness, spec: UserSpec) -> bool:
        try:
            harness.login(spec.username, spec.password).close()
        except LoginRefused:
            return False
        return True

    # Taking away.

    def test_drop_ends_open_sessions(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        expect_within(SESSION_ENDS_WITHIN, lambda: self._drop_with_open_sessions(harness, adapter, named))

    def _drop_with_open_sessions(self, harness: EngineHarness, adapter: Adapter, named: Named) -> float:
        spec = named.spec(harness.writing)
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
        assert not self._lets_in(harness, spec)
        return took

    def test_drop_ends_what_runs(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        expect_within(SESSION_ENDS_WITHIN, lambda: self._drop_with_work(harness, adapter, named))

    def _drop_with_work(self, harness: EngineHarness, adapter: Adapter, named: Named) -> float:
        spec = named.spec(harness.reading)
        adapter.create_user(spec)
        session = harness.login(spec.username, spec.password)
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(session.work, WORK_SECONDS)
            wait_until(lambda: adapter.activity([spec.username])[0].sessions > 0)
            time.sleep(0.2)  # the operation must have begun, and only the server could tell
            began = time.monotonic()
            removal = adapter.drop_user(spec.username, spec.level)
            with pytest.raises(Exception, match=r"."):
                work.result(timeout=PATIENCE)
            took = time.monotonic() - began
        assert removal.sessions_ended == 1
        assert not session.is_alive()
        session.close()
        return took

    def test_create_dies_after_each_step(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        """Either it is tried again, or the grant is ended before that."""
        first = named.spec(harness.narrow)
        steps = self._steps(harness, lambda: adapter.create_user(first))
        adapter.drop_user(first.username, first.level)
        for step in range(1, steps + 1):
            spec = named.spec(harness.narrow)
            with harness.dies_after(step), pytest.raises(Died):
                harness.adapter().create_user(spec)
            again = named.spec(harness.narrow, username=spec.username)
            if step % 2:
                adapter.create_user(again)
                harness.login(again.username, again.password).close()
            adapter.drop_user(spec.username, spec.level)
            assert not harness.has_user(spec.username), f"after step {step}"
            assert not self._lets_in(harness, again)

    def test_drop_dies_after_each_step(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        first = named.spec(harness.narrow)
        adapter.create_user(first)
        for step in range(1, self._steps(harness, lambda: adapter.drop_user(first.username, first.level)) + 1):
            spec = named.spec(harness.narrow)
            adapter.create_user(spec)
            session = harness.login(spec.username, spec.password)
            with harness.dies_after(step), pytest.raises(Died):
                harness.adapter().drop_user(spec.username, spec.level)
            adapter.drop_user(spec.username, spec.level)
            assert not harness.has_user(spec.username), f"after step {step}"
            assert not session.is_alive(), f"after step {step}"
            session.close()

    @staticmethod
    def _steps(harness: EngineHarness, verb: Callable[[], object]) -> int:
        with harness.dies_after(None) as ran:
            verb()
        assert ran, "nothing was sent to the server"
        return len(ran)

    def test_drop_twice_and_of_nobody(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
        assert adapter.drop_user(spec.username, spec.level).was_absent
        adapter.create_user(spec)
        assert not adapter.drop_user(spec.username, spec.level).was_absent
        again = adapter.drop_user(spec.username, spec.level)
        assert again.was_absent
        assert again.sessions_ended == 0

    def test_drop_in_a_storm_of_logins(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
        adapter.create_user(spec)
        is_over, lock, opened = threading.Event(), threading.Lock(), list[Session]()

        def storm() -> None:
            while not is_over.is_set():
                try:
                    session = harness.login(spec.username, spec.password)
                except LoginRefused:
                    continue
                with lock:
                    opened.append(session)

        threads = [threading.Thread(target=storm) for _ in range(STORM_THREADS)]
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

    def test_many_at_once(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        specs = [named.spec(harness.reading if n % 2 else harness.writing) for n in range(PARALLEL)]
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(adapter.create_user, specs))
            for spec in specs:
                harness.login(spec.username, spec.password).close()
            list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
        assert not any(harness.has_user(spec.username) for spec in specs)

    # Whose they are.

    def test_a_user_without_a_mark_is_given_nothing_and_still_ended(
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        """Nothing is changed of it, but an end that the ledger has on record is carried out. Where the server lets the bot end only users that the bot made, it says what would help."""
        spec, known = named.spec(harness.reading), secrets.token_hex(12)
        harness.make_foreign_user(spec.username, known)
        session = harness.login(spec.username, known)
        self._assert_given_nothing(adapter, spec)
        assert session.is_alive()
        harness.login(spec.username, known).close()
        refused = self._refusal(adapter, spec)
        if refused is None:
            assert not session.is_alive()
            assert not harness.has_user(spec.username)
        else:
            assert refused.remedy
        session.close()

    def test_a_user_of_another_ledger_is_never_touched(
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        other, spec = harness.adapter(ledger="anotherledgr"), named.spec(harness.reading)
        other.create_user(spec)
        self._assert_given_nothing(adapter, named.spec(harness.writing, username=spec.username))
        with pytest.raises(ForeignUser):
            adapter.drop_user(spec.username, spec.level)
        harness.login(spec.username, spec.password).close()
        found = next(u for u in adapter.list_users() if u.username == spec.username)
        assert (found.ledger, found.request_id) == ("anotherledgr", spec.request_id)
        other.drop_user(spec.username, spec.level)

    def test_a_user_of_another_prefix_is_never_touched(
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        spec, known = named.spec(harness.reading), secrets.token_hex(12)
        other = replace(spec, username=f"k{spec.username}"[:32])
        harness.make_foreign_user(other.username, known)
        for verb in (
            lambda: adapter.create_user(other),
            lambda: adapter.set_password(other.username, known),
            lambda: adapter.drop_user(other.username, other.level),
        ):
            with pytest.raises((Rejected, ForeignUser)):
                verb()
        assert other.username not in {user.username for user in adapter.list_users()}
        harness.login(other.username, known).close()

    @staticmethod
    def _refusal(adapter: Adapter, spec: UserSpec) -> Rejected | None:
        """What the server says against the drop, or None where the user was dropped."""
        try:
            adapter.drop_user(spec.username, spec.level)
        except Rejected as no:
            return no
        return None

    @staticmethod
    def _assert_given_nothing(adapter: Adapter, spec: UserSpec) -> None:
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
    def test_a_name_we_do_not_make_is_refused(
        self, harness: EngineHarness, adapter: Adapter, named: Named, name: str
    ) -> None:
        spec = named.spec(harness.reading, username=name.replace("{p}", harness.prefix) or " ")
        with pytest.raises(Rejected):
            adapter.create_user(spec)
        assert not harness.has_user(spec.username)

    def test_list_and_activity(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec, quiet = named.spec(harness.reading), named.spec(harness.reading)
        for one in (spec, quiet):
            adapter.create_user(one)
        session = harness.login(spec.username, spec.password)
        found = {user.username: user for user in adapter.list_users()}
        assert (found[spec.username].ledger, found[spec.username].request_id) == (harness.ledger, spec.request_id)
        activity = {a.username: a for a in adapter.activity([spec.username, quiet.username])}
        if harness.counts_idle_sessions:
            assert activity[spec.username].sessions == 1
        assert activity[quiet.username].sessions == 0
        session.close()
        for one in (spec, quiet):
            adapter.drop_user(one.username, one.level)
        assert not {spec.username, quiet.username} & {user.username for user in adapter.list_users()}

    # The server.

    def test_identity_is_checked_on_every_verb(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        assert adapter.identity() == adapter.check().identity
        spec, wrong = named.spec(harness.reading), harness.adapter(identity="another server")
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

    def test_a_healthy_server_has_no_problems(self, harness: EngineHarness, adapter: Adapter) -> None:
        health = adapter.check([harness.reading, harness.writing])
        assert health.problems == ()
        assert re.search(r"\d", health.version)

    def test_rights_that_are_missing_are_named(self, harness: EngineHarness) -> None:
        """With the statement that gives them."""
        lacking = harness.lacking()
        assert lacking
        for right, adapter in lacking.items():
            findings = [
                f for f in adapter.check([harness.reading, harness.narrow]).problems if right in f"{f.what} {f.remedy}"
            ]
            assert findings, f"check says nothing of {right}"
            assert any(f.remedy for f in findings), f"check does not say how to give {right}"

    def test_the_adapter_logs_in_as_the_user(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
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

    def test_a_server_that_is_down(self, harness: EngineHarness, adapter: Adapter, named: Named) -> None:
        spec = named.spec(harness.reading)
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
        self, harness: EngineHarness, adapter: Adapter, named: Named
    ) -> None:
        spec, fresh = named.spec(harness.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        adapter.set_password(spec.username, fresh)
        adapter.drop_user(spec.username, spec.level)
        seen = harness.log_text()
        assert spec.username in seen, "a log without our statements proves nothing"
        for trouble in self._troubles(harness, named):
            seen += everything_on(trouble)
        for secret in (spec.password, fresh, *harness.admin_secrets):
            assert secret not in seen

    @staticmethod
    def _troubles(harness: EngineHarness, named: Named) -> list[AdapterError]:
        found: list[AdapterError] = []
        spec = named.spec(harness.reading)
        adapter, wrong = harness.adapter(), harness.adapter(identity="another server")
        verbs: tuple[Callable[[], object], ...] = (
            lambda: adapter.set_password(spec.username, spec.password),
            lambda: wrong.create_user(spec),
            lambda: adapter.create_user(named.spec(Level(name="x", roles=("no_such_role",)))),
        )
        for verb in verbs:
            with pytest.raises(AdapterError) as caught:
                verb()
            found.append(caught.value)
        return found


def everything_on(error: BaseException) -> str:
    """An error's words and those of all that hangs on it."""
    found, seen = "", set[int]()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found += f"{one} {one!r} {one.args} {vars(one)} "
        queue += [one.__cause__, one.__context__]
    return found
