"""The containers of a lab: create, start, wait until they really answer, remove."""

from __future__ import annotations

import hashlib
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outpost_lab import rpm_repository, ssh
from outpost_lab.commands import as_root, docker, docker_inspect, run
from outpost_lab.errors import LabError
from outpost_lab.images import ImageStore
from outpost_lab.links import Links
from outpost_lab.locks import exclusive
from outpost_lab.progress import say, step
from outpost_lab.settings import APPLIANCES, HOSTS, REPOSITORY, Host, Settings

LABEL = "outpost.lab"
LABEL_HOST = "outpost.lab.host"
LABEL_OS = "outpost.lab.os"
LABEL_KIND = "outpost.lab.image-kind"
LABEL_RECIPE = "outpost.lab.recipe"

BOOT_SECONDS = 120
ANSWER_SECONDS = 30

# The mirror serves these archives under /releases/.
RELEASES = REPOSITORY / "dist" / "releases"

# SYS_TIME, SYS_MODULE and SYS_RAWIO stay with the machine: its clock, kernel and memory are not the lab's.
# SYS_RESOURCE cannot be granted by a machine that is itself confined; `--privileged` fails there for it.
# The rest is counted up because engines disagree: Docker 20 takes ALL for everything it knows, Docker 26 will
# not drop from ALL what the machine lacks, and Docker 20 does not know the newest three.
CAPABILITIES = (
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID "
    "IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE "
    "NET_BROADCAST NET_RAW SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE "
    "SYS_PACCT SYS_PTRACE SYS_TTY_CONFIG WAKE_ALARM"
).split()

# What else a systemd host needs. /tmp and /run must allow programs (Docker's tmpfs default does not).
SYSTEMD_FLAGS = (
    "--security-opt=seccomp=unconfined --security-opt=apparmor=unconfined "
    "--cgroupns=host --volume=/sys/fs/cgroup:/sys/fs/cgroup:rw "
    "--tmpfs=/run:exec,mode=755 --tmpfs=/run/lock --tmpfs=/tmp:exec,mode=1777 "
    "--env=container=docker --stop-signal=SIGRTMIN+3"
).split()


@dataclass(frozen=True)
class HostState:
    """One row of `lab status`. `link` is None for hosts that are no region or not running."""

    name: str
    os: str
    image: str
    state: str
    vpn: str | None
    hospital: str | None
    link: str | None
    page: str | None


def up(settings: Settings, hosts: list[Host], store: ImageStore) -> None:
    """Bring `hosts` up; those already up and answering are left alone."""
    existing = docker_inspect("container", [settings.container(host) for host in hosts])
    _refuse_other_os(settings, hosts, existing)
    silent = [host for host in hosts if not _is_up(settings, host, existing)]
    cut = _cut_hosts(
        settings, [host for host in silent if host.is_region and _runs(settings, host, existing)], store
    )
    todo = [host for host in silent if host not in cut]
    for host in hosts:
        if host not in todo:
            container = existing[settings.container(host)]
            what = _describe(host.os, container["Config"]["Labels"][LABEL_KIND])
            link = f"; its VPN link is cut, lab/lab heal {host.name} restores it" if host in cut else ""
            say(f"{host.name}: already up ({what}){link}")
            _warn_when_outdated(settings, host, container, store)
    if not todo:
        return

    to_create = [host for host in todo if settings.container(host) not in existing]
    refuse_taken_ports(settings, to_create)
    with exclusive(settings.directory / "build.lock"):
        store.ensure([host.os for host in to_create])
        if any(host.os == "mirror" for host in to_create):
            rpm_repository.ensure(settings, store)
            RELEASES.mkdir(parents=True, exist_ok=True)
    _ensure_networks(settings)
    ssh.prepare(settings)
    with ThreadPoolExecutor(max_workers=len(todo)) as pool:
        started = [pool.submit(_start, settings, host, host in to_create, store) for host in todo]
        host_keys = {
            host.name: key for host, done in zip(todo, started, strict=True) if (key := done.result())
        }
        ssh.remember(settings, host_keys)
        checks = [pool.submit(_confirm, settings, host) for host in todo]
        for check in checks:
            check.result()


def _describe(os: str, kind: str) -> str:
    return kind if os in APPLIANCES else f"{os}, {kind}"


