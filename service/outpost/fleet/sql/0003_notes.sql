-- Centre database "fleet", version 3: what results say of themselves, and regions that speak either of two contracts.
--
-- Who runs it : as 0001, after 0002.
-- Touches     : fleet.studies_store (three columns, one index), fleet.studies, fleet.attach_region, grants of
--               fleet_collector.
-- Again       : harmless; one transaction.
-- Next        : 0004 (generated) adds contract 2 to fleet.contract; then fleet.attach_region once more for each region,
--               as the playbook does: until then all regions are read by contract 1.

BEGIN;
SET LOCAL client_min_messages = warning;

-- NULL: the row came by contract 1, which does not say.
ALTER TABLE fleet.studies_store ADD COLUMN IF NOT EXISTS notes text[];
ALTER TABLE fleet.studies_store ADD COLUMN IF NOT EXISTS partial boolean;
ALTER TABLE fleet.studies_store ADD COLUMN IF NOT EXISTS doubtful boolean;
CREATE INDEX IF NOT EXISTS studies_store_marked ON fleet.studies_store (finished_at) WHERE partial OR doubtful;

-- New columns at the end: whoever reads the view goes on reading it, and keeps the right to.
CREATE OR REPLACE VIEW fleet.studies AS
SELECT s.region, s.study_key, s.revision, s.system, s.modality, s.received_at, s.completed_at, s.finished_at, s.outcome,
       s.reason, s.instances, s.bytes, s.model, s.model_version, s.engine, s.precision, s.rung, s.device,
       s.inference_seconds, s.release, s.seq, s.updated_at, s.loaded_at,
       COALESCE(f.state, 'removed') AS state, f.age_seconds, f.data_through,
       s.notes, s.partial, s.doubtful
FROM fleet.studies_store s
LEFT JOIN fleet.freshness f ON f.region = s.region;

-- How many results of the last day say that they are of a part, or in doubt, and the newest that does, of any day.
-- NULL counts: the region speaks contract 1 and does not say.
CREATE OR REPLACE VIEW fleet.marked AS
SELECT r.region, y.told,
       CASE WHEN y.told THEN d.partial END AS partial_day,
       CASE WHEN y.told THEN d.doubtful END AS doubtful_day,
       n.finished_at AS newest_at, n.system AS newest_system, n.study_key AS newest_study_key,
       n.revision AS newest_revision, n.partial AS newest_partial, n.doubtful AS newest_doubtful, n.notes AS newest_notes
FROM fleet.regions r
JOIN fleet.sync s ON s.region = r.region
CROSS JOIN LATERAL (SELECT COALESCE(s.contract_version, 0) >= 2 AS told) y
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.partial) AS partial, count(*) FILTER (WHERE m.doubtful) AS doubtful
    FROM fleet.studies_store m
    WHERE m.region = r.region AND (m.partial OR m.doubtful) AND m.outcome = 'delivered'
      AND m.finished_at > now() - interval '1 day'
) d
LEFT JOIN LATERAL (
    SELECT m.finished_at, m.system, m.study_key, m.revision, m.partial, m.doubtful, m.notes
    FROM fleet.studies_store m
    WHERE m.region = r.region AND (m.partial OR m.doubtful) AND m.outcome = 'delivered'
      AND m.finished_at IS NOT NULL
    ORDER BY m.finished_at DESC LIMIT 1
) n ON true
WHERE r.removed_at IS NULL;
COMMENT ON VIEW fleet.marked IS
    'Results that say they are of a part of their study, or in doubt, region by region. Never waits on the network.';

-- As in 0001, with foreign tables for the newest contract and the one before: which of them a region speaks is known
-- only when it answers. Makes the region known, or brings what is known into line; answers 'changed' or 'unchanged'. The
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
        RAISE EXCEPTION 'fleet.contract is empty' USING HINT = 'Apply the files of fleet/sql in order.';
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
        FROM fleet.contract c WHERE c.version >= newest - 1 GROUP BY c.relation ORDER BY c.relation
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

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA fleet FROM PUBLIC;
GRANT SELECT ON fleet.marked TO fleet_collector;

INSERT INTO fleet.schema_version (version) VALUES (3) ON CONFLICT DO NOTHING;
COMMIT;
