"""The host's `outpost`: whom it asks, how, and what it says where nobody can be asked. Docker is a script."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ROOT / "roles/inference/files/outpost"

# Stands for Docker's client: it notes what it was asked, knows which containers run, and runs what it is given.
DOCKER = """#!/usr/bin/python3
import json, os, pathlib, subprocess, sys, time
here = pathlib.Path(os.environ["FAKE"])
words = sys.argv[1:]
with (here / "asked").open("a") as stream:
    stream.write(json.dumps([words, os.environ.get("OUTPOST_TOKEN"), os.environ.get("OUTPOST_LANGUAGE"),
                             os.environ.get("OUTPOST_UNIT")]) + "\\n")
fault = (here / "fault").read_text() if (here / "fault").exists() else ""
if fault:
    sys.exit(fault)
if words[:2] == ["container", "inspect"]:
    if words[-1] in (here / "running").read_text().split():
        print("true")
        sys.exit(0)
    sys.exit("Error response from daemon: No such container: " + words[-1])
if words[:2] == ["image", "inspect"]:
    sys.exit("No such image" if (here / "imageless").exists() else 0)
at = next(n for n, word in enumerate(words) if n and not word.startswith("-"))
if words[at + 1 : at + 3] == ["/bin/sh", "-c"]:
    sys.exit(subprocess.call(words[at + 1 :]))
given = [word[6:].partition("=") for word in words[:at] if word.startswith("--env=") and "=" in word[6:]]
environment = os.environ | {name: value for name, _, value in given}
answer = here / "answer"
if answer.exists():
    os.execve(sys.executable, [sys.executable, str(answer)], environment)
