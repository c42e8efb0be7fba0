"""The contract between a region and the centre, and the SQL files generated from it.

``fleet_export`` is described here once, a version at a time. From each come, by ``python -m outpost.records.schema``:

* ``records/sql/*_check_fleet_export_vN.sql``: a region refuses views that differ from the contract;
* ``fleet/sql/*_contract_vN.sql``: the centre's ``fleet.contract``, from which ``fleet.attach_region``
  builds the foreign tables of each region;

and at run time the column list the collector pulls. A test regenerates all files and compares.

A published version never changes: another shape is the next version beside it, with relations of its own names. A
region exports the newest version and the one before; the centre reads the newest that both know, so either end may be
a version older than the other. Version 2 adds what a result says of itself, version 3 what each system says of itself
every minute (``health``) and which systems a host is meant to run.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Column:
    """One column of an exported view. `type` is PostgreSQL's own spelling (``format_type``)."""

    name: str
    type: str
    meaning: str


@dataclass(frozen=True)
class Contract:
    """One version: its relations, and the SQL files of either end that say it.

    `region_version` and `centre_version` are the schema versions those files write down. `health` is empty in a version
    that has no heartbeats.
    """

    version: int
    studies: tuple[Column, ...]
    handshake: tuple[Column, ...]
    region_file: str
    region_version: int
    centre_file: str
    centre_version: int
    health: tuple[Column, ...] = ()

    @property
    def studies_relation(self) -> str:
        return f"studies_v{self.version}"

    @property
    def handshake_relation(self) -> str:
        return f"handshake_v{self.version}"

    @property
    def health_relation(self) -> str:
        return f"health_v{self.version}"

    @property
    def relations(self) -> dict[str, tuple[Column, ...]]:
        """Exported relations by name, with their columns in order."""
        relations = {self.studies_relation: self.studies, self.handshake_relation: self.handshake}
        return relations | ({self.health_relation: self.health} if self.health else {})


