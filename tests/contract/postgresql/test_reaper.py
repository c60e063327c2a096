"""The server's own job: set up by the documented file, measured by ``check``, and ending sessions with dbaccess gone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from adapters.base import Enforced, Finding, UserSpec
from adapters.contract import wait_until
from adapters.postgresql import PostgreSQL, reaper
from tests.conftest import had
from tests.contract.postgresql.bench import BOT_PASSWORD, Bench, Login, build, readonly
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer, psql

SETUP = Path(__file__).resolve().parents[3] / "docs" / "postgresql-reaper.sql"
LONG_AGO = -180.0
"""Seconds: an end that was before the job's own patience."""
PINNED_PATH = "pg_catalog, pg_temp"
A_RUN = 75.0
"""Seconds: pg_cron 1.4 starts jobs at full minutes."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with contextmanager(had)(servers.start_with_cron) as found:
        yield found


def set_up(bench: Bench) -> None:
    """As the file says."""
    names = ["-v", f"login={bench.bot}", "-v", f"role={bench.owner or bench.bot}"]
    words = [str(psql()), "-X", "-q", "-d", bench.server.superuser_url(), *names, "-f", str(SETUP)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


@pytest.fixture(scope="module", params=["admin role", "own login"])
def bench(request: pytest.FixtureRequest, server: PostgresServer) -> Bench:
    """Set up twice, as it may be."""
    found = build(server, with_owner=request.param == "admin role")
    set_up(found)
    set_up(found)
    return found


@pytest.fixture
def session(bench: Bench) -> Iterator[tuple[UserSpec, Login]]:
    spec = bench.spec(readonly())
    bench.adapter().create_user(spec)
    with bench.login(spec) as connection:
        yield spec, Login(connection)
    bench.adapter().drop_user(spec.username, spec.level)


def command(bench: Bench) -> str:
    with bench.superuser("postgres") as c:
        query = "SELECT command FROM cron.job WHERE jobname = %s AND username = %s"
        ((found,),) = c.execute(query, (reaper.JOB, bench.bot)).fetchall()
    return str(found)


def run_now(bench: Bench, *, search_path: str = PINNED_PATH) -> None:
    """What the job runs, as whom it runs, where it runs. ``search_path`` takes the place of the one that it sets."""
    statements = command(bench)
    assert f"search_path = {PINNED_PATH};" in statements
    with psycopg.connect(bench.server.url(bench.bot, BOT_PASSWORD), autocommit=True) as c:
        c.execute(statements.replace(PINNED_PATH, search_path).encode())


def about(bench: Bench, words: str = "") -> tuple[Enforced, list[Finding]]:
    health = bench.adapter().check([readonly()])
    assert health.problems == ()
    return health.enforced, [
        f for f in health.findings if "session" in f.what or reaper.JOB in f.what if words in f.what
    ]


def test_it_ends_sessions_of_users_past_their_end(bench: Bench, session: tuple[UserSpec, Login]) -> None:
    spec, login = session
    run_now(bench)
    assert login.is_alive()
    bench.adapter().set_expiry(spec.username, -60)
    run_now(bench)
    assert login.is_alive(), "dbaccess comes first"
    bench.adapter().set_expiry(spec.username, LONG_AGO)
    run_now(bench)
    wait_until(lambda: not login.is_alive())


def test_it_touches_nobody_else(bench: Bench, session: tuple[UserSpec, Login]) -> None:
    """Users that a DBA made with an end, kept roles, another bot's, and the bot itself."""
    spec, login = session
    bench.adapter().set_expiry(spec.username, LONG_AGO)
    others = {
        "plain": "a word",
        "kept": f"dbaccess ledger={bench.ledger} level=x",
        "marked": "xdbaccess ledger=a request=1",
    }
    found: dict[str, psycopg.Connection[Any]] = {}
    for stem, comment in others.items():
        name = f"{stem}_{bench.bot}"
        with bench.superuser() as c:
            c.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE shop_reader").format(sql.Identifier(name)))
            c.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(comment)))
            c.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), sql.Identifier(bench.owner or bench.bot)))
            found[name] = psycopg.connect(bench.server.url(name, "x", bench.database), autocommit=True)
            c.execute(sql.SQL("ALTER ROLE {} VALID UNTIL '2020-01-01'").format(sql.Identifier(name)))
    run_now(bench)
    wait_until(lambda: not login.is_alive())
    for stem, connection in found.items():
        assert Login(connection).is_alive(), stem
        connection.close()


def test_one_it_may_not_end_does_not_spare_the_rest(bench: Bench, session: tuple[UserSpec, Login]) -> None:
    spec, login = session
    other = build(bench.server)
    foreign = other.spec(readonly())
    other.adapter().create_user(foreign)
    with other.login(foreign) as connection:
        for one, name in ((bench, spec.username), (other, foreign.username)):
            one.adapter().set_expiry(name, LONG_AGO)
        run_now(bench)
        wait_until(lambda: not login.is_alive())
        assert Login(connection).is_alive(), "the other bot's own job ends it"
    other.adapter().drop_user(foreign.username, foreign.level)