def _runs(settings: Settings, host: Host, existing: dict[str, Any]) -> bool:
    return bool(existing.get(settings.container(host), {}).get("State", {}).get("Running"))


def _is_up(settings: Settings, host: Host, existing: dict[str, Any]) -> bool:
    return _runs(settings, host, existing) and _answers(settings, host)


def _cut_hosts(settings: Settings, silent: list[Host], store: ImageStore) -> list[Host]:
    """Those of the running but `silent` hosts that someone has cut: their silence is wanted."""
    if not silent:
        return []
    store.ensure(["base"])
    links = Links(settings, store.tag("base")).read(silent)
    return [host for host in silent if links[host.name].cut]


def _refuse_other_os(settings: Settings, hosts: list[Host], existing: dict[str, Any]) -> None:
    for host in hosts:
        container = existing.get(settings.container(host))
        if not container:
            continue
        labels = container["Config"]["Labels"] or {}
        if labels.get(LABEL) != settings.name:
            raise LabError(
                f"A container named {settings.container(host)} exists and is not this lab's. "
                "Choose another LAB_NAME, or rename or remove that container."
            )
        if labels.get(LABEL_OS) != host.os:
            raise LabError(
                f"{host.name} exists as {labels.get(LABEL_OS)}, asked for is {host.os}. "
                f"Remove it first: lab/lab down {host.name}"
            )


def _warn_when_outdated(settings: Settings, host: Host, container: dict[str, Any], store: ImageStore) -> None:
    if container["Config"]["Labels"].get(LABEL_RECIPE) != _recipe_hash(settings, host, store):
        say(f"{host.name}: made from an older image or settings; lab/lab down {host.name} and up renew it")


def refuse_taken_ports(settings: Settings, hosts: list[Host]) -> None:
    """Stop before anything is made when the page of one of `hosts` cannot be published."""
    if not settings.publish:
        return
    for host in hosts:
        if host.page is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", host.page[1]))
            except OSError as taken:
                raise LabError(
                    f"127.0.0.1:{host.page[1]}, the page of {host.name}, is taken ({taken}). Stop what "
                    "listens there (`ss -ltnp` names it), or set LAB_PUBLISH=no to publish no pages."
                ) from taken


def _ensure_networks(settings: Settings) -> None:
    """The VPN reaches the outside; the hospital network is closed, so that a cut region is really off."""
    wanted = {
        settings.vpn_network: (settings.vpn_prefix, []),
        settings.hospital_network: (settings.hospital_prefix, ["--internal"]),
    }
    existing = docker_inspect("network", list(wanted))
    for name, (prefix, flags) in wanted.items():
        if name in existing:
            continue
        options = [f"--subnet={prefix}.0.0/24", f"--gateway={prefix}.0.1", f"--label={LABEL}={settings.name}"]
        options.append(f"--opt=com.docker.network.driver.mtu={_machine_mtu()}")
        made = docker("network", "create", *options, *flags, name, check=False)
        if made.returncode:
            raise LabError(
                f"Network {prefix}.0.0/24 cannot be made ({made.stderr.strip()[-200:]}). Another lab or this "
                f"machine uses it: choose another LAB_SUBNET than {settings.vpn_prefix}."
            )


