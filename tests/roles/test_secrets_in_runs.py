"""No secret in anything that a run leaves: tasks of the roles that handle one, whole and failing, with -vvv and --diff.

They run on this machine under a layer that takes every write, against a PostgreSQL of their own. What is looked
through: the screen, the log file, the fact cache, retry files, JUnit files (callbacks), what is left of temporary
files, PostgreSQL's log, and what a process list showed meanwhile.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from derivable import BEFORE, FIRST, NOW, STOW_TOKEN, all_secrets, files_below, found_in
from postgres_cluster import NET, Cluster, make_fleet_database
from starting import release

from outpost.derived import derived, system_tokens

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
REGION, CENTRE = "chita", "centre"
SYSTEMS = {"brain": {"dicom_port": 11112, "api_port": 8080, "cores": 1, "memory_mib": 1024}}
KNOWN = all_secrets([REGION, CENTRE], SYSTEMS, ["tver-pacs"])
# `make test-secrets` runs all of it, in some minutes; without it a sample is run.
WHOLE = os.environ.get("OUTPOST_TEST_SECRETS") == "all"
PLATFORM = {"family": "deb", "id": "debian", "release": "12", "pretty": "Debian 12"}
LAYERED = ("etc", "opt", "var")
# What needs a systemd.
NOT_HERE = "(Restart|Reload) PostgreSQL|Ask which roles, database and schema are there"


class Block(NamedTuple):
    """Tasks of a role's file, by their names, which a play of these tests runs as the role's playbook does."""

    playbook: str
    role: str
    file: str
    names: tuple[str, ...]

    @property
    def host(self) -> str:
        return CENTRE if self.playbook == "centre" else REGION

    def found(self) -> list[dict[str, Any]]:
        tasks = yaml.safe_load((ROOT / f"roles/{self.role}/tasks/{self.file}.yml").read_text())
        found = [task for task in tasks if task["name"] in self.names]
        assert len(found) == len(self.names), self
        return found


BLOCKS = [
    Block("region", "postgresql", "server", (
        "Prove the server to whoever calls it", "Have roles with the fleet's passwords",
    )),
    Block("region", "inference", "uid_key", (
        "Read under which key the host's studies are known", "Compare it with the inventory's",
        "Stop where another key would make every study of the past a new one",
    )),
    Block("region", "inference", "configure", (
        "Write what holds secrets", "Prove the systems to whoever calls them",
    )),
    Block("region", "inference", "go_back", ("Put the configuration back that the systems ran on",)),
    Block("centre", "postgresql", "server", ("Have roles with the fleet's passwords",)),
    Block("centre", "fleet_database", "main", ("Write what holds secrets",)),
    Block("centre", "fleet_database", "secrets", (
        "Ask under which secret each region and the centre know each other",
        "Remember which regions still have the secret of before",
    )),
    Block("centre", "fleet_database", "fleet", ("Know the regions of the inventory",)),
    Block("collect", "collect", "main", ("Ask the host what it is", "Keep it here")),
]  # fmt: skip


# What a run keeps of the configuration that it writes over.
BEFORE_IT = f"password: {derived(NOW, f'postgres/{REGION}/outpost_recorder')}"
KEPT = {
    "__inference_shares": {"kept": []},
    "__inference_configs": {
        "kept": [
            {"path": "/etc/outpost/before.yaml", "owner": "0", "group": "0", "mode": "0600",
             "content": base64.b64encode(BEFORE_IT.encode()).decode()},
        ]
    },
}  # fmt: skip


class Machine:
    """This machine with its own /etc, /opt and /var, and the PostgreSQL that its roles find."""

    def __init__(self, layer: Path, work: Path, cluster: Cluster) -> None:
        self.layer, self.work, self.cluster = layer, work, cluster
        release(work / "releases")
        (work / "roles").mkdir()
        (work / "playbooks").mkdir()
        (work / "service").symlink_to(ROOT / "service")
        for role in (one for one in (ROOT / "roles").iterdir() if one.is_dir()):
            shutil.copytree(role, work / "roles" / role.name)
        # As a site keeps them. Of a file that is not encrypted Ansible itself prints the lines that have a fault.
        vault = work / "group_vars/all/vault.yml"
        vault.parent.mkdir(parents=True)
        (work / "vault-password").write_text("of the tests")
        kept = {"outpost_root_secret": NOW, "outpost_root_secret_before": BEFORE, "outpost_uid_secret": FIRST}
        vault.write_text(yaml.safe_dump({**kept, "secret_with_marks": FIRST + "{" * 2}))
        program = [
            ROOT / ".venv/bin/ansible-vault",
            "encrypt",
            "--vault-password-file",
            work / "vault-password",
        ]
        subprocess.run([*program, vault], check=True, capture_output=True)
        for number, one in enumerate(BLOCKS):
            text = yaml.safe_dump(one.found(), sort_keys=False, allow_unicode=True)
            (work / "roles" / one.role / f"tasks/only_{number}.yml").write_text(text)
        self.on(
            "getent passwd postgres > /dev/null || useradd --system postgres; groupadd --system outpost;"
            " useradd --system --gid outpost outpost; mkdir -p /etc/outpost/tls /opt/outpost/releases /var/lib/outpost"
            " /etc/systemd/system; rm -rf /etc/postgresql; mkdir -p /etc/postgresql/15/main;"
            " touch /etc/outpost/brain.env /etc/postgresql/15/main/postgresql.conf /etc/postgresql/15/main/pg_hba.conf"
        )

    def on(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        mounts = [
            f"mkdir -p {self.layer}/{name}/up {self.layer}/{name}/work && mount -t overlay overlay"
            f" -o lowerdir=/{name},upperdir={self.layer}/{name}/up,workdir={self.layer}/{name}/work /{name}"
            for name in LAYERED
        ]
        mounts.append("mount -t tmpfs tmpfs /run/systemd")
        command = ["unshare", "--mount", "bash", "-c", " && ".join([*mounts, f"{{ {script}\n}}"])]
        command = command if os.geteuid() == 0 else ["sudo", "-n", "-E", *command]
        return subprocess.run(
            command, cwd=self.work, capture_output=True, text=True, check=False, timeout=300,
            env={**os.environ, **environment},
        )  # fmt: skip

    def variables(self) -> dict[str, Any]:
        os_release = self.work / "os-release"
        os_release.write_text('ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        return {
            "ansible_connection": "outpost_broken", "ansible_become": False, "ansible_host": self.cluster.host,
            "ansible_python_interpreter": str(ROOT / ".venv/bin/python"),
            "ansible_remote_tmp": str(self.work / "out/remote"),
            "outpost_release": "1.2.3", "outpost_release_directory": str(self.work / "releases"),
            "outpost_systems": SYSTEMS, "inference_fleet_tls": ["api"], "region_address": self.cluster.host,
            "region_pacs": {"stow_url": "http://10.1.2.3/studies", "stow_token": STOW_TOKEN},
            "outpost_hospital_networks": [], "outpost_admin_networks": [],
            "collect_directory": str(self.work / "collected"),
            "preflight_report_directory": str(self.work / "out/verdicts"),
            "platform_os_release": str(os_release), "platform_package_manager": "apt", "platform_gpus": [],
            "platform_facts": {**PLATFORM, "supported": True}, "ansible_pipelining": True,
            "__postgresql_unit": "postgresql.service",
        }  # fmt: skip

    def play(self, plays: list[dict[str, Any]]) -> tuple[int, dict[str, str]]:
        """Status of the run, and all that it said and left by where it was: `screen`, `process list`, files."""
        out = self.work / "out"
        shutil.rmtree(out, ignore_errors=True)
        for folder in ("facts", "retry", "junit", "local", "remote"):
            (out / folder).mkdir(parents=True)
        log = self.cluster.data / "log"
        begun = log.stat().st_size
        inventory, playbook = self.work / "hosts.json", self.work / "playbooks/play.yml"
        inventoried = {
            "region": {"hosts": {REGION: {}}}, "fleet": {"hosts": {CENTRE: {}}},
            "all": {"hosts": {"localhost": {}}, "vars": self.variables()},
        }  # fmt: skip
        inventory.write_text(json.dumps(inventoried))
        playbook.write_text(yaml.safe_dump(plays, sort_keys=False))
        given = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(self.work / "roles"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "steps/callback"),
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "steps/connection"),
            "ANSIBLE_CALLBACKS_ENABLED": "outpost_step,ansible.builtin.junit",
            "ANSIBLE_LOG_PATH": str(out / "log"), "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(out / "facts"), "ANSIBLE_RETRY_FILES_ENABLED": "1",
            "ANSIBLE_RETRY_FILES_SAVE_PATH": str(out / "retry"), "JUNIT_OUTPUT_DIR": str(out / "junit"),
            "ANSIBLE_LOCAL_TEMP": str(out / "local"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "160",
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.work / "vault-password"),
            "OUTPOST_SEEN": str(out / "shells"), "OUTPOST_PASS": NOT_HERE,
            "PGHOST": str(self.cluster.sockets), "PGUSER": "postgres",
        }  # fmt: skip
        program = str(ROOT / ".venv/bin/ansible-playbook")
        command = [program, "-vvv", "--diff", "-i", str(inventory), str(playbook)]
        with _process_list() as seen:
            ended = self.on(" ".join(command), **given)
        said = {"screen": ended.stdout + ended.stderr, "process list": "\n".join(seen), **files_below(out)}
        with log.open() as lines:
            lines.seek(begun)
            said["PostgreSQL's log"] = lines.read()
        return ended.returncode, said


class _process_list:
    """What /proc shows everybody while a block runs."""

    def __enter__(self) -> set[str]:
        self.seen: set[str] = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self.seen

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has just ended


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    layer = Path(tempfile.mkdtemp(prefix="outpost-secrets-", dir="/dev/shm"))
    cluster = Cluster("secrets", f"{NET}.21", "region").start()
    try:
        make_fleet_database(cluster)
        yield Machine(layer, tmp_path_factory.mktemp("run"), cluster)
    finally:
        cluster.destroy()
        sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
        subprocess.run([*sudo, "rm", "-rf", "--one-file-system", str(layer)], check=True)


def of_playbook(name: str, role: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Variables of the real playbook's play, and those that it gives the role."""
    for play in yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text()):
        for entry in play.get("roles", []):
            if entry["role"] == role:
                own = {
                    key: value for key, value in play.get("vars", {}).items() if "lookup" not in str(value)
                }
                return own, dict(entry.get("vars", {}))
    raise AssertionError(f"playbooks/{name}.yml has no role {role}")


