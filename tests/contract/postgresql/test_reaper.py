"""The pg_cron job: the documented file sets it up, ``check`` measures it, and it ends sessions while dbaccess is down."""

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
from adapters.postgresql import PostgreSQL
from adapters.postgresql.check import reaper
from tests.conftest import had
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, Login, build, readonly
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer, psql

SETUP = Path(__file__).resolve().parents[3] / "docs" / "postgresql-reaper.sql"
LONG_AGO = -180.0
"""Seconds from now to an expiry that is older than the job's delay of two minutes."""
PINNED_PATH = "pg_catalog, pg_temp"
A_RUN = 75.0
"""Seconds within which a job runs: pg_cron 1.4 starts jobs at full minutes."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with contextmanager(had)(servers.start_with_cron) as found:
        yield found


def set_up(harness: EngineHarness) -> None:
    """Run the setup file as it documents."""
    names = ["-v", f"login={harness.bot}", "-v", f"role={harness.owner or harness.bot}"]
    arguments = [str(psql()), "-X", "-q", "-d", harness.server.superuser_url(), *names, "-f", str(SETUP)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr


@pytest.fixture(scope="module", params=["admin role", "own login"])
def harness(request: pytest.FixtureRequest, server: PostgresServer) -> EngineHarness:
    """A harness with the job. The setup runs twice, because it may be repeated."""
    found = build(server, with_owner=request.param == "admin role")
    set_up(found)
    set_up(found)
    return found


@pytest.fixture
def session(harness: EngineHarness) -> Iterator[tuple[UserSpec, Login]]:
    spec = harness.spec(readonly())
    harness.adapter().create_user(spec)
    with harness.login(spec) as connection:
        yield spec, Login(connection)
    harness.adapter().drop_user(spec.username, spec.level)


def command(harness: EngineHarness) -> str:
    with harness.superuser("postgres") as c:
        query = "SELECT command FROM cron.job WHERE jobname = %s AND username = %s"
        ((found,),) = c.execute(query, (reaper.JOB, harness.bot)).fetchall()
    return str(found)


def run_now(harness: EngineHarness, *, search_path: str = PINNED_PATH) -> None:
    """Run the job's statement with its role and in its database. ``search_path`` replaces the one that the statement sets."""
    statements = command(harness)
    assert f"search_path = {PINNED_PATH};" in statements
    with psycopg.connect(harness.server.url(harness.bot, BOT_PASSWORD), autocommit=True) as c:
        c.execute(statements.replace(PINNED_PATH, search_path).encode())


def about(harness: EngineHarness, text: str = "") -> tuple[Enforced, list[Finding]]:
    health = harness.adapter().check([readonly()])
    assert health.problems == ()
    return health.enforced, [
        f for f in health.findings if "session" in f.what or reaper.JOB in f.what if text in f.what
    ]


def test_the_job_ends_sessions_of_expired_users(harness: EngineHarness, session: tuple[UserSpec, Login]) -> None:
    spec, login = session
    run_now(harness)
    assert login.is_alive()
    harness.adapter().set_expiry(spec.username, -60)
    run_now(harness)
    assert login.is_alive(), "dbaccess comes first"
    harness.adapter().set_expiry(spec.username, LONG_AGO)
    run_now(harness)
    wait_until(lambda: not login.is_alive())


def test_the_job_ends_no_other_sessions(harness: EngineHarness, session: tuple[UserSpec, Login]) -> None:
    """Expired roles without a mark of a user: one of a DBA, a managed role, and one with a similar mark."""
    spec, login = session
    harness.adapter().set_expiry(spec.username, LONG_AGO)
    others = {
        "plain": "a word",
        "managed": f"dbaccess ledger={harness.ledger} level=x",
        "marked": "xdbaccess ledger=a request=1",
    }
    found: dict[str, psycopg.Connection[Any]] = {}
    for stem, comment in others.items():
        name = f"{stem}_{harness.bot}"
        with harness.superuser() as c:
            c.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x' IN ROLE shop_reader").format(sql.Identifier(name)))
            c.execute(sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(name), sql.Literal(comment)))
            c.execute(
                sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), sql.Identifier(harness.owner or harness.bot))
            )
            found[name] = psycopg.connect(harness.server.url(name, "x", harness.database), autocommit=True)
            c.execute(sql.SQL("ALTER ROLE {} VALID UNTIL '2020-01-01'").format(sql.Identifier(name)))
    run_now(harness)
    wait_until(lambda: not login.is_alive())
    for stem, connection in found.items():
        assert Login(connection).is_alive(), stem
        connection.close()


