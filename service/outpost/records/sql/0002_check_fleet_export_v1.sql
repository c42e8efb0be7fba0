-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.
--
-- Region database "outpost", version 2: fleet_export is exactly contract 1, or this stops.
-- Changes nothing but outpost.schema_version. Runs as 0001 does; harmless to run again.

BEGIN;
DO $$
DECLARE
    difference text;
BEGIN
    WITH wanted (relation, position, name, type) AS (
        VALUES
            ('studies_v1', 1, 'region', 'text'),
            ('studies_v1', 2, 'study_key', 'text'),
            ('studies_v1', 3, 'revision', 'integer'),
            ('studies_v1', 4, 'system', 'text'),
            ('studies_v1', 5, 'modality', 'text'),
            ('studies_v1', 6, 'received_at', 'timestamp with time zone'),
            ('studies_v1', 7, 'completed_at', 'timestamp with time zone'),
            ('studies_v1', 8, 'finished_at', 'timestamp with time zone'),
            ('studies_v1', 9, 'outcome', 'text'),
            ('studies_v1', 10, 'reason', 'text'),
            ('studies_v1', 11, 'instances', 'integer'),
            ('studies_v1', 12, 'bytes', 'bigint'),
            ('studies_v1', 13, 'model', 'text'),
            ('studies_v1', 14, 'model_version', 'text'),
            ('studies_v1', 15, 'engine', 'text'),
            ('studies_v1', 16, 'precision', 'text'),
            ('studies_v1', 17, 'rung', 'text'),
            ('studies_v1', 18, 'device', 'text'),
            ('studies_v1', 19, 'inference_seconds', 'double precision'),
            ('studies_v1', 20, 'release', 'text'),
            ('studies_v1', 21, 'seq', 'bigint'),
            ('studies_v1', 22, 'updated_at', 'timestamp with time zone'),
            ('handshake_v1', 1, 'region', 'text'),
            ('handshake_v1', 2, 'contract_version', 'integer'),
            ('handshake_v1', 3, 'release', 'text'),
            ('handshake_v1', 4, 'clock', 'timestamp with time zone'),
            ('handshake_v1', 5, 'max_seq', 'bigint'),
            ('handshake_v1', 6, 'epoch', 'text')
    ), found AS (
        SELECT c.relname::text AS relation,
               row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum)::integer AS position,
               a.attname::text AS name,
               format_type(a.atttypid, a.atttypmod) AS type
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'fleet_export'::regnamespace
          AND c.relname IN (SELECT relation FROM wanted)
    )
    SELECT string_agg(format('%s column %s: contract has %s, database has %s', relation, position,
                             COALESCE(w.name || ' ' || w.type, 'none'),
                             COALESCE(f.name || ' ' || f.type, 'none')),
                      '; ' ORDER BY relation, position)
      INTO difference
      FROM wanted w FULL JOIN found f USING (relation, position)
     WHERE (w.name, w.type) IS DISTINCT FROM (f.name, f.type);
    IF difference IS NOT NULL THEN
        RAISE EXCEPTION 'fleet_export differs from contract 1: %', difference
            USING HINT = 'Apply the SQL files of one release in order; do not edit the views by hand.';
    END IF;
END
$$;
INSERT INTO outpost.schema_version (version) VALUES (2) ON CONFLICT DO NOTHING;
COMMIT;