"""


class Host:
    """Folders like a host's, and the command that reads them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.configs, self.current = root / "etc", root / "current"
        self.fake = root / "fake"
        for folder in (self.configs, self.current, self.fake, root / "bin"):
            folder.mkdir()
        (root / "bin/docker").write_text(DOCKER)
        (root / "bin/docker").chmod(0o755)
        (root / "bin/systemctl").write_text(
            "#!/bin/sh\necho ActiveState=failed\necho SubState=failed\necho Result=exit-code\n"
            "echo ExecMainStatus=137\necho NRestarts=4\n"
        )
        (root / "bin/systemctl").chmod(0o755)
        (self.fake / "running").write_text("")
        (self.current / "manifest.json").write_text(
            json.dumps({"image": {"id": "sha256:1"}, "version": "0.1.0", "torch": "2.13.0+cpu"})
        )
        (self.current / "outpost-run").write_text((ROOT / "roles/inference/files/outpost-run").read_text())
        script = COMMAND.read_text()
        for name, folder in (("CONFIGS", self.configs), ("CURRENT", self.current)):
            wanted = f'{name} = pathlib.Path("'
            assert wanted in script
            begin = script.index(wanted)
            end = script.index("\n", begin)
            script = script[:begin] + f'{name} = pathlib.Path("{folder}")' + script[end:]
        self.command = root / "bin/outpost"
        self.command.write_text(script)
        self.environment = {
            "PATH": f"{root / 'bin'}:{os.environ['PATH']}", "FAKE": str(self.fake), "LANG": "en_US.UTF-8",
            "HOME": str(root),
        }  # fmt: skip

    def system(self, name: str, *, running: bool = False, token: str = "") -> None:
        (self.configs / f"{name}.yaml").write_text("system: x\n")
        (self.configs / f"{name}.env").write_text("OUTPOST_CORES=1\nOUTPOST_MEMORY_MIB=1\n")
        if token:
            (self.configs / f"{name}.token").write_text(f"{token}\n")
        if running:
            with (self.fake / "running").open("a") as stream:
                stream.write(f"outpost-{name} ")

    def answers(self, script: str) -> None:
        (self.fake / "answer").write_text(script)

    def run(
        self, *words: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(self.command), *words], capture_output=True, text=True, check=False, timeout=30,
            env=self.environment | environment, stdin=subprocess.DEVNULL, cwd=cwd,
        )  # fmt: skip

    @property
    def asked(self) -> list[list[str]]:
        """What Docker was given to run, without the questions before it."""
        lines = [json.loads(line) for line in (self.fake / "asked").read_text().splitlines()]
        return [words for words, *_ in lines if words[0] in ("exec", "run")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_the_only_system_is_asked_in_its_container_with_its_token_and_language(host: Host) -> None:
    host.system("brain", running=True, token="secret")
    host.answers("print('well')")
    done = host.run("status", "--json", LANG="ru_RU.UTF-8")
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    [line] = host.asked[:1]
    assert line[0] == "exec"
    assert line[-4:] == ["outpost-brain", "outpost", "status", "--json"]
    assert "--tty" not in line, "a pipe is none"
    token, language, unit = json.loads((host.fake / "asked").read_text().splitlines()[1])[1:]
    assert (token, language) == ("secret", "ru")
    assert unit == "failed (failed), exit-code 137, перезапусков: 4"
    assert not any("secret" in word for word in line), "a token stands in no process list"


def test_the_callers_own_token_goes_before_the_hosts(host: Host) -> None:
    host.system("brain", running=True, token="secret")
    host.run("events", OUTPOST_TOKEN="mine", LC_ALL="C.UTF-8")
    assert json.loads((host.fake / "asked").read_text().splitlines()[1])[1:3] == ["mine", "en"]


def test_a_stopped_system_is_asked_in_a_container_of_its_own_with_the_same_mounts(host: Host) -> None:
    host.system("brain")
    assert host.run("status").returncode == 0
    [line] = host.asked
    assert line[:2] == ["run", "--env=OUTPOST_TOKEN"]
    assert {"--rm", "--read-only", "--cap-drop=ALL", "--user=10001:10001"} <= set(line)
    assert "--volume=/var/lib/outpost/brain:/var/lib/outpost/brain" in line
    assert "--env=OUTPOST_CONFIG=/etc/outpost/brain.yaml" in line
    assert line[-2:] == ["sha256:1", "status"]


def test_several_systems_are_all_asked_how_they_are_and_named_where_one_is_meant(host: Host) -> None:
    host.system("brain", running=True)
    host.system("chest", running=True)
    assert host.run("status").returncode == 0
    assert {"outpost-brain", "outpost-chest"} == {
        w for words in host.asked for w in words if w.startswith("outpost-")
    }
    unclear = host.run("quarantine", "list")
    assert unclear.returncode == 2
    assert "outpost -s brain quarantine list" in unclear.stderr
    assert "brain, chest" in unclear.stderr
    (host.fake / "asked").unlink()
    for named in (["-s", "chest"], ["--system", "chest"], ["--system=chest"]):
        host.run(*named, "quarantine", "list")
        assert "outpost-chest" in host.asked[0]
        (host.fake / "asked").unlink()
    host.run("quarantine", "list", OUTPOST_SYSTEM="chest")
    assert "outpost-chest" in host.asked[0]
    unknown = host.run("-s", "lung", "status")
    assert (unknown.returncode, "brain, chest" in unknown.stderr) == (2, True)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl restart docker"),
        ("permission denied while trying to connect to the Docker daemon socket", "sudo"),
    ],
)
def test_without_docker_it_says_so_and_what_to_do(host: Host, fault: str, said: str) -> None:
    host.system("brain")
    (host.fake / "fault").write_text(fault)
    done = host.run("status")
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr


def test_what_is_missing_on_the_host_is_named_with_its_remedy(host: Host) -> None:
    nothing = host.run("status")
    assert (nothing.returncode, "site.yml" in nothing.stderr) == (3, True)
    host.system("brain")
    (host.fake / "imageless").touch()
    imageless = host.run("status")
    assert (imageless.returncode, "docker load" in imageless.stderr) == (3, True)
    (host.current / "outpost-run").unlink()
    bare = host.run("status")
    assert (bare.returncode, "no release is installed" in bare.stderr) == (3, True)
    served = host.run("serve")
    assert (served.returncode, "systemctl start" in served.stderr) == (2, True)


@pytest.mark.parametrize("status", [0, 1, 2, 3])
def test_the_exit_status_and_both_outputs_are_the_commands_own(host: Host, status: int) -> None:
    host.system("brain", running=True)
    host.answers(f"import sys; print('out'); print('err', file=sys.stderr); sys.exit({status})")
    done = host.run("studies")
    assert (done.returncode, done.stdout, done.stderr) == (status, "out\n", "err\n")