_STUDIES_1 = (
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

_HANDSHAKE = (
    Column("region", "text", "code of the region"),
    Column("contract_version", "integer", "contract the region speaks"),
    Column("release", "text", "Outpost release of the region"),
    Column("clock", "timestamp with time zone", "the region's clock at this moment"),
    Column("max_seq", "bigint", "highest seq in studies, 0 if there are none"),
    Column("epoch", "text", "identity of the database's history; another value means: read everything again"),
)

NOTES = (
    Column("notes", "text[]", "codes of what the result says of itself; never a detail"),
    Column("partial", "boolean", "the result is of a part of its study"),
    Column("doubtful", "boolean", "the result says that the images may not be what the model is for"),
)

SYSTEMS = Column("systems", "text[]", "systems the host is meant to run; NULL: nobody has said")

HEALTH = (
    Column("region", "text", "code of the region"),
    Column("system", "text", "the AI service instance that says this of itself"),
    Column("seq", "bigint", "order of the region's heartbeats"),
    Column("written_at", "timestamp with time zone", "when the region's database took it"),
    Column("age_seconds", "double precision", "how old it is now, by the clock of that database"),
    Column("host_clock", "timestamp with time zone", "the service's own clock as it wrote"),
    Column("period_seconds", "double precision", "when the next one comes, seconds"),
    Column("status", "text", "ok, degraded or failed"),
    Column("failing", "text[]", "codes of the checks that fail"),
    Column("ready", "boolean", "studies are computed"),
    Column("rung", "text", "rung of the degradation ladder"),
    Column("receive_only", "text", "code of why nothing is computed; empty: it computes"),
    Column("queue", "integer", "studies on their way to inference; NULL: the journal does not answer"),
    Column("oldest_pending_seconds", "double precision", "how long the oldest complete one waits"),
    Column("outbox", "integer", "results not delivered yet; NULL: the journal does not answer"),
    Column("oldest_outbox_seconds", "double precision", "how long the oldest result waits"),
    Column("disk_free_mib", "bigint", "free for the service, MiB; NULL: the disk does not answer"),
    Column("disk_used_percent", "double precision", "as df shows it"),
    Column("disk_reserve_mib", "bigint", "below this nothing more is received, MiB"),
    Column("certificate_until", "timestamp with time zone", "end of the certificate that ends first"),
    Column("release", "text", "Outpost release that runs"),
    Column("bundle", "text", "model bundle that runs"),
    Column("bundle_version", "text", "its version"),
    Column("boot_id", "text", "identity of this run of the kernel"),
    Column("process_started", "timestamp with time zone", "when the service started, its own clock"),
    Column("boots", "integer", "runs of the kernel within the last hour of heartbeats"),
    Column("starts", "integer", "starts of the service within the last hour of heartbeats"),
    Column("queue_rise", "integer", "rise of the queue over the last 6 heartbeats if it never fell, else 0"),
)

CONTRACTS = {
    1: Contract(
        1,
        _STUDIES_1,
        _HANDSHAKE,
        region_file="0002_check_fleet_export_v1.sql",
        region_version=2,
        centre_file="0002_contract_v1.sql",
        centre_version=2,
    ),
    2: Contract(
        2,
        (*_STUDIES_1, *NOTES),
        _HANDSHAKE,
        region_file="0006_check_fleet_export_v2.sql",
        region_version=6,
        centre_file="0004_contract_v2.sql",
        centre_version=4,
    ),
    3: Contract(
        3,
        (*_STUDIES_1, *NOTES),
        (*_HANDSHAKE, SYSTEMS),
        region_file="0008_check_fleet_export_v3.sql",
        region_version=8,
        centre_file="0006_contract_v3.sql",
        centre_version=6,
        health=HEALTH,
    ),
}
NEWEST = max(CONTRACTS)

_GENERATED = (
    "-- Generated from outpost/records/schema.py by: python -m outpost.records.schema. Do not edit.\n"
)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def region_check_sql(contract: Contract) -> str:
    """SQL that fails, naming every difference, when the region's views are not the contract's."""
    wanted = ",\n".join(
        f"            ({_quote(relation)}, {position}, {_quote(column.name)}, {_quote(column.type)})"
        for relation, columns in contract.relations.items()
        for position, column in enumerate(columns, start=1)
    )
    title = f"version {contract.region_version}: fleet_export is exactly contract {contract.version}, or this stops."
    return f"""{_GENERATED}--
-- Region database "outpost", {title}
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
        RAISE EXCEPTION 'fleet_export differs from contract {contract.version}: %', difference
            USING HINT = 'Apply the SQL files of one release in order; do not edit the views by hand.';
    END IF;
END
$$;
INSERT INTO outpost.schema_version (version) VALUES ({contract.region_version}) ON CONFLICT DO NOTHING;
COMMIT;
"""


def centre_contract_sql(contract: Contract) -> str:
    """SQL that fills the centre's ``fleet.contract`` with this version."""
    rows = ",\n".join(
        f"    ({contract.version}, {_quote(relation)}, {position}, {_quote(column.name)},"
        f" {_quote(column.type)}, {_quote(column.meaning)})"
        for relation, columns in contract.relations.items()
        for position, column in enumerate(columns, start=1)
    )
    title = (
        f"version {contract.centre_version}: contract {contract.version} as data, for fleet.attach_region."
    )
    return f"""{_GENERATED}--
-- Centre database "fleet", {title}
-- Runs as 0001 does; harmless to run again.

BEGIN;
DELETE FROM fleet.contract WHERE version = {contract.version};
INSERT INTO fleet.contract (version, relation, position, name, type, meaning) VALUES
{rows};
INSERT INTO fleet.schema_version (version) VALUES ({contract.centre_version}) ON CONFLICT DO NOTHING;
COMMIT;
"""


def generated_files() -> dict[Path, str]:
    """Path and text of every generated SQL file."""
    package = Path(__file__).resolve().parent.parent
    files = {}
    for contract in CONTRACTS.values():
        files[package / "records/sql" / contract.region_file] = region_check_sql(contract)
        files[package / "fleet/sql" / contract.centre_file] = centre_contract_sql(contract)
    return files


if __name__ == "__main__":
    for path, text in generated_files().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
