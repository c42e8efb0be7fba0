-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.
--
-- Region database "outpost", version 6: fleet_export is exactly contract 2, or this stops.
-- Changes nothing but outpost.schema_version. Runs as 0001 does; harmless to run again.

BEGIN;
DO $$
DECLARE
    difference text;
BEGIN
    WITH wanted (relation, position, name, type) AS (
        VALUES
            ('studies_v2', 1, 'region', 'text'),
            ('studies_v2', 2, 'study_key', 'text'),
            ('studies_v2', 3, 'revision', 'integer'),
            ('studies_v2', 4, 'system', 'text'),
            ('studies_v2', 5, 'modality', 'text'),
            ('studies_v2', 6, 'received_at', 'timestamp with time zone'),
            ('studies_v2', 7, 'completed_at', 'timestamp with time zone'),
            ('studies_v2', 8, 'finished_at', 'timestamp with time zone'),
            ('studies_v2', 9, 'outcome', 'text'),
            ('studies_v2', 10, 'reason', 'text'),
            ('studies_v2', 11, 'instances', 'integer'),
            ('studies_v2', 12, 'bytes', 'bigint'),
            ('studies_v2', 13, 'model', 'text'),
            ('studies_v2', 14, 'model_version', 'text'),
            ('studies_v2', 15, 'engine', 'text'),
            ('studies_v2', 16, 'precision', 'text'),
            ('studies_v2', 17, 'rung', 'text'),
            ('studies_v2', 18, 'device', 'text'),
            ('studies_v2', 19, 'inference_seconds', 'double precision'),
            ('studies_v2', 20, 'release', 'text'),
            ('studies_v2', 21, 'seq', 'bigint'),
            ('studies_v2', 22, 'updated_at', 'timestamp with time zone'),
            ('studies_v2', 23, 'notes', 'text[]'),
            ('studies_v2', 24, 'partial', 'boolean'),
            ('studies_v2', 25, 'doubtful', 'boolean'),
            ('handshake_v2', 1, 'region', 'text'),
            ('handshake_v2', 2, 'contract_version', 'integer'),
            ('handshake_v2', 3, 'release', 'text'),
            ('handshake_v2', 4, 'clock', 'timestamp with time zone'),
            ('handshake_v2', 5, 'max_seq', 'bigint'),
            ('handshake_v2', 6, 'epoch', 'text')
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
        RAISE EXCEPTION 'fleet_export differs from contract 2: %', difference
            USING HINT = 'Apply the SQL files of one release in order; do not edit the views by hand.';
    END IF;
END
$$;
INSERT INTO outpost.schema_version (version) VALUES (6) ON CONFLICT DO NOTHING;
COMMIT;
