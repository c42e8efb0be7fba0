"""Running programs of the machine: docker, mmdebstrap, ssh. The only place that starts processes."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from outpost_lab.errors import LabError


def run(
    command: Sequence[str],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    log: Any = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end; output is kept, or goes to the file `log`. Fails with the program's last words."""
    try:
        done = subprocess.run(
            list(command),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=log or subprocess.PIPE,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as missing:
        raise LabError(
            f"{command[0]} is missing and the lab needs it. Run lab/bootstrap, it installs what is missing."
        ) from missing
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(command[:4])} did not end within {timeout:g} s.") from late
    if check and done.returncode:
        said = Path(log.name).read_text() if log else done.stderr or done.stdout
        where = f" (all of it: {log.name})" if log else ""
        words = said.strip()[-1500:] or "no output"
        raise LabError(f"{' '.join(command[:4])} failed ({done.returncode}){where}: {words}")
    return done


def as_root() -> list[str]:
    """What to put before a command that needs root."""
    return [] if os.geteuid() == 0 else ["sudo"]


@functools.cache
def docker_command() -> tuple[str, ...]:
    """How this user reaches Docker: directly, or through sudo."""
    if not shutil.which("docker"):
        raise LabError(
            "docker is not installed, the lab needs it. Run lab/bootstrap, it installs what is missing."
        )
    answer = run(["docker", "version", "--format", "{{.Server.Version}}"], check=False)
    if answer.returncode == 0:
        return ("docker",)
    if "permission denied" in answer.stderr and os.geteuid():
        return ("sudo", "docker")
    raise LabError(
        f"Docker does not answer ({answer.stderr.strip()[-300:]}). "
        "Run lab/bootstrap, it starts Docker where no init does."
    )


def docker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """`docker ARGUMENTS`, as in run()."""
    return run([*docker_command(), *arguments], **options)


def docker_inspect(kind: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Objects of `kind` (container, network, image) that exist, by the name asked for."""
    if not names:
        return {}
    answer = docker(kind, "inspect", *names, check=False)
    found = json.loads(answer.stdout or "[]")
    by_name = {}
    for item in found:
        keys = [item.get("Name", "").lstrip("/"), item.get("Id", ""), *(item.get("RepoTags") or [])]
        by_name.update({name: item for name in names if name in keys})
    return by_name
