-- Region database "outpost", version 7: what each system says of itself every minute, and contract 3 with the centre
-- beside 2 and 1.
--
-- Who runs it : as 0001, after 0006.
-- Touches     : outpost.heartbeats, outpost.region (one column), fleet_export (three views more, granted to
--               fleet_reader). The views of contracts 1 and 2 stay as they are.
-- Again       : harmless; one transaction.
--
-- No patient data may enter: a heartbeat is counts, ages, codes and names of software.

BEGIN;
SET LOCAL client_min_messages = warning;

-- Which systems this host is meant to run; NULL: nobody has said. One that never started shows by it.
ALTER TABLE outpost.region ADD COLUMN IF NOT EXISTS systems text[];

CREATE SEQUENCE IF NOT EXISTS outpost.heartbeats_seq;

-- seq and written_at are the database's own (outpost.stamp_heartbeat). A number the service does not know is NULL: a
-- journal that does not answer has no queue, which is not an empty one.
CREATE TABLE IF NOT EXISTS outpost.heartbeats (
    seq                    bigint PRIMARY KEY,
    system                 text NOT NULL CHECK (system ~ '^[a-z][a-z0-9-]{1,30}$'),
    written_at             timestamptz NOT NULL,
    host_clock             timestamptz NOT NULL,
    period_seconds         double precision NOT NULL CHECK (period_seconds > 0),
    status                 text NOT NULL CHECK (status IN ('ok', 'degraded', 'failed')),
    failing                text[] NOT NULL,
    ready                  boolean NOT NULL,
    rung                   text NOT NULL CHECK (rung ~ '^[A-Za-z0-9_.:/ -]{0,80}$'),
    receive_only           text NOT NULL CHECK (receive_only ~ '^[A-Z0-9_]{0,80}$'),
    queue                  integer CHECK (queue >= 0),
    oldest_pending_seconds double precision,
    outbox                 integer CHECK (outbox >= 0),
    oldest_outbox_seconds  double precision,
    disk_free_mib          bigint,
    disk_used_percent      double precision,
    disk_reserve_mib       bigint NOT NULL,
    certificate_until      timestamptz,
    release                text NOT NULL CHECK (release ~ '^[A-Za-z0-9_.+:~-]{0,80}$'),
    bundle                 text NOT NULL CHECK (bundle ~ '^[A-Za-z0-9_.:~-]{0,80}$'),
    bundle_version         text NOT NULL CHECK (bundle_version ~ '^[A-Za-z0-9_.+:~-]{0,80}$'),
    boot_id                text NOT NULL CHECK (boot_id ~ '^[0-9a-f-]{0,36}$'),
    process_started        timestamptz NOT NULL,
    CONSTRAINT failing_are_codes CHECK (
        failing::text ~ '^\{([A-Z][A-Z0-9_]{0,79}(,[A-Z][A-Z0-9_]{0,79})*)?\}$'
        AND array_position(failing, NULL) IS NULL
    )
);
CREATE INDEX IF NOT EXISTS heartbeats_of_system ON outpost.heartbeats (system, seq);

-- The newest 2880 of each system stay, two days of minutes: by count and not by time, so that no clock, however
-- wrong, makes the table grow. SECURITY DEFINER: who writes heartbeats may not delete them.
CREATE OR REPLACE FUNCTION outpost.stamp_heartbeat() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.seq := nextval('outpost.heartbeats_seq');
    NEW.written_at := clock_timestamp();
    DELETE FROM outpost.heartbeats h
     WHERE h.system = NEW.system
       AND h.seq <= (SELECT o.seq FROM outpost.heartbeats o WHERE o.system = NEW.system
                      ORDER BY o.seq DESC OFFSET 2879 LIMIT 1);
    RETURN NEW;
END
$$;
REVOKE ALL ON FUNCTION outpost.stamp_heartbeat() FROM PUBLIC;
DROP TRIGGER IF EXISTS stamp_heartbeat ON outpost.heartbeats;
CREATE TRIGGER stamp_heartbeat BEFORE INSERT ON outpost.heartbeats
    FOR EACH ROW EXECUTE FUNCTION outpost.stamp_heartbeat();
GRANT SELECT, INSERT ON outpost.heartbeats TO outpost_recorder;

-- Says which systems the host is meant to run; answers 'changed' or 'unchanged'. After set_region.
CREATE OR REPLACE FUNCTION outpost.set_systems(systems text[]) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text[] := (SELECT COALESCE(array_agg(DISTINCT n ORDER BY n), '{}') FROM unnest(set_systems.systems) n);
BEGIN
    UPDATE outpost.region r SET systems = wanted WHERE r.systems IS DISTINCT FROM wanted;
    RETURN CASE WHEN FOUND THEN 'changed' ELSE 'unchanged' END;
END
$$;
REVOKE ALL ON FUNCTION outpost.set_systems(text[]) FROM PUBLIC;

CREATE OR REPLACE VIEW fleet_export.studies_v3 AS
SELECT region, study_key, revision, system, modality, received_at, completed_at, finished_at, outcome, reason, instances,
       bytes, model, model_version, engine, precision, rung, device, inference_seconds, release, seq, updated_at, notes,
       partial, doubtful
FROM fleet_export.studies_v2;

CREATE OR REPLACE VIEW fleet_export.handshake_v3 AS
SELECT h.region, 3 AS contract_version, h.release, h.clock, h.max_seq, h.epoch,
       (SELECT r.systems FROM outpost.region r) AS systems
FROM fleet_export.handshake_v1 h;

-- The newest heartbeat of each system, with what only the ones before it tell. age_seconds is by the clock that wrote
-- written_at: a clock that is wrong all the time cancels out.
CREATE OR REPLACE VIEW fleet_export.health_v3 AS
SELECT (SELECT r.code FROM outpost.region r) AS region, n.system, n.seq, n.written_at,
       extract(epoch FROM clock_timestamp() - n.written_at)::double precision AS age_seconds,
       n.host_clock, n.period_seconds, n.status, n.failing, n.ready, n.rung, n.receive_only,
       n.queue, n.oldest_pending_seconds, n.outbox, n.oldest_outbox_seconds,
       n.disk_free_mib, n.disk_used_percent, n.disk_reserve_mib, n.certificate_until,
       n.release, n.bundle, n.bundle_version, n.boot_id, n.process_started,
       lately.boots, lately.starts, CASE WHEN rises.whole THEN rises.rise ELSE 0 END AS queue_rise
FROM (SELECT DISTINCT ON (h.system) h.* FROM outpost.heartbeats h ORDER BY h.system, h.seq DESC) n
CROSS JOIN LATERAL (
    SELECT count(DISTINCT b.boot_id)::integer AS boots, count(DISTINCT (b.boot_id, b.process_started))::integer AS starts
    FROM (SELECT h.boot_id, h.process_started, h.written_at FROM outpost.heartbeats h
          WHERE h.system = n.system ORDER BY h.seq DESC LIMIT 90) b
    WHERE b.written_at > n.written_at - interval '1 hour'
) lately
CROSS JOIN LATERAL (
    SELECT count(*) = 6 AND bool_and(COALESCE(q.step, 0) >= 0) AS whole, max(q.queue) - min(q.queue) AS rise
    FROM (SELECT l.queue, l.queue - lag(l.queue) OVER (ORDER BY l.seq) AS step
          FROM (SELECT h.queue, h.seq FROM outpost.heartbeats h
                WHERE h.system = n.system ORDER BY h.seq DESC LIMIT 6) l) q
) rises;

GRANT SELECT ON fleet_export.studies_v3, fleet_export.handshake_v3, fleet_export.health_v3 TO fleet_reader;

INSERT INTO outpost.schema_version (version) VALUES (7) ON CONFLICT DO NOTHING;
COMMIT;