def test_a_file_to_write_is_written_on_the_host_and_only_whole(host: Host) -> None:
    host.system("brain", running=True)
    host.answers("print('a page')")
    target = host.root / "report.html"
    assert host.run("quarantine", "report", "-o", str(target)).returncode == 0
    assert target.read_text() == "a page\n"
    assert target.stat().st_mode & 0o777 == 0o600
    assert "-o" not in host.asked[0]
    host.answers("import sys; print('half'); sys.exit(3)")
    assert host.run("backup", f"--output={target}").returncode == 3
    assert target.read_text() == "a page\n"
    assert [path.name for path in host.root.glob("report*")] == ["report.html"]


def test_a_file_of_the_host_that_is_named_is_shown_to_the_command_read_only(host: Host) -> None:
    host.system("brain", running=True)
    rules = host.root / "my rules.yaml"
    rules.write_text("x")
    host.run("filter", "check", "./my rules.yaml", cwd=host.root)
    [line] = host.asked
    assert line[0] == "run"
    assert f"--volume={rules}:{rules}:ro" in line
    assert line[-1] == str(rules)
    (host.fake / "asked").unlink()
    host.run("studies", "--sender", "my rules.yaml", cwd=host.root)
    assert host.asked[0][0] == "exec", "only where a file is meant"


def test_a_backup_to_restore_is_read_by_root_and_given_to_the_container(host: Host) -> None:
    host.system("brain")
    archive = host.root / "brain.tar"
    archive.write_text("all of it")
    host.answers("import sys; print(sys.stdin.read())")
    done = host.run("restore", str(archive))
    assert done.stdout == "all of it\n"
    assert host.asked[0][-2:] == ["restore", "-"]
    assert "--interactive" in host.asked[0]


def test_ctrl_c_ends_the_command_in_the_container_too(host: Host) -> None:
    host.system("brain", running=True)
    host.answers(
        "import os, pathlib, signal, sys, time\n"
        f"pathlib.Path({str(host.root / 'pid')!r}).write_text(str(os.getpid()))\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
        "time.sleep(30)"
    )
    process = subprocess.Popen(
        [sys.executable, str(host.command), "optimise"], env=host.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while not (host.root / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)  # the wrapper alone, as from another terminal
    assert process.wait(20) == 130


def test_ended_for_memory_it_names_the_runbook(host: Host) -> None:
    host.system("brain", running=True)
    host.answers("import os, signal; os._exit(137)")
    done = host.run("selftest")
    assert done.returncode == 137
    assert "memory.md" in done.stderr


def test_it_needs_nothing_that_python_3_8_lacks() -> None:
    import ast

    ast.parse(COMMAND.read_text(), feature_version=(3, 8))
    module: ModuleType = _loaded()
    assert module.parse(["-s", "brain", "status"]) == ("brain", ["status"])


def _loaded() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("outpost_host", str(COMMAND))
    spec = importlib.util.spec_from_loader("outpost_host", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _sentences() -> dict[str, str]:
    """Every English sentence of the command -> its Russian, out of the code; a `Stop` or `print` with another fails."""
    found: dict[str, str] = {}
    loose = []
    for node in ast.walk(ast.parse(COMMAND.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called == "say":
            english, russian = (ast.literal_eval(argument) for argument in node.args)
            found[english] = russian
        elif called in ("Stop", "print") and node.args and isinstance(node.args[0], ast.Constant):
            loose.append(node.args[0].value)
    assert loose == []
    return found


def test_every_sentence_of_the_command_is_said_in_russian_with_the_same_values() -> None:
    sentences = _sentences()
    assert len(sentences) > 12
    for english, russian in sentences.items():
        assert any("а" <= letter <= "я" for letter in russian), english
        assert english.count("{}") == russian.count("{}"), english


@pytest.mark.parametrize("variable", ["OUTPOST_LANGUAGE", "LC_ALL", "LANG"])
def test_what_cannot_be_handed_on_is_said_in_the_readers_language(host: Host, variable: str) -> None:
    host.system("brain")
    host.system("chest")
    done = host.run("studies", **{"OUTPOST_LANGUAGE": "", "LC_ALL": "", "LANG": "", variable: "ru_RU.UTF-8"})
    assert done.returncode == 2
    assert "систем на этом сервере 2, укажите какая: outpost -s brain studies" in done.stderr
    (host.fake / "fault").write_text("Cannot connect to the Docker daemon")
    done = host.run("-s", "brain", "status", **{"OUTPOST_LANGUAGE": "ru"})
    assert done.returncode == 3
    assert "Docker не работает" in done.stderr
    assert "docs/runbooks/ru/service-does-not-answer.md" in done.stderr
