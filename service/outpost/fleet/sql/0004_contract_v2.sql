-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.
--
-- Centre database "fleet", version 4: contract 2 as data, for fleet.attach_region.
-- Runs as 0001 does; harmless to run again.

BEGIN;
DELETE FROM fleet.contract WHERE version = 2;
INSERT INTO fleet.contract (version, relation, position, name, type, meaning) VALUES
    (2, 'studies_v2', 1, 'region', 'text', 'code of the region, outpost.region.code'),
    (2, 'studies_v2', 2, 'study_key', 'text', 'HMAC-SHA256 of the StudyInstanceUID under the region''s key, first 32 hex digits'),
    (2, 'studies_v2', 3, 'revision', 'integer', '1, and one more each time a late instance reopened the study'),
    (2, 'studies_v2', 4, 'system', 'text', 'the AI service instance on the host'),
    (2, 'studies_v2', 5, 'modality', 'text', 'DICOM Modality (0008,0060)'),
    (2, 'studies_v2', 6, 'received_at', 'timestamp with time zone', 'first instance acknowledged, region''s clock'),
    (2, 'studies_v2', 7, 'completed_at', 'timestamp with time zone', 'study judged complete, region''s clock'),
    (2, 'studies_v2', 8, 'finished_at', 'timestamp with time zone', 'the outcome was reached, region''s clock'),
    (2, 'studies_v2', 9, 'outcome', 'text', 'delivered, rejected, quarantined or pending'),
    (2, 'studies_v2', 10, 'reason', 'text', 'reason code where not delivered; never free text'),
    (2, 'studies_v2', 11, 'instances', 'integer', 'instances acknowledged'),
    (2, 'studies_v2', 12, 'bytes', 'bigint', 'their size on disk, bytes'),
    (2, 'studies_v2', 13, 'model', 'text', 'bundle name'),
    (2, 'studies_v2', 14, 'model_version', 'text', 'bundle version'),
    (2, 'studies_v2', 15, 'engine', 'text', 'engine that ran the model'),
    (2, 'studies_v2', 16, 'precision', 'text', 'numeric precision pinned for the run'),
    (2, 'studies_v2', 17, 'rung', 'text', 'rung of the degradation ladder'),
    (2, 'studies_v2', 18, 'device', 'text', 'device the model ran on'),
    (2, 'studies_v2', 19, 'inference_seconds', 'double precision', 'time of the model run, seconds'),
    (2, 'studies_v2', 20, 'release', 'text', 'Outpost release that handled the study'),
    (2, 'studies_v2', 21, 'seq', 'bigint', 'the region''s write order; rows become visible in this order'),
    (2, 'studies_v2', 22, 'updated_at', 'timestamp with time zone', 'last change of the row, region''s clock'),
    (2, 'studies_v2', 23, 'notes', 'text[]', 'codes of what the result says of itself; never a detail'),
    (2, 'studies_v2', 24, 'partial', 'boolean', 'the result is of a part of its study'),
    (2, 'studies_v2', 25, 'doubtful', 'boolean', 'the result says that the images may not be what the model is for'),
    (2, 'handshake_v2', 1, 'region', 'text', 'code of the region'),
    (2, 'handshake_v2', 2, 'contract_version', 'integer', 'contract the region speaks'),
    (2, 'handshake_v2', 3, 'release', 'text', 'Outpost release of the region'),
    (2, 'handshake_v2', 4, 'clock', 'timestamp with time zone', 'the region''s clock at this moment'),
    (2, 'handshake_v2', 5, 'max_seq', 'bigint', 'highest seq in studies, 0 if there are none'),
    (2, 'handshake_v2', 6, 'epoch', 'text', 'identity of the database''s history; another value means: read everything again');
INSERT INTO fleet.schema_version (version) VALUES (4) ON CONFLICT DO NOTHING;
COMMIT;