def _machine_mtu() -> int:
    """MTU of the default route's interface: containers with a larger one would lose replies to a tunnel."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[7] == "00000000":
            return int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text())
    return 1500


def _start(settings: Settings, host: Host, create: bool, store: ImageStore) -> str:
    """Create where needed, start, wait for the boot. Returns the SSH host key, empty for appliances."""
    begun = time.monotonic()
    container = settings.container(host)
    if create:
        try:
            _create(settings, host, store)
        except LabError:
            # Half a host (one network of two) must not be taken for a whole one next time.
            docker("rm", "-f", container, check=False)
            raise
    docker("start", container)
    if not host.has_ssh:
        return ""
    problem = _wait_for_boot(container)
    key = ssh.authorize(settings, host)
    verdict = f", degraded: {problem}" if problem else ""
    what = _describe(host.os, settings.image_kind(host.os))
    say(f"{host.name}: booted in {time.monotonic() - begun:.1f} s ({what}){verdict}")
    return key


def _create(settings: Settings, host: Host, store: ImageStore) -> None:
    if host.has_ssh:
        docker("volume", "create", f"--label={LABEL}={settings.name}", settings.docker_volume(host))
    arguments, connect = container_arguments(settings, host)
    labels = [f"--label={LABEL_RECIPE}={_recipe_hash(settings, host, store)}"]
    docker("create", *arguments, *labels, store.tag(host.os))
    for command in connect:
        docker("network", "connect", *command)


def _recipe_hash(settings: Settings, host: Host, store: ImageStore) -> str:
    """Everything a container is made from, short; differs when `up` would make it differently today."""
    arguments, connect = container_arguments(settings, host)
    return hashlib.sha256(repr((arguments, connect, store.tag(host.os))).encode()).hexdigest()[:12]


def container_arguments(settings: Settings, host: Host) -> tuple[list[str], list[list[str]]]:
    """Arguments of `docker create` (without the image), and of each `docker network connect` that follows."""
    container = settings.container(host)
    labels = {
        LABEL: settings.name,
        LABEL_HOST: host.name,
        LABEL_OS: host.os,
        LABEL_KIND: settings.image_kind(host.os),
    }
    arguments = [
        f"--name={container}",
        f"--hostname={host.name}",
        *(f"--label={k}={v}" for k, v in labels.items()),
    ]
    if host.has_ssh:
        arguments += [f"--cap-add={capability}" for capability in CAPABILITIES]
        arguments += [*SYSTEMD_FLAGS, f"--volume={settings.docker_volume(host)}:/var/lib/docker"]
    else:
        arguments += ["--init"]
    if host.os == "mirror":
        arguments += [
            f"--volume={rpm_repository.directory(settings)}:/srv/rpm:ro",
            f"--volume={RELEASES}:/srv/mirror/releases:ro",
        ]
    if host.os == "hospital":
        arguments += ["--tmpfs=/var/lib/orthanc/db", f"--env=HOSPITAL_PREFIX={settings.hospital_prefix}"]
    if settings.publish and host.page:
        arguments += [f"--publish=127.0.0.1:{host.page[1]}:{host.page[0]}"]

    connect: list[list[str]] = []
    vpn, hospital = settings.vpn_address(host), settings.hospital_address(host)
    if vpn:
        arguments += [f"--network={settings.vpn_network}", f"--ip={vpn}", f"--network-alias={host.name}"]
    elif settings.publish:
        # The hospital network is closed, a port published from it would lead nowhere.
        arguments += ["--network=bridge"]
    else:
        arguments += [
            f"--network={settings.hospital_network}",
            f"--ip={hospital}",
            f"--network-alias={host.name}",
        ]
        return arguments, connect
    if hospital:
        # Names resolve by the VPN; on the hospital network only the hospital itself has one.
        alias = [] if vpn else [f"--alias={host.name}"]
        connect.append([f"--ip={hospital}", *alias, settings.hospital_network, container])
    return arguments, connect


def _wait_for_boot(container: str) -> str:
    """Wait for systemd to finish booting. Returns the failed units, empty when there are none."""
    deadline = time.monotonic() + BOOT_SECONDS
    state = "no answer"
    while time.monotonic() < deadline:
        # --wait blocks until the boot is over; it fails at once while systemd has no bus yet.
        answer = docker(
            "exec", container, "systemctl", "is-system-running", "--wait", check=False, timeout=BOOT_SECONDS
        )
        state = answer.stdout.strip() or answer.stderr.strip()
        if state == "running":
            return ""
        if state == "degraded":
            listed = docker(
                "exec", container, "systemctl", "--failed", "--plain", "--no-legend", "--no-pager"
            ).stdout
            return ", ".join(line.split()[0] for line in listed.splitlines() if line.strip())
        time.sleep(0.2)
    raise LabError(
        f"{container} did not boot within {BOOT_SECONDS} s (last answer: {state}). "
        f"`docker logs {container}` shows its console; this machine may be short of memory or CPU."
    )


def _confirm(settings: Settings, host: Host) -> None:
    deadline = time.monotonic() + ANSWER_SECONDS
    while not _answers(settings, host):
        if time.monotonic() > deadline:
            way = "SSH" if host.has_ssh else "HTTP"
            raise LabError(
                f"{host.name} runs but did not answer over {way} within {ANSWER_SECONDS} s. `lab/lab logs {host.name}` "
                "may show why; a firewall of this machine that drops forwarded packets is one cause."
            )
        time.sleep(0.3)


def _answers(settings: Settings, host: Host) -> bool:
    """Whether the host does its job: a command over SSH, or its HTTP page."""
    return ssh.answers(settings, host) if host.has_ssh else _http_answers(_service_url(settings, host))


def _service_url(settings: Settings, host: Host) -> str:
    if host.os == "mirror":
        return f"http://{settings.vpn_address(host)}/redos/repodata/repomd.xml"
    return f"http://{settings.hospital_address(host)}:8042/system"


def _http_answers(url: str) -> bool:
    # The machine's own proxy settings do not apply to its own bridges.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def running(settings: Settings) -> list[Host]:
    """Hosts of this lab whose container runs, with the OS they were made as."""
    found = docker_inspect("container", [settings.container(host) for host in HOSTS])
    return [host for host in HOSTS if found.get(settings.container(host), {}).get("State", {}).get("Running")]


def status(settings: Settings, links: Links) -> list[HostState]:
    """All hosts of the plan, read from Docker and the kernel."""
    found = docker_inspect("container", [settings.container(host) for host in HOSTS])
    regions = [host for host in running(settings) if host.is_region]
    link_of = links.read(regions)
    rows = []
    for host in HOSTS:
        container = found.get(settings.container(host))
        labels = container["Config"]["Labels"] if container else {}
        link = link_of.get(host.name)
        rows.append(
            HostState(
                name=host.name,
                os=labels.get(LABEL_OS, host.os),
                image=labels.get(LABEL_KIND, settings.image_kind(host.os)),
                state=_state(host, container),
                vpn=settings.vpn_address(host),
                hospital=settings.hospital_address(host),
                link=str(link) if link else None,
                page=_page(container),
            )
        )
    return rows


def _state(host: Host, container: dict[str, Any] | None) -> str:
    if container is None:
        return "absent"
    if not container["State"]["Running"]:
        return "stopped"
    if not host.has_ssh:
        return "running"
    answer = docker(
        "exec", container["Name"].lstrip("/"), "systemctl", "is-system-running", check=False, timeout=30
    )
    return answer.stdout.strip() or "starting"


def _page(container: dict[str, Any] | None) -> str | None:
    bindings = (container or {}).get("HostConfig", {}).get("PortBindings") or {}
    for binding in bindings.values():
        return f"http://{binding[0]['HostIp']}:{binding[0]['HostPort']}/"
    return None


def down(settings: Settings, hosts: list[Host], links: Links | None) -> None:
    """Remove containers and volumes of `hosts`; if that is all of them, also networks, cuts and keys."""
    mine = f"label={LABEL}={settings.name}"
    present = docker("ps", "-a", "--filter", mine, "--format", "{{.Names}}").stdout.split()
    names = [name for name in present if name in {settings.container(host) for host in hosts}]
    volumes = docker("volume", "ls", "--filter", mine, "--format", "{{.Name}}").stdout.split()
    volumes = [name for name in volumes if name in {settings.docker_volume(host) for host in hosts}]
    with step(f"removing {len(names)} containers and {len(volumes)} volumes"):
        inner = _containers_inside(settings, [host for host in hosts if settings.container(host) in names])
        if names:
            docker("rm", "-f", "-v", *names)
        _remove_control_groups(inner)
        if volumes:
            docker("volume", "rm", *volumes)
        if set(hosts) != set(HOSTS):
            return
        if links:
            links.forget()
        networks = docker("network", "ls", "--filter", mine, "--format", "{{.Name}}").stdout.split()
        if networks:
            docker("network", "rm", *networks)
        ssh.forget(settings)


def _containers_inside(settings: Settings, hosts: list[Host]) -> list[str]:
    """Ids of the containers that the Docker engines in `hosts` have; stopped hosts have left no control group."""
    ids = []
    for host in hosts:
        if host.has_ssh:
            listed = docker("exec", settings.container(host), "ls", "/var/lib/docker/containers", check=False)
            ids += listed.stdout.split() if listed.returncode == 0 else []
    return ids


def _remove_control_groups(containers: list[str]) -> None:
    """Remove what killed engines leave on a machine with cgroup v1: an empty group per container and controller."""
    left = [
        str(path) for container in containers for path in Path("/sys/fs/cgroup").glob(f"*/docker/{container}")
    ]
    if left:
        # One that will not go still has a process in it, and is then not a leftover.
        run([*as_root(), "rmdir", *left], check=False)
