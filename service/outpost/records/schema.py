"""The contract between a region and the centre, and the SQL files generated from it.

``fleet_export`` version 1 is described here once. From it come, by ``python -m outpost.records.schema``:

* ``records/sql/0002_check_fleet_export_v1.sql``: a region refuses views that differ from the contract;
* ``fleet/sql/0002_contract_v1.sql``: the centre's ``fleet.contract``, from which ``fleet.attach_region``
  builds the foreign tables of each region;

and at run time the column list the collector pulls. A test regenerates both files and compares.
A published version never changes: another shape is a version 2 beside it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

CONTRACT_VERSION = 1


@dataclass(frozen=True)
class Column:
    """One column of an exported view. `type` is PostgreSQL's own spelling (``format_type``)."""

    name: str
    type: str
    meaning: str


STUDIES = (
    Column("region", "text", "code of the region, outpost.region.code"),
    Column(
        "study_key", "text", "HMAC-SHA256 of the StudyInstanceUID under the region's key, first 32 hex digits"
    ),
    Column("revision", "integer", "1, and one more each time a late instance reopened the study"),
    Column("system", "text", "the AI service instance on the host"),
    Column("modality", "text", "DICOM Modality (0008,0060)"),
    Column("received_at", "timestamp with time zone", "first instance acknowledged, region's clock"),
    Column("completed_at", "timestamp with time zone", "study judged complete, region's clock"),
    Column("finished_at", "timestamp with time zone", "the outcome was reached, region's clock"),
    Column("outcome", "text", "delivered, rejected, quarantined or pending"),
    Column("reason", "text", "reason code where not delivered; never free text"),
    Column("instances", "integer", "instances acknowledged"),
    Column("bytes", "bigint", "their size on disk, bytes"),
    Column("model", "text", "bundle name"),
    Column("model_version", "text", "bundle version"),
    Column("engine", "text", "engine that ran the model"),
    Column("precision", "text", "numeric precision pinned for the run"),
    Column("rung", "text", "rung of the degradation ladder"),
    Column("device", "text", "device the model ran on"),
    Column("inference_seconds", "double precision", "time of the model run, seconds"),
    Column("release", "text", "Outpost release that handled the study"),
    Column("seq", "bigint", "the region's write order; rows become visible in this order"),
    Column("updated_at", "timestamp with time zone", "last change of the row, region's clock"),
)

HANDSHAKE = (
    Column("region", "text", "code of the region"),
    Column("contract_version", "integer", "contract the region speaks"),
    Column("release", "text", "Outpost release of the region"),
    Column("clock", "timestamp with time zone", "the region's clock at this moment"),
    Column("max_seq", "bigint", "highest seq in studies, 0 if there are none"),
    Column("epoch", "text", "identity of the database's history; another value means: read everything again"),
)

RELATIONS = {"studies_v1": STUDIES, "handshake_v1": HANDSHAKE}

_GENERATED = (
    "-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.\n"
)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def region_check_sql() -> str:
    """SQL that fails, naming every difference, when the region's views are not the contract's."""
    wanted = ",\n".join(
        f"            ({_quote(relation)}, {position}, {_quote(column.name)}, {_quote(column.type)})"
        for relation, columns in RELATIONS.items()
        for position, column in enumerate(columns, start=1)
    )
    return f"""{_GENERATED}--
-- Region database "outpost", version 2: fleet_export is exactly contract {CONTRACT_VERSION}, or this stops.
-- Changes nothing but outpost.schema_version. Runs as 0001 does; harmless to run again.

BEGIN;
DO $$
DECLARE
    difference text;
BEGIN
    WITH wanted (relation, position, name, type) AS (
        VALUES
{wanted}
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
        RAISE EXCEPTION 'fleet_export differs from contract {CONTRACT_VERSION}: %', difference
            USING HINT = 'Apply the SQL files of one release in order; do not edit the views by hand.';
    END IF;
END
$$;
INSERT INTO outpost.schema_version (version) VALUES (2) ON CONFLICT DO NOTHING;
COMMIT;
"""


def centre_contract_sql() -> str:
    """SQL that fills the centre's ``fleet.contract`` with this version."""
    rows = ",\n".join(
        f"    ({CONTRACT_VERSION}, {_quote(relation)}, {position}, {_quote(column.name)},"
        f" {_quote(column.type)}, {_quote(column.meaning)})"
        for relation, columns in RELATIONS.items()
        for position, column in enumerate(columns, start=1)
    )
    return f"""{_GENERATED}--
-- Centre database "fleet", version 2: contract {CONTRACT_VERSION} as data, for fleet.attach_region.
-- Runs as 0001 does; harmless to run again.

BEGIN;
DELETE FROM fleet.contract WHERE version = {CONTRACT_VERSION};
INSERT INTO fleet.contract (version, relation, position, name, type, meaning) VALUES
{rows};
INSERT INTO fleet.schema_version (version) VALUES (2) ON CONFLICT DO NOTHING;
COMMIT;
"""


def generated_files() -> dict[Path, str]:
    """Path and text of every generated SQL file."""
    package = Path(__file__).resolve().parent.parent
    return {
        package / "records/sql/0002_check_fleet_export_v1.sql": region_check_sql(),
        package / "fleet/sql/0002_contract_v1.sql": centre_contract_sql(),
    }


if __name__ == "__main__":
    for path, text in generated_files().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
