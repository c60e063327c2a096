"""The optional pg_cron job on the server, which ends sessions of users past their expiry also while dbaccess is down.

A team sets it up once with ``docs/postgresql-reaper.sql`` (pg_cron 1.4 or later). The job runs as the bot's login, so it needs no
further right, and the bot can read the job and its runs. ``check`` promises only what it measured there. dbaccess ends the sessions
first, at the expiry, and counts them; the job acts two minutes later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import LiteralString

from psycopg import sql

from adapters.base import AdapterError, Enforced, Finding
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import ok, warning
from adapters.postgresql.statements import value

SETUP = "docs/postgresql-reaper.sql"
JOB = "dbaccess reaper"
SCHEDULE = "* * * * *"
RAN_WITHIN = "5 minutes"
USUAL_DATABASE = "postgres"
"""The database where pg_cron keeps its jobs by default. Only superusers may read ``cron.database_name``."""

COMMAND: LiteralString = (
    "SET search_path = pg_catalog, pg_temp; SET ROLE %I;"
    " SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
    " WHERE r.rolvaliduntil < now() - interval '2 minutes' AND NOT r.rolsuper"
    " AND shobj_description(r.oid, 'pg_authid') ~ '^dbaccess ledger=[a-z0-9]+ request=[0-9]+$'"
    " AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'));"
    " RESET ROLE; DELETE FROM cron.job_run_details WHERE end_time < now() - interval '1 day'"
    " AND jobid IN (SELECT jobid FROM cron.job WHERE jobname = 'dbaccess reaper')"
)
"""The statement of the job. ``%I`` is the role that the bot acts as. It takes sessions of users with a mark of dbaccess, and only
those that it may end: one refusal would fail the whole statement."""

LAST_RUN = """
SELECT status, left(return_message, 200), start_time > clock_timestamp() - %s::interval FROM cron.job_run_details
 WHERE jobid = %s AND status IN ('succeeded', 'failed') ORDER BY runid DESC LIMIT 1
"""


def enforced(
    server: PostgreSQLServer, databases: Sequence[str], *, has_standbys: bool
) -> tuple[Enforced, list[Finding]]:
    """The server's own enforcement, as measured now, with the findings about it."""
    for database in dict.fromkeys([server.database, USUAL_DATABASE, *databases]):
        try:
            with server.session(database) as connection:
                if value(connection, "SELECT 1 FROM pg_extension WHERE extname = 'pg_cron'"):
                    return _measured(connection, has_standbys=has_standbys)
        except AdapterError:
            continue  # the bot may not connect there, so a job in it is not promised
    return Enforced.LOGIN, [ok(f"open sessions are ended by dbaccess alone; {SETUP} lets the server end them, too")]


def _measured(connection: PostgreSQLConnection, *, has_standbys: bool) -> tuple[Enforced, list[Finding]]:
    role = connection.acting_role
    connection.execute("RESET ROLE")  # a job is visible to the role that it runs as
    job = _job(connection, role)
    if job is None:
        what = f"open sessions are ended by dbaccess alone; pg_cron is there, and {SETUP} lets it end them, too"
        return Enforced.LOGIN, [ok(what)]
    problems = list(_problems(connection, role, *job))
    if problems:
        return Enforced.LOGIN, problems
    if has_standbys:
        what = "the server itself ends sessions on the primary 2 to 3 minutes after their expiry; on standbys dbaccess alone does"
        return Enforced.LOGIN, [ok(what)]
    return Enforced.SESSIONS, [ok("the server itself ends open sessions 2 to 3 minutes after their expiry")]


def _job(connection: PostgreSQLConnection, role: str) -> tuple[int, bool, bool] | None:
    """The job's number, whether it is switched on, and whether it runs the statement of this version. None where there is no job."""
    if not value(connection, "SELECT has_schema_privilege('cron', 'USAGE')"):
        return None
    return connection.execute(
        "SELECT jobid, active, command = format(%s, %s::text) FROM cron.job WHERE jobname = %s AND username = current_user",
        (COMMAND, role, JOB),
    ).fetchone()


def _problems(connection: PostgreSQLConnection, role: str, job: int, is_on: bool, is_same: bool) -> Iterator[Finding]:
    if not is_same:
        what = f"the job {JOB!r} runs another statement than this version of dbaccess asks for"
        yield warning(what, schedule(connection, role))
    if not is_on:
        yield warning(f"the job {JOB!r} is switched off", f"SELECT cron.alter_job({job}, active => true);")
        return
    status, message, is_late = _last_run(connection, job)
    if status is None:
        yield warning(f"the job {JOB!r} has not run yet", "check again in a minute; cron.log_run must be on")
    elif status != "succeeded":
        remedy = "cron.use_background_workers = on in postgresql.conf, and a restart; or allow it in pg_hba.conf"
        yield warning(f"the job {JOB!r} failed: {message}", remedy)
    elif is_late:
        yield warning(f"the job {JOB!r} has not run in the last {RAN_WITHIN}", "search the server's log for pg_cron")


def _last_run(connection: PostgreSQLConnection, job: int) -> tuple[str | None, str, bool]:
    row = connection.execute(LAST_RUN, (RAN_WITHIN, job)).fetchone()
    return (str(row[0]), " ".join(str(row[1]).split()), not row[2]) if row else (None, "", False)


def schedule(connection: PostgreSQLConnection, role: str) -> str:
    """The statement that creates the job, for an administrator of the database that pg_cron uses."""
    command = value(connection, "SELECT format(%s, %s::text)", (COMMAND, role))
    arguments = (JOB, SCHEDULE, command, connection.info.dbname, connection.info.user)
    return f"SELECT cron.schedule_in_database({', '.join(sql.Literal(argument).as_string(connection) for argument in arguments)});"