def play_of(
    number: int, name: str, environment: dict[str, str] | None = None, **variables: Any
) -> dict[str, Any]:
    """A play with one block of tasks as its playbook has them; it ends well, and says how the block ended."""
    block = BLOCKS[number]
    own, given = of_playbook(block.playbook, block.role)
    role = {"name": block.role, "tasks_from": f"only_{number}"}
    ended = f"ENDED <{name}> {{{{ ansible_failed_result.msg }}}} <end>"
    more = {
        "__postgresql_config": "/etc/postgresql/15/main", "postgresql_port": 5432,
        "__inference_configuration_back": True, **(KEPT if block.file == "go_back" else {}), **variables,
    }  # fmt: skip
    return {
        "name": name, "hosts": block.host, "gather_facts": False, "environment": environment or {},
        "tasks": [
            {
                "block": [{"ansible.builtin.include_role": role, "vars": {**own, **given, **more}}],
                "rescue": [{"ansible.builtin.debug": {"msg": ended}}],
            }
        ],
    }  # fmt: skip


def none_in(said: dict[str, str]) -> None:
    assert found_in(said, KNOWN) == []


def endings(screen: str) -> dict[str, str]:
    """Name of a play -> the last message of its block, as one line."""
    flat = " ".join(screen.split()).replace("''", "'")  # as YAML quotes
    return dict(re.findall(r"ENDED <(.*?)> (.*?) <end>", flat))


