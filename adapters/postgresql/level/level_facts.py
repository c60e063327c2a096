"""The SQL behind ``level_state``: what the roles of a level own, gave, changed and attached, read from the catalogs alone.

No statement here takes a lock on an object of a user or calls a function of one. A group of many objects is counted and summed up
on the server; only a few names of it are sent.

Parameters: ``scope`` are the oids of the level's roles, ``ours`` those of dbaccess's own roles, ``few`` is the number of objects of
a group that are named, ``most`` the number of facts of a kind, ``has_predefined`` is whether a predefined role is in the scope, and ``since`` is the age in transactions up to which an object counts as newer than the grant (-1 for none).
"""

from __future__ import annotations

from typing import LiteralString

SCOPE: LiteralString = """
WITH RECURSIVE reached(oid) AS (
  SELECT oid FROM pg_roles WHERE rolname = ANY(%(roles)s)
  UNION SELECT m.roleid FROM pg_auth_members m JOIN reached ON m.member = reached.oid)
SELECT r.oid FROM reached JOIN pg_roles r USING (oid) WHERE NOT r.rolsuper
UNION SELECT r.oid FROM pg_roles r, pg_database d WHERE r.rolname = 'pg_database_owner' AND d.datname = current_database()
  AND d.datdba IN (SELECT oid FROM reached)
"""
"""The roles and everything that they are members of. The owner of the database is also a member of ``pg_database_owner``."""

OURS: LiteralString = """
SELECT oid FROM pg_roles WHERE rolname IN (session_user, current_user) OR starts_with(rolname, %(prefix)s)
UNION SELECT objoid FROM pg_shdescription WHERE classoid = 'pg_authid'::regclass AND starts_with(description, 'dbaccess ledger=')
"""
"""The bot, temporary users and managed roles. Nobody without CREATEROLE can write the comment of a role."""

FIRST_LOOK: LiteralString = (
    "SELECT set_config('work_mem', '16MB', false), pg_snapshot_xmin(pg_current_snapshot())::text, coalesce(age(%(started)s::xid8::xid), -1),"
    " ARRAY(" + SCOPE + "), ARRAY(" + OURS + ")"
)
"""What the other statements need: the server's transaction number, the age of ``started``, and the oids of the roles."""

# Few facts: each row is a kind and a fact.

ROLES: LiteralString = """
SELECT 'members of the level''s roles' AS kind, format('%%s is a member of %%s%%s', m.rolname, r.rolname,
   CASE WHEN a.admin_option THEN ' and may give it to others' END) AS fact
  FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
 WHERE a.roleid = ANY(%(scope)s) AND a.member <> ALL(%(ours)s)
UNION ALL
SELECT 'attributes of the level''s roles', format('%%s: %%s', rolname, attribute) FROM pg_roles, unnest(ARRAY[
   CASE WHEN rolcanlogin THEN 'LOGIN' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END, CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
   CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
   CASE WHEN NOT rolinherit THEN 'NOINHERIT' END, 'CONNECTION LIMIT ' || nullif(rolconnlimit, -1), 'VALID UNTIL ' || rolvaliduntil]) attribute
 WHERE oid = ANY(%(scope)s) AND attribute IS NOT NULL
UNION ALL
SELECT 'settings', format('%%s of %%s in %%s [%%s]', split_part(setting, '=', 1), coalesce(r.rolname, 'every user'),
   coalesce(d.datname, 'every database'), left(md5(setting), 8))
  FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) setting
 WHERE s.setrole = ANY(%(scope)s) OR (s.setrole = 0 AND d.datdba = ANY(%(scope)s))
UNION ALL
SELECT 'databases', format('%%s of %%s%%s%%s', datname, pg_get_userbyid(datdba), ', connection limit ' || nullif(datconnlimit, -1),
   CASE WHEN NOT datallowconn THEN ', closed' END) FROM pg_database WHERE datdba = ANY(%(scope)s)
UNION ALL
SELECT 'default privileges', format('of %%s%%s: %%s on %%s to %%s', pg_get_userbyid(d.defaclrole), ' in the schema ' || n.nspname,
   string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY a.privilege_type),
   CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
     WHEN 'n' THEN 'schemas' ELSE 'large objects' END,
   CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END)
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
 WHERE d.defaclrole = ANY(%(scope)s) AND a.grantee <> ALL(%(ours)s) GROUP BY d.defaclrole, n.nspname, d.defaclobjtype, a.grantee
UNION ALL
SELECT 'user mappings', format('for %%s on the server %%s', CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(u.umuser) END, u.srvname)
  FROM pg_user_mappings u JOIN pg_foreign_server s ON s.oid = u.srvid
 WHERE (s.srvowner = ANY(%(scope)s) OR u.umuser = ANY(%(scope)s)) AND u.umuser <> ALL(%(ours)s)
UNION ALL
SELECT 'prepared transactions', format('%%s of %%s in %%s', encode(replace(p.gid, chr(92), repeat(chr(92), 2))::bytea, 'escape'), p.owner, p.database)
  FROM pg_prepared_xacts p JOIN pg_roles r ON r.rolname = p.owner WHERE r.oid = ANY(%(scope)s)
"""

