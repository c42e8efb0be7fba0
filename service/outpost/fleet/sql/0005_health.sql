-- Centre database "fleet", version 5: whether each system of each region works, in a colour and in words.
--
-- Who runs it : as 0001, after 0004.
-- Touches     : fleet.settings (thresholds), fleet.sync (two columns), fleet.heartbeats, fleet.health_since,
--               fleet.health_words, fleet.health and what it is made of, fleet.freshness (its reason tells of health too;
--               the view it was is now fleet.reached), fleet.attach_region, grants of fleet_collector.
-- Again       : harmless; one transaction.
-- Next        : 0006 (generated) adds contract 3 to fleet.contract; then fleet.attach_region once more for each region,
--               as the playbook does: until then all regions are read by contract 2, and shown as not telling.
--
-- What is green here works: its own heartbeat says ok, was new a moment ago by the centre's clock, and nothing else is
-- wrong. Everything that is not known is amber or red.

BEGIN;
SET LOCAL client_min_messages = warning;

ALTER TABLE fleet.settings
    ADD COLUMN IF NOT EXISTS heartbeat_grace_seconds double precision NOT NULL DEFAULT 15,
    ADD COLUMN IF NOT EXISTS heartbeat_period_most_seconds double precision NOT NULL DEFAULT 300,
    ADD COLUMN IF NOT EXISTS unread_red_seconds double precision NOT NULL DEFAULT 180,
    ADD COLUMN IF NOT EXISTS skew_red_seconds double precision NOT NULL DEFAULT 3600,
    ADD COLUMN IF NOT EXISTS queue_rise_studies integer NOT NULL DEFAULT 5,
    ADD COLUMN IF NOT EXISTS pending_amber_seconds double precision NOT NULL DEFAULT 1800,
    ADD COLUMN IF NOT EXISTS pending_red_seconds double precision NOT NULL DEFAULT 14400,
    ADD COLUMN IF NOT EXISTS outbox_amber_seconds double precision NOT NULL DEFAULT 3600,
    ADD COLUMN IF NOT EXISTS outbox_red_seconds double precision NOT NULL DEFAULT 86400,
    ADD COLUMN IF NOT EXISTS disk_amber_percent double precision NOT NULL DEFAULT 90,
    ADD COLUMN IF NOT EXISTS certificate_amber_days double precision NOT NULL DEFAULT 30,
    ADD COLUMN IF NOT EXISTS boots_amber integer NOT NULL DEFAULT 3,
    ADD COLUMN IF NOT EXISTS starts_amber integer NOT NULL DEFAULT 4,
    ADD COLUMN IF NOT EXISTS removed_shown_days double precision NOT NULL DEFAULT 7;
COMMENT ON COLUMN fleet.settings.heartbeat_grace_seconds IS
    'A system is amber once its heartbeat is this much late, red once it is a whole period later.';
COMMENT ON COLUMN fleet.settings.heartbeat_period_most_seconds IS
    'A region that promises a heartbeat more rarely is judged by this all the same.';
COMMENT ON COLUMN fleet.settings.boots_amber IS 'Boots within an hour; red at two more.';
COMMENT ON COLUMN fleet.settings.starts_amber IS 'Starts of the service within an hour; red at twice as many.';

ALTER TABLE fleet.sync ADD COLUMN IF NOT EXISTS health_at timestamptz;
ALTER TABLE fleet.sync ADD COLUMN IF NOT EXISTS systems text[];
COMMENT ON COLUMN fleet.sync.health_at IS
    'When the heartbeats of the region were last read; the centre''s clock. NULL: its contract has none.';
COMMENT ON COLUMN fleet.sync.systems IS 'Systems the region''s host is meant to run; NULL: it does not say.';

