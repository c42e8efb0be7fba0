-- Centre database "fleet", version 1: the local mart of all regions, and how a region is attached.
--
-- Who runs it : Ansible (role fleet_database), as a superuser, in the database "fleet":
--               psql -v ON_ERROR_STOP=1 -f 0001_fleet.sql
-- Needs       : login role fleet_collector (no superuser); postgres_fdw; PostgreSQL 15 to 18.
-- Touches     : schema fleet, settings of fleet_collector, grants of this database.
-- Again       : harmless; the file is one transaction and records itself in fleet.schema_version.
-- Next        : 0002 (generated) fills fleet.contract; then, per region,
--               SELECT fleet.attach_region('chita', 'Chita', '10.77.0.11', 5432, 'outpost', 'fleet_reader', '...');
--
-- The foreign tables are the pipe, fleet.studies_store is the answer. No view here reads a foreign table,
-- so none ever waits for the network or fails because a region is off.

BEGIN;
SET LOCAL client_min_messages = warning;

DO $$
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'the centre needs PostgreSQL 15 or newer, this is %', current_setting('server_version')
            USING HINT = 'With 14 a link cut in mid-transfer held a session for 155 s: its cancel request knows no timeout.';
    END IF;
END
$$;

CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE SCHEMA IF NOT EXISTS fleet;

CREATE TABLE IF NOT EXISTS fleet.schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- Thresholds of fleet.freshness. One row; change it with UPDATE.
CREATE TABLE IF NOT EXISTS fleet.settings (
    only_row            boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    period_seconds      double precision NOT NULL DEFAULT 60 CHECK (period_seconds > 0),
    late_after_periods  double precision NOT NULL DEFAULT 2 CHECK (late_after_periods >= 1),
    stale_after_seconds double precision NOT NULL DEFAULT 900,
    dead_after_seconds  double precision NOT NULL DEFAULT 86400,
    skew_alarm_seconds  double precision NOT NULL DEFAULT 60,
    CHECK (dead_after_seconds > stale_after_seconds AND stale_after_seconds > 0)
);
COMMENT ON COLUMN fleet.settings.period_seconds IS 'Written by the collector from its own configuration.';
INSERT INTO fleet.settings DEFAULT VALUES ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS fleet.contract (
    version  integer NOT NULL,
    relation text NOT NULL,
    position integer NOT NULL,
    name     text NOT NULL,
    type     text NOT NULL,
    meaning  text NOT NULL,
    PRIMARY KEY (version, relation, position)
);

CREATE TABLE IF NOT EXISTS fleet.regions (
    region     text PRIMARY KEY CHECK (region ~ '^[a-z][a-z0-9_-]{0,30}$'),
    title      text NOT NULL,
    added_at   timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);

CREATE TABLE IF NOT EXISTS fleet.sync (
    region               text PRIMARY KEY REFERENCES fleet.regions,
    attempted_at         timestamptz,
    ok_at                timestamptz,
    data_through         timestamptz,
    watermark_seq        bigint NOT NULL DEFAULT 0,
    max_seq              bigint,
    epoch                text,
    rows                 bigint NOT NULL DEFAULT 0,
    rows_total           bigint NOT NULL DEFAULT 0,
    span_seq             bigint NOT NULL DEFAULT 2000 CHECK (span_seq > 0),
    took_seconds         double precision,
    skew_seconds         double precision,
    contract_version     integer,
    release              text,
    error_class          text,
    error                text,
    consecutive_failures integer NOT NULL DEFAULT 0,
    failing_since        timestamptz,
    next_attempt_at      timestamptz,
    resync_at            timestamptz,
    resync_reason        text
);
COMMENT ON COLUMN fleet.sync.ok_at IS 'End of the last pass that had everything; the centre''s clock.';
COMMENT ON COLUMN fleet.sync.data_through IS 'All rows the region had written by this moment are here; the region''s clock.';
COMMENT ON COLUMN fleet.sync.watermark_seq IS 'Rows up to this seq are here; moved in the transaction that stores them.';
COMMENT ON COLUMN fleet.sync.epoch IS 'Identity of the region''s database as last seen; another one means a full read.';
COMMENT ON COLUMN fleet.sync.rows IS 'Rows brought by the last pass.';
COMMENT ON COLUMN fleet.sync.rows_total IS 'Rows brought since the region was attached; a corrected row counts again.';
COMMENT ON COLUMN fleet.sync.span_seq IS 'Width of the range of seq read in one transaction; adapts to the link.';
COMMENT ON COLUMN fleet.sync.skew_seconds IS 'Region''s clock minus the centre''s, at the middle of the request.';

