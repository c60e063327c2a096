"""What every adapter promises, as tests: they judge by logging in as the temporary user.

A package that brings an engine subclasses ``AdapterContract`` in its own tests and gives it a fixture ``bench``. Needs pytest,
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
    Level,
    LoginRefused,
    NotOurs,
    Rejected,
    Unreachable,
    UserSpec,
    WrongServer,
)
from adapters.bench import PATIENCE, Bench, Denied, Died, Named, Session, wait_until

__all__ = [
    "AdapterContract",
    "Bench",
    "Denied",
    "Died",
    "LoginRefused",
    "Named",
    "Session",
    "everything_on",
    "wait_until",
]

SESSION_ENDS_WITHIN = 1.0
STORM_THREADS = 8
PARALLEL = 16
WORK_SECONDS = 20.0
HOSTILE_PASSWORDS = ("p'w\\x\"; DROP TABLE t; --", "%s{0}$1`id` \\'", "a:b@c/d?e#f&g=h+i>j<k!l~m")


class AdapterContract:
    """The tests. ``bench`` is the subclass's own fixture."""

    @pytest.fixture
    def named(self, bench: Bench) -> Named:
        return Named(bench)

    @pytest.fixture
    def adapter(self, bench: Bench) -> Adapter:
        return bench.adapter()

    # Making.

    def test_create_reads_and_does_not_write(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        assert session.read() > 0
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_create_writes_where_the_level_does(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.writing)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        session.write()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_a_narrow_level_sees_only_its_own(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        wide, spec = named.spec(bench.reading), named.spec(bench.narrow)
        for one in (wide, spec):
            adapter.create_user(one)
        everything, session = bench.login(wide.username, wide.password), bench.login(spec.username, spec.password)
        assert everything.read_beside() > 0, "there must be something it could see"
        assert session.read() > 0
        with pytest.raises(Denied):
            session.read_beside()
        with pytest.raises(Denied):
            session.write()
        for login, one in ((everything, wide), (session, spec)):
            login.close()
            adapter.drop_user(one.username, one.level)

    def test_create_again_sets_password_and_level_anew(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        first = named.spec(bench.writing)
        adapter.create_user(first)
        second = named.spec(bench.reading, username=first.username)
        adapter.create_user(second)
        with pytest.raises(LoginRefused):
            bench.login(first.username, first.password)
        session = bench.login(second.username, second.password)
        with pytest.raises(Denied):
            session.write()
        session.close()
        adapter.drop_user(second.username, second.level)

    def test_a_hostile_password_is_inert(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        """Ours are of letters, digits, ``-`` and ``_``; nothing relies on it."""
        for password in HOSTILE_PASSWORDS:
            spec = replace(named.spec(bench.reading), password=password)
            adapter.create_user(spec)
            bench.login(spec.username, password).close()
            adapter.set_password(spec.username, password[::-1])
            bench.login(spec.username, password[::-1]).close()
            adapter.drop_user(spec.username, spec.level)

    def test_the_pasted_command_logs_in(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        adapter.create_user(spec)
        said = bench.login_by(adapter.endpoint(spec.level).paste(spec.username, spec.password))
        assert spec.username in said
        adapter.drop_user(spec.username, spec.level)

    # Changing.

    def test_set_password_ends_the_old_one_and_no_session(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec, fresh = named.spec(bench.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        adapter.set_password(spec.username, fresh)
        with pytest.raises(LoginRefused):
            bench.login(spec.username, spec.password)
        bench.login(spec.username, fresh).close()
        assert session.is_alive()
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_set_password_makes_nobody(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        with pytest.raises(Rejected):
            adapter.set_password(spec.username, spec.password)
        with pytest.raises(Rejected):
            adapter.set_expiry(spec.username, 60)
        assert not bench.has_user(spec.username)

    def test_the_server_ends_the_login(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        enforced = adapter.check().enforced
        if enforced is Enforced.NOTHING:
            pytest.skip("this server ends nothing by itself")
        spec = named.spec(bench.reading, remaining=1.5)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        wait_until(lambda: not self._lets_in(bench, spec))
        if enforced is Enforced.SESSIONS:
            wait_until(lambda: not session.is_alive())
            wait_until(lambda: not bench.has_user(spec.username))
        session.close()
        receipt = adapter.drop_user(spec.username, spec.level)
        assert not receipt.was_absent, "it ended as it should, which is no surprise"

    def test_the_end_moves(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading, remaining=3)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        adapter.set_expiry(spec.username, 3600)
        self._ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.set_expiry(spec.username, 1800)
        self._ends_in(adapter, spec.username, timedelta(minutes=30))
        assert session.is_alive()
        adapter.set_expiry(spec.username, -1)
        if adapter.check().enforced is not Enforced.NOTHING:
            wait_until(lambda: not self._lets_in(bench, spec))
        session.close()
        adapter.drop_user(spec.username, spec.level)

    def test_the_end_is_by_the_servers_clock(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading, remaining=3600)
        adapter.create_user(spec)
        self._ends_in(adapter, spec.username, timedelta(hours=1))
        adapter.drop_user(spec.username, spec.level)

    @staticmethod
    def _ends_in(adapter: Adapter, username: str, remaining: timedelta) -> None:
        found = next(u for u in adapter.list_users() if u.username == username)
        assert found.expires_at is not None
        assert abs(found.expires_at - datetime.now(UTC) - remaining) < timedelta(seconds=10)

    @staticmethod
    def _lets_in(bench: Bench, spec: UserSpec) -> bool:
        try:
            bench.login(spec.username, spec.password).close()
        except LoginRefused:
            return False
        return True

    # Taking away.

    def test_drop_ends_open_sessions(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.writing)
        adapter.create_user(spec)
        sessions = [bench.login(spec.username, spec.password) for _ in range(3)]
        began = time.monotonic()
        receipt = adapter.drop_user(spec.username, spec.level)
        assert time.monotonic() - began < SESSION_ENDS_WITHIN
        assert not any(session.is_alive() for session in sessions)
        for session in sessions:
            session.close()
        if bench.counts_idle_sessions:
            assert receipt.sessions_ended == len(sessions)
        assert not receipt.was_absent
        assert abs(receipt.read_back_at - datetime.now(UTC)) < timedelta(seconds=10)
        assert not bench.has_user(spec.username)
        assert not self._lets_in(bench, spec)

    def test_drop_ends_what_runs(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        adapter.create_user(spec)
        session = bench.login(spec.username, spec.password)
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(session.work, WORK_SECONDS)
            wait_until(lambda: adapter.activity([spec.username])[0].sessions > 0)
            time.sleep(0.2)  # the operation must have begun, and only the server could tell
            began = time.monotonic()
            receipt = adapter.drop_user(spec.username, spec.level)
            with pytest.raises(Exception, match=r"."):
                work.result(timeout=PATIENCE)
            assert time.monotonic() - began < SESSION_ENDS_WITHIN
        assert receipt.sessions_ended == 1
        assert not session.is_alive()
        session.close()

    def test_create_dies_after_each_step(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        """Either it is tried again, or the grant is ended before that."""
        first = named.spec(bench.narrow)
        steps = self._steps(bench, lambda: adapter.create_user(first))
        adapter.drop_user(first.username, first.level)
        for step in range(1, steps + 1):
            spec = named.spec(bench.narrow)
            with bench.dies_after(step), pytest.raises(Died):
                bench.adapter().create_user(spec)
            again = named.spec(bench.narrow, username=spec.username)
            if step % 2:
                adapter.create_user(again)
                bench.login(again.username, again.password).close()
            adapter.drop_user(spec.username, spec.level)
            assert not bench.has_user(spec.username), f"after step {step}"
            assert not self._lets_in(bench, again)

    def test_drop_dies_after_each_step(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        first = named.spec(bench.narrow)
        adapter.create_user(first)
        for step in range(1, self._steps(bench, lambda: adapter.drop_user(first.username, first.level)) + 1):
            spec = named.spec(bench.narrow)
            adapter.create_user(spec)
            session = bench.login(spec.username, spec.password)
            with bench.dies_after(step), pytest.raises(Died):
                bench.adapter().drop_user(spec.username, spec.level)
            adapter.drop_user(spec.username, spec.level)
            assert not bench.has_user(spec.username), f"after step {step}"
            assert not session.is_alive(), f"after step {step}"
            session.close()

    @staticmethod
    def _steps(bench: Bench, verb: Callable[[], object]) -> int:
        with bench.dies_after(None) as ran:
            verb()
        assert ran, "nothing was sent to the server"
        return len(ran)

    def test_drop_twice_and_of_nobody(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        assert adapter.drop_user(spec.username, spec.level).was_absent
        adapter.create_user(spec)
        assert not adapter.drop_user(spec.username, spec.level).was_absent
        again = adapter.drop_user(spec.username, spec.level)
        assert again.was_absent
        assert again.sessions_ended == 0

    def test_drop_in_a_storm_of_logins(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        adapter.create_user(spec)
        is_over, lock, opened = threading.Event(), threading.Lock(), list[Session]()

        def storm() -> None:
            while not is_over.is_set():
                try:
                    session = bench.login(spec.username, spec.password)
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
        assert not bench.has_user(spec.username)

    def test_many_at_once(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        specs = [named.spec(bench.reading if n % 2 else bench.writing) for n in range(PARALLEL)]
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(adapter.create_user, specs))
            for spec in specs:
                bench.login(spec.username, spec.password).close()
            list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
        assert not any(bench.has_user(spec.username) for spec in specs)

    # Whose they are.

    def test_a_user_without_a_mark_is_given_nothing_and_still_ended(
        self, bench: Bench, adapter: Adapter, named: Named
    ) -> None:
        """Nothing is changed of it, but an end that the ledger has on record is carried out. Where the server lets the bot end only users that the bot made, it says what would help."""
        spec, known = named.spec(bench.reading), secrets.token_hex(12)
        bench.make_foreign_user(spec.username, known)
        session = bench.login(spec.username, known)
        self._assert_given_nothing(adapter, spec)
        assert session.is_alive()
        bench.login(spec.username, known).close()
        refused = self._refusal(adapter, spec)
        if refused is None:
            assert not session.is_alive()
            assert not bench.has_user(spec.username)
        else:
            assert refused.mend
        session.close()

    def test_a_user_of_another_ledger_is_never_touched(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        other, spec = bench.adapter(ledger="anotherledgr"), named.spec(bench.reading)
        other.create_user(spec)
        self._assert_given_nothing(adapter, named.spec(bench.writing, username=spec.username))
        with pytest.raises(NotOurs):
            adapter.drop_user(spec.username, spec.level)
        bench.login(spec.username, spec.password).close()
        found = next(u for u in adapter.list_users() if u.username == spec.username)
        assert (found.ledger, found.request_id) == ("anotherledgr", spec.request_id)
        other.drop_user(spec.username, spec.level)

    def test_a_user_of_another_prefix_is_never_touched(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec, known = named.spec(bench.reading), secrets.token_hex(12)
        other = replace(spec, username=f"k{spec.username}"[:32])
        bench.make_foreign_user(other.username, known)
        for verb in (
            lambda: adapter.create_user(other),
            lambda: adapter.set_password(other.username, known),
            lambda: adapter.drop_user(other.username, other.level),
        ):
            with pytest.raises((Rejected, NotOurs)):
                verb()
        assert other.username not in {user.username for user in adapter.list_users()}
        bench.login(other.username, known).close()

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
        with pytest.raises(NotOurs):
            adapter.create_user(spec)
        with pytest.raises(NotOurs):
            adapter.set_password(spec.username, spec.password)
        with pytest.raises(NotOurs):
            adapter.set_expiry(spec.username, 1)

    @pytest.mark.parametrize(
        "name",
        ["admin", 'x"; DROP TABLE t; --', "{p}1_a'b_0000", "{p}1_\U0001f600_0000", "{p}0_a_0000", "{p}1_a_0000\n", ""],
    )
    def test_a_name_we_do_not_make_is_refused(self, bench: Bench, adapter: Adapter, named: Named, name: str) -> None:
        spec = named.spec(bench.reading, username=name.replace("{p}", bench.prefix) or " ")
        with pytest.raises(Rejected):
            adapter.create_user(spec)
        assert not bench.has_user(spec.username)

    def test_list_and_activity(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec, quiet = named.spec(bench.reading), named.spec(bench.reading)
        for one in (spec, quiet):
            adapter.create_user(one)
        session = bench.login(spec.username, spec.password)
        found = {user.username: user for user in adapter.list_users()}
        assert (found[spec.username].ledger, found[spec.username].request_id) == (bench.ledger, spec.request_id)
        activity = {a.username: a for a in adapter.activity([spec.username, quiet.username])}
        if bench.counts_idle_sessions:
            assert activity[spec.username].sessions == 1
        assert activity[quiet.username].sessions == 0
        session.close()
        for one in (spec, quiet):
            adapter.drop_user(one.username, one.level)
        assert not {spec.username, quiet.username} & {user.username for user in adapter.list_users()}

    # The server.

    def test_identity_is_checked_on_every_verb(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        assert adapter.identity() == adapter.check().identity
        spec, wrong = named.spec(bench.reading), bench.adapter(identity="another server")
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
        bench.login(spec.username, spec.password).close()
        bench.adapter(identity=adapter.identity()).drop_user(spec.username, spec.level)

    def test_a_healthy_server_has_no_problems(self, bench: Bench, adapter: Adapter) -> None:
        health = adapter.check([bench.reading, bench.writing])
        assert health.problems == ()
        assert re.search(r"\d", health.version)

    def test_rights_that_are_missing_are_named(self, bench: Bench) -> None:
        """With the statement that gives them."""
        lacking = bench.lacking()
        assert lacking
        for right, adapter in lacking.items():
            findings = [
                f for f in adapter.check([bench.reading, bench.narrow]).problems if right in f"{f.what} {f.mend}"
            ]
            assert findings, f"check says nothing of {right}"
            assert any(f.mend for f in findings), f"check does not say how to give {right}"

    def test_the_adapter_logs_in_as_the_user(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
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

    def test_a_server_that_is_down(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec = named.spec(bench.reading)
        adapter.create_user(spec)
        bench.stop()
        try:
            for verb in (adapter.check, lambda: adapter.drop_user(spec.username, spec.level)):
                with pytest.raises(Unreachable):
                    verb()
        finally:
            bench.start()
        assert not adapter.drop_user(spec.username, spec.level).was_absent

    def test_no_secret_in_errors_or_in_the_servers_log(self, bench: Bench, adapter: Adapter, named: Named) -> None:
        spec, fresh = named.spec(bench.reading), secrets.token_hex(16)
        adapter.create_user(spec)
        adapter.set_password(spec.username, fresh)
        adapter.drop_user(spec.username, spec.level)
        seen = bench.log_text()
        assert spec.username in seen, "a log without our statements proves nothing"
        for trouble in self._troubles(bench, named):
            seen += everything_on(trouble)
        for secret in (spec.password, fresh, *bench.admin_secrets):
            assert secret not in seen

    @staticmethod
    def _troubles(bench: Bench, named: Named) -> list[AdapterError]:
        found: list[AdapterError] = []
        spec = named.spec(bench.reading)
        adapter, wrong = bench.adapter(), bench.adapter(identity="another server")
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