ELSEWHERE: LiteralString = """
WITH owned AS MATERIALIZED (
  SELECT s.dbid, s.classid, s.objid, s.refobjid FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
   WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY(%(scope)s) AND s.deptype = 'o' AND d.datname <> current_database()
     AND EXISTS (SELECT FROM unnest(%(scope)s::oid[]) r WHERE has_database_privilege(r, d.oid, 'CONNECT')))
SELECT 'objects in other databases' AS kind, format('%%s of %%s in %%s [%%s]', count(*), pg_get_userbyid(refobjid), datname,
   left(md5(sum(hashtextextended(classid::int8::text, objid::int8))::text), 8)) AS fact
  FROM owned JOIN pg_database d ON d.oid = dbid GROUP BY refobjid, datname
UNION ALL
SELECT 'grants in other databases', format('%%s objects of %%s in %%s to %%s [%%s]', count(*), pg_get_userbyid(o.refobjid), d.datname,
   pg_get_userbyid(a.refobjid), left(md5(sum(hashtextextended(o.classid::int8::text, o.objid::int8))::text), 8))
  FROM owned o JOIN pg_database d ON d.oid = o.dbid JOIN pg_shdepend a ON a.dbid = o.dbid AND a.classid = o.classid AND a.objid = o.objid
   AND a.refclassid = 'pg_authid'::regclass AND a.deptype = 'a' AND a.refobjid <> ALL(%(ours)s)
 GROUP BY o.refobjid, a.refobjid, d.datname
"""
"""Catalogs of other databases cannot be read from here. The dependencies of roles on their objects can."""

FEW_FACTS: LiteralString = (
    "SELECT kind, count(*), left(md5(sum(hashtextextended(fact, 0))::text), 8), CASE WHEN count(*) <= %(most)s THEN array_agg(fact) END"
    " FROM (" + ROLES + " UNION ALL SELECT * FROM (" + ELSEWHERE + ") elsewhere) facts GROUP BY kind"
)
"""Each row is a kind, the number of its facts, a digest of them, and the facts where there are at most ``most``."""

# Many objects: each row is a kind, what the objects of the group have in common, their number, a digest, the names where they are few,
# the names of the newest, and how many further ones are newer than the grant.

GRANTS: LiteralString = """
WITH items(classid, objid, objsubid, item, age) AS (
  SELECT 'pg_class'::regclass, oid, 0, unnest(relacl), age(xmin) FROM pg_class WHERE relacl IS NOT NULL AND relpersistence <> 't'
  UNION ALL SELECT 'pg_class'::regclass, attrelid, attnum::int, unnest(attacl), age(xmin) FROM pg_attribute WHERE attacl IS NOT NULL
  UNION ALL SELECT 'pg_namespace'::regclass, oid, 0, unnest(nspacl), age(xmin) FROM pg_namespace
  UNION ALL SELECT 'pg_proc'::regclass, oid, 0, unnest(proacl), age(xmin) FROM pg_proc WHERE proacl IS NOT NULL
  UNION ALL SELECT 'pg_type'::regclass, oid, 0, unnest(typacl), age(xmin) FROM pg_type WHERE typacl IS NOT NULL
  UNION ALL SELECT 'pg_database'::regclass, oid, 0, unnest(datacl), age(xmin) FROM pg_database
  UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 0, unnest(srvacl), age(xmin) FROM pg_foreign_server
  UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 0, unnest(fdwacl), age(xmin) FROM pg_foreign_data_wrapper
  UNION ALL SELECT 'pg_language'::regclass, oid, 0, unnest(lanacl), age(xmin) FROM pg_language
  UNION ALL SELECT 'pg_tablespace'::regclass, oid, 0, unnest(spcacl), age(xmin) FROM pg_tablespace
  UNION ALL SELECT 'pg_parameter_acl'::regclass, oid, 0, unnest(paracl), age(xmin) FROM pg_parameter_acl
  UNION ALL SELECT 'pg_largeobject'::regclass, oid, 0, unnest(lomacl), age(xmin) FROM pg_largeobject_metadata WHERE lomacl IS NOT NULL
), grouped AS (
  SELECT classid, objsubid <> 0 AS is_column, item, count(*) AS number, sum(hashtextextended(objsubid::text, objid::int8)) AS total,
         array_agg(objid) FILTER (WHERE age BETWEEN 0 AND %(since)s) AS newer, array_agg(objsubid) FILTER (WHERE age BETWEEN 0 AND %(since)s) AS newer_columns,
         (array_agg(objid))[1:%(few)s] AS first, (array_agg(objsubid))[1:%(few)s] AS first_columns
    FROM items GROUP BY 1, 2, 3
)
SELECT 'grants on ' || CASE WHEN is_column THEN 'columns' ELSE CASE classid WHEN 'pg_class'::regclass THEN 'tables' WHEN 'pg_namespace'::regclass
         THEN 'schemas' WHEN 'pg_proc'::regclass THEN 'functions' WHEN 'pg_largeobject'::regclass THEN 'large objects' ELSE 'other things' END END,
       format('%%s to %%s, given by %%s', privileges, CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee) END, pg_get_userbyid(grantor)),
       number, left(md5(total::text), 8),
       CASE WHEN number <= %(few)s THEN ARRAY(SELECT concat_ws(' ', i.type, i.identity)
         FROM unnest(first, first_columns) s(id, sub), pg_identify_object(classid, s.id, s.sub) i) END,
       ARRAY(SELECT concat_ws(' ', i.type, i.identity) FROM unnest(newer[1:%(few)s], newer_columns[1:%(few)s]) s(id, sub), pg_identify_object(classid, s.id, s.sub) i),
       coalesce(cardinality(newer), 0) - %(few)s
  FROM grouped, LATERAL (
    SELECT grantor, grantee, string_agg(privilege_type || CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END, ', ' ORDER BY privilege_type) AS privileges
      FROM aclexplode(ARRAY[item]) GROUP BY 1, 2) acl
 WHERE grantor = ANY(%(scope)s) AND grantee <> grantor AND grantee <> ALL(%(ours)s)
"""
"""What the level's roles granted. A member of the owner grants in the owner's name, so a right that a user gave is among them."""

OBJECTS: LiteralString = """
WITH tables AS MATERIALIZED (
  SELECT oid, relowner FROM pg_class WHERE relowner = ANY(%(scope)s) AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'
), owned AS (
  SELECT s.classid, s.objid, s.refobjid AS owner, age(s.xmin) AS age FROM pg_shdepend s
   WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY(%(scope)s) AND s.deptype = 'o'
     AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
  UNION ALL SELECT 'pg_proc'::regclass, oid, proowner, age(xmin) FROM pg_proc WHERE proowner = ANY(%(scope)s) AND proowner < 16384 AND oid >= 16384
     AND %(has_predefined)s
  UNION ALL SELECT 'pg_class'::regclass, oid, relowner, age(xmin) FROM pg_class WHERE relowner = ANY(%(scope)s) AND relowner < 16384 AND oid >= 16384
     AND %(has_predefined)s
), found(kind, relation, holderclass, holder, classid, objid, version, age) AS (
  SELECT CASE o.classid WHEN 'pg_proc'::regclass THEN CASE WHEN p.prosecdef THEN 'functions that run as their owner' ELSE 'functions' END WHEN 'pg_class'::regclass THEN 'tables and views'
           WHEN 'pg_largeobject'::regclass THEN 'large objects' ELSE 'other objects' END,
         'of', 'pg_authid'::regclass, o.owner, o.classid, o.objid,
         nullif(concat_ws(' ', p.xmin::text, f.xmin::text, e.xmin::text, x.xmin::text, u.xmin::text, y.xmin::text, c.relname, c.relnamespace::text,
           c.reloptions::text, CASE WHEN c.relrowsecurity THEN 'row security' END, CASE WHEN c.relforcerowsecurity THEN 'forced' END), ''),
         least(o.age, age(p.xmin), age(f.xmin), age(e.xmin), age(x.xmin), age(u.xmin), age(y.xmin), age(c.xmin))
    FROM owned o LEFT JOIN pg_proc p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid
    LEFT JOIN pg_class c ON o.classid = 'pg_class'::regclass AND c.oid = o.objid
    LEFT JOIN pg_foreign_server f ON o.classid = 'pg_foreign_server'::regclass AND f.oid = o.objid
    LEFT JOIN pg_event_trigger e ON o.classid = 'pg_event_trigger'::regclass AND e.oid = o.objid
    LEFT JOIN pg_operator x ON o.classid = 'pg_operator'::regclass AND x.oid = o.objid
    LEFT JOIN pg_publication u ON o.classid = 'pg_publication'::regclass AND u.oid = o.objid
    LEFT JOIN pg_type y ON o.classid = 'pg_type'::regclass AND y.oid = o.objid AND y.typtype = 'd'
   WHERE o.classid <> 'pg_default_acl'::regclass AND c.relpersistence IS DISTINCT FROM 't'
  UNION ALL SELECT 'triggers', 'that call', 'pg_proc'::regclass, tgfoid, 'pg_trigger'::regclass, oid, xmin::text, age(xmin)
    FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT 'rules and view definitions', 'on those of', 'pg_authid'::regclass, t.relowner, 'pg_rewrite'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_rewrite x ON x.ev_class = t.oid
  UNION ALL SELECT 'row policies', 'on tables of', 'pg_authid'::regclass, t.relowner, 'pg_policy'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_policy x ON x.polrelid = t.oid
  UNION ALL SELECT 'column defaults', 'on tables of', 'pg_authid'::regclass, t.relowner, 'pg_attrdef'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_attrdef x ON x.adrelid = t.oid
  UNION ALL SELECT 'check constraints', 'on tables of', 'pg_authid'::regclass, t.relowner, 'pg_constraint'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_constraint x ON x.conrelid = t.oid AND x.contype = 'c'
  UNION ALL SELECT 'check constraints', 'on domains of', 'pg_authid'::regclass, t.typowner, 'pg_constraint'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM pg_type t JOIN pg_constraint x ON x.contypid = t.oid WHERE x.contypid <> 0 AND t.typtype = 'd' AND t.typowner = ANY(%(scope)s)
  UNION ALL SELECT 'indexes that compute', 'on tables of', 'pg_authid'::regclass, t.relowner, 'pg_class'::regclass, x.indexrelid, NULL, age(x.xmin)
    FROM tables t JOIN pg_index x ON x.indrelid = t.oid AND (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL)
  UNION ALL SELECT 'child tables with another owner', 'below tables of', 'pg_authid'::regclass, t.relowner, 'pg_class'::regclass, x.inhrelid, NULL, age(x.xmin)
    FROM tables t JOIN pg_inherits x ON x.inhparent = t.oid JOIN pg_class c ON c.oid = x.inhrelid AND c.relowner <> t.relowner
  UNION ALL SELECT 'foreign keys from tables with another owner', 'to', 'pg_class'::regclass, x.confrelid, 'pg_constraint'::regclass, x.oid, NULL, age(x.xmin)
    FROM pg_constraint x JOIN pg_class a ON a.oid = x.conrelid JOIN pg_class b ON b.oid = x.confrelid WHERE x.contype = 'f' AND a.relowner <> b.relowner
  UNION ALL SELECT 'statistics', 'on tables of', 'pg_authid'::regclass, t.relowner, 'pg_statistic_ext'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_statistic_ext x ON x.stxrelid = t.oid
  UNION ALL SELECT 'published tables', 'of', 'pg_authid'::regclass, t.relowner, 'pg_publication_rel'::regclass, x.oid, x.xmin::text, age(x.xmin)
    FROM tables t JOIN pg_publication_rel x ON x.prrelid = t.oid
  UNION ALL SELECT 'casts', 'that call', 'pg_proc'::regclass, castfunc, 'pg_cast'::regclass, oid, NULL, age(xmin) FROM pg_cast WHERE oid >= 16384
), grouped AS (
  SELECT kind, relation, holderclass, holder, classid, count(*) AS number, sum(hashtextextended(coalesce(version, ''), objid::int8)) AS total,
         array_agg(objid ORDER BY age, objid) FILTER (WHERE age BETWEEN 0 AND %(since)s) AS newer, array_agg(version ORDER BY age, objid) FILTER (WHERE age BETWEEN 0 AND %(since)s) AS newer_versions,
         (array_agg(objid))[1:%(few)s] AS first, (array_agg(version))[1:%(few)s] AS versions
    FROM found GROUP BY 1, 2, 3, 4, 5
)
SELECT kind, concat_ws(' ', relation, CASE WHEN holderclass = 'pg_authid'::regclass THEN pg_get_userbyid(holder)
         ELSE (SELECT identity FROM pg_identify_object(holderclass, holder, 0)) END, CASE WHEN kind = 'other objects' THEN 'in ' || classid::regclass::text END),
       number, left(md5(total::text), 8),
       CASE WHEN number <= %(few)s THEN ARRAY(SELECT concat_ws(' ', i.type, i.identity, '[' || left(md5(s.version), 6) || ']')
         FROM unnest(first, versions) s(id, version), pg_identify_object(classid, s.id, 0) i) END,
       ARRAY(SELECT concat_ws(' ', i.type, i.identity, '[' || left(md5(s.version), 6) || ']')
         FROM unnest(newer[1:%(few)s], newer_versions[1:%(few)s]) s(id, version), pg_identify_object(classid, s.id, 0) i),
       coalesce(cardinality(newer), 0) - %(few)s
  FROM grouped
"""
"""What the level's roles own, and the code that runs when somebody else uses a table.

``pg_shdepend`` has every object of a role, of whatever kind, but not those of the predefined roles. The version changes with the object.
"""
