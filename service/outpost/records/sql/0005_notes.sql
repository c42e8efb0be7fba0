-- Region database "outpost", version 5: what results say of themselves, and contract 2 with the centre beside 1.
--
-- Who runs it : as 0001, after 0004.
-- Touches     : outpost.studies (three columns), fleet_export (two views more, granted to fleet_reader). The views of
--               contract 1 stay as they are: a centre that knows no more goes on reading them.
-- Again       : harmless; one transaction.
--
-- No patient data may enter: a note is here by its code alone, its detail stays in the journal.

BEGIN;
SET LOCAL client_min_messages = warning;

-- A recorder of an earlier release does not know the columns and leaves them empty.
ALTER TABLE outpost.studies ADD COLUMN IF NOT EXISTS notes text[] NOT NULL DEFAULT '{}';
ALTER TABLE outpost.studies ADD COLUMN IF NOT EXISTS partial boolean NOT NULL DEFAULT false;
ALTER TABLE outpost.studies ADD COLUMN IF NOT EXISTS doubtful boolean NOT NULL DEFAULT false;

-- An array as text: codes need no quotes there, anything else (a space, a small letter, another dimension) shows.
ALTER TABLE outpost.studies DROP CONSTRAINT IF EXISTS notes_are_codes;
ALTER TABLE outpost.studies ADD CONSTRAINT notes_are_codes CHECK (
    notes::text ~ '^\{([A-Z][A-Z0-9_]{0,79}(,[A-Z][A-Z0-9_]{0,79})*)?\}$' AND array_position(notes, NULL) IS NULL
);

CREATE OR REPLACE VIEW fleet_export.studies_v2 AS
SELECT (SELECT r.code FROM outpost.region r) AS region,
       s.study_key, s.revision, s.system, s.modality, s.received_at, s.completed_at, s.finished_at,
       s.outcome, s.reason, s.instances, s.bytes, s.model, s.model_version, s.engine, s.precision,
       s.rung, s.device, s.inference_seconds, s.release, s.seq, s.updated_at, s.notes, s.partial, s.doubtful
FROM outpost.studies s;

CREATE OR REPLACE VIEW fleet_export.handshake_v2 AS
SELECT h.region, 2 AS contract_version, h.release, h.clock, h.max_seq, h.epoch
FROM fleet_export.handshake_v1 h;

GRANT SELECT ON fleet_export.studies_v2, fleet_export.handshake_v2 TO fleet_reader;

INSERT INTO outpost.schema_version (version) VALUES (5) ON CONFLICT DO NOTHING;
COMMIT;
