"""The link to a region's database: encrypted or not at all, the region proven, faults in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import yaml
from jinja2 import Environment
from postgres_cluster import (
    NET,
    READER_PASSWORD,
    RECORDER_PASSWORD,
    Cluster,
    Fleet,
    Region,
    the_fleet,
    workspace,
)

from outpost.config import Records
from outpost.controller import certificates
from outpost.fleet.sync import Attempt, sync_region
from outpost.records.journal import Journal
from outpost.records.recorder import Recorder

ROOT = "r" * 64
ROLE = Path(__file__).parents[2] / "roles/postgresql"
NOW = datetime.now(UTC)


def access_rules() -> str:
    """The very block that role postgresql writes at the head of pg_hba.conf, for the region's roles."""
    tasks = yaml.safe_load((ROLE / "tasks/server.yml").read_text())
    block = next(task for task in tasks if "who may log in" in task["name"])["ansible.builtin.blockinfile"][
        "block"
    ]
    jinja = Environment(autoescape=False)  # noqa: S701 - it makes no page
    return jinja.from_string(block).render(
        postgresql_database="outpost",
        postgresql_roles=[{"name": "outpost_recorder"}, {"name": "fleet_reader"}],
        postgresql_access=[{"role": "fleet_reader", "from": "all"}],
    )


def as_role(cluster: Cluster, issued: certificates.Issued | None) -> None:
    """The cluster as role postgresql leaves it, with this certificate; without one, as an earlier release left it."""
    if issued is None:
        cluster.write("pg_hba.conf", "local all all trust\nhost all all 127.0.0.0/8 scram-sha-256\n")
        cluster.write("tls.conf", "ssl = off\n")
    else:
        cluster.write("outpost.pem", issued.certificate + issued.key)
        rest = "local all all trust\nhost all all 127.0.0.0/8 scram-sha-256\n"
        cluster.write("pg_hba.conf", access_rules() + "\n" + rest)
        cluster.write("tls.conf", "ssl = on\nssl_cert_file = 'outpost.pem'\nssl_key_file = 'outpost.pem'\n")
    cluster.reload()


def authorities(*roots: str) -> str:
    path = workspace() / "fleet-ca.pem"
    path.write_text(certificates.trusted(*roots))
    path.chmod(0o644)
    return str(path)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    fleet = the_fleet()
    fleet.reset()
    yield fleet
    as_role(fleet.regions["chita"].cluster, None)
    fleet.reset()


@pytest.fixture
def region(fleet: Fleet) -> Region:
    region = fleet.regions["chita"]
    as_role(region.cluster, certificates.server(ROOT, "chita", [region.cluster.host], NOW))
    return region


def read(fleet: Fleet) -> Attempt:
    return sync_region(fleet.config.centre, fleet.config.sync, "chita")


def test_the_centre_reads_a_region_that_proves_itself(fleet: Fleet, region: Region) -> None:
    as_superuser(region, 3)
    fleet.attach("chita", sslmode="verify-full", sslrootcert=authorities(ROOT))
    assert read(fleet).rows == 3
    assert str(fleet.freshness("chita")["reason"]).startswith(("up to date", "data up to date"))


def as_superuser(region: Region, count: int) -> None:
    """Rows of studies, past the network."""
    region.execute(
        "INSERT INTO outpost.studies (study_key, revision, system, received_at, outcome, instances, bytes, release)"
        " SELECT lpad(to_hex(n), 32, '0'), 1, 'brain', now(), 'pending', 1, 1, '0.1.0' FROM generate_series(1, %s) n",
        count,
    )


@pytest.mark.parametrize(
    "login", [("fleet_reader", READER_PASSWORD), ("outpost_recorder", RECORDER_PASSWORD)]
)
@pytest.mark.parametrize("database", ["outpost", "postgres"])
def test_nobody_is_let_in_unencrypted(region: Region, login: tuple[str, str], database: str) -> None:
    user, password = login
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(
            host=region.cluster.host,
            port=5432,
            dbname=database,
            user=user,
            password=password,
            sslmode="disable",
        )


