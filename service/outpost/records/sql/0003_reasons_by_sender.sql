-- Region database "outpost", version 3: who sent what did not become a result, and why.
--
-- Who runs it : as 0001; needs 0001 and 0002 before it.
-- Touches     : schema outpost only. fleet_export, the contract with the centre, stays as it is.
-- Again       : harmless; one transaction.
--
-- A sender is a DICOM AE title, or "stow": the name of a device or an archive, never of a patient.

BEGIN;
SET LOCAL client_min_messages = warning;

-- AE titles in the order in which they first sent something of the study. A recorder of an earlier release
-- does not know the column and leaves it empty.
ALTER TABLE outpost.studies ADD COLUMN IF NOT EXISTS senders text[] NOT NULL DEFAULT '{}';

-- Images that intake did not take belong to no study: their counts come as they stand, a day (UTC) at a time.
CREATE TABLE IF NOT EXISTS outpost.refused_instances (
    system    text NOT NULL CHECK (system ~ '^[a-z][a-z0-9-]{1,30}$'),
    day       date NOT NULL,
    sender    text NOT NULL CHECK (sender ~ '^[ -~]{0,16}$'),
    reason    text NOT NULL CHECK (reason ~ '^[A-Za-z0-9_.:-]{1,80}$'),
    instances bigint NOT NULL CHECK (instances >= 0),
    bytes     bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (system, day, sender, reason)
);
GRANT SELECT, INSERT, UPDATE ON outpost.refused_instances TO outpost_recorder;

CREATE INDEX IF NOT EXISTS studies_by_end ON outpost.studies (finished_at);

-- How much ended how, by day (UTC), system, sending AE title and modality. A study of several senders counts
-- for the first; each of its revisions that ended counts.
CREATE OR REPLACE VIEW outpost.reasons_by_sender AS
SELECT (s.finished_at AT TIME ZONE 'UTC')::date AS day, s.system, COALESCE(s.senders[1], '') AS sender, s.modality,
       'study'::text AS unit, s.outcome, s.reason, count(*) AS count
FROM outpost.studies s
WHERE s.finished_at IS NOT NULL AND s.outcome <> 'pending'
GROUP BY 1, 2, 3, 4, 6, 7
UNION ALL
SELECT r.day, r.system, r.sender, NULL, 'instance', 'refused', r.reason, r.instances
FROM outpost.refused_instances r;
GRANT SELECT ON outpost.reasons_by_sender TO outpost_recorder;

INSERT INTO outpost.schema_version (version) VALUES (3) ON CONFLICT DO NOTHING;
COMMIT;
