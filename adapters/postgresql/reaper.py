"""The optional job of the server's own: it ends the sessions of users past their end while dbaccess is down.

A team sets it up once with ``docs/postgresql-reaper.sql`` (pg_cron 1.4 or later). It runs as the bot's own login, so it needs no
right that the bot has not, and the bot sees the job and its runs: what is promised is measured, never assumed. It comes
after dbaccess, which ends sessions at the time itself and counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import LiteralString

from psycopg import sql

from adapters.base import AdapterError, Enforced, Finding
from adapters.postgresql.connection import PostgreSQLConnection, Server, value
from adapters.postgresql.findings import ok, warning

SETUP = "docs/postgresql-reaper.sql"
JOB = "dbaccess reaper"
SCHEDULE = "* * * * *"
RAN_WITHIN = "5 minutes"
USUAL_DATABASE = "postgres"
"""Where pg_cron keeps its jobs unless ``cron.database_name`` says otherwise, which only superusers may read."""

COMMAND: LiteralString = (
    "SET search_path = pg_catalog, pg_temp; SET ROLE %I;"
    " SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid"
    " WHERE r.rolvaliduntil < now() - interval '2 minutes' AND NOT r.rolsuper"
    " AND shobj_description(r.oid, 'pg_authid') ~ '^dbaccess ledger=[a-z0-9]+ request=[0-9]+$'"
    " AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'));"
    " RESET ROLE; DELETE FROM cron.job_run_details WHERE end_time < now() - interval '1 day'"
    " AND jobid IN (SELECT jobid FROM cron.job WHERE jobname = 'dbaccess reaper')"
)
"""What the job runs; ``%I`` is the role the bot acts as. Only sessions of users with our mark, and only those it may end: one refusal would spare the rest."""

LAST_RUN = """
SELECT status, left(return_message, 200), start_time > clock_timestamp() - %s::interval FROM cron.job_run_details
 WHERE jobid = %s AND status IN ('succeeded', 'failed') ORDER BY runid DESC LIMIT 1
"""


def enforced(server: Server, databases: Sequence[str], *, has_standbys: bool) -> tuple[Enforced, list[Finding]]:
    """What this server ends by itself, as seen now, with what a reader should know of it."""
    for database in dict.fromkeys([server.database, USUAL_DATABASE, *databases]):
        try:
            with server.session(database) as connection:
                if value(connection, "SELECT 1 FROM pg_extension WHERE extname = 'pg_cron'"):
                    return _measured(connection, has_standbys=has_standbys)
        except AdapterError:
            continue  # one the bot may not enter; if the job is there, it is not seen and not promised
    return Enforced.LOGIN, [ok(f"open sessions are ended by dbaccess alone; {SETUP} lets the server end them, too")]


def _measured(connection: PostgreSQLConnection, *, has_standbys: bool) -> tuple[Enforced, list[Finding]]:
    role = connection.acting_role
    connection.execute("RESET ROLE")  # jobs are shown to those they run as
    job = _job(connection, role)
    if job is None:
        what = f"open sessions are ended by dbaccess alone; pg_cron is there, and {SETUP} lets it end them, too"
        return Enforced.LOGIN, [ok(what)]
    troubles = list(_troubles(connection, role, *job))
    if troubles:
        return Enforced.LOGIN, troubles
    if has_standbys:
        what = "the server itself ends sessions on the primary 2 to 3 minutes after their end; on standbys dbaccess alone does"
        return Enforced.LOGIN, [ok(what)]
    return Enforced.SESSIONS, [ok("the server itself ends open sessions 2 to 3 minutes after their end")]


def _job(connection: PostgreSQLConnection, role: str) -> tuple[int, bool, bool] | None:
    """Its number, whether it is switched on, and whether it runs what this version would have it run."""
    if not value(connection, "SELECT has_schema_privilege('cron', 'USAGE')"):
        return None
    return connection.execute(
        "SELECT jobid, active, command = format(%s, %s::text) FROM cron.job WHERE jobname = %s AND username = current_user",
        (COMMAND, role, JOB),
    ).fetchone()


def _troubles(connection: PostgreSQLConnection, role: str, job: int, is_on: bool, is_same: bool) -> Iterator[Finding]:
    if not is_same:
        what = f"the job {JOB!r} runs another statement than this version of dbaccess asks for"
        yield warning(what, schedule(connection, role))
    if not is_on:
        yield warning(f"the job {JOB!r} is switched off", f"SELECT cron.alter_job({job}, active => true);")
        return
    status, said, is_late = _last_run(connection, job)
    if status is None:
        yield warning(f"the job {JOB!r} has not run yet", "look again in a minute; cron.log_run must be on")
    elif status != "succeeded":
        remedy = "cron.use_background_workers = on in postgresql.conf, and a restart; or let it in by pg_hba.conf"
        yield warning(f"the job {JOB!r} failed: {said}", remedy)
    elif is_late:
        yield warning(f"the job {JOB!r} has not run in the last {RAN_WITHIN}", "look for pg_cron in the server's log")


def _last_run(connection: PostgreSQLConnection, job: int) -> tuple[str | None, str, bool]:
    row = connection.execute(LAST_RUN, (RAN_WITHIN, job)).fetchone()
    return (str(row[0]), " ".join(str(row[1]).split()), not row[2]) if row else (None, "", False)


def schedule(connection: PostgreSQLConnection, role: str) -> str:
    """The statement that makes the job, for an administrator of the database that pg_cron uses."""
    command = value(connection, "SELECT format(%s, %s::text)", (COMMAND, role))
    words = (JOB, SCHEDULE, command, connection.info.dbname, connection.info.user)
    return f"SELECT cron.schedule_in_database({', '.join(sql.Literal(word).as_string(connection) for word in words)});"