def test_a_session_that_the_job_may_not_end_does_not_stop_it(
    harness: EngineHarness, session: tuple[UserSpec, Login]
) -> None:
    spec, login = session
    other = build(harness.server)
    foreign = other.spec(readonly())
    other.adapter().create_user(foreign)
    with other.login(foreign) as connection:
        for one, name in ((harness, spec.username), (other, foreign.username)):
            one.adapter().set_expiry(name, LONG_AGO)
        run_now(harness)
        wait_until(lambda: not login.is_alive())
        assert Login(connection).is_alive(), "the other bot's own job ends it"
    other.adapter().drop_user(foreign.username, foreign.level)


def test_the_job_runs_no_planted_function(harness: EngineHarness, session: tuple[UserSpec, Login]) -> None:
    spec, login = session
    with harness.superuser("postgres") as c:
        c.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with psycopg.connect(harness.server.url(spec.username, spec.password), autocommit=True) as c:
        c.execute(
            "CREATE FUNCTION public.planted(oid, oid) RETURNS boolean LANGUAGE plpgsql AS"
            " 'BEGIN RAISE EXCEPTION ''planted''; END';"
            " CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = public.planted);"
            " CREATE VIEW public.pg_stat_activity AS SELECT 0 AS pid, 0::oid AS usesysid WHERE false"
        )
    try:
        harness.adapter().set_expiry(spec.username, LONG_AGO)
        run_now(harness, search_path="public, pg_catalog")
        assert login.is_alive(), "a job that searches public first runs the planted objects"
        run_now(harness)
        wait_until(lambda: not login.is_alive())
    finally:
        with harness.superuser("postgres") as c:
            c.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC; DROP VIEW public.pg_stat_activity")
            c.execute("DROP OPERATOR public.= (oid, oid); DROP FUNCTION public.planted")


def test_the_setup_file_has_the_statement_that_check_expects() -> None:
    assert reaper.COMMAND in SETUP.read_text()
    assert f"'{reaper.JOB}', '{reaper.SCHEDULE}'" in SETUP.read_text()


def test_without_the_job_the_server_ends_only_the_login(server: PostgresServer) -> None:
    bare = build(server)
    enforced, (finding,) = about(bare)
    assert (enforced, finding.is_ok) == (Enforced.LOGIN, True)
    assert reaper.SETUP in finding.what


def test_pg_cron_runs_the_job_and_check_measures_it(server: PostgresServer) -> None:
    """Only the server ends this session."""
    harness = build(server)
    set_up(harness)
    spec = harness.spec(readonly(), remaining=LONG_AGO + 181)
    harness.adapter().create_user(spec)
    with harness.login(spec) as connection:
        harness.adapter().set_expiry(spec.username, LONG_AGO)
        wait_until(lambda: not Login(connection).is_alive(), within=A_RUN)
    wait_until(lambda: about(harness)[0] is Enforced.SESSIONS)
    (finding,) = about(harness)[1]
    assert finding.what == "the server itself ends open sessions 2 to 3 minutes after their expiry"
    harness.adapter().drop_user(spec.username, spec.level)
    _assert_each_problem_is_measured(harness)


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


def _assert_each_problem_is_measured(harness: EngineHarness) -> None:
    """Each problem with the job withdraws the promise. The job does not run meanwhile."""
    mine = sql.SQL("jobid = (SELECT jobid FROM cron.job WHERE username = {})").format(sql.Literal(harness.bot))
    for text, (spoil, remedy) in SPOILED.items():
        with harness.superuser("postgres") as c:
            c.execute(sql.SQL("UPDATE cron.job SET schedule = '0 0 1 1 *' WHERE {}").format(mine))
            assert about(harness)[0] is Enforced.SESSIONS, f"before: {text}"
            c.execute(sql.SQL("{} WHERE {}").format(sql.SQL(spoil), mine))
            enforced, (finding,) = about(harness)
            assert (enforced, finding.is_ok) == (Enforced.LOGIN, False)
            assert text in finding.what
            if remedy is None:
                c.execute((finding.remedy or "").encode())
            else:
                c.execute(sql.SQL("{} WHERE {}").format(sql.SQL(remedy), mine))


def test_with_standbys_the_server_ends_only_the_login(harness: EngineHarness) -> None:
    with harness.superuser("postgres") as c:
        job = "SELECT jobid, 1000000 + jobid, 'succeeded', now(), now(), username FROM cron.job WHERE username = %s"
        c.execute(
            f"INSERT INTO cron.job_run_details (jobid, runid, status, start_time, end_time, username) {job}".encode(),
            (harness.bot,),
        )
    assert about(harness)[0] is Enforced.SESSIONS
    secrets = replace(harness.secrets(), replicas=(harness.server.url(harness.bot, BOT_PASSWORD, harness.database),))
    health = PostgreSQL(replace(harness.target(), replicas=("env:STANDBY",)), secrets).check([readonly()])
    assert health.enforced is Enforced.LOGIN