# --- What succeeds.


@pytest.mark.skipif(not WHOLE, reason="make test-secrets")
def test_every_secret_is_set_none_is_said_and_the_second_run_changes_nothing(machine: Machine) -> None:
    numbers = range(len(BLOCKS) - 1)
    first = [play_of(number, f"first {number}") for number in numbers]
    second = [play_of(number, f"second {number}") for number in numbers]
    status, said = machine.play([*first, *second])
    assert (status, endings(said["screen"])) == (0, {}), said["screen"][-5000:]
    none_in(said)
    again = said["screen"].partition("PLAY [second 0]")[2].partition("PLAY RECAP")[0]
    assert "changed: [" in said["screen"].partition("PLAY [second 0]")[0]
    assert not re.findall(r"TASK \[[^\n]*\n(?:(?!TASK)[^\n]*\n)*changed: \[[^\n]*", again)

    # The very secrets that tokens.yml, the centre and the service expect.
    for user, label in (
        ("outpost_recorder", f"postgres/{REGION}/outpost_recorder"),
        ("fleet_reader", f"postgres/{REGION}/fleet_reader"),
        ("fleet_collector", "postgres/centre/fleet_collector"),
    ):
        machine.cluster.login("postgres", user, derived(NOW, label)).close()
    with machine.cluster.superuser("fleet") as connection:
        row = connection.execute(
            "SELECT umoptions::text AS o FROM pg_user_mappings WHERE srvname = 'region_chita'"
        ).fetchone()
    assert row is not None
    assert derived(NOW, f"postgres/{REGION}/fleet_reader") in str(row["o"])
    written = yaml.safe_load(machine.on("cat /etc/outpost/brain.yaml").stdout)
    assert written["records"]["password"] == derived(NOW, f"postgres/{REGION}/outpost_recorder")
    assert written["records"]["uid_key"] == derived(FIRST, f"uid-key/{REGION}")
    assert [one["name"] for one in written["api"]["tokens"]] == [
        f"fleet-{role}{which}" for which in ("", "-before") for role in ("read", "send", "admin")
    ]
    assert written["delivery"]["destinations"][0]["stow_token"] == STOW_TOKEN
    page = yaml.safe_load(machine.on("cat /etc/outpost/fleet.yaml").stdout)
    assert page["centre"]["password"] == derived(NOW, "postgres/centre/fleet_collector")
    admin = system_tokens(NOW, REGION, "brain")["admin"]
    assert machine.on("cat /etc/outpost/brain.token").stdout.strip() == admin
    assert machine.on("cat /etc/outpost/fleet.token").stdout.strip() == derived(NOW, "token/centre/read")
    for path in ("/etc/outpost/tls/fleet.pem", "/etc/postgresql/15/main/outpost.pem"):
        shown = f"openssl x509 -noout -ext subjectAltName -in {path}; openssl pkey -noout -in {path}; stat -c %a {path}"
        checked = machine.on(shown)
        assert machine.cluster.host in checked.stdout, checked.stdout + checked.stderr
        assert checked.stdout.split()[-1] in ("600", "640")


