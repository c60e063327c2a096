CREATE TABLE alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE audit_events (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    kind character varying(48) NOT NULL,
    actor character varying(64) NOT NULL,
    request_id bigint,
    facts json NOT NULL,
    text_digest character varying(64),
    sequence bigint,
    hash character varying(64)
);
CREATE SEQUENCE audit_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE audit_events_id_seq OWNED BY audit_events.id;
CREATE TABLE audit_texts (
    event_id bigint NOT NULL,
    salt bytea NOT NULL,
    text text NOT NULL
);
CREATE TABLE decisions (
    id bigint NOT NULL,
    request_id bigint NOT NULL,
    person_id character varying(64) NOT NULL,
    person_name text NOT NULL,
    verdict character varying(16) NOT NULL,
    stage integer NOT NULL,
    at timestamp with time zone NOT NULL,
    reason text,
    duration bigint
);
CREATE SEQUENCE decisions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE decisions_id_seq OWNED BY decisions.id;
CREATE TABLE lockdowns (
    id bigint NOT NULL,
    database character varying(64),
    person_id character varying(64),
    locked_by character varying(64) NOT NULL,
    at timestamp with time zone NOT NULL,
    unlocked_by character varying(64),
    unlocked_at timestamp with time zone
);
CREATE SEQUENCE lockdowns_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE lockdowns_id_seq OWNED BY lockdowns.id;
CREATE TABLE messages (
    id bigint NOT NULL,
    request_id bigint NOT NULL,
    purpose character varying(32) NOT NULL,
    channel character varying(64) NOT NULL,
    ts character varying(32),
    version integer NOT NULL
);
CREATE SEQUENCE messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE messages_id_seq OWNED BY messages.id;
CREATE TABLE meta (
    name character varying(64) NOT NULL,
    value text NOT NULL
);
CREATE TABLE requests (
    id bigint NOT NULL,
    key character varying(32) NOT NULL,
    kind character varying(16) NOT NULL,
    state character varying(16) NOT NULL,
    version integer NOT NULL,
    team_id character varying(32) NOT NULL,
    requester_id character varying(64) NOT NULL,
    requester_name text NOT NULL,
    database character varying(64) NOT NULL,
    level character varying(64) NOT NULL,
    reason text NOT NULL,
    ticket text,
    parent_id bigint,
    terms json NOT NULL,
    asked_at timestamp with time zone NOT NULL,
    lapses_at timestamp with time zone NOT NULL,
    approved_at timestamp with time zone,
    duration bigint,
    start_before timestamp with time zone,
    username character varying(64),
    target json,
    identity text,
    started_at timestamp with time zone,
    unsettled_until timestamp with time zone,
    expires_at timestamp with time zone,
    activated_at timestamp with time zone,
    claimed_at timestamp with time zone,
    first_login_at timestamp with time zone,
    reviewed_at timestamp with time zone,
    ended_at timestamp with time zone,
    ended_because character varying(32),
    ended_by character varying(64),
    ended_words text,
    receipt json
);
CREATE SEQUENCE requests_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE requests_id_seq OWNED BY requests.id;
CREATE TABLE tasks (
    id bigint NOT NULL,
    kind character varying(32) NOT NULL,
    lane character varying(64) NOT NULL,
    request_id bigint,
    payload json NOT NULL,
    due_at timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    attempts integer NOT NULL,
    last_error text,
    claim bigint,
    worker character varying(32),
    lease_until timestamp with time zone
);
CREATE SEQUENCE tasks_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE tasks_id_seq OWNED BY tasks.id;
ALTER TABLE ONLY audit_events ALTER COLUMN id SET DEFAULT nextval('audit_events_id_seq'::regclass);
ALTER TABLE ONLY decisions ALTER COLUMN id SET DEFAULT nextval('decisions_id_seq'::regclass);
ALTER TABLE ONLY lockdowns ALTER COLUMN id SET DEFAULT nextval('lockdowns_id_seq'::regclass);
ALTER TABLE ONLY messages ALTER COLUMN id SET DEFAULT nextval('messages_id_seq'::regclass);
ALTER TABLE ONLY requests ALTER COLUMN id SET DEFAULT nextval('requests_id_seq'::regclass);
ALTER TABLE ONLY tasks ALTER COLUMN id SET DEFAULT nextval('tasks_id_seq'::regclass);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO audit_events VALUES (1, '2026-11-23 04:00:00-05', 'request.asked', 'U0ADA', 1, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}', '7b8c6efa77ca407ea330fcda9cf3a2289f5507095f8eb17696f3995ba7cfac29', NULL, NULL);
INSERT INTO audit_events VALUES (2, '2026-11-23 04:00:00-05', 'request.approved', 'U0LEAD', 1, '{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_1_ada_y9hs", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (3, '2026-11-23 04:00:00-05', 'grant.started', 'bot', 1, '{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_1_ada_y9hs", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (4, '2026-11-23 04:00:00-05', 'grant.activated', 'bot', 1, '{"state": "active", "database": "shop", "level": "readonly", "username": "jit_1_ada_y9hs", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (5, '2026-11-23 04:05:00-05', 'grant.revoking', 'U0ADA', 1, '{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_1_ada_y9hs", "expires_at": "2026-11-23T10:00:00+00:00", "cause": "done", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (6, '2026-11-23 04:05:00-05', 'grant.revoked', 'bot', 1, '{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_1_ada_y9hs", "expires_at": "2026-11-23T10:00:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "was_absent": false, "sessions_ended": 0, "kept_by": null}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (7, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 2, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}', '4b7462a90b2e292dd9c22bfc3f2ac07a9816de5b74762407dff19b1f3af24d94', NULL, NULL);
INSERT INTO audit_events VALUES (8, '2026-11-23 04:05:00-05', 'request.approved', 'U0LEAD', 2, '{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_2_ada_aw3x", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (9, '2026-11-23 04:05:00-05', 'grant.started', 'bot', 2, '{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_2_ada_aw3x", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (10, '2026-11-23 04:05:00-05', 'grant.activated', 'bot', 2, '{"state": "active", "database": "shop", "level": "readonly", "username": "jit_2_ada_aw3x", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (11, '2026-11-23 04:05:00-05', 'grant.revoking', 'cli:root', 2, '{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_2_ada_aw3x", "expires_at": "2026-11-23T10:05:00+00:00", "cause": "gone", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (12, '2026-11-23 04:05:00-05', 'grant.revoked', 'cli:root', 2, '{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_2_ada_aw3x", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "gone": true}', 'c1de9ea3039e56a8db637dd8f33202bf8e3f8ba475da30d2115f169976ee55c6', NULL, NULL);
INSERT INTO audit_events VALUES (13, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 3, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}', '73cced257c4056c5795e6e51bb9c3b1332cc4aae8ed0420b7f77f580a5d66c8e', NULL, NULL);
INSERT INTO audit_events VALUES (14, '2026-11-23 04:05:00-05', 'request.approved', 'U0LEAD', 3, '{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_3_ada_61vb", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (15, '2026-11-23 04:05:00-05', 'grant.revoking', 'cli:root', 3, '{"state": "revoking", "database": "shop", "level": "readonly", "username": "jit_3_ada_61vb", "cause": "revoked", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (16, '2026-11-23 04:05:00-05', 'grant.revoked', 'bot', 3, '{"state": "revoked", "database": "shop", "level": "readonly", "username": "jit_3_ada_61vb", "duration_seconds": 3600.0, "policy": "279874a1d079", "nothing_made": true}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (17, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 4, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}', '1f225d16d0bfda66119c999f4555893d573b1ea7bd2c8634f5b812d499953073', NULL, NULL);
INSERT INTO audit_events VALUES (18, '2026-11-23 04:05:00-05', 'request.denied', 'U0LEAD', 4, '{"state": "denied", "database": "shop", "level": "readonly", "verdict": "deny", "stage": 0, "cause": "denied", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}', '20e4e90e4d948e403983f3a09fa139ee815a7a6865ad4b236c580c624308f265', NULL, NULL);
INSERT INTO audit_events VALUES (19, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 5, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 3600.0, "policy": "279874a1d079"}', 'de77902733767c1d852764218d696a47b464defe21d63ab49c85c105f76abff8', NULL, NULL);
INSERT INTO audit_events VALUES (20, '2026-11-23 04:05:00-05', 'request.approved', 'U0LEAD', 5, '{"state": "approved", "database": "shop", "level": "readonly", "verdict": "approve", "stage": 0, "username": "jit_5_ada_iok8", "duration_seconds": 3600.0, "policy": "279874a1d079", "policy_in_force": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (21, '2026-11-23 04:05:00-05', 'grant.started', 'bot', 5, '{"state": "approved", "database": "shop", "level": "readonly", "username": "jit_5_ada_iok8", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079", "try": 1}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (22, '2026-11-23 04:05:00-05', 'grant.activated', 'bot', 5, '{"state": "active", "database": "shop", "level": "readonly", "username": "jit_5_ada_iok8", "expires_at": "2026-11-23T10:05:00+00:00", "duration_seconds": 3600.0, "policy": "279874a1d079"}', NULL, NULL, NULL);
INSERT INTO audit_events VALUES (23, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 6, '{"state": "pending", "database": "shop", "level": "readonly", "kind": "extension", "duration_seconds": 1800.0, "policy": "279874a1d079"}', '90d2bcda05dad262b9d20d550327f4a44d5bcfc206c3e3f976e890c9be818661', NULL, NULL);
INSERT INTO audit_events VALUES (24, '2026-11-23 04:05:00-05', 'request.asked', 'U0ADA', 7, '{"state": "pending", "database": "shop", "level": "readonly", "duration_seconds": 7200.0, "policy": "279874a1d079"}', 'f1627d1d40f221248d6a7ce83bd9674de2a6942efce3656921428d5a5c7b0955', NULL, NULL);
INSERT INTO audit_texts VALUES (1, '\xa813c55c0273d47c7e85686d387935ea', 'looking at a refund');
INSERT INTO audit_texts VALUES (7, '\x5709c81025a01676402b9697ce209e5d', 'looking at a refund');
INSERT INTO audit_texts VALUES (12, '\x82c113d2b7797f7b45cb39e3631836b2', 'the server burnt down');
INSERT INTO audit_texts VALUES (13, '\x09b4d697518469e7cee6e76cd028705a', 'looking at a refund');
INSERT INTO audit_texts VALUES (17, '\xd33588d433b6a95a39e2b4b96a1cd814', 'looking at a refund');
INSERT INTO audit_texts VALUES (18, '\xce2df4101b9014105f5becc6a78ac279', 'not today');
INSERT INTO audit_texts VALUES (19, '\xab2b1f5f92439c634060eeb3b318300e', 'looking at a refund');
INSERT INTO audit_texts VALUES (23, '\x6ae68cb5a36a8cf7ae277d2567058ff0', 'needs longer');
INSERT INTO audit_texts VALUES (24, '\x1a262054fbb9181e100777f3419582c0', 'looking at a refund');
INSERT INTO decisions VALUES (1, 1, 'U0LEAD', 'lead', 'approve', 0, '2026-11-23 04:00:00-05', NULL, NULL);
INSERT INTO decisions VALUES (2, 2, 'U0LEAD', 'lead', 'approve', 0, '2026-11-23 04:05:00-05', NULL, NULL);
INSERT INTO decisions VALUES (3, 3, 'U0LEAD', 'lead', 'approve', 0, '2026-11-23 04:05:00-05', NULL, NULL);
INSERT INTO decisions VALUES (4, 4, 'U0LEAD', 'lead', 'deny', 0, '2026-11-23 04:05:00-05', 'not today', NULL);
INSERT INTO decisions VALUES (5, 5, 'U0LEAD', 'lead', 'approve', 0, '2026-11-23 04:05:00-05', NULL, NULL);
INSERT INTO messages VALUES (2, 1, 'credentials', 'U0ADA', '3.0', 6);
INSERT INTO messages VALUES (1, 1, 'card', 'C0CARDS', '2.0', 6);
INSERT INTO messages VALUES (4, 2, 'credentials', 'U0ADA', '7.0', 6);
INSERT INTO messages VALUES (3, 2, 'card', 'C0CARDS', '6.0', 6);
INSERT INTO messages VALUES (6, 3, 'credentials', 'U0ADA', NULL, 0);
INSERT INTO messages VALUES (5, 3, 'card', 'C0CARDS', '9.0', 4);
INSERT INTO messages VALUES (7, 4, 'card', 'C0CARDS', '11.0', 2);
INSERT INTO messages VALUES (9, 5, 'credentials', 'U0ADA', '14.0', 3);
INSERT INTO messages VALUES (8, 5, 'card', 'C0CARDS', '13.0', 4);
INSERT INTO messages VALUES (10, 6, 'card', 'C0CARDS', '15.0', 1);
INSERT INTO messages VALUES (11, 7, 'card', 'C0CARDS', '16.0', 1);
INSERT INTO meta VALUES ('ledger', '4xnlenylpm9n');
INSERT INTO meta VALUES ('cursor:feed_at', '1795424700000');
INSERT INTO meta VALUES ('cursor:feed', '5');
INSERT INTO requests VALUES (1, 'y9hsb0neplss5kef', 'access', 'revoked', 6, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:00:00-05', '2026-11-24 04:00:00-05', '2026-11-23 04:00:00-05', 3600000000, '2026-11-23 05:00:00-05', 'jit_1_ada_y9hs', '{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "4xnlenylpm9n", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}', 'server-1', '2026-11-23 04:00:00-05', NULL, '2026-11-23 05:00:00-05', '2026-11-23 04:00:00-05', NULL, NULL, NULL, '2026-11-23 04:05:00-05', 'done', 'U0ADA', NULL, '{"was_absent": false, "sessions_ended": 0, "kept": [], "kept_by": null, "read_back_at": "2026-11-23T09:05:00+00:00", "notes": []}');
INSERT INTO requests VALUES (2, 'aw3xni8tjbbpm6eu', 'access', 'revoked', 6, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-24 04:05:00-05', '2026-11-23 04:05:00-05', 3600000000, '2026-11-23 05:05:00-05', 'jit_2_ada_aw3x', '{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "4xnlenylpm9n", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}', 'server-1', '2026-11-23 04:05:00-05', NULL, '2026-11-23 05:05:00-05', '2026-11-23 04:05:00-05', NULL, NULL, NULL, '2026-11-23 04:05:00-05', 'gone', 'cli:root', NULL, '{"gone": "the server burnt down"}');
INSERT INTO requests VALUES (3, '61vbfosmnvmqjhv7', 'access', 'revoked', 4, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-24 04:05:00-05', '2026-11-23 04:05:00-05', 3600000000, '2026-11-23 05:05:00-05', 'jit_3_ada_61vb', '{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "4xnlenylpm9n", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-23 04:05:00-05', 'revoked', 'cli:root', NULL, '{"nothing_made": true}');
INSERT INTO requests VALUES (4, 'enxurz7t8mlspxm0', 'access', 'denied', 2, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-24 04:05:00-05', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-23 04:05:00-05', 'denied', 'U0LEAD', 'not today', NULL);
INSERT INTO requests VALUES (5, 'iok8228gomopbwf6', 'access', 'active', 4, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 3600.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-24 04:05:00-05', '2026-11-23 04:05:00-05', 3600000000, '2026-11-23 05:05:00-05', 'jit_5_ada_iok8', '{"name": "shop", "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL", "prefix": "jit_", "ledger": "4xnlenylpm9n", "tls": {"mode": "prefer", "ca": null}, "connect": {"host": null, "port": null, "database": null, "tls": null, "note": null}, "admin_role": null, "ops_schema": "dbaccess", "replicas": [], "identity": null}', 'server-1', '2026-11-23 04:05:00-05', NULL, '2026-11-23 05:05:00-05', '2026-11-23 04:05:00-05', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO requests VALUES (6, 'iowhzi2ortag57c3', 'extension', 'pending', 1, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'needs longer', NULL, 5, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 1800.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-23 05:05:00-05', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO requests VALUES (7, 'wfo3g8bq9vj65oqp', 'access', 'pending', 1, 'T0TEAM', 'U0ADA', 'ada', 'shop', 'readonly', 'looking at a refund', NULL, NULL, '{"rule": "shop", "stages": [{"approvers": ["U0LEAD", "U0SECOND"], "count": 1}], "channel": "C0CARDS", "duration": 7200.0, "request_ttl": 86400.0, "provision_within": 3600.0, "delivery": "dm", "level": {"name": "readonly", "description": "", "roles": ["reader"], "grants": [], "database": null, "settings": {}}, "policy_digest": "279874a1d079", "max_total": 86400.0, "remind_after": 1800.0, "claim_within": null, "escalation": null, "review": null, "notify": []}', '2026-11-23 04:05:00-05', '2026-11-24 04:05:00-05', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (40, 'revoke', 'db:5', 5, '{}', '2026-11-23 05:05:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (43, 'warn_before_end', 'slack:5', 5, '{}', '2026-11-23 04:50:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (45, 'lapse', 'slack:6', 6, '{}', '2026-11-23 05:05:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (46, 'remind', 'slack:6', 6, '{}', '2026-11-23 04:35:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (48, 'lapse', 'slack:7', 7, '{}', '2026-11-24 04:05:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (49, 'remind', 'slack:7', 7, '{}', '2026-11-23 04:35:00-05', '2026-11-23 04:05:00-05', 0, NULL, NULL, NULL, NULL);
INSERT INTO tasks VALUES (12, 'feed', 'slack:feed', NULL, '{}', '2026-11-23 04:05:01-05', '2026-11-23 04:05:00-05', 15, 'at most one message a second', NULL, NULL, NULL);
SELECT pg_catalog.setval('audit_events_id_seq', 24, true);
SELECT pg_catalog.setval('decisions_id_seq', 5, true);
SELECT pg_catalog.setval('lockdowns_id_seq', 1, false);
SELECT pg_catalog.setval('messages_id_seq', 11, true);
SELECT pg_catalog.setval('requests_id_seq', 7, true);
SELECT pg_catalog.setval('tasks_id_seq', 49, true);
ALTER TABLE ONLY alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY audit_events
    ADD CONSTRAINT pk_audit_events PRIMARY KEY (id);
ALTER TABLE ONLY audit_texts
    ADD CONSTRAINT pk_audit_texts PRIMARY KEY (event_id);
ALTER TABLE ONLY decisions
    ADD CONSTRAINT pk_decisions PRIMARY KEY (id);
ALTER TABLE ONLY lockdowns
    ADD CONSTRAINT pk_lockdowns PRIMARY KEY (id);
ALTER TABLE ONLY messages
    ADD CONSTRAINT pk_messages PRIMARY KEY (id);
ALTER TABLE ONLY meta
    ADD CONSTRAINT pk_meta PRIMARY KEY (name);
ALTER TABLE ONLY requests
    ADD CONSTRAINT pk_requests PRIMARY KEY (id);
ALTER TABLE ONLY tasks
    ADD CONSTRAINT pk_tasks PRIMARY KEY (id);
ALTER TABLE ONLY audit_events
    ADD CONSTRAINT uq_audit_events_sequence UNIQUE (sequence);
ALTER TABLE ONLY decisions
    ADD CONSTRAINT uq_decisions_request_id_person_id UNIQUE (request_id, person_id);
ALTER TABLE ONLY requests
    ADD CONSTRAINT uq_requests_key UNIQUE (key);
CREATE INDEX ix_audit_events_request_id ON audit_events USING btree (request_id);
CREATE INDEX ix_messages_request_id ON messages USING btree (request_id);
CREATE INDEX ix_requests_requester_id_state ON requests USING btree (requester_id, state);
CREATE INDEX ix_requests_state_database ON requests USING btree (state, database);
CREATE INDEX ix_tasks_due_at ON tasks USING btree (due_at);
CREATE INDEX ix_tasks_lease_until ON tasks USING btree (lease_until);
CREATE INDEX ix_tasks_request_id ON tasks USING btree (request_id);
CREATE UNIQUE INDEX uq_tasks_claimed_lane ON tasks USING btree (lane) WHERE (claim IS NOT NULL);
ALTER TABLE ONLY audit_events
    ADD CONSTRAINT fk_audit_events_request_id FOREIGN KEY (request_id) REFERENCES requests(id);
ALTER TABLE ONLY audit_texts
    ADD CONSTRAINT fk_audit_texts_event_id FOREIGN KEY (event_id) REFERENCES audit_events(id);
ALTER TABLE ONLY decisions
    ADD CONSTRAINT fk_decisions_request_id FOREIGN KEY (request_id) REFERENCES requests(id);
ALTER TABLE ONLY messages
    ADD CONSTRAINT fk_messages_request_id FOREIGN KEY (request_id) REFERENCES requests(id);
ALTER TABLE ONLY requests
    ADD CONSTRAINT fk_requests_parent_id FOREIGN KEY (parent_id) REFERENCES requests(id);
ALTER TABLE ONLY tasks
    ADD CONSTRAINT fk_tasks_request_id FOREIGN KEY (request_id) REFERENCES requests(id);