-- Columns of contract 1 in its order, and when the row arrived. Rows the region later lost are kept.
CREATE TABLE IF NOT EXISTS fleet.studies_store (
    region            text NOT NULL,
    study_key         text NOT NULL,
    revision          integer NOT NULL,
    system            text NOT NULL,
    modality          text,
    received_at       timestamptz,
    completed_at      timestamptz,
    finished_at       timestamptz,
    outcome           text,
    reason            text,
    instances         integer,
    bytes             bigint,
    model             text,
    model_version     text,
    engine            text,
    precision         text,
    rung              text,
    device            text,
    inference_seconds double precision,
    release           text,
    seq               bigint,
    updated_at        timestamptz,
    loaded_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (region, system, study_key, revision)
) PARTITION BY LIST (region);
CREATE INDEX IF NOT EXISTS studies_store_received_at ON fleet.studies_store (received_at);

-- Counts of studies_store: a study counts once, with its newest revision. The collector writes them in the
-- transaction that stores the rows; counting 85 regions of 20 000 studies anew took seconds per page.
CREATE TABLE IF NOT EXISTS fleet.summary (
    region           text NOT NULL,
    system           text NOT NULL,
    outcome          text,
    model            text,
    model_version    text,
    rung             text,
    studies          bigint NOT NULL,
    last_received_at timestamptz,
    last_finished_at timestamptz
);
CREATE INDEX IF NOT EXISTS summary_region ON fleet.summary (region);

-- One line per attached region, also for one never heard from. Made once: 0005 calls it fleet.reached and puts a view
-- that says more in its place, which this one, run again, must not take away.
DO $do$
BEGIN
    IF to_regclass('fleet.reached') IS NULL THEN
        EXECUTE $view$