# --- What fails.

# A task that handles a secret -> the number of its block.
HIDDEN = {
    "Write the certificate and its key": 0, "Create the roles": 0,
    "Name the systems that know them under another key": 1,
    "Write the systems' configuration": 2,
    "Write the certificate of the fleet's authority and its key": 2, "Write it as it was": 3,
    "Write the collector's configuration": 5,
    "Ask with the new secret": 6, "Ask with the secret of before": 6,
    "Read which regions the centre has the secret of before for": 6, "Attach the regions of the inventory": 7,
    "Read the host": 8, "Write what may be sent": 8,
}  # fmt: skip
SAMPLE = {
    "Create the roles", "Write the systems' configuration", "Attach the regions of the inventory",
    "a role that the server refuses", "a region that the server refuses", "a root secret that is a number",
}  # fmt: skip
ON_CONTROLLER = {"Name the systems that know them under another key"}


def test_a_task_that_crashes_and_repeats_all_it_was_given_says_its_reason_and_no_secret(
    machine: Machine,
) -> None:
    broken = [name for name in HIDDEN if name not in ON_CONTROLLER and (WHOLE or name in SAMPLE)]
    plays = [play_of(HIDDEN[name], f"break: {re.escape(name)}") for name in broken]
    status, said = machine.play(plays)
    assert status == 0, said["screen"][-3000:]
    none_in(said)
    ended = {name.replace("\\", ""): text for name, text in endings(said["screen"]).items()}
    assert ended.keys() == {f"break: {name}" for name in broken}
    for name, text in ended.items():
        assert "run this again" in text, name
        assert ("No space left on device" in text) != (name == "break: Read the host"), f"{name}: {text}"