def test_nothing_planted_in_its_database_runs(bench: Bench, session: tuple[UserSpec, Login]) -> None:
    spec, login = session
    with bench.superuser("postgres") as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with psycopg.connect(bench.server.url(spec.username, spec.password), autocommit=True) as c:
        c.execute(
            "CREATE FUNCTION public.planted(oid, oid) RETURNS boolean LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''planted''; END';"
            " CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.planted);"
            " CREATE VIEW public.pg_stat_activity AS SELECT 0 AS pid, 0::oid AS usesysid WHERE false"
        )
    try:
        bench.adapter().set_expiry(spec.username, LONG_AGO)
        run_now(bench, search_path="public, pg_catalog")
        assert login.is_alive(), "what was planted is in the way of a job that looks in public first"
        run_now(bench)
        wait_until(lambda: not login.is_alive())
    finally:
        with bench.superuser("postgres") as c:
            c.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; DROP VIEW public.pg_stat_activity")
            c.execute("DROP OPERATOR public.= (oid, oid); DROP FUNCTION public.planted")


def test_the_file_runs_what_check_looks_for() -> None:
    assert reaper.COMMAND in SETUP.read_text()
    assert f"'{reaper.JOB}', '{reaper.SCHEDULE}'" in SETUP.read_text()


def test_without_the_job_only_the_login_ends(server: PostgresServer) -> None:
    bare = build(server)
    enforced, (finding,) = about(bare)
    assert (enforced, finding.is_ok) == (Enforced.LOGIN, True)
    assert reaper.SETUP in finding.what


def test_it_is_really_run_and_measured(server: PostgresServer) -> None:
    """Nobody but the server ends this session."""
    bench = build(server)
    set_up(bench)
    spec = bench.spec(readonly(), remaining=LONG_AGO + 181)
    bench.adapter().create_user(spec)
    with bench.login(spec) as connection:
        bench.adapter().set_expiry(spec.username, LONG_AGO)
        wait_until(lambda: not Login(connection).is_alive(), within=A_RUN)
    wait_until(lambda: about(bench)[0] is Enforced.SESSIONS)
    (finding,) = about(bench)[1]
    assert finding.what == "the server itself ends open sessions 2 to 3 minutes after their end"
    bench.adapter().drop_user(spec.username, spec.level)
    _is_measured(bench)


SPOILED = {
    "is switched off": ("UPDATE cron.job SET active = false", "UPDATE cron.job SET active = true"),
    "failed: no way": (
        "UPDATE cron.job_run_details SET status = 'failed', return_message = 'no way'",
        "UPDATE cron.job_run_details SET status = 'succeeded'",
    ),
    "has not run in the last 5 minutes": (
        "UPDATE cron.job_run_details SET start_time = start_time - interval '6 minutes'",
        "UPDATE cron.job_run_details SET start_time = start_time + interval '6 minutes'",
    ),
    "runs another statement": ("UPDATE cron.job SET command = 'SELECT 1'", None),
    "has not run yet": ("DELETE FROM cron.job_run_details", "SELECT 1 FROM cron.job"),
}


def _is_measured(bench: Bench) -> None:
    """Each thing that is not so takes the promise back. The job is kept from running meanwhile."""
    mine = sql.SQL("jobid = (SELECT jobid FROM cron.job WHERE username = {})").format(sql.Literal(bench.bot))
    for words, (spoil, mend) in SPOILED.items():
        with bench.superuser("postgres") as c:
            c.execute(sql.SQL("UPDATE cron.job SET schedule = '0 0 1 1 *' WHERE {}").format(mine))
            assert about(bench)[0] is Enforced.SESSIONS, f"before it {words}"
            c.execute(sql.SQL("{} WHERE {}").format(sql.SQL(spoil), mine))
            enforced, (finding,) = about(bench)
            assert (enforced, finding.is_ok) == (Enforced.LOGIN, False)
            assert words in finding.what
            if mend is None:
                c.execute((finding.mend or "").encode())
            else:
                c.execute(sql.SQL("{} WHERE {}").format(sql.SQL(mend), mine))


def test_standbys_are_not_promised_for(bench: Bench) -> None:
    with bench.superuser("postgres") as c:
        job = "SELECT jobid, 1000000 + jobid, 'succeeded', now(), now(), username FROM cron.job WHERE username = %s"
        c.execute(
            f"INSERT INTO cron.job_run_details (jobid, runid, status, start_time, end_time, username) {job}".encode(),
            (bench.bot,),
        )
    assert about(bench)[0] is Enforced.SESSIONS
    secrets = replace(bench.secrets(), replicas=(bench.server.url(bench.bot, BOT_PASSWORD, bench.database),))
    health = PostgreSQL(replace(bench.target(), replicas=("env:STANDBY",)), secrets).check([readonly()])
    assert health.enforced is Enforced.LOGIN
