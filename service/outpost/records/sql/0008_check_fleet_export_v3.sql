-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.
--
-- Region database "outpost", version 8: fleet_export is exactly contract 3, or this stops.
-- Changes nothing but outpost.schema_version. Runs as 0001 does; harmless to run again.

BEGIN;
DO $$
DECLARE
    difference text;
BEGIN
    WITH wanted (relation, position, name, type) AS (
        VALUES
            ('studies_v3', 1, 'region', 'text'),
            ('studies_v3', 2, 'study_key', 'text'),
            ('studies_v3', 3, 'revision', 'integer'),
            ('studies_v3', 4, 'system', 'text'),
            ('studies_v3', 5, 'modality', 'text'),
            ('studies_v3', 6, 'received_at', 'timestamp with time zone'),
            ('studies_v3', 7, 'completed_at', 'timestamp with time zone'),
            ('studies_v3', 8, 'finished_at', 'timestamp with time zone'),
            ('studies_v3', 9, 'outcome', 'text'),
            ('studies_v3', 10, 'reason', 'text'),
            ('studies_v3', 11, 'instances', 'integer'),
            ('studies_v3', 12, 'bytes', 'bigint'),
            ('studies_v3', 13, 'model', 'text'),
            ('studies_v3', 14, 'model_version', 'text'),
            ('studies_v3', 15, 'engine', 'text'),
            ('studies_v3', 16, 'precision', 'text'),
            ('studies_v3', 17, 'rung', 'text'),
            ('studies_v3', 18, 'device', 'text'),
            ('studies_v3', 19, 'inference_seconds', 'double precision'),
            ('studies_v3', 20, 'release', 'text'),
            ('studies_v3', 21, 'seq', 'bigint'),
            ('studies_v3', 22, 'updated_at', 'timestamp with time zone'),
            ('studies_v3', 23, 'notes', 'text[]'),
            ('studies_v3', 24, 'partial', 'boolean'),
            ('studies_v3', 25, 'doubtful', 'boolean'),
            ('handshake_v3', 1, 'region', 'text'),
            ('handshake_v3', 2, 'contract_version', 'integer'),
            ('handshake_v3', 3, 'release', 'text'),
            ('handshake_v3', 4, 'clock', 'timestamp with time zone'),
            ('handshake_v3', 5, 'max_seq', 'bigint'),
            ('handshake_v3', 6, 'epoch', 'text'),
            ('handshake_v3', 7, 'systems', 'text[]'),
            ('health_v3', 1, 'region', 'text'),
            ('health_v3', 2, 'system', 'text'),
            ('health_v3', 3, 'seq', 'bigint'),
            ('health_v3', 4, 'written_at', 'timestamp with time zone'),
            ('health_v3', 5, 'age_seconds', 'double precision'),
            ('health_v3', 6, 'host_clock', 'timestamp with time zone'),
            ('health_v3', 7, 'period_seconds', 'double precision'),
            ('health_v3', 8, 'status', 'text'),
            ('health_v3', 9, 'failing', 'text[]'),
            ('health_v3', 10, 'ready', 'boolean'),
            ('health_v3', 11, 'rung', 'text'),
            ('health_v3', 12, 'receive_only', 'text'),
            ('health_v3', 13, 'queue', 'integer'),
            ('health_v3', 14, 'oldest_pending_seconds', 'double precision'),
            ('health_v3', 15, 'outbox', 'integer'),
            ('health_v3', 16, 'oldest_outbox_seconds', 'double precision'),
            ('health_v3', 17, 'disk_free_mib', 'bigint'),
            ('health_v3', 18, 'disk_used_percent', 'double precision'),
            ('health_v3', 19, 'disk_reserve_mib', 'bigint'),
            ('health_v3', 20, 'certificate_until', 'timestamp with time zone'),
            ('health_v3', 21, 'release', 'text'),
            ('health_v3', 22, 'bundle', 'text'),
            ('health_v3', 23, 'bundle_version', 'text'),
            ('health_v3', 24, 'boot_id', 'text'),
            ('health_v3', 25, 'process_started', 'timestamp with time zone'),
            ('health_v3', 26, 'boots', 'integer'),
            ('health_v3', 27, 'starts', 'integer'),
            ('health_v3', 28, 'queue_rise', 'integer')
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
        RAISE EXCEPTION 'fleet_export differs from contract 3: %', difference
            USING HINT = 'Apply the SQL files of one release in order; do not edit the views by hand.';
    END IF;
END
$$;
INSERT INTO outpost.schema_version (version) VALUES (8) ON CONFLICT DO NOTHING;
COMMIT;