NO_DATABASE = {"PGHOST": "/nonexistent"}
# What is wrong -> block, environment, variables, words of the reason.
CAUSES: dict[str, tuple[int, dict[str, str], dict[str, Any], str]] = {
    "no database, roles": (0, NO_DATABASE, {}, "unable to connect to database"),
    "no database, attach": (7, NO_DATABASE, {}, "chita was not attached to the centre's database: unable to connect"),
    "no database, rotation": (6, NO_DATABASE, {}, "unable to connect to database"),
    "no driver": (7, {"PYTHONPATH": "{{ drivers }}"}, {}, "psycopg2"),
    "a role that the server refuses": (
        0, {}, {"postgresql_roles": [{"name": "pg_reserved", "label": "postgres/chita/fleet_reader"}]}, "reserved",
    ),
    "a region that the server refuses": (
        7, {}, {"fleet_database_regions": {"Chita!": {"title": "Chita", "address": "10.0.0.1"}}},
        'Chita! was not attached to the centre\'s database: PostgreSQL refused: region code "Chita!" is not usable',
    ),
    "an address of another type": (7, {}, {"fleet_database_regions": {"chita": "10.0.0.1"}}, "positional_args"),
    "no directory, certificate": (0, {}, {"__postgresql_config": "/nonexistent"}, "/nonexistent"),
    "a system that is no mapping": (2, {}, {"inference_systems": {"brain": "fast"}}, "has no attribute"),
    "names of a certificate of another type": (
        2, {}, {"inference_certificate_names": 7, "inference_fleet_tls": ["api"]}, "outpost_certificate",
    ),
    "a label of another type": (0, {}, {"postgresql_roles": [{"name": "x", "label": 7}]}, "outpost_logins"),
    "a root secret that is a number": (0, {}, {"outpost_root_secret": 86753098675309}, "not a text (int)"),
    "no root secret": (2, {}, {"outpost_root_secret": None}, "not a text (NoneType)"),
    "a short root secret": (5, {}, {"outpost_root_secret": "Kurz3r-Geheim"}, "13 characters long"),
    "a list as the secret before": (2, {}, {"outpost_root_secret_before": [BEFORE]}, "systems' configuration"),
    "a list as the first secret": (1, {}, {"outpost_uid_secret": [FIRST]}, "not a text (list)"),
    "a secret with the marks of a template": (2, {}, {"outpost_uid_secret": "{{ secret_with_marks }}"}, "template"),
}  # fmt: skip


def test_real_causes_are_told_without_a_secret(machine: Machine) -> None:
    drivers = machine.work / "drivers"
    drivers.mkdir()
    for name in ("psycopg", "psycopg2"):
        (drivers / f"{name}.py").write_text("raise ImportError('not installed')\n")
    causes = {what: cause for what, cause in CAUSES.items() if WHOLE or what in SAMPLE}
    plays = [
        play_of(
            number,
            what,
            {k: v.replace("{{ drivers }}", str(drivers)) for k, v in environment.items()},
            **given,
        )
        for what, (number, environment, given, _) in causes.items()
    ]
    status, said = machine.play(plays)
    assert status == 0, said["screen"][-3000:]
    assert found_in(said, {**KNOWN, "number": "86753098675309", "short one": "Kurz3r-Geheim"}) == []
    ended = endings(said["screen"])
    assert ended.keys() == causes.keys()
    untold = {what: text for what, text in ended.items() if CAUSES[what][3] not in text}
    assert not untold, json.dumps(untold, indent=1)


