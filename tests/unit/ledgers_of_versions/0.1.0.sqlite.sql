BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
CREATE TABLE audit_events (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at DATETIME NOT NULL, 
	kind VARCHAR(48) NOT NULL, 
	actor VARCHAR(64) NOT NULL, 
	request_id INTEGER, 
	facts JSON NOT NULL, 
	text_digest VARCHAR(64), 
	sequence BIGINT, 
	hash VARCHAR(64), 
	CONSTRAINT fk_audit_events_request_id FOREIGN KEY(request_id) REFERENCES requests (id), 
	CONSTRAINT uq_audit_events_sequence UNIQUE (sequence)
);
INSERT INTO "audit_events" VALUES(1,'2026-11-23 09:00:00.000000','request.asked','U0ADA',1,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}','46260af1731bf2f60846e9f8669834c4724798b8a7cb0712e6715b21de2b989f',NULL,NULL);
INSERT INTO "audit_events" VALUES(2,'2026-11-23 09:00:00.000000','request.approved','U0LEAD',1,'{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_1_ada_c2lb", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(3,'2026-11-23 09:00:00.000000','grant.started','bot',1,'{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_1_ada_c2lb", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(4,'2026-11-23 09:00:00.000000','grant.activated','bot',1,'{"state": "active", "database": "shop", "level": "readonly", "username": "jit_1_ada_c2lb", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(5,'2026-11-23 09:05:00.000000','grant.revoking','U0ADA',1,'{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_1_ada_c2lb", "expires_at": "2026-11-23T10:00:00+00:00", "cause": "done", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(6,'2026-11-23 09:05:00.000000','grant.revoked','bot',1,'{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_1_ada_c2lb", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "was_absent": false, "sessions_ended": 0, "kept_by": null}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(7,'2026-11-23 09:05:00.000000','request.asked','U0ADA',2,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}','4df73756cf2fcf0cd163e2574d4a36af231c3beb63ac559ddd54dd47f1676e3d',NULL,NULL);
INSERT INTO "audit_events" VALUES(8,'2026-11-23 09:05:00.000000','request.approved','U0LEAD',2,'{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_2_ada_uqfh", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(9,'2026-11-23 09:05:00.000000','grant.started','bot',2,'{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_2_ada_uqfh", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(10,'2026-11-23 09:05:00.000000','grant.activated','bot',2,'{"state": "active", "database": "shop", "level": "readonly", "username": "jit_2_ada_uqfh", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(11,'2026-11-23 09:05:00.000000','grant.revoking','cli:root',2,'{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_2_ada_uqfh", "expires_at": "2026-11-23T10:05:00+00:00", "cause": "gone", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(12,'2026-11-23 09:05:00.000000','grant.revoked','cli:root',2,'{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_2_ada_uqfh", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "gone": true}','ef83ecd366c8de30231487760e5ef69d8d2c22ece496ffe9f50391d5aea8c037',NULL,NULL);
INSERT INTO "audit_events" VALUES(13,'2026-11-23 09:05:00.000000','request.asked','U0ADA',3,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}','92283a37a5614ce268acff9470cdb85605efbc79294c47af462e3afb0229ad4b',NULL,NULL);
INSERT INTO "audit_events" VALUES(14,'2026-11-23 09:05:00.000000','request.approved','U0LEAD',3,'{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_3_ada_cvtl", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(15,'2026-11-23 09:05:00.000000','grant.revoking','cli:root',3,'{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_3_ada_cvtl", "cause": "revoked", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(16,'2026-11-23 09:05:00.000000','grant.revoked','bot',3,'{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_3_ada_cvtl", "duration_seconds": 3600.0, "policy": "279874a1d079", "nothing_made": true}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(17,'2026-11-23 09:05:00.000000','request.asked','U0ADA',4,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}','870e7df8bc110793e35062d6912f22c60b646a989634515d1e263f91cfe51500',NULL,NULL);
INSERT INTO "audit_events" VALUES(18,'2026-11-23 09:05:00.000000','request.denied','U0LEAD',4,'{"state": "denied", "database": "shop", "level": "readonly", "verdict": "deny", "stage": 0, "cause": "denied", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}','f70077c58d2b25075134ca10eb9455f250cce648cb5b89ffdfdbc86081d50f8d',NULL,NULL);
INSERT INTO "audit_events" VALUES(19,'2026-11-23 09:05:00.000000','request.asked','U0ADA',5,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}','4b9e90eb24fdb04d837e85c92277a56e2dd1996119804d813e03e6c71f7887bf',NULL,NULL);
INSERT INTO "audit_events" VALUES(20,'2026-11-23 09:05:00.000000','request.approved','U0LEAD',5,'{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_5_ada_oyt2", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(21,'2026-11-23 09:05:00.000000','grant.started','bot',5,'{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_5_ada_oyt2", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(22,'2026-11-23 09:05:00.000000','grant.activated','bot',5,'{"state": "active", "database": "shop", "level": "readonly", "username": "jit_5_ada_oyt2", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}',NULL,NULL,NULL);
INSERT INTO "audit_events" VALUES(23,'2026-11-23 09:05:00.000000','request.asked','U0ADA',6,'{"state": "pending", "database": "shop", "level": "readonly", "kind": "extension", "duration_seconds": 1800.0, "policy": "279874a1d079"}','7ba8fb068b44cda4258c106509107644f540ed8fe9edf17d5fd87c40467d6de7',NULL,NULL);
INSERT INTO "audit_events" VALUES(24,'2026-11-23 09:05:00.000000','request.asked','U0ADA',7,'{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 7200.0, "policy": "279874a1d079"}','134731af933d33cc1901269acaf94720326583a8b0ba7fd622b1f4074638f94f',NULL,NULL);
CREATE TABLE audit_texts (
	event_id INTEGER NOT NULL, 
	salt BLOB NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_audit_texts PRIMARY KEY (event_id), 
	CONSTRAINT fk_audit_texts_event_id FOREIGN KEY(event_id) REFERENCES audit_events (id)
);
INSERT INTO "audit_texts" VALUES(1,X'370173A157F87880D7DB54861387DF9C','looking at a refund');
INSERT INTO "audit_texts" VALUES(7,X'B6B620FC48D7EF61BF27F68DBF7DA2BE','looking at a refund');
INSERT INTO "audit_texts" VALUES(12,X'FEFAB07ABE95087357DC0AC76F1253AA','the server burnt down');
INSERT INTO "audit_texts" VALUES(13,X'CF781AB25AB95F5E1FC3A67EF5B242AF','looking at a refund');
INSERT INTO "audit_texts" VALUES(17,X'2CB9451134BDF33DAD9EFD1E859CD964','looking at a refund');
INSERT INTO "audit_texts" VALUES(18,X'4CCB0ED010400C9922AB7749A91A7965','not today');
INSERT INTO "audit_texts" VALUES(19,X'E01A2842826D642825594047B1193004','looking at a refund');
INSERT INTO "audit_texts" VALUES(23,X'639D5B3440664E1922815D8F3DF31951','needs longer');
INSERT INTO "audit_texts" VALUES(24,X'09049309EDE29E31FD966F31E0EF75B1','looking at a refund');
CREATE TABLE decisions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	request_id INTEGER NOT NULL, 
	person_id VARCHAR(64) NOT NULL, 
	person_name TEXT NOT NULL, 
	verdict VARCHAR(16) NOT NULL, 
	stage INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	reason TEXT, 
	duration BIGINT, 
	CONSTRAINT fk_decisions_request_id FOREIGN KEY(request_id) REFERENCES requests (id), 
	CONSTRAINT uq_decisions_request_id_person_id UNIQUE (request_id, person_id)
);
INSERT INTO "decisions" VALUES(1,1,'U0LEAD','lead','approve',0,'2026-11-23 09:00:00.000000',NULL,NULL);
INSERT INTO "decisions" VALUES(2,2,'U0LEAD','lead','approve',0,'2026-11-23 09:05:00.000000',NULL,NULL);
INSERT INTO "decisions" VALUES(3,3,'U0LEAD','lead','approve',0,'2026-11-23 09:05:00.000000',NULL,NULL);
INSERT INTO "decisions" VALUES(4,4,'U0LEAD','lead','deny',0,'2026-11-23 09:05:00.000000','not today',NULL);
INSERT INTO "decisions" VALUES(5,5,'U0LEAD','lead','approve',0,'2026-11-23 09:05:00.000000',NULL,NULL);
CREATE TABLE lockdowns (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"database" VARCHAR(64), 
	person_id VARCHAR(64), 
	locked_by VARCHAR(64) NOT NULL, 
	at DATETIME NOT NULL, 
	unlocked_by VARCHAR(64), 
	unlocked_at DATETIME
);
CREATE TABLE messages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	request_id INTEGER NOT NULL, 
	purpose VARCHAR(32) NOT NULL, 
	channel VARCHAR(64) NOT NULL, 
	ts VARCHAR(32), 
	version INTEGER NOT NULL, 
	CONSTRAINT fk_messages_request_id FOREIGN KEY(request_id) REFERENCES requests (id)
);
INSERT INTO "messages" VALUES(1,1,'card','C0CARDS','2.0',6);
INSERT INTO "messages" VALUES(2,1,'credentials','U0ADA','3.0',6);
INSERT INTO "messages" VALUES(3,2,'card','C0CARDS','6.0',6);
INSERT INTO "messages" VALUES(4,2,'credentials','U0ADA','7.0',6);
INSERT INTO "messages" VALUES(5,3,'card','C0CARDS','9.0',4);
INSERT INTO "messages" VALUES(6,3,'credentials','U0ADA',NULL,0);
INSERT INTO "messages" VALUES(7,4,'card','C0CARDS','11.0',2);
INSERT INTO "messages" VALUES(8,5,'card','C0CARDS','13.0',4);
INSERT INTO "messages" VALUES(9,5,'credentials','U0ADA','14.0',3);
INSERT INTO "messages" VALUES(10,6,'card','C0CARDS','15.0',1);
INSERT INTO "messages" VALUES(11,7,'card','C0CARDS','16.0',1);
CREATE TABLE meta (
	name VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('ledger','jsmg90zv8b17');
INSERT INTO "meta" VALUES('cursor:feed_at','1795424700000');
INSERT INTO "meta" VALUES('cursor:feed','5');
CREATE TABLE requests (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	"key" VARCHAR(32) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	version INTEGER NOT NULL, 
	team_id VARCHAR(32) NOT NULL, 
	requester_id VARCHAR(64) NOT NULL, 
	requester_name TEXT NOT NULL, 
	"database" VARCHAR(64) NOT NULL, 
	level VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	ticket TEXT, 
	parent_id INTEGER, 
	terms JSON NOT NULL, 
	asked_at DATETIME NOT NULL, 
	lapses_at DATETIME NOT NULL, 
	approved_at DATETIME, 
	duration BIGINT, 
	start_before DATETIME, 
	username VARCHAR(64), 
	target JSON, 
	identity TEXT, 
	started_at DATETIME, 
	unsettled_until DATETIME, 
	expires_at DATETIME, 
	activated_at DATETIME, 
	claimed_at DATETIME, 
	first_login_at DATETIME, 
	reviewed_at DATETIME, 
	ended_at DATETIME, 
	ended_because VARCHAR(32), 
	ended_by VARCHAR(64), 
	ended_words TEXT, 
	receipt JSON, 
	CONSTRAINT fk_requests_parent_id FOREIGN KEY(parent_id) REFERENCES requests (id), 
	CONSTRAINT uq_requests_key UNIQUE ("key")
);
INSERT INTO "requests" VALUES(1,'c2lbuyvzr7630y4j','access','revoked',6,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:00:00.000000','2026-11-24 09:00:00.000000','2026-11-23 09:00:00.000000',3600000000,'2026-11-23 10:00:00.000000','jit_1_ada_c2lb','{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "jsmg90zv8b17", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}','server-1','2026-11-23 09:00:00.000000',NULL,'2026-11-23 10:00:00.000000','2026-11-23 09:00:00.000000',NULL,NULL,NULL,'2026-11-23 09:05:00.000000','done','U0ADA',NULL,'{"was_absent": false, "sessions_ended": 0, "kept": [], "kept_by": null, "read_back_at": "2026-11-23T09:05:00+00:00", "notes": []}');
INSERT INTO "requests" VALUES(2,'uqfhlri9lcpj7fvy','access','revoked',6,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-24 09:05:00.000000','2026-11-23 09:05:00.000000',3600000000,'2026-11-23 10:05:00.000000','jit_2_ada_uqfh','{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "jsmg90zv8b17", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}','server-1','2026-11-23 09:05:00.000000',NULL,'2026-11-23 10:05:00.000000','2026-11-23 09:05:00.000000',NULL,NULL,NULL,'2026-11-23 09:05:00.000000','gone','cli:root',NULL,'{"gone": "the server burnt down"}');
INSERT INTO "requests" VALUES(3,'cvtlj5q5x0qrtsw6','access','revoked',4,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-24 09:05:00.000000','2026-11-23 09:05:00.000000',3600000000,'2026-11-23 10:05:00.000000','jit_3_ada_cvtl','{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "jsmg90zv8b17", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-23 09:05:00.000000','revoked','cli:root',NULL,'{"nothing_made": true}');
INSERT INTO "requests" VALUES(4,'uqp422xbky2otx3w','access','denied',2,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-24 09:05:00.000000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'2026-11-23 09:05:00.000000','denied','U0LEAD','not today',NULL);
INSERT INTO "requests" VALUES(5,'oyt2bau34lka0859','access','active',4,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-24 09:05:00.000000','2026-11-23 09:05:00.000000',3600000000,'2026-11-23 10:05:00.000000','jit_5_ada_oyt2','{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "jsmg90zv8b17", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}','server-1','2026-11-23 09:05:00.000000',NULL,'2026-11-23 10:05:00.000000','2026-11-23 09:05:00.000000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "requests" VALUES(6,'yeu6bnk43i53ggtr','extension','pending',1,'T0TEAM','U0ADA','ada','shop','readonly','needs longer',NULL,5,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 1800.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-23 10:05:00.000000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "requests" VALUES(7,'gszafeor0wn33fg4','access','pending',1,'T0TEAM','U0ADA','ada','shop','readonly','looking at a refund',NULL,NULL,'{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 7200.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}','2026-11-23 09:05:00.000000','2026-11-24 09:05:00.000000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE tasks (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	kind VARCHAR(32) NOT NULL, 
	lane VARCHAR(64) NOT NULL, 
	request_id INTEGER, 
	payload JSON NOT NULL, 
	due_at DATETIME NOT NULL, 
	created_at DATETIME NOT NULL, 
	attempts INTEGER NOT NULL, 
	last_error TEXT, 
	claim BIGINT, 
	worker VARCHAR(32), 
	lease_until DATETIME, 
	CONSTRAINT fk_tasks_request_id FOREIGN KEY(request_id) REFERENCES requests (id)
);
INSERT INTO "tasks" VALUES(12,'feed','slack:feed',NULL,'{}','2026-11-23 09:05:01.000000','2026-11-23 09:05:00.000000',15,'at most one message a second',NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(40,'revoke','db:5',5,'{}','2026-11-23 10:05:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(43,'warn_before_end','slack:5',5,'{}','2026-11-23 09:50:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(45,'lapse','slack:6',6,'{}','2026-11-23 10:05:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(46,'remind','slack:6',6,'{}','2026-11-23 09:35:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(48,'lapse','slack:7',7,'{}','2026-11-24 09:05:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(49,'remind','slack:7',7,'{}','2026-11-23 09:35:00.000000','2026-11-23 09:05:00.000000',0,NULL,NULL,NULL,NULL);
CREATE INDEX ix_requests_requester_id_state ON requests (requester_id, state);
CREATE INDEX ix_requests_state_database ON requests (state, "database");
CREATE INDEX ix_audit_events_request_id ON audit_events (request_id);
CREATE INDEX ix_messages_request_id ON messages (request_id);
CREATE INDEX ix_tasks_due_at ON tasks (due_at);
CREATE INDEX ix_tasks_lease_until ON tasks (lease_until);
CREATE INDEX ix_tasks_request_id ON tasks (request_id);
CREATE UNIQUE INDEX uq_tasks_claimed_lane ON tasks (lane) WHERE claim IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('requests',7);
INSERT INTO "sqlite_sequence" VALUES('audit_events',24);
INSERT INTO "sqlite_sequence" VALUES('tasks',49);
INSERT INTO "sqlite_sequence" VALUES('messages',11);
INSERT INTO "sqlite_sequence" VALUES('decisions',5);
COMMIT;
