-- Region database "outpost", version 1: what happened to each study, and the views the centre reads.
--
-- Who runs it : Ansible (role postgresql), as a superuser, in the database "outpost":
--               psql -v ON_ERROR_STOP=1 -f 0001_records.sql
-- Needs       : login roles outpost_recorder and fleet_reader; PostgreSQL 11 to 18.
-- Touches     : schemas outpost and fleet_export, settings of those two roles, grants of this database.
-- Again       : harmless; the file is one transaction and records itself in outpost.schema_version.
-- Next        : 0002 (generated) compares the views with the contract; then name the region once with
--               SELECT outpost.set_region('chita', '0.1.0');
--
-- No patient data may enter: a study is known only by its keyed HMAC, a reason only by its code.

BEGIN;
SET LOCAL client_min_messages = warning;

CREATE SCHEMA IF NOT EXISTS outpost;
CREATE SCHEMA IF NOT EXISTS fleet_export;

CREATE TABLE IF NOT EXISTS outpost.schema_version (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- One row. "made" is random and made once: with the identity of the cluster it tells the centre whether
-- this is still the database it read last time (see fleet_export.handshake_v1.epoch).
CREATE TABLE IF NOT EXISTS outpost.region (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    code     text NOT NULL CHECK (code ~ '^[a-z][a-z0-9_-]{0,30}$'),
    release  text NOT NULL,
    made     text NOT NULL DEFAULT md5(random()::text || clock_timestamp()::text)
);

CREATE SEQUENCE IF NOT EXISTS outpost.studies_seq;

CREATE TABLE IF NOT EXISTS outpost.studies (
    study_key         text NOT NULL CHECK (study_key ~ '^[0-9a-f]{32}$'),
    revision          integer NOT NULL CHECK (revision >= 1),
    system            text NOT NULL CHECK (system ~ '^[a-z][a-z0-9-]{1,30}$'),
    modality          text CHECK (modality ~ '^[A-Z0-9_ ]{1,16}$'),
    received_at       timestamptz NOT NULL,
    completed_at      timestamptz,
    finished_at       timestamptz,
    outcome           text NOT NULL CHECK (outcome IN ('delivered', 'rejected', 'quarantined', 'pending')),
    reason            text CHECK (reason ~ '^[A-Za-z0-9_.:-]{1,80}$'),
    instances         integer NOT NULL CHECK (instances >= 0),
    bytes             bigint NOT NULL CHECK (bytes >= 0),
    model             text,
    model_version     text,
    engine            text,
    precision         text,
    rung              text,
    device            text,
    inference_seconds double precision,
    release           text NOT NULL,
    seq               bigint NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (system, study_key, revision)
);
CREATE UNIQUE INDEX IF NOT EXISTS studies_seq_key ON outpost.studies (seq);

-- The centre reads "seq > the last one I have". That loses nothing only if rows become visible in the
-- order of their seq, so seq is given out under a lock held until commit: PostgreSQL makes a commit
-- visible before it releases the transaction's locks. The rule lives here and not in the recorder, so
-- that a row corrected by hand travels too. A write that changes nothing gets no new seq.
CREATE OR REPLACE FUNCTION outpost.stamp_study() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        NEW.seq := OLD.seq;
        NEW.updated_at := OLD.updated_at;
        IF NEW IS NOT DISTINCT FROM OLD THEN
            RETURN NULL;
        END IF;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('outpost.studies'));
    NEW.seq := nextval('outpost.studies_seq');
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;
DROP TRIGGER IF EXISTS stamp_study ON outpost.studies;
CREATE TRIGGER stamp_study BEFORE INSERT OR UPDATE ON outpost.studies
    FOR EACH ROW EXECUTE FUNCTION outpost.stamp_study();