def test_an_empty_first_secret_is_none(machine: Machine) -> None:
    empty = {"outpost_uid_secret": "", "outpost_root_secret_before": ""}
    status, said = machine.play([play_of(2, "empty", **empty)])
    assert (status, endings(said["screen"])) == (0, {})
    none_in(said)
    written = yaml.safe_load(machine.on("cat /etc/outpost/brain.yaml").stdout)
    assert written["records"]["uid_key"] == derived(NOW, f"uid-key/{REGION}")
    assert len(written["api"]["tokens"]) == 3


# --- An argument of the wrong type.

ROLES = [
    ("region", "postgresql"), ("centre", "postgresql"), ("region", "inference"), ("region", "dicom_filter"),
    ("centre", "fleet_database"), ("region", "base"), ("region", "container_runtime"), ("region", "nvidia_driver"),
    ("collect", "collect"), ("preflight", "preflight"), ("region", "platform"),
]  # fmt: skip
# What region.yml and centre.yml look up in roles beside them.
DEFAULTS = {
    "__postgresql_defaults": {"postgresql_port": 5432}, "__fleet_defaults": {"fleet_database_page_port": 8090},
    "removal_left": {},
}  # fmt: skip
# Ansible turns whatever it is given into a str or a path.
WRONG: dict[str, Any] = {"int": "many", "float": "much", "bool": "perhaps", "dict": "text", "list": {"a": 1}}


def wrong_arguments() -> Iterator[tuple[str, str, str, Any]]:
    """Playbook, role, option and a wrong value: one for each type of option of each role."""
    for playbook, role in ROLES if WHOLE else [("region", "inference"), ("centre", "fleet_database")]:
        specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text())[
            "argument_specs"
        ]["main"]
        seen = set()
        for name, option in specs["options"].items():
            kind = option.get("type", "str")
            if kind in WRONG and kind not in seen:
                seen.add(kind)
                yield playbook, role, name, WRONG[kind]
    destination = {"name": "pacs", "port": "many", "stow_token": STOW_TOKEN}
    yield "region", "inference", "inference_destinations", [destination]
    yield (
        "region",
        "inference",
        "inference_destinations",
        [{**destination, "port": 1, "stow_tokn": STOW_TOKEN}],
    )
    yield "region", "postgresql", "postgresql_roles", [{"name": "x"}]


def test_an_argument_of_the_wrong_type_prints_no_secret(machine: Machine) -> None:
    plays, wanted = [], []
    for number, (playbook, role, option, value) in enumerate(wrong_arguments()):
        own, given = of_playbook(playbook, role)
        # Where an argument passed after all, nothing is done on this machine.
        play = {
            "name": f"wrong {number}, break: .*", "hosts": CENTRE if playbook == "centre" else REGION,
            "gather_facts": False, "vars": {**own, **DEFAULTS},
        }  # fmt: skip
        included = {"ansible.builtin.include_role": {"name": role}, "vars": {**given, option: value}}
        plays.append({**play, "tasks": [{"block": [included], "rescue": [{"ansible.builtin.meta": "noop"}]}]})
        wanted.append((play["name"], option))
    # As the playbook names it; the run ends there.
    plays.append(
        {**play, "name": "last, break: .*", "roles": [{"role": role, "vars": {**given, option: value}}]}
    )
    status, said = machine.play(plays)
    assert status != 0
    none_in(said)
    for name, option in [*wanted, ("last, break: .*", wanted[-1][1])]:
        told = said["screen"].partition(f"PLAY [{name}]")[2].partition("PLAY [")[0]
        assert "Validation of arguments failed" in told, (option, told[-2000:])
        assert option in told