-- The newest heartbeat of each system, as contract 3 brings it, and two times of the centre's clock.
CREATE TABLE IF NOT EXISTS fleet.heartbeats (
    region                 text NOT NULL,
    system                 text NOT NULL,
    seq                    bigint NOT NULL,
    written_at             timestamptz,
    age_seconds            double precision,
    host_clock             timestamptz,
    period_seconds         double precision NOT NULL,
    status                 text NOT NULL,
    failing                text[] NOT NULL,
    ready                  boolean NOT NULL,
    rung                   text NOT NULL,
    receive_only           text NOT NULL,
    queue                  integer,
    oldest_pending_seconds double precision,
    outbox                 integer,
    oldest_outbox_seconds  double precision,
    disk_free_mib          bigint,
    disk_used_percent      double precision,
    disk_reserve_mib       bigint,
    certificate_until      timestamptz,
    release                text,
    bundle                 text,
    bundle_version         text,
    boot_id                text,
    process_started        timestamptz,
    boots                  integer,
    starts                 integer,
    queue_rise             integer,
    epoch                  text,
    beat_at                timestamptz NOT NULL,
    read_at                timestamptz NOT NULL,
    PRIMARY KEY (region, system)
);
COMMENT ON COLUMN fleet.heartbeats.beat_at IS
    'When the system was surely alive, by the centre''s clock: the reading that first showed this row, less the age the '
    'region gave it. A row that stays the same leaves it where it is, whatever times the row itself claims.';
COMMENT ON COLUMN fleet.heartbeats.read_at IS 'When the centre last saw the row; the centre''s clock.';

-- Since when each reason has held without a break; the collector keeps it from turn to turn.
CREATE TABLE IF NOT EXISTS fleet.health_since (
    region text NOT NULL,
    system text NOT NULL,
    code   text NOT NULL,
    since  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (region, system, code)
);

-- Sentences for codes, as format() takes them; written by the collector from its own release.
CREATE TABLE IF NOT EXISTS fleet.health_words (
    code     text PRIMARY KEY,
    critical boolean NOT NULL,
    en       text NOT NULL,
    ru       text NOT NULL
);

CREATE OR REPLACE FUNCTION fleet.span(seconds double precision, unit_s text, unit_min text, unit_h text, unit_d text)
    RETURNS text LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN seconds IS NULL THEN '?'
                WHEN abs(seconds) < 120 THEN concat(round(abs(seconds)), ' ', unit_s)
                WHEN abs(seconds) < 7200 THEN concat(round(abs(seconds) / 60), ' ', unit_min)
                WHEN abs(seconds) < 172800 THEN concat(round(abs(seconds) / 3600), ' ', unit_h)
                ELSE concat(round(abs(seconds) / 86400), ' ', unit_d) END
