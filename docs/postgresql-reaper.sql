-- Optional: let PostgreSQL itself end the sessions of users past their end, also while dbaccess is down.
--
-- PostgreSQL refuses their logins by itself (VALID UNTIL) and ends no open session. This makes a job for the extension
-- pg_cron, 1.4 or later, that looks every minute and ends sessions of users whose end is more than 2 minutes ago. It comes after
-- dbaccess, which ends them at the time, counts them and writes the receipt. It reaches no standby.
--
-- Before, in postgresql.conf, and a restart (managed services have their own switch for it):
--     shared_preload_libraries = 'pg_cron'
--     cron.use_background_workers = on        -- otherwise pg_cron logs in over the network, which pg_hba.conf must allow
--
-- Then as superuser, in the database that cron.database_name names (postgres by default); may be repeated:
--     psql -d postgres -v login=dbaccess -v role=dbaccess_owner -f postgresql-reaper.sql
-- login: whom the admin URL logs in as. role: its admin_role in databases.yml, or the login again where it has none.
--
-- `dbaccess doctor` measures whether it works: the job is there, switched on, and ran lately without an error.
-- To take it away: SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'dbaccess reaper';

\set ON_ERROR_STOP on
CREATE EXTENSION IF NOT EXISTS pg_cron;
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'login') \gexec
GRANT USAGE ON SCHEMA cron TO :"login";
SELECT cron.schedule_in_database('dbaccess reaper', '* * * * *', format(
  $reap$SET search_path = pg_catalog, pg_temp; SET ROLE %I; SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolvaliduntil < now() - interval '2 minutes' AND NOT r.rolsuper AND shobj_description(r.oid, 'pg_authid') ~ '^dbaccess ledger=[a-z0-9]+ request=[0-9]+$' AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')); RESET ROLE; DELETE FROM cron.job_run_details WHERE end_time < now() - interval '1 day' AND jobid IN (SELECT jobid FROM cron.job WHERE jobname = 'dbaccess reaper')$reap$,
  :'role'), current_database(), :'login');
