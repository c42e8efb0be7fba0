"""What must not leave a host does not, and what is needed to help stays."""

from __future__ import annotations

import pytest

from outpost.platform.redact import redact

# Line -> the word that must be gone.
SECRETS = {
    'uid_key: "my-own-hospital-key"': "my-own-hospital-key",
    "password: hunter2-of-the-region": "hunter2",
    '  recorder_password: "q7z5kx3m2n4b6v8c9a1s2d3f4g5h6j7k"': "q7z5kx3m",
    "PGPASSWORD=swordfish psql -h db": "swordfish",
    "api_key=abc": "abc",
    "X-Api-Key: abc": "abc",
    "Authorization: Bearer abcdef": "abcdef",
    "curl -H 'Authorization: Basic dXNlcjpwYXNz'": "dXNlcjpwYXNz",
    "deb https://mirror-user:mirrorpass@mirror.example/astra 1.8 main": "mirrorpass",
    "baseurl=https://token123@repo.example/redos": "token123",
    "dsn: host=db user=recorder": "recorder",
    "postgresql://recorder:pw1@127.0.0.1/outpost": "pw1",
    "{name: pacs, role: read, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}": "9f86d081",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB4 admin@laptop": "AAAAC3",
    "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc": "eyJhbGci",
    "program --password=letmein --verbose": "letmein",
    "program --stow-token letmein": "letmein",
    "secret in the middle Qw3rTy-Uiop_AsdfGhjkLzxcvBnm12 of a line": "Qw3rTy",
}
PATIENTS = {
    "spool/2.25.329800735698586629295641978511506172918/1.dcm": "3298007356985866292956",
    "study 1.2.840.20261126101112 is there": "20261126101112",
    "PatientName: Ivanov": "Ivanov",
    "Patient ID = 4711": "4711",
    "(0010,0020) LO [4711]": "4711",
    "(0010,0010) PN [Petrov]": "Petrov",
    "study of ИВАНОВ^ИВАН^ИВАНОВИЧ rejected": "ИВАНОВ",
    "study of DOE^JANE": "JANE",
    "пациент Сидорова Мария Петровна": "Сидорова",
    "пациент Сидорова М. П.": "Сидорова",
    "birth date 19570314": "19570314",
    "seen 19570314": "19570314",
    "родилась 14.03.1957": "14.03.1957",
    "SNILS 112-233-445 95": "112-233",
    "policy 1234567890123456": "1234567890123456",
    "call +7 (912) 345-67-89": "345-67",
    "call 8 912 345 67 89": "345 67",
    "mail maria@example.org": "maria",
    "study 1.2.826.0.1.3680043.8.498.12345678901234567890": "3680043",
    "link/ether 52:54:00:ab:cd:ef brd": "52:54:00",
    "AccessionNumber=A-17": "A-17",
}
KEPT = [
    'PRETTY_NAME="Astra Linux"',
    "VERSION_ID=1.8_x86-64",
    "build=1.8.1.16",
    "release=6.1.90-1-generic",
    "candidate=linux-headers-6.1.90-1-generic",
    "ii  linux-modules-nvidia-580-server-open-6.8.0-49-generic 580.95.05-0ubuntu0.24.04.1",
    "NVIDIA GeForce GTX 1080 Ti, 580.95.05, 11264 MiB, 120 MiB, 41, N/A",
    "outpost 0.1.0 sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 2.1GB",
    "eth0 UP 10.70.0.11/24",
    "DIGSIG_ELF_MODE=1",
    "0x10de 0x1b06 0x030000 0000:3b:00.0 0x1043 0x85e4 none",
    "brain/spool files=12 mib=340",
    "2026-11-26T11:34:57+03:00 chita outpost-run[812]: study rejected: no series fits (2 of 2 looked at)",
    "region_title: Забайкальский край",
    "NVRM: API mismatch: the client has the version 580.95.05, but",
    "outpost@brain.service loaded active running Outpost inference system brain",
    "lock kernel-lt-6.1.128-2.el7.3.*",
    "now=2026-11-26T11:34:57Z",
    "key=/var/lib/dkms/mok.pub /var/lib/dkms/mok.pub is already enrolled",
]


@pytest.mark.parametrize(("line", "gone"), [*SECRETS.items(), *PATIENTS.items()])
def test_a_secret_or_a_patient_is_taken_out(line: str, gone: str) -> None:
    assert gone not in redact(line), redact(line)
    assert "[" in redact(line)


@pytest.mark.parametrize("line", KEPT)
def test_what_helps_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


@pytest.mark.parametrize("line", [*SECRETS, *PATIENTS])
def test_redacting_twice_changes_nothing_more(line: str) -> None:
    assert redact(redact(line)) == redact(line)