-- Names the region and its release; answers 'changed' or 'unchanged'. A database that already holds
-- studies keeps its region: a mixed-up inventory must not relabel another region's history.
CREATE OR REPLACE FUNCTION outpost.set_region(code text, release text) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was outpost.region;
BEGIN
    SELECT * INTO was FROM outpost.region;
    IF FOUND AND was.code = set_region.code AND was.release = set_region.release THEN
        RETURN 'unchanged';
    END IF;
    IF was.code <> set_region.code AND EXISTS (SELECT FROM outpost.studies) THEN
        RAISE EXCEPTION 'this database belongs to region "%" and holds its studies; it was asked to become "%"',
            was.code, set_region.code
            USING HINT = 'Check the inventory: is this the right host? To hand the host over, '
                         'archive and empty outpost.studies first.';
    END IF;
    INSERT INTO outpost.region AS r (code, release) VALUES (set_region.code, set_region.release)
        ON CONFLICT (only_row) DO UPDATE SET code = EXCLUDED.code, release = EXCLUDED.release;
    RETURN 'changed';
END
$$;

-- Every name is qualified: postgres_fdw reads with search_path = pg_catalog.
CREATE OR REPLACE VIEW fleet_export.studies_v1 AS
SELECT (SELECT r.code FROM outpost.region r) AS region,
       s.study_key, s.revision, s.system, s.modality, s.received_at, s.completed_at, s.finished_at,
       s.outcome, s.reason, s.instances, s.bytes, s.model, s.model_version, s.engine, s.precision,
       s.rung, s.device, s.inference_seconds, s.release, s.seq, s.updated_at
FROM outpost.studies s;

-- epoch changes when this is no longer the same run of history: a new database, a dump restored
-- elsewhere, a new cluster, a restore to an earlier point (new timeline). The centre then reads everything
-- again instead of trusting its watermark.
CREATE OR REPLACE VIEW fleet_export.handshake_v1 AS
SELECT r.code AS region,
       1 AS contract_version,
       r.release,
       pg_catalog.clock_timestamp() AS clock,
       COALESCE((SELECT pg_catalog.max(s.seq) FROM outpost.studies s), 0::bigint) AS max_seq,
       pg_catalog.md5(pg_catalog.concat_ws('/', r.made,
           (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c),
           (SELECT c.timeline_id FROM pg_catalog.pg_control_checkpoint() c),
           (SELECT d.oid FROM pg_catalog.pg_database d
             WHERE d.datname = pg_catalog.current_database()))) AS epoch
FROM outpost.region r;

-- Who may do what. The two roles get exactly this; nobody else gets anything.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO outpost_recorder, fleet_reader', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON SCHEMA outpost, fleet_export FROM PUBLIC;
REVOKE ALL ON FUNCTION outpost.set_region(text, text), outpost.stamp_study() FROM PUBLIC;

GRANT USAGE ON SCHEMA outpost TO outpost_recorder;
GRANT SELECT ON outpost.schema_version, outpost.region TO outpost_recorder;
GRANT SELECT, INSERT, UPDATE ON outpost.studies TO outpost_recorder;
GRANT USAGE ON SEQUENCE outpost.studies_seq TO outpost_recorder;

GRANT USAGE ON SCHEMA fleet_export TO fleet_reader;
GRANT SELECT ON fleet_export.studies_v1, fleet_export.handshake_v1 TO fleet_reader;

-- A reader behind a link that dies must not hold a backend here: keepalives end it within 25 s, and
-- tcp_user_timeout (12+) ends one that is stuck sending. lc_messages = C: the centre reads the messages.
ALTER ROLE fleet_reader CONNECTION LIMIT 3;
ALTER ROLE fleet_reader SET default_transaction_read_only = on;
ALTER ROLE fleet_reader SET statement_timeout = '30s';
ALTER ROLE fleet_reader SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE fleet_reader SET tcp_keepalives_idle = 10;
ALTER ROLE fleet_reader SET tcp_keepalives_interval = 5;
ALTER ROLE fleet_reader SET tcp_keepalives_count = 3;
ALTER ROLE fleet_reader SET lc_messages = 'C';
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 120000 THEN
        ALTER ROLE fleet_reader SET tcp_user_timeout = '20s';
    END IF;
END
$$;

-- synchronous_commit: the journal forgets a row once its commit is acknowledged, so that must be durable.
ALTER ROLE outpost_recorder SET synchronous_commit = on;
ALTER ROLE outpost_recorder SET statement_timeout = '30s';
ALTER ROLE outpost_recorder SET lock_timeout = '10s';
ALTER ROLE outpost_recorder SET idle_in_transaction_session_timeout = '60s';

INSERT INTO outpost.schema_version (version) VALUES (1) ON CONFLICT DO NOTHING;
COMMIT;