$$;
CREATE OR REPLACE FUNCTION fleet.span_en(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT fleet.span(seconds, 's', 'min', 'h', 'days') $$;
CREATE OR REPLACE FUNCTION fleet.span_ru(seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT fleet.span(seconds, 'с', 'мин', 'ч', 'сут.') $$;

DO $$
BEGIN
    IF to_regclass('fleet.reached') IS NULL THEN
        ALTER VIEW fleet.freshness RENAME TO reached;
    END IF;
END
$$;
COMMENT ON VIEW fleet.reached IS 'How old what we know of each region is, and why; nothing of whether it works.';

-- One row for each system of each region, and one without a system for a region of which none is known.
CREATE OR REPLACE VIEW fleet.health_facts AS
SELECT r.region, r.title, r.added_at, k.system,
       s.attempted_at, s.ok_at, s.error_class, s.error, s.failing_since,
       COALESCE(s.consecutive_failures, 0) AS consecutive_failures,
       s.contract_version, s.release AS region_release, s.skew_seconds AS region_skew,
       t.tells, t.read_at, extract(epoch FROM now() - t.read_at)::double precision AS unread_seconds,
       h.beat_at, b.silent_seconds, b.period_seconds,
       h.beat_at IS NOT NULL AND b.silent_seconds <= b.period_seconds + c.heartbeat_grace_seconds AS live,
       s.systems IS NOT NULL AND k.system IS NOT NULL AND NOT k.system = ANY (s.systems) AS removed,
       CASE WHEN abs(s.skew_seconds + d.host_ahead) > abs(s.skew_seconds) THEN s.skew_seconds + d.host_ahead
            ELSE s.skew_seconds END AS skew_seconds,
       h.seq, h.written_at, h.host_clock, h.status, h.failing, h.ready, h.rung, h.receive_only, h.queue,
       h.oldest_pending_seconds, h.outbox, h.oldest_outbox_seconds, h.disk_free_mib, h.disk_used_percent,
       h.disk_reserve_mib, h.certificate_until, h.release, h.bundle, h.bundle_version, h.boot_id, h.process_started,
       h.boots, h.starts, h.queue_rise
FROM fleet.regions r
CROSS JOIN (SELECT * FROM fleet.settings LIMIT 1) c
LEFT JOIN fleet.sync s ON s.region = r.region
LEFT JOIN LATERAL (
    SELECT n.system FROM fleet.heartbeats n WHERE n.region = r.region
    UNION SELECT e FROM unnest(s.systems) e
) k ON true
LEFT JOIN fleet.heartbeats h ON h.region = r.region AND h.system = k.system
CROSS JOIN LATERAL (
    SELECT s.health_at IS NOT NULL AS tells, COALESCE(s.health_at, s.ok_at) AS read_at
) t
CROSS JOIN LATERAL (
    SELECT least(h.period_seconds, c.heartbeat_period_most_seconds) AS period_seconds,
           greatest(extract(epoch FROM CASE WHEN t.tells THEN t.read_at ELSE now() END - h.beat_at), 0)::double precision
               AS silent_seconds
) b
CROSS JOIN LATERAL (
    SELECT COALESCE(extract(epoch FROM h.host_clock - h.written_at), 0)::double precision AS host_ahead
) d
WHERE r.removed_at IS NULL
  AND NOT (s.systems IS NOT NULL AND k.system IS NOT NULL AND NOT k.system = ANY (s.systems)
           AND h.beat_at < now() - c.removed_shown_days * interval '1 day');

-- Every reason why a system is not green. args: what format() puts into the sentence of fleet.health_words.
CREATE OR REPLACE VIEW fleet.health_reasons AS
WITH usual AS (
    SELECT count(*) AS regions,
           (SELECT m.release FROM (
                SELECT COALESCE(f.release, f.region_release) AS release, count(DISTINCT f.region) AS n
                FROM fleet.health_facts f WHERE COALESCE(f.release, f.region_release) ~ '^[0-9A-Za-z][0-9A-Za-z.+~-]{0,60}$'
                GROUP BY 1 ORDER BY 2 DESC, 1 DESC LIMIT 1) m) AS release
    FROM fleet.regions r WHERE r.removed_at IS NULL
), found AS (
    SELECT f.region, f.system, v.code, v.colour, v.since, v.en, v.ru
    FROM fleet.health_facts f
    CROSS JOIN (SELECT * FROM fleet.settings LIMIT 1) c
    CROSS JOIN usual u
    LEFT JOIN fleet.health_words fault ON fault.code = 'FAULT_' || upper(f.error_class)
    CROSS JOIN LATERAL (VALUES
        ('NEVER', f.ok_at IS NULL AND f.read_at IS NULL AND f.error_class IS DISTINCT FROM 'incompatible',
            CASE WHEN f.error IS NULL AND f.added_at > now() - interval '2 minutes' THEN 'amber' ELSE 'red' END,
            f.added_at,
            ARRAY[COALESCE(f.error, 'not tried yet: if this stays, look at outpost-fleet.service')],
            ARRAY[COALESCE(fault.ru, f.error, 'ещё не опрашивался: если так и останется, смотрите outpost-fleet.service')]),
        ('INCOMPATIBLE', COALESCE(f.error_class = 'incompatible', false), 'red', f.failing_since,
            ARRAY[f.error], ARRAY[COALESCE(fault.ru, f.error)]),
        ('UNREAD', COALESCE(f.ok_at, f.read_at) IS NOT NULL AND f.error_class IS DISTINCT FROM 'incompatible'
                AND (f.consecutive_failures > 0 OR f.read_at IS NULL
                     OR f.unread_seconds > c.period_seconds * c.late_after_periods),
            CASE WHEN f.unread_seconds > greatest(c.unread_red_seconds, c.period_seconds * c.late_after_periods)
                 THEN 'red' ELSE 'amber' END,
            COALESCE(f.failing_since, f.read_at),
            ARRAY[fleet.span_en(f.unread_seconds), COALESCE(f.error, 'no failure since: look at outpost-fleet.service')],
            ARRAY[fleet.span_ru(f.unread_seconds),
                  COALESCE(fault.ru, f.error, 'сбоев с тех пор не было: смотрите outpost-fleet.service')]),
        ('CENTRE_CLOCK', COALESCE(f.read_at > now() + interval '5 seconds', false), 'amber', NULL,
            ARRAY[fleet.span_en(-f.unread_seconds)], ARRAY[fleet.span_ru(-f.unread_seconds)]),
        ('OLD_CONTRACT', f.ok_at IS NOT NULL AND NOT f.tells, 'amber', NULL,
            ARRAY[COALESCE(f.region_release, '?')], ARRAY[COALESCE(f.region_release, '?')]),
        ('CLOCK', COALESCE(abs(f.skew_seconds) > c.skew_alarm_seconds, false),
            CASE WHEN abs(f.skew_seconds) > c.skew_red_seconds THEN 'red' ELSE 'amber' END, NULL,
            ARRAY[fleet.span_en(f.skew_seconds), CASE WHEN f.skew_seconds > 0 THEN 'ahead of' ELSE 'behind' END],
            ARRAY[fleet.span_ru(f.skew_seconds), CASE WHEN f.skew_seconds > 0 THEN 'спешат' ELSE 'отстают' END]),
        ('NO_HEARTBEAT', f.tells AND f.beat_at IS NULL, 'red', NULL, ARRAY[''], ARRAY['']),
        ('SILENT', f.beat_at IS NOT NULL AND NOT f.live AND NOT f.removed,
            CASE WHEN f.silent_seconds > 2 * f.period_seconds + c.heartbeat_grace_seconds THEN 'red' ELSE 'amber' END,
            f.beat_at,
            ARRAY[fleet.span_en(extract(epoch FROM now() - f.beat_at)::double precision), f.status],
            ARRAY[fleet.span_ru(extract(epoch FROM now() - f.beat_at)::double precision), f.status]),
        ('REMOVED', f.removed AND NOT f.live, 'amber', f.beat_at,
            ARRAY[fleet.span_en(extract(epoch FROM now() - f.beat_at)::double precision)],
            ARRAY[fleet.span_ru(extract(epoch FROM now() - f.beat_at)::double precision)]),
        ('NOT_IN_CONFIG', f.removed AND f.live, 'amber', NULL, ARRAY[''], ARRAY['']),
        ('NOT_READY', f.live AND (f.status = 'failed' OR NOT f.ready) AND NOT EXISTS (
                SELECT FROM fleet.health_words w WHERE w.code = ANY (f.failing) AND w.critical),
            'red', NULL, ARRAY[f.status], ARRAY[f.status]),
        ('DEGRADED', f.live AND f.status = 'degraded' AND f.failing = '{}', 'amber', NULL, ARRAY[''], ARRAY['']),
        ('LADDER_REDUCED', f.live AND ('LADDER_REDUCED' = ANY (f.failing) OR f.rung NOT IN ('full', '')), 'amber', NULL,
            ARRAY[f.rung], ARRAY[f.rung]),
        ('RECEIVE_ONLY', f.live AND ('RECEIVE_ONLY' = ANY (f.failing) OR f.receive_only <> ''), 'red', NULL,
            ARRAY[f.receive_only], ARRAY[f.receive_only]),
        ('QUEUE_GROWS', f.live AND COALESCE(f.queue_rise >= c.queue_rise_studies, false), 'amber', NULL,
            ARRAY[f.queue::text, f.queue_rise::text], ARRAY[f.queue::text, f.queue_rise::text]),
        ('QUEUE_AGE', f.live AND ('QUEUE_AGE' = ANY (f.failing)
                                  OR COALESCE(f.oldest_pending_seconds > c.pending_amber_seconds, false)),
            CASE WHEN f.oldest_pending_seconds > c.pending_red_seconds THEN 'red' ELSE 'amber' END, NULL,
            ARRAY[fleet.span_en(f.oldest_pending_seconds), COALESCE(f.queue::text, '?')],
            ARRAY[fleet.span_ru(f.oldest_pending_seconds), COALESCE(f.queue::text, '?')]),
        ('OUTBOX_AGE', f.live AND ('OUTBOX_AGE' = ANY (f.failing)
                                   OR COALESCE(f.oldest_outbox_seconds > c.outbox_amber_seconds, false)),
            CASE WHEN f.oldest_outbox_seconds > c.outbox_red_seconds THEN 'red' ELSE 'amber' END, NULL,
            ARRAY[fleet.span_en(f.oldest_outbox_seconds), COALESCE(f.outbox::text, '?')],
            ARRAY[fleet.span_ru(f.oldest_outbox_seconds), COALESCE(f.outbox::text, '?')]),
        ('DISK_RESERVE', f.live AND ('DISK_RESERVE' = ANY (f.failing) OR f.disk_free_mib IS NULL
                                     OR f.disk_free_mib < f.disk_reserve_mib), 'red', NULL,
            ARRAY[COALESCE(f.disk_free_mib::text, '?'), f.disk_reserve_mib::text, COALESCE(f.disk_used_percent::text, '?')],
            ARRAY[COALESCE(f.disk_free_mib::text, '?'), f.disk_reserve_mib::text, COALESCE(f.disk_used_percent::text, '?')]),
        ('DISK_NEAR', f.live AND NOT 'DISK_RESERVE' = ANY (f.failing) AND f.disk_free_mib >= f.disk_reserve_mib
                AND (f.disk_used_percent >= c.disk_amber_percent OR f.disk_free_mib < 1.5 * f.disk_reserve_mib),
            'amber', NULL,
            ARRAY[f.disk_free_mib::text, f.disk_reserve_mib::text, f.disk_used_percent::text],
            ARRAY[f.disk_free_mib::text, f.disk_reserve_mib::text, f.disk_used_percent::text]),
        ('CERTIFICATE_VALID', f.live AND ('CERTIFICATE_VALID' = ANY (f.failing)
                                          OR COALESCE(f.certificate_until <= now(), false)), 'red', NULL,
            ARRAY[COALESCE(f.certificate_until::date::text, '?')], ARRAY[COALESCE(f.certificate_until::date::text, '?')]),
        ('CERTIFICATE_EXPIRES', f.live AND ('CERTIFICATE_EXPIRES' = ANY (f.failing) OR COALESCE(
                f.certificate_until > now()
                AND f.certificate_until <= now() + c.certificate_amber_days * interval '1 day', false)), 'amber', NULL,
            ARRAY[COALESCE(f.certificate_until::date::text, '?')], ARRAY[COALESCE(f.certificate_until::date::text, '?')]),
        ('BOOTS', f.live AND f.boots >= c.boots_amber,
            CASE WHEN f.boots >= c.boots_amber + 2 THEN 'red' ELSE 'amber' END, NULL,
            ARRAY[f.boots::text], ARRAY[f.boots::text]),
        ('STARTS', f.live AND f.boots < c.boots_amber AND f.starts >= c.starts_amber,
            CASE WHEN f.starts >= 2 * c.starts_amber THEN 'red' ELSE 'amber' END, NULL,
            ARRAY[f.starts::text], ARRAY[f.starts::text]),
        ('RELEASE_HALF', f.live AND f.release <> '' AND f.release <> f.region_release, 'amber', NULL,
            ARRAY[f.release, f.region_release], ARRAY[f.release, f.region_release]),
        ('RELEASE', u.regions > 1 AND COALESCE(f.release, f.region_release) <> u.release, 'amber', NULL,
            ARRAY[COALESCE(f.release, f.region_release), u.release],
            ARRAY[COALESCE(f.release, f.region_release), u.release])
    ) v (code, applies, colour, since, en, ru)
    WHERE v.applies
    UNION ALL
    SELECT f.region, f.system, b.code, CASE WHEN COALESCE(w.critical, false) THEN 'red' ELSE 'amber' END,
           NULL, ARRAY[b.code], ARRAY[b.code]
    FROM fleet.health_facts f
    CROSS JOIN LATERAL unnest(f.failing) b (code)
    LEFT JOIN fleet.health_words w ON w.code = b.code
    WHERE f.live AND b.code NOT IN ('LADDER_REDUCED', 'RECEIVE_ONLY', 'QUEUE_AGE', 'OUTBOX_AGE', 'DISK_RESERVE',
                                    'CERTIFICATE_VALID', 'CERTIFICATE_EXPIRES')
)
SELECT f.region, f.system, f.code, f.colour, COALESCE(f.since, s.since, now()) AS since,
       format(COALESCE(w.en, replace(f.code, '%', '%%') || ' %1$s %2$s'), VARIADIC f.en || ARRAY['', '', '', '']) AS en,
       format(COALESCE(w.ru, replace(f.code, '%', '%%') || ' %1$s %2$s'), VARIADIC f.ru || ARRAY['', '', '', '']) AS ru
FROM found f
LEFT JOIN fleet.health_words w ON w.code = f.code
LEFT JOIN fleet.health_since s ON s.region = f.region AND s.system = COALESCE(f.system, '') AND s.code = f.code;

CREATE OR REPLACE VIEW fleet.health AS
SELECT f.region, f.title, f.system, COALESCE(w.colour, 'green') AS colour,
       COALESCE(w.reasons, 'works') AS reasons, COALESCE(w.reasons_ru, 'работает') AS reasons_ru,
       COALESCE(w.codes, '{}') AS codes,
       COALESCE(w.since, (SELECT g.since FROM fleet.health_since g WHERE g.region = f.region
                          AND g.system = COALESCE(f.system, '') AND g.code = 'GREEN'), now()) AS since,
       f.beat_at, CASE WHEN f.beat_at IS NOT NULL
                       THEN greatest(extract(epoch FROM now() - f.beat_at), 0)::double precision END AS beat_age_seconds,
       f.read_at, f.status, f.failing, f.ready, f.rung, f.receive_only, f.queue, f.queue_rise, f.oldest_pending_seconds,
       f.outbox, f.oldest_outbox_seconds, f.disk_free_mib, f.disk_used_percent, f.disk_reserve_mib, f.certificate_until,
       COALESCE(f.release, f.region_release) AS release, f.bundle, f.bundle_version, f.boot_id, f.process_started,
       f.boots, f.starts, f.skew_seconds,
       COALESCE(w.why, '{}') AS why, COALESCE(w.why_ru, '{}') AS why_ru
FROM fleet.health_facts f
LEFT JOIN (
    SELECT r.region, COALESCE(r.system, '') AS system,
           CASE WHEN bool_or(r.colour = 'red') THEN 'red' ELSE 'amber' END AS colour,
           string_agg(r.en, '; ' ORDER BY r.colour DESC, r.since, r.code) AS reasons,
           string_agg(r.ru, '; ' ORDER BY r.colour DESC, r.since, r.code) AS reasons_ru,
           array_agg(r.code ORDER BY r.colour DESC, r.since, r.code) AS codes,
           array_agg(r.en ORDER BY r.colour DESC, r.since, r.code) AS why,
           array_agg(r.ru ORDER BY r.colour DESC, r.since, r.code) AS why_ru,
           COALESCE(min(r.since) FILTER (WHERE r.colour = 'red'), min(r.since)) AS since
    FROM fleet.health_reasons r GROUP BY 1, 2
) w ON w.region = f.region AND w.system = COALESCE(f.system, '');
COMMENT ON VIEW fleet.health IS
    'Whether each system of each region works: green, amber or red, why in words, since when. Never waits on the network.';

-- As before, but no line says that all is well of a region that is not: its reason tells what is wrong there, too.
CREATE OR REPLACE VIEW fleet.freshness AS
SELECT r.region, r.title, r.state, r.age_seconds, r.data_through, r.rows, r.skew_seconds,
       CASE WHEN t.more IS NULL THEN r.reason
            WHEN r.reason = 'up to date' THEN 'data up to date; ' || t.more
            ELSE concat(r.reason, '; ', t.more) END AS reason,
       r.error_class, r.failing_since, r.consecutive_failures, r.attempted_at, r.ok_at, r.next_attempt_at,
       r.rows_total, r.rows_behind, r.took_seconds, r.release, r.contract_version,
       h.colour, COALESCE(h.wrong, 'works') AS health, COALESCE(h.wrong_ru, 'работает') AS health_ru
FROM fleet.reached r
LEFT JOIN (
    SELECT s.region, CASE WHEN bool_or(s.colour = 'red') THEN 'red' WHEN bool_or(s.colour = 'amber') THEN 'amber'
                          ELSE 'green' END AS colour,
           string_agg(concat(s.system || ': ', s.reasons), '; ' ORDER BY s.colour DESC, s.system)
               FILTER (WHERE s.colour <> 'green') AS wrong,
           string_agg(concat(s.system || ': ', s.reasons_ru), '; ' ORDER BY s.colour DESC, s.system)
               FILTER (WHERE s.colour <> 'green') AS wrong_ru
    FROM fleet.health s GROUP BY s.region
) h ON h.region = r.region
LEFT JOIN (  -- without what fleet.reached says itself
    SELECT m.region, string_agg(concat(m.system || ': ', m.en), '; ' ORDER BY m.colour DESC, m.system, m.code) AS more
    FROM fleet.health_reasons m WHERE m.code NOT IN ('NEVER', 'INCOMPATIBLE', 'UNREAD') GROUP BY m.region
) t ON t.region = r.region;
COMMENT ON VIEW fleet.freshness IS
    'How old what we know of each region is, whether it works, and why not. Never waits on the network.';

-- Brings fleet.health_since up to date with what holds now.
CREATE OR REPLACE FUNCTION fleet.note_health() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    WITH holds AS MATERIALIZED (
        SELECT h.region, COALESCE(h.system, '') AS system, unnest(CASE WHEN h.codes = '{}' THEN '{GREEN}' ELSE h.codes END) AS code
        FROM fleet.health h
    ), gone AS (
        DELETE FROM fleet.health_since s WHERE NOT EXISTS (
            SELECT FROM holds o WHERE o.region = s.region AND o.system = s.system AND o.code = s.code)
    )
    INSERT INTO fleet.health_since (region, system, code)
    SELECT DISTINCT o.region, o.system, o.code FROM holds o ON CONFLICT DO NOTHING
$$;

-- As in 0003, with foreign tables for every contract there is: which of them a region speaks is known only when it answers,
-- and one that was off for two releases is still read.
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
        FROM fleet.contract c GROUP BY c.relation ORDER BY c.relation
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
GRANT SELECT ON fleet.heartbeats, fleet.health_since, fleet.health_words, fleet.reached, fleet.health_facts,
    fleet.health_reasons, fleet.health, fleet.freshness TO fleet_collector;
GRANT INSERT, UPDATE ON fleet.heartbeats, fleet.health_words TO fleet_collector;
GRANT INSERT, DELETE ON fleet.health_since TO fleet_collector;
GRANT EXECUTE ON FUNCTION fleet.note_health(), fleet.span(double precision, text, text, text, text),
    fleet.span_en(double precision), fleet.span_ru(double precision) TO fleet_collector;

INSERT INTO fleet.schema_version (version) VALUES (5) ON CONFLICT DO NOTHING;
COMMIT;