def test_the_recorder_writes_by_the_authority_and_not_to_whoever_listens(
    region: Region, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.sqlite3", "brain")
    link = {
        "host": region.cluster.host, "password": RECORDER_PASSWORD, "uid_key": "k", "sslmode": "verify-full",
    }  # fmt: skip
    try:
        good = Recorder(journal, Records.model_validate({**link, "sslrootcert": authorities(ROOT)}), "0.1.0")
        with good._connected() as connection:
            assert connection.pgconn.ssl_in_use
        stranger = Recorder(
            journal, Records.model_validate({**link, "sslrootcert": authorities("s" * 64)}), "0.1.0"
        )
        with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
            stranger._connected()
    finally:
        journal.close()


def _expired(host: str) -> certificates.Issued:
    return certificates.server(ROOT, "chita", [host], datetime(1990, 6, 1, tzinfo=UTC))


def _elsewhere(_host: str) -> certificates.Issued:
    return certificates.server(ROOT, "chita", [f"{NET}.77", "tver"], NOW)


def _strange(host: str) -> certificates.Issued:
    return certificates.server("s" * 64, "chita", [host], NOW)


@pytest.mark.parametrize(
    ("issue", "words"),
    [
        (_expired, ["has expired by the centre's clock", "site.yml -l chita"]),
        (_elsewhere, ["is for another name", "site.yml -l chita"]),
        (_strange, ["is not of the fleet's authority", "under another root secret", "site.yml -l chita"]),
        (lambda _host: None, ["offers no encryption", "earlier release", "site.yml -l chita"]),
    ],
    ids=["expired", "another name", "another authority", "a region of an earlier release"],
)
def test_a_region_that_proves_nothing_is_not_read_and_the_words_name_the_remedy(
    fleet: Fleet, region: Region, issue: Callable[[str], certificates.Issued | None], words: list[str]
) -> None:
    as_role(region.cluster, issue(region.cluster.host))
    fleet.attach("chita", sslmode="verify-full", sslrootcert=authorities(ROOT))
    began = time.monotonic()
    fault = read(fleet).fault
    assert fault is not None
    assert (fault.kind, [word for word in words if word not in fault.sentence]) == ("tls", []), fault
    assert time.monotonic() - began < 8
    assert all(word in str(fleet.freshness("chita")["reason"]) for word in words)


def test_a_certificate_not_yet_valid_accuses_the_centres_clock(
    fleet: Fleet, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "FIRST", datetime(2200, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(certificates, "SPARE_YEARS", 300)
    late = certificates.server(ROOT, "chita", [region.cluster.host], NOW)
    monkeypatch.undo()
    as_role(region.cluster, late)
    fleet.attach("chita", sslmode="verify-full", sslrootcert=authorities(ROOT))
    fault = read(fleet).fault
    assert fault is not None
    assert "not yet valid by the centre's clock" in fault.sentence


def test_a_centre_without_authorities_or_without_tls_is_told_to_be_set_up(
    fleet: Fleet, region: Region
) -> None:
    fleet.attach("chita", sslmode="verify-full", sslrootcert="/nowhere/fleet-ca.pem")
    fault = read(fleet).fault
    assert fault is not None
    assert ("lacks the authorities" in fault.sentence, "-l fleet" in fault.sentence) == (True, True)
    fleet.attach("chita", sslmode="disable", sslrootcert=None)
    fault = read(fleet).fault
    assert fault is not None
    assert "takes encrypted connections alone" in fault.sentence


def test_during_a_rotation_both_authorities_are_trusted_and_afterwards_the_new_one(
    fleet: Fleet, region: Region
) -> None:
    both = authorities("n" * 64, ROOT)
    fleet.attach("chita", sslmode="verify-full", sslrootcert=both)
    assert read(fleet).fault is None, "the region still has the certificate of before"
    as_role(region.cluster, certificates.server("n" * 64, "chita", [region.cluster.host], NOW))
    assert read(fleet).fault is None
    authorities(ROOT)
    assert read(fleet).fault is not None


def test_a_centre_of_before_goes_on_reading_a_region_that_was_updated_first(
    fleet: Fleet, region: Region
) -> None:
    fleet.attach("chita", sslmode="prefer", sslrootcert=None)
    as_superuser(region, 1)
    assert (read(fleet).fault, len(fleet.held("chita"))) == (None, 1)
