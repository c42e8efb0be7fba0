"""A small real lab (train and the mirror, under names of its own) does what lab/lab promises.

Needs Docker; builds images when they are missing. About a minute when they are there.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = str(REPOSITORY / "lab" / "lab")
ENVIRONMENT = {**os.environ, "LAB_NAME": "labtest", "LAB_SUBNET": "10.107", "LAB_PUBLISH": "no"}
STATE = Path(os.environ.get("LAB_DIR", REPOSITORY / ".lab")) / "labtest"
TRAIN, MIRROR = "10.107.0.13", "10.107.0.2"

pytestmark = pytest.mark.skipif(
    not shutil.which("docker"), reason="the lab is Docker containers; no docker here"
)


def lab(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LAB, *arguments], env=ENVIRONMENT, text=True, capture_output=True, check=check)


def on_train(script: str, check: bool = True) -> str:
    """Run a shell script on train past the network; its output."""
    done = lab("exec", "train", "--", "sh", "-ec", script, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


def ssh(*command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    base = ["ssh", "-F", str(STATE / "ssh_config"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=3", *options]
    return subprocess.run([*base, "train", *command], text=True, capture_output=True, check=False)


def mirror_answers_train() -> bool:
    done = lab(
        "exec", "train", "--", "curl", "-sfm", "2", "-o", "/dev/null", f"http://{MIRROR}/redos/", check=False
    )
    return done.returncode == 0


@pytest.fixture(scope="module", autouse=True)
def running_lab() -> Iterator[None]:
    lab("down")
    lab("up", "train", "mirror")
    yield
    lab("down")
    left = subprocess.run(
        ["docker", "ps", "-aq", "--filter", "label=outpost.lab=labtest"],
        text=True,
        capture_output=True,
        check=True,
    )
    assert left.stdout == ""


def test_train_is_a_red_os_by_all_its_identity_files_and_has_no_apt() -> None:
    release = on_train("cat /etc/os-release")
    assert 'ID="redos"\n' in release
    assert 'VERSION_ID="8.0.2"\n' in release
    for name in ("redhat-release", "redos-release", "system-release"):
        assert on_train(f"cat /etc/{name}") == "RED OS release (8.0.2) MINIMAL\n"
    assert on_train("command -v apt apt-get dpkg dpkg-query || echo none") == "none\n"
    assert on_train("command -v dnf; command -v rpm") == "/usr/bin/dnf\n/usr/bin/rpm\n"


def test_ssh_answers_to_a_checked_host_key_and_refuses_a_forged_one(tmp_path: Path) -> None:
    answer = ssh("hostname")
    assert (answer.returncode, answer.stdout) == (0, "train\n"), answer.stderr
    forged = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(forged)], check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"train,{TRAIN} {' '.join(forged.with_suffix('.pub').read_text().split()[:2])}\n")
    refused = ssh("hostname", options=("-o", f"UserKnownHostsFile={known}"))
    assert refused.returncode == 255
    assert "HOST IDENTIFICATION HAS CHANGED" in refused.stderr


def test_postgresql_installs_from_the_signed_mirror_and_runs_after_initdb() -> None:
    said = on_train(
        "dnf -y install postgresql15-server postgresql15-contrib >/dev/null\n"
        "systemctl start postgresql-15 2>/dev/null && echo 'ran without initdb'\n"
        "rpm -q --qf '%{RSAHEADER:pgpsig}\\n' postgresql15-server\n",
        check=False,
    )
    assert "ran without initdb" not in said
    assert "RSA/SHA" in said
    on_train("/usr/pgsql-15/bin/postgresql-15-setup initdb && systemctl enable --now postgresql-15")
    query = (
        "create extension postgres_fdw; select extversion from pg_extension where extname = 'postgres_fdw'"
    )
    assert "1.1" in on_train(f'cd / && runuser -u postgres -- psql -Atc "{query}"')
    assert on_train("rpm -V postgresql15-server postgresql15-contrib postgresql15-libs") == ""


def test_every_rpm_of_the_mirror_has_its_dependencies_met() -> None:
    said = on_train(
        "dnf -yq repoquery --repoid=base --qf '%{name}' >/tmp/all && test \"$(wc -l </tmp/all)\" -ge 14\n"
        "dnf -y install --downloadonly --setopt=keepcache=0 $(cat /tmp/all)\n"
    )
    assert "nothing provides" not in said


FOREIGN_KEY = """
export GNUPGHOME=/tmp/foreign && mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key stranger@example.invalid rsa3072 sign never
rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name stranger@example.invalid' --resign acl-*.rpm
"""


@pytest.mark.parametrize(
    ("spoil", "verdict"),
    [
        ("rpmsign --delsign acl-*.rpm", "is not signed"),
        (FOREIGN_KEY, "not correct for this package"),
        (
            "printf spoiled | dd of=$(echo acl-*.rpm) bs=1 seek=20000 conv=notrunc status=none",
            "Problem opening package",
        ),
    ],
    ids=["unsigned", "signed by a stranger", "changed after signing"],
)
def test_an_rpm_with_a_broken_signature_is_refused(spoil: str, verdict: str) -> None:
    on_train(
        "rm -rf /tmp/forged /var/cache/dnf/forged* && mkdir /tmp/forged && cd /tmp/forged\n"
        "dnf -yq download --repo base acl\n"
        "rpm --import /etc/pki/rpm-gpg/RPM-GPG-KEY-OUTPOST-LAB\n"
        "rpmkeys --checksig acl-*.rpm | grep 'digests signatures OK'\n"
        f"{spoil}\n"
        "createrepo_c -q ."
    )
    said = on_train(
        "dnf -y --disablerepo=base --repofrompath=forged,file:///tmp/forged --setopt=forged.gpgcheck=1"
        " --setopt=forged.gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-OUTPOST-LAB install acl\n",
        check=False,
    )
    assert verdict in said, said
    assert "GPG check FAILED" in said, said
    assert on_train("rpm -q acl", check=False) == "package acl is not installed\n"


def test_the_mirror_serves_byte_ranges() -> None:
    script = (
        f"curl -sf -r 0-9 -D - -o /tmp/part http://{MIRROR}/redos/mirror.md && stat -c 'size %s' /tmp/part"
    )
    said = on_train(script)
    assert "206 Partial Content" in said
    assert said.endswith("size 10\n")


def test_a_cut_link_swallows_packets_silently_and_heal_restores_it() -> None:
    assert mirror_answers_train()
    lab("cut", "train")
    try:
        assert _link() == "cut"
        begun = time.monotonic()
        assert not mirror_answers_train()
        # DROP, not REJECT: the sender waits for its own time-out of 2 s.
        assert time.monotonic() - begun > 1.9
        assert "timed out" in ssh("true").stderr
        # A region that rewrites its own firewall stays cut.
        on_train("nft flush ruleset")
        assert not mirror_answers_train()
        # And `up` knows that its silence is wanted.
        assert "its VPN link is cut" in lab("up", "train").stderr
    finally:
        lab("heal", "train")
    assert _link() == "up"
    assert mirror_answers_train()
    assert ssh("true").returncode == 0


def test_a_slow_link_keeps_to_its_rate_both_ways() -> None:
    on_train("head -c 500000 /dev/urandom >/root/half-megabyte")
    lab("slow", "train", "2mbit")
    try:
        assert _link() == "slow 2mbit"
        begun = time.monotonic()
        fetched = ssh("base64 -w0 /root/half-megabyte").stdout
        down = time.monotonic() - begun
        command = ["ssh", "-F", str(STATE / "ssh_config"), "train", "cat >/dev/null"]
        begun = time.monotonic()
        subprocess.run(command, input=fetched, text=True, check=True)
        up = time.monotonic() - begun
    finally:
        lab("heal", "train")
    # 667 kB at 2 Mbit/s are 2.7 s; the bucket and SSH's own start-up blur it.
    assert 2 < down < 8
    assert 2 < up < 8
    assert _link() == "up"


def test_a_second_up_changes_nothing() -> None:
    on_train("touch /root/still-here")
    before = _started()
    done = lab("up", "train", "mirror")
    assert done.stderr.count("already up") == 2
    assert _started() == before
    on_train("test -f /root/still-here")


def test_a_stopped_host_comes_back_with_its_data_and_its_identity() -> None:
    key = on_train("cat /etc/ssh/ssh_host_ed25519_key.pub; touch /root/still-here")
    subprocess.run(["docker", "stop", "-t", "10", "labtest-train"], check=True, capture_output=True)
    assert _status()["train"]["state"] == "stopped"
    lab("up", "train")
    assert on_train("cat /etc/ssh/ssh_host_ed25519_key.pub; test -f /root/still-here") == key
    assert ssh("true").returncode == 0


def test_status_says_stand_in_and_reads_states_from_docker() -> None:
    rows = _status()
    assert rows["train"]["image"] == "stand-in"
    assert (rows["train"]["state"], rows["train"]["vpn"]) == ("running", TRAIN)
    assert rows["mirror"]["state"] == "running"
    assert rows["chita"]["state"] == "absent"


def test_mistakes_are_answered_with_a_sentence_and_not_a_traceback() -> None:
    for arguments, word in (
        (("up", "omsk"), "omsk"),
        (("up", "train=ubuntu"), "exists as redos"),
        (("cut", "chita"), "no running region"),
        (("slow", "train", "fast"), "kbit"),
        (("ssh", "chita"), "not running"),
    ):
        done = lab(*arguments, check=False)
        assert done.returncode == 1, arguments
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def _status() -> dict[str, dict[str, str]]:
    return {row["name"]: row for row in json.loads(lab("status", "--json").stdout)["hosts"]}


def _link() -> str:
    return _status()["train"]["link"]


def _started() -> str:
    names = ["labtest-train", "labtest-mirror"]
    command = ["docker", "inspect", "--format", "{{.Id}} {{.State.StartedAt}}", *names]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout
