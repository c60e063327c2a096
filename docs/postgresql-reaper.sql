-- Optional: PostgreSQL itself ends the sessions of users past their expiry, also while dbaccess is down.
--
-- PostgreSQL refuses their logins by itself (VALID UNTIL), but ends no open session. This file creates a job for the extension
-- pg_cron, 1.4 or later. The job runs every minute and ends sessions of users whose expiry is more than 2 minutes ago. dbaccess ends
-- these sessions first, at the expiry, counts them and writes the receipt. The job reaches no standby.
--
-- First set this in postgresql.conf and restart (a managed service has its own switch for it):
--     shared_preload_libraries = 'pg_cron'
--     cron.use_background_workers = on        -- without it pg_cron logs in over the network, which pg_hba.conf must allow
--
-- Then run this file as superuser, in the database that cron.database_name names (postgres by default). It may be repeated:
--     psql -d postgres -v login=dbaccess -v role=dbaccess_owner -f postgresql-reaper.sql
-- login: the role that the admin URL logs in as. role: the admin_role in databases.yml, or the login again where there is none.
--
-- `dbaccess doctor` measures whether the job exists, is switched on, and ran lately without an error.
-- To remove it: SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = 'dbaccess reaper';

\set ON_ERROR_STOP on
CREATE EXTENSION IF NOT EXISTS pg_cron;
SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), :'login') \gexec
GRANT USAGE ON SCHEMA cron TO :"login";
SELECT cron.schedule_in_database('dbaccess reaper', '* * * * *', format(
  $reap$SET search_path = pg_catalog, pg_temp; SET ROLE %I; SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolvaliduntil < now() - interval '2 minutes' AND NOT r.rolsuper AND shobj_description(r.oid, 'pg_authid') ~ '^dbaccess ledger=[a-z0-9]+ request=[0-9]+$' AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')); RESET ROLE; DELETE FROM cron.job_run_details WHERE end_time < now() - interval '1 day' AND jobid IN (SELECT jobid FROM cron.job WHERE jobname = 'dbaccess reaper')$reap$,
  :'role'), current_database(), :'login');
