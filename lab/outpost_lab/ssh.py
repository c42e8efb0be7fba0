"""How the hosts are reached: one key per lab; host keys taken from the containers, never from the network."""

from __future__ import annotations

import shutil
from pathlib import Path

from outpost_lab.commands import docker, run
from outpost_lab.settings import HOSTS, Host, Settings

HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def private_key(settings: Settings) -> Path:
    return settings.state / "ssh" / "id_ed25519"


def config_file(settings: Settings) -> Path:
    return settings.state / "ssh_config"


def known_hosts_file(settings: Settings) -> Path:
    return settings.state / "known_hosts"


def prepare(settings: Settings) -> None:
    """Make the lab's key and ssh_config where they are not there yet."""
    key = private_key(settings)
    if not key.exists():
        key.parent.mkdir(parents=True, exist_ok=True)
        key.parent.chmod(0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab {settings.name}", "-f", str(key)])
    text = ssh_config(settings)
    config = config_file(settings)
    if not config.exists() or config.read_text() != text:
        config.write_text(text)


def ssh_config(settings: Settings) -> str:
    """ssh_config(5) for all hosts of the lab, by short name; host keys are checked strictly."""
    blocks = [
        f"Host {host.name} {settings.vpn_address(host)}\n"
        f"    HostName {settings.vpn_address(host)}\n"
        "    User root\n"
        f'    IdentityFile "{private_key(settings)}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{known_hosts_file(settings)}"\n'
        "    GlobalKnownHostsFile /dev/null\n"
        "    StrictHostKeyChecking yes\n"
        "    ConnectTimeout 10\n"
        for host in HOSTS
        if host.has_ssh
    ]
    return f"# Written by lab/lab for the lab {settings.name!r}; changes here are lost.\n" + "\n".join(blocks)


def authorize(settings: Settings, host: Host) -> str:
    """Let the lab's key in and return the host's own public key; both through Docker."""
    script = (
        "umask 077 && mkdir -p /root/.ssh && cat >/root/.ssh/authorized_keys.new "
        f"&& mv /root/.ssh/authorized_keys.new /root/.ssh/authorized_keys && cat {HOST_KEY}"
    )
    own = private_key(settings).with_suffix(".pub").read_text()
    return docker("exec", "-i", settings.container(host), "sh", "-c", script, stdin=own).stdout.strip()


def remember(settings: Settings, host_keys: dict[str, str]) -> None:
    """Write known_hosts: new entries for the hosts in `host_keys` (name -> public key), others kept."""
    path = known_hosts_file(settings)
    kept = path.read_text().splitlines() if path.exists() else []
    known = {line.split()[0]: line for line in kept}
    for host in HOSTS:
        if host.name in host_keys:
            pattern = f"{host.name},{settings.vpn_address(host)}"
            known[pattern] = f"{pattern} {' '.join(host_keys[host.name].split()[:2])}"
    partial = path.with_suffix(".partial")
    partial.write_text("".join(f"{line}\n" for line in known.values()))
    partial.rename(path)


def answers(settings: Settings, host: Host) -> bool:
    """True when a command runs on `host` over SSH with the lab's key and the remembered host key, within 10 s."""
    if not config_file(settings).exists():
        return False
    patience = [
        "-o",
        "BatchMode=yes",
        "-o",
        "ConnectTimeout=5",
        "-o",
        "ServerAliveInterval=5",
        "-o",
        "ServerAliveCountMax=1",
    ]
    command = ["ssh", "-F", str(config_file(settings)), *patience, host.name, "true"]
    return run(command, check=False).returncode == 0


def forget(settings: Settings) -> None:
    """Remove the lab's keys and configuration: they name hosts that are gone."""
    shutil.rmtree(private_key(settings).parent, ignore_errors=True)
    for path in (config_file(settings), known_hosts_file(settings)):
        path.unlink(missing_ok=True)
    if settings.state.is_dir() and not any(settings.state.iterdir()):
        settings.state.rmdir()