CREATE OR REPLACE VIEW fleet.freshness AS
WITH measured AS (
    SELECT r.region, r.title, r.added_at, s.attempted_at, s.ok_at, s.data_through, s.rows, s.rows_total,
           s.took_seconds, s.skew_seconds, s.release, s.contract_version, s.error_class, s.error,
           COALESCE(s.consecutive_failures, 0) AS consecutive_failures, s.failing_since, s.next_attempt_at,
           s.resync_at, s.resync_reason,
           CASE WHEN s.max_seq IS NOT NULL THEN greatest(s.max_seq - s.watermark_seq, 0) END AS rows_behind,
           CASE WHEN s.ok_at IS NOT NULL
                THEN greatest(extract(epoch FROM now() - s.ok_at), 0)::double precision END AS age_seconds,
           c.period_seconds * c.late_after_periods AS late_after_seconds,
           c.stale_after_seconds, c.dead_after_seconds, c.skew_alarm_seconds
    FROM fleet.regions r
    LEFT JOIN fleet.sync s ON s.region = r.region
    CROSS JOIN (SELECT * FROM fleet.settings LIMIT 1) c  -- tells the planner that it is one row
    WHERE r.removed_at IS NULL
), judged AS (
    SELECT m.*,
           CASE WHEN m.error_class = 'incompatible' THEN 'incompatible'
                WHEN m.ok_at IS NULL THEN 'never'
                WHEN m.age_seconds > m.dead_after_seconds THEN 'dead'
                WHEN m.age_seconds > m.stale_after_seconds THEN 'stale'
                WHEN m.age_seconds > m.late_after_seconds THEN 'late'
                ELSE 'fresh' END AS state,
           to_char(m.added_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS added,
           to_char(m.ok_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS ok,
           to_char(m.failing_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS failing,
           to_char(m.next_attempt_at AT TIME ZONE 'UTC', 'HH24:MI:SS "UTC"') AS next,
           to_char(m.resync_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"') AS resync
    FROM measured m
)
SELECT j.region, j.title, j.state, j.age_seconds, j.data_through, j.rows, j.skew_seconds,
       CASE WHEN j.error_class = 'behind' THEN j.error
            WHEN j.error IS NOT NULL
                THEN concat(j.error, '; failing since ', j.failing, ' (',
                            j.consecutive_failures, CASE j.consecutive_failures WHEN 1 THEN ' attempt' ELSE ' attempts' END,
                            '), next attempt at ', j.next)
            WHEN j.attempted_at IS NULL
                THEN concat('added ', j.added, ', not tried yet; if this stays, look at outpost-fleet.service')
            WHEN j.ok_at IS NULL THEN 'the first attempt has not ended yet'
            WHEN j.state <> 'fresh'
                THEN concat('last good sync ', j.ok, ', no failure since: look at outpost-fleet.service')
            ELSE 'up to date' END
       || CASE WHEN j.resync_at > now() - interval '1 day'
               THEN concat('; all rows read again from ', j.resync, ' on: ', j.resync_reason) ELSE '' END
       || CASE WHEN abs(j.skew_seconds) > j.skew_alarm_seconds
               THEN concat('; its clock is ', round(abs(j.skew_seconds)), ' s ',
                           CASE WHEN j.skew_seconds > 0 THEN 'ahead of' ELSE 'behind' END, ' the centre''s') ELSE '' END
       AS reason,
       j.error_class, j.failing_since, j.consecutive_failures, j.attempted_at, j.ok_at, j.next_attempt_at,
       j.rows_total, j.rows_behind, j.took_seconds, j.release, j.contract_version
FROM judged j
        $view$;
    END IF;
END
$do$;
COMMENT ON VIEW fleet.freshness IS
    'How old what we know of each region is, and why. Never waits on the network.';

-- Made once: a later file adds columns at its end, which this one, run again, must not take away.
DO $$
BEGIN
    IF to_regclass('fleet.studies') IS NULL THEN
        CREATE VIEW fleet.studies AS
        SELECT s.*, COALESCE(f.state, 'removed') AS state, f.age_seconds, f.data_through
        FROM fleet.studies_store s
        LEFT JOIN fleet.freshness f ON f.region = s.region;
    END IF;
END
$$;
COMMENT ON VIEW fleet.studies IS
    'Every revision of every study of every region, also of regions since removed. Never waits on the network.';

-- What to put between ALTER ... OPTIONS ( and ) to turn one set of options into another; NULL if equal.
CREATE OR REPLACE FUNCTION fleet.option_changes(current_options text[], wanted jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(CASE WHEN have.value IS NULL THEN format('ADD %I %L', key, want.value)
                           WHEN want.value IS NULL THEN format('DROP %I', key)
                           ELSE format('SET %I %L', key, want.value) END, ', ' ORDER BY key)
    FROM (SELECT option_name AS key, option_value AS value FROM pg_options_to_table(current_options)) have
    FULL JOIN (SELECT key, value FROM jsonb_each_text(wanted)) want USING (key)
    WHERE have.value IS DISTINCT FROM want.value
$$;

-- Options of a region's server, all known since PostgreSQL 15. Why these: docs/decisions/0003.
-- Keepalives end a dead link after 10 + 3 x 5 s; statement_timeout is longer, because a cancel request over
-- a dead link hangs itself. From 16 on postgres_fdw ignores connect_timeout: tcp_user_timeout and the
-- collector's own limit on the handshake end a connection that nobody answers.
CREATE OR REPLACE FUNCTION fleet.server_options(
    host text, port integer, dbname text, sslmode text, sslrootcert text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
        'host', host, 'port', port::text, 'dbname', dbname, 'sslmode', sslmode, 'sslrootcert', sslrootcert,
        'application_name', 'fleet-collector', 'connect_timeout', '5',
        'keepalives', '1', 'keepalives_idle', '10', 'keepalives_interval', '5', 'keepalives_count', '3',
        'tcp_user_timeout', '20000', 'options', '-c statement_timeout=30000',
        'fetch_size', '10000', 'use_remote_estimate', 'false', 'updatable', 'false', 'truncatable', 'false',
        'async_capable', 'true', 'keep_connections', 'off', 'parallel_commit', 'true'))
$$;

-- Makes the region known, or brings what is known into line; answers 'changed' or 'unchanged'. The
-- region need not be reachable. A region detached earlier continues where it stopped.
-- sslmode: libpq's; verify-full needs sslrootcert (a path the centre's PostgreSQL can read).
CREATE OR REPLACE FUNCTION fleet.attach_region(
    region text, title text, host text, port integer, dbname text, username text, password text,
    sslmode text DEFAULT 'verify-full', sslrootcert text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '90s' AS $$
DECLARE
    server  text := 'region_' || region;
    part    text := 'studies_' || region;
    options jsonb := fleet.server_options(host, port, dbname, sslmode, sslrootcert);
    login   jsonb := jsonb_build_object('user', username, 'password', password);
    newest  integer := (SELECT max(c.version) FROM fleet.contract c);
    changed boolean := false;
    present text[];
    change  text;
    rel     record;
BEGIN
    IF region !~ '^[a-z][a-z0-9_-]{0,30}$' THEN
        RAISE EXCEPTION 'region code "%" is not usable', region
            USING HINT = 'Use 1 to 31 of a-z, 0-9, _ and -, beginning with a letter.';
    END IF;
    IF newest IS NULL THEN
        RAISE EXCEPTION 'fleet.contract is empty' USING HINT = 'Apply fleet/sql/0002_contract_v1.sql first.';
    END IF;
    IF COALESCE(password, '') = '' OR COALESCE(username, '') = '' THEN
        RAISE EXCEPTION 'region "%" has no user or no password', region
            USING HINT = 'fleet_collector is no superuser, so postgres_fdw insists on a password.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('fleet.attach_region'));

    IF NOT EXISTS (SELECT FROM fleet.regions r WHERE r.region = attach_region.region
                   AND r.title = attach_region.title AND r.removed_at IS NULL) THEN
        INSERT INTO fleet.regions AS r (region, title) VALUES (region, title)
            ON CONFLICT ON CONSTRAINT regions_pkey DO UPDATE SET title = EXCLUDED.title, removed_at = NULL;
        changed := true;
    END IF;
    INSERT INTO fleet.sync (region) VALUES (region) ON CONFLICT DO NOTHING;
    changed := changed OR FOUND;

    -- CREATE ... PARTITION OF would lock out every reader of the mart behind a slow sync; ATTACH does not.
    IF NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = 'fleet.studies_store'::regclass
                   AND i.inhrelid = to_regclass(format('fleet.%I', part))) THEN
        EXECUTE format('CREATE TABLE fleet.%I (LIKE fleet.studies_store INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE fleet.studies_store ATTACH PARTITION fleet.%I FOR VALUES IN (%L)', part, region);
        changed := true;
    END IF;

    SELECT COALESCE(s.srvoptions, '{}') INTO present FROM pg_foreign_server s WHERE s.srvname = server;
    IF NOT FOUND THEN
        EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw', server);
        present := '{}';
    END IF;
    change := fleet.option_changes(present, options);
    IF change IS NOT NULL THEN
        EXECUTE format('ALTER SERVER %I OPTIONS (%s)', server, change);
        changed := true;
    END IF;

    SELECT COALESCE(m.umoptions, '{}') INTO present FROM pg_user_mappings m
     WHERE m.srvname = server AND m.usename = 'fleet_collector';
    IF NOT FOUND THEN
        EXECUTE format('CREATE USER MAPPING FOR fleet_collector SERVER %I', server);
        present := '{}';
    END IF;
    change := fleet.option_changes(present, login);
    IF change IS NOT NULL THEN
        EXECUTE format('ALTER USER MAPPING FOR fleet_collector SERVER %I OPTIONS (%s)', server, change);
        changed := true;
    END IF;

    IF to_regnamespace(format('%I', server)) IS NULL THEN
        EXECUTE format('CREATE SCHEMA %I', server);
        changed := true;
    END IF;
    IF NOT has_schema_privilege('fleet_collector', server, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO fleet_collector', server);
        changed := true;
    END IF;

    FOR rel IN
        SELECT c.relation, array_agg(c.name || ' ' || c.type ORDER BY c.position) AS wanted,
               string_agg(format('%I %s', c.name, c.type), ', ' ORDER BY c.position) AS definition,
               format('%I.%I', server, c.relation) AS path
        FROM fleet.contract c WHERE c.version = newest GROUP BY c.relation ORDER BY c.relation
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_foreign_table t
            JOIN pg_foreign_server s ON s.oid = t.ftserver AND s.srvname = server
            WHERE t.ftrelid = to_regclass(rel.path)
              AND fleet.option_changes(t.ftoptions, jsonb_build_object(
                      'schema_name', 'fleet_export', 'table_name', rel.relation)) IS NULL
              AND rel.wanted = (SELECT array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
                                FROM pg_attribute a
                                WHERE a.attrelid = t.ftrelid AND a.attnum > 0 AND NOT a.attisdropped)) THEN
            EXECUTE format('DROP FOREIGN TABLE IF EXISTS %s', rel.path);
            EXECUTE format('CREATE FOREIGN TABLE %s (%s) SERVER %I OPTIONS (schema_name %L, table_name %L)',
                           rel.path, rel.definition, server, 'fleet_export', rel.relation);
            changed := true;
        END IF;
        IF NOT has_table_privilege('fleet_collector', rel.path, 'SELECT') THEN
            EXECUTE format('GRANT SELECT ON %s TO fleet_collector', rel.path);
            changed := true;
        END IF;
    END LOOP;

    IF changed THEN
        UPDATE fleet.sync s SET next_attempt_at = NULL WHERE s.region = attach_region.region;
    END IF;
    RETURN CASE WHEN changed THEN 'changed' ELSE 'unchanged' END;
END
$$;

-- Forgets how to reach the region and stops syncing it; its studies and its last sync row stay.
-- Answers 'changed' or 'unchanged'.
CREATE OR REPLACE FUNCTION fleet.detach_region(region text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = '90s' AS $$
DECLARE
    server  text := 'region_' || region;
    changed boolean := false;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('fleet.attach_region'));
    UPDATE fleet.regions r SET removed_at = now() WHERE r.region = detach_region.region AND r.removed_at IS NULL;
    changed := FOUND;
    IF EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = server) THEN
        EXECUTE format('DROP SERVER %I CASCADE', server);
        changed := true;
    END IF;
    IF to_regnamespace(format('%I', server)) IS NOT NULL THEN
        EXECUTE format('DROP SCHEMA %I', server);
        changed := true;
    END IF;
    RETURN CASE WHEN changed THEN 'changed' ELSE 'unchanged' END;
END
$$;

DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO fleet_collector', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON SCHEMA fleet FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fleet FROM PUBLIC;

GRANT USAGE ON SCHEMA fleet TO fleet_collector;
GRANT SELECT ON ALL TABLES IN SCHEMA fleet TO fleet_collector;
GRANT UPDATE (period_seconds) ON fleet.settings TO fleet_collector;
GRANT INSERT, UPDATE ON fleet.sync, fleet.studies_store TO fleet_collector;
GRANT INSERT, DELETE ON fleet.summary TO fleet_collector;

-- The collector reads libpq's messages to say in plain words what failed.
ALTER ROLE fleet_collector SET lc_messages = 'C';

INSERT INTO fleet.schema_version (version) VALUES (1) ON CONFLICT DO NOTHING;
COMMIT;
