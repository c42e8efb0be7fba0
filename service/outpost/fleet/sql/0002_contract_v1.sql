-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.
--
-- Centre database "fleet", version 2: contract 1 as data, for fleet.attach_region.
-- Runs as 0001 does; harmless to run again.

BEGIN;
DELETE FROM fleet.contract WHERE version = 1;
INSERT INTO fleet.contract (version, relation, position, name, type, meaning) VALUES
    (1, 'studies_v1', 1, 'region', 'text', 'code of the region, outpost.region.code'),
    (1, 'studies_v1', 2, 'study_key', 'text', 'HMAC-SHA256 of the StudyInstanceUID under the region''s key, first 32 hex digits'),
    (1, 'studies_v1', 3, 'revision', 'integer', '1, and one more each time a late instance reopened the study'),
    (1, 'studies_v1', 4, 'system', 'text', 'the AI service instance on the host'),
    (1, 'studies_v1', 5, 'modality', 'text', 'DICOM Modality (0008,0060)'),
    (1, 'studies_v1', 6, 'received_at', 'timestamp with time zone', 'first instance acknowledged, region''s clock'),
    (1, 'studies_v1', 7, 'completed_at', 'timestamp with time zone', 'study judged complete, region''s clock'),
    (1, 'studies_v1', 8, 'finished_at', 'timestamp with time zone', 'the outcome was reached, region''s clock'),
    (1, 'studies_v1', 9, 'outcome', 'text', 'delivered, rejected, quarantined or pending'),
    (1, 'studies_v1', 10, 'reason', 'text', 'reason code where not delivered; never free text'),
    (1, 'studies_v1', 11, 'instances', 'integer', 'instances acknowledged'),
    (1, 'studies_v1', 12, 'bytes', 'bigint', 'their size on disk, bytes'),
    (1, 'studies_v1', 13, 'model', 'text', 'bundle name'),
    (1, 'studies_v1', 14, 'model_version', 'text', 'bundle version'),
    (1, 'studies_v1', 15, 'engine', 'text', 'engine that ran the model'),
    (1, 'studies_v1', 16, 'precision', 'text', 'numeric precision pinned for the run'),
    (1, 'studies_v1', 17, 'rung', 'text', 'rung of the degradation ladder'),
    (1, 'studies_v1', 18, 'device', 'text', 'device the model ran on'),
    (1, 'studies_v1', 19, 'inference_seconds', 'double precision', 'time of the model run, seconds'),
    (1, 'studies_v1', 20, 'release', 'text', 'Outpost release that handled the study'),
    (1, 'studies_v1', 21, 'seq', 'bigint', 'the region''s write order; rows become visible in this order'),
    (1, 'studies_v1', 22, 'updated_at', 'timestamp with time zone', 'last change of the row, region''s clock'),
    (1, 'handshake_v1', 1, 'region', 'text', 'code of the region'),
    (1, 'handshake_v1', 2, 'contract_version', 'integer', 'contract the region speaks'),
    (1, 'handshake_v1', 3, 'release', 'text', 'Outpost release of the region'),
    (1, 'handshake_v1', 4, 'clock', 'timestamp with time zone', 'the region''s clock at this moment'),
    (1, 'handshake_v1', 5, 'max_seq', 'bigint', 'highest seq in studies, 0 if there are none'),
    (1, 'handshake_v1', 6, 'epoch', 'text', 'identity of the database''s history; another value means: read everything again');
INSERT INTO fleet.schema_version (version) VALUES (2) ON CONFLICT DO NOTHING;
COMMIT;
