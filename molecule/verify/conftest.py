"""What the verifies of all scenarios share: the hosts over SSH as Ansible sees them, and real studies to send."""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import testinfra
from failures import pytest_collectreport, pytest_runtest_logreport  # noqa: F401 - hooks of pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from testinfra.host import Host

from outpost.controller import certificates
from outpost.demo import TEMPLATES
from outpost.demo.series import write_series
from outpost.derived import CENTRE_TOKEN, derived, system_tokens

ROOT = Path(__file__).parents[2]
LAB = ROOT / ".lab" / os.environ["LAB_NAME"]
SUBNET = os.environ["LAB_SUBNET"]
LIMIT = os.environ["OUTPOST_LIMIT"].split(",")
REGIONS = [name for name in LIMIT if name != "centre"]
# Where a failure is what is looked for, the mutations do not wait as long as a verify may.
PATIENCE = float(os.environ.get("OUTPOST_VERIFY_PATIENCE", "1"))
_LAST = {"centre": 10, "chita": 11, "tver": 12, "train": 13}
# Over the VPN, and in the hospital's own network, which a cut link leaves whole.
_HOSPITAL_NET = f"{SUBNET.split('.')[0]}.{int(SUBNET.split('.')[1]) + 1}.0"
ORTHANC = f"http://{_HOSPITAL_NET}.5:8042"
HOSPITAL = {name: f"{_HOSPITAL_NET}.{_LAST[name]}" for name in REGIONS}
ADDRESSES = {name: f"{SUBNET}.0.{_LAST[name]}" for name in LIMIT}
# What the regions of this scenario, and the centre's page, speak over TLS alone: dicom, api, page.
TLS = os.environ.get("OUTPOST_LAB_TLS", "").split(",")
PAGE = f"{'https' if 'page' in TLS else 'http'}://{SUBNET}.0.{_LAST['centre']}:8090"
API = {name: f"{'https' if 'api' in TLS else 'http'}://{address}:8080" for name, address in ADDRESSES.items()}


def lab(*arguments: str) -> str:
    """Runs a lab command and returns what it prints."""
    return subprocess.run(
        [ROOT / "lab/lab", *arguments], check=True, text=True, capture_output=True, timeout=300
    ).stdout


def root_secret() -> str:
    """The one of this lab."""
    return (LAB / "root_secret").read_text().strip()


def token(host: str, role: str = "read") -> str:
    """The token that the root secret of this lab gives for a region's system, or for the centre's page."""
    root = root_secret()
    return derived(root, CENTRE_TOKEN) if host == "centre" else system_tokens(root, host, "brain")[role]


def http_json(url: str, bearer: str | None = None) -> Any:
    """What an API answers to `bearer`, without one to the host's own token with the role read, to "" without any.

    Over TLS the host must prove itself by the authority of this lab's root secret.
    """
    hosts = {address: host for addresses in (ADDRESSES, HOSPITAL) for host, address in addresses.items()}
    if bearer is None:
        bearer = token(hosts[str(urlsplit(url).hostname)])
    return json.loads(http_text(url, bearer))


def http_text(url: str, bearer: str = "") -> str:
    """The same as text, to this token."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"} if bearer else {})
    context = (
        ssl.create_default_context(cadata=certificates.trusted(root_secret()))
        if url.startswith("https")
        else None
    )
    with urllib.request.urlopen(request, timeout=10, context=context) as answer:
        return str(answer.read().decode())


def wait_for(what: str, probe: Callable[[], Any], seconds: float) -> Any:
    """Calls probe until it returns something true; fails naming what was awaited and the last answer."""
    seconds *= PATIENCE
    deadline = time.monotonic() + seconds
    last: Any = None
    while time.monotonic() < deadline:
        try:
            if last := probe():
                return last
        except (OSError, AssertionError) as error:
            last = error
        time.sleep(0.5)
    pytest.fail(f"{what}: not within {seconds:.0f} s; last answer: {last!r}")


def host_of(name: str) -> Host:
    return testinfra.get_host(
        f"ssh://root@{name}",
        ssh_config=str(LAB / "ssh_config"),
        ssh_identity_file=str(LAB / "ssh/id_ed25519"),
    )


def send_head_series(region: str, seed: str, folder: Path, address: str = "") -> str:
    """Sends the T1 head of Debian's mricron-data as a new MR series by C-STORE; returns its Study Instance UID."""
    files = write_series(TEMPLATES / "ch2.nii.gz", folder, seed=seed)
    _send(folder, address or HOSPITAL[region])
    return str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)


def send_packaged(region: str, files: list[Path], folder: Path, **changes: str) -> str:
    """Sends real images of an installed package as one series of a new study; returns its Study Instance UID."""
    study, series = generate_uid(), generate_uid()
    folder.mkdir()
    for number, file in enumerate(files):
        image = dcmread(file)
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in changes.items():
            setattr(image, keyword, value)
        image.save_as(folder / f"{number}.dcm")
    _send(folder, HOSPITAL[region])
    return str(study)


def _send(folder: Path, address: str) -> None:
    # DCMTK's, by its full name: pynetdicom brings a program of the same name into the venv.
    sender = [
        "/usr/bin/storescu",
        "--aetitle",
        "VERIFY",
        "--call",
        "OUTPOST",
        *dicom_tls(),
        "--scan-directories",
    ]
    subprocess.run([*sender, address, "11112", str(folder)], check=True, capture_output=True, timeout=120)


def dicom_tls() -> list[str]:
    """DCMTK's options for speaking as a peer that has a certificate of the fleet (playbooks/certificate.yml)."""
    if "dicom" not in TLS:
        return []
    issued = certificates.server(root_secret(), "peer/verify", ["verify"], datetime.now(UTC))
    files = {
        "key": issued.key,
        "certificate": issued.certificate,
        "authority": certificates.trusted(root_secret()),
    }
    for name, text in files.items():
        (LAB / f"peer-{name}.pem").write_text(text)
    key, certificate, authority = (str(LAB / f"peer-{name}.pem") for name in files)
    return ["--enable-tls", key, certificate, "--add-cert-file", authority]


def psql_program(host: Host) -> str:
    """RED OS keeps the client beside its server, off the PATH."""
    return "/usr/pgsql-15/bin/psql" if host.file("/usr/pgsql-15/bin/psql").exists else "psql"


def psql(host: Host, database: str, sql: str) -> str:
    """Runs a query as the database's superuser on the host; returns rows with | between columns."""
    return str(
        host.run_expect(
            [0], f"cd / && sudo -u postgres {psql_program(host)} -d {database} -Atc {shlex.quote(sql)}"
        ).stdout.strip()
    )


def study_end(region: str, study_uid: str, seconds: float = 120) -> dict[str, Any]:
    """Waits until the region's service reports an end for the study, and returns its row."""

    def ended() -> dict[str, Any] | None:
        for row in http_json(f"{API[region]}/studies"):
            if row["study_uid"] == study_uid and row["state"] in ("delivered", "rejected", "quarantined"):
                return dict(row)
        return None

    return dict(wait_for(f"the end of study {study_uid} in {region}", ended, seconds))


@pytest.fixture(params=REGIONS)
def region(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(region: str) -> Host:
    return host_of(region)
