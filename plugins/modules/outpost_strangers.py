#!/usr/bin/python
"""Reads what on a host is not ours: listeners, container engine, accounts, directories, routes, who keeps time.

Changes nothing; Python 3.8, standard library only.
"""

DOCUMENTATION = r"""
---
module: outpost_strangers
short_description: Read what of others is on a host
description:
  - Returns what is there. What it means is decided on the controller, in outpost.controller.strangers, docker_settings
    and timekeeping.
options:
  parts:
    description: What is read.
    type: list
    elements: str
    choices: [listeners, docker, accounts, places, routes, time, upgrades, journal]
    required: true
  ports:
    description: TCP ports whose listeners are wanted.
    type: list
    elements: int
    default: []
  uid:
    description: Number of the user and group of the service.
    type: int
    default: 10001
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read which engine is there
  outpost_strangers:
    parts: [docker]
"""

RETURN = r"""
read:
  description: One key a part.
  returned: always
  type: dict
"""

import glob
import grp
import json
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"  # the state column of /proc/net/tcp
CONTAINER = re.compile(r"[0-9a-f]{64}")
UNIT = re.compile(r"([^/]+\.(?:service|scope|socket))")
CLUSTER_MARKS = "/etc/outpost/database-*.json"
# One of these is in every file of ours, also in those of earlier releases.
OURS_SAYS = ("Outpost's role", "/opt/outpost", "/etc/outpost", "OUTPOST_")
UNITS = (
    "/etc/systemd/system/outpost@.service",
    "/etc/systemd/system/outpost-fleet.service",
    "/etc/systemd/system/outpost-firewall.service",
    "/etc/systemd/system/outpost-firewall-watch.service",
    "/etc/systemd/system/outpost-firewall-watch.timer",
    "/usr/local/sbin/outpost-firewall",
    "/usr/local/bin/outpost",
    "/usr/bin/outpost",
)
PLACES = ("/etc/outpost", "/opt/outpost", "/var/lib/outpost")
KEEPERS = (
    "chrony.service", "chronyd.service", "ntp.service", "ntpd.service", "ntpsec.service", "openntpd.service",
    "systemd-timesyncd.service",
)  # fmt: skip
JOURNAL_KEYS = re.compile(
    r"^\s*(Storage|SystemMaxUse|SystemKeepFree|MaxRetentionSec)\s*=\s*(\S.*?)\s*$", re.MULTILINE
)


def said(command, timeout=15):
    """(exit status, what the command printed, what it complained), in English; (127, "", why) where it cannot run."""
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    environment["PATH"] = environment.get("PATH", "/usr/bin:/bin") + ":/usr/local/bin:/usr/sbin:/sbin"
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, "", str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def text_of(path):
    """The file's text, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def head_of(path):
    """The first bytes of a program: a script shows there what it calls."""
    try:
        with open(path, "rb") as file:
            return file.read(2000).decode("utf-8", "replace")
    except OSError:
        return ""


def address_of(word):
    """An address as /proc/net/tcp writes it: words of 32 bits in the machine's order."""
    packed = b"".join(struct.pack("=I", int(word[start : start + 8], 16)) for start in range(0, len(word), 8))
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def sockets(ports):
    """Inode -> (port, address) of what listens on one of the ports, by IPv4 and IPv6."""
    found = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in text_of(table).splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTEN:
                address, _, port = fields[1].rpartition(":")
                if int(port, 16) in ports:
                    found[fields[9]] = (int(port, 16), address_of(address))
    return found


def holders(inodes):
    """Inode -> process that holds it. Of several (a server and its children) the one whose parent is none of them."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = "/proc/%s/fd" % pid
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # the process ended while we looked
        for name in names:
            try:
                target = os.readlink(os.path.join(folder, name))
            except OSError:
                continue  # one that was closed says nothing of the others
            if target.startswith("socket:[") and target[8:-1] in inodes:
                found.setdefault(target[8:-1], set()).add(int(pid))
    return {inode: first_of(pids) for inode, pids in found.items()}


def first_of(pids):
    # systemd keeps a socket it has made for a unit; the unit's own process says more.
    workers = pids - {1} or pids
    for pid in sorted(workers):
        parent = re.search(r"^PPid:\s*(\d+)", text_of("/proc/%d/status" % pid), re.MULTILINE)
        if not parent or int(parent.group(1)) not in workers:
            return pid
    return min(workers)


def cluster_of(words):
    """Data directory and directory of settings of a PostgreSQL server, out of its command line."""
    data = next((words[at + 1] for at, word in enumerate(words[:-1]) if word == "-D"), "")
    config = next((word.split("=", 1)[1] for word in words if word.startswith("config_file=")), "")
    return data.rstrip("/"), os.path.dirname(config) if config else data.rstrip("/")


def marked_clusters():
    """Data directories that role postgresql remembers as its own."""
    found = set()
    for path in glob.glob(CLUSTER_MARKS):
        try:
            found.add(os.path.realpath(str(json.loads(text_of(path)).get("data", ""))))
        except (ValueError, AttributeError):
            continue
    return found


def databases_of(port):
    """Names of the databases behind a port of this host; None where they cannot be asked."""
    query = ["psql", "-X", "-p", str(port), "-d", "postgres", "-Atc", "SELECT datname FROM pg_database"]
    status, names, _ = said(["runuser", "-u", "postgres", "--", *query])
    return names.split() if status == 0 else None


def listeners(ports):
    """Each listener on one of the ports: whose it is, by process, unit, container and cluster."""
    found = sockets(set(ports))
    owners = holders(set(found))
    containers = {} if not found else running_containers()
    clusters = marked_clusters()
    rows = []
    for inode, (port, address) in sorted(found.items(), key=lambda one: one[1]):
        pid = owners.get(inode, 0)
        words = text_of("/proc/%d/cmdline" % pid).split("\0") if pid else []
        group = text_of("/proc/%d/cgroup" % pid) if pid else ""
        units, ids = UNIT.findall(group), containers_of(group, text_of("/proc/1/cgroup"))
        row = {
            "port": port,
            "address": address,
            "pid": pid,
            "process": text_of("/proc/%d/comm" % pid).strip() if pid else "",
            "unit": units[-1] if units else "",
            "container": containers.get(ids[-1], {}).get("name", ids[-1][:12]) if ids else "",
            "data": "",
            "cluster": "",
        }
        if pid == 1:
            row["unit"] = socket_unit(port) or row["unit"]
        if row["process"] == "docker-proxy":
            row["container"] = publisher(containers, port) or "?"
        if row["process"] in ("postgres", "postmaster") and not row["container"]:
            data, config = cluster_of(words)
            names = None
            marked = os.path.realpath(data) in clusters or os.path.exists(
                os.path.join(config, "conf.d/outpost.conf")
            )
            if not marked:
                names = databases_of(port)
            # A cluster that was just made and holds nobody's rows may become ours (role postgresql).
            mine = {"template0", "template1", "postgres", "outpost", "fleet"}
            empty = names is not None and set(names) <= mine
            row.update(data=data, cluster="ours" if marked else "empty" if empty else "another")
        rows.append(row)
    # Without docker-proxy a published port has no listener: packets are turned away before one is asked for.
    for port in sorted(set(ports) - {row["port"] for row in rows}):
        name = publisher(containers or running_containers(), port)
        if name:
            rows.append(
                {"port": port, "address": "", "pid": 0, "process": "", "unit": "docker.service",
                 "container": name, "data": "", "cluster": ""}
            )  # fmt: skip
    return rows


def containers_of(group, host):
    """Ids of containers in a control group, the innermost last; without those that the host itself is in."""
    around = set(CONTAINER.findall(host))
    return [one for one in CONTAINER.findall(group) if one not in around]


def socket_unit(port):
    """The unit of a socket that systemd itself listens on."""
    for line in said(["systemctl", "list-sockets", "--no-legend", "--no-pager"])[1].splitlines():
        words = line.split()
        if words and words[0].endswith(":%d" % port):
            return next((word for word in words if word.endswith(".socket")), "")
    return ""


def running_containers():
    """Id -> {name, ports} of the containers that run."""
    listed = said(["docker", "ps", "--no-trunc", "--format", "{{.ID}}\t{{.Names}}\t{{.Ports}}"])[1]
    rows = (line.split("\t") for line in listed.splitlines())
    return {row[0]: {"name": row[1], "ports": row[2] if len(row) > 2 else ""} for row in rows if len(row) > 1}


def publisher(containers, port):
    """The container that publishes a TCP port of the host, such as 0.0.0.0:8080->80/tcp or :::8000-8005->80-85/tcp."""
    for one in containers.values():
        for first, last in re.findall(r":(\d+)(?:-(\d+))?->[^,]*/tcp", one["ports"]):
            if int(first) <= port <= int(last or first):
                return one["name"]
    return ""


def package_of(path):
    """(name, version) of the package that brought a file; empty where none did."""
    if not path or not os.path.exists(path):
        return ["", ""]
    real = os.path.realpath(path)
    if shutil.which("dpkg-query"):
        for asked in (path, real, real.replace("/usr/", "/", 1)):
            status, answer, _ = said(["dpkg-query", "-S", asked])
            if status == 0:
                name = answer.split(":")[0].split(",")[0].strip()
                return [name, said(["dpkg-query", "-W", "-f", "${Version}", name])[1].strip()]
    if shutil.which("rpm"):
        status, answer, _ = said(["rpm", "-qf", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", real])
        if status == 0 and answer.strip():
            name, _, version = answer.splitlines()[0].partition(" ")
            return [name, version]
    return ["", ""]


def program(name):
    return shutil.which(name, path="/usr/bin:/usr/local/bin:/usr/sbin:/sbin:/snap/bin") or ""


def docker():
    """The engine that is there, what it is set to, what it runs with, and whose containers it has."""
    engine, client = program("dockerd"), program("docker")
    speaks_podman = "podman" in head_of(client)
    settings = "/etc/docker/daemon.json"
    info, bridge, ids = {}, [], []
    status, answer, error = said(["docker", "info", "--format", "{{json .}}"]) if engine else (1, "", "")
    try:
        info = json.loads(answer) if status == 0 else {}
    except ValueError:
        info = {}
    if info.get("ServerErrors"):
        error, info = "; ".join(info["ServerErrors"]), {}
    networks = []
    if info:
        ids = said(["docker", "network", "ls", "--quiet", "--no-trunc"])[1].split()
        try:
            networks = json.loads(said(["docker", "network", "inspect", *ids])[1] or "[]") if ids else []
        except ValueError:
            networks = []
        bridge = [one for one in networks if one.get("Name") == "bridge" and one.get("Driver") == "bridge"]
    state = {}
    for line in said(
        [
            "systemctl",
            "show",
            "docker.service",
            "--property=LoadState,ActiveState,ExecStart,ExecMainStartTimestampMonotonic",
        ]
    )[1].splitlines():
        key, _, value = line.partition("=")
        state[key] = value
    stat = None
    if os.path.exists(settings):
        is_at = os.stat(settings)
        stat = {"mode": "%04o" % (is_at.st_mode & 0o7777), "owner": is_at.st_uid, "group": is_at.st_gid}
    return {
        "engine": engine,
        "package": package_of(engine),
        "client": client,
        "client_package": package_of(client),
        "podman": speaks_podman,
        "snap": os.path.exists("/snap/bin/docker") or os.path.isdir("/var/snap/docker"),
        "containerd_package": package_of(program("containerd")),
        "answers": str(info.get("ServerVersion", "")),
        "error": error.strip().splitlines()[-1][:300] if error.strip() else "",
        "unit": state.get("LoadState", ""),
        "active": state.get("ActiveState", ""),
        "settings": text_of(settings) if os.path.exists(settings) else None,
        "settings_file": os.path.realpath(settings),
        "stat": stat,
        "newer": newer(settings, state.get("ExecMainStartTimestampMonotonic", "")),
        "directory": os.path.isdir("/etc/docker"),
        "record": text_of("/etc/outpost/docker-settings.json"),
        "intended": text_of("/etc/outpost/docker-settings.next.json"),
        "flags": flags(state.get("ExecStart", "")),
        "swarm": str((info.get("Swarm") or {}).get("LocalNodeState", "")),
        "info": {
            key: info.get(key)
            for key in ("LoggingDriver", "LiveRestoreEnabled", "DockerRootDir", "DefaultAddressPools",
                        "RegistryConfig")
        },
        "bridge": [
            {"subnet": row.get("Subnet", ""), "gateway": row.get("Gateway", "")}
            for one in bridge for row in (one.get("IPAM") or {}).get("Config") or []
        ],
        "networks": [
            {"name": one.get("Name", ""), "subnet": row.get("Subnet", "")}
            for one in networks if one.get("Driver") == "bridge"
            for row in (one.get("IPAM") or {}).get("Config") or []
        ],
        "containers": sorted(one["name"] for one in running_containers().values()) if info else [],
    }  # fmt: skip


def newer(path, started):
    """Whether a file was written after its program was started, `started` microseconds after the boot."""
    if not started.isdigit() or not int(started) or not os.path.exists(path):
        return False
    since = time.time() - time.monotonic() + int(started) / 1e6
    return os.stat(path).st_mtime > since


def flags(exec_start):
    """Names of the settings that dockerd gets on its command line: of the unit, and of the process that runs."""
    words = exec_start.split()
    # Units of Docker's own packages read none of these files.
    read = ("/etc/default/docker", "/etc/sysconfig/docker", "/etc/sysconfig/docker-storage")
    for name in read if "$" in exec_start else ():
        words += [
            word
            for line in text_of(name).splitlines()
            if not line.lstrip().startswith("#")
            for word in re.findall(r"--?[a-z][a-z-]*", line)
        ]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if text_of("/proc/%s/comm" % pid).strip() == "dockerd" and same_root(pid):
            words += text_of("/proc/%s/cmdline" % pid).split("\0")
    return sorted({word.split("=")[0].lstrip("-") for word in words if re.match(r"--[a-z]|-[a-zA-Z]$", word)})


def same_root(pid):
    """Whether a process is of this host and not of a container on it."""
    try:
        return os.stat("/proc/%s/root/" % pid)[1:3] == os.stat("/")[1:3]
    except OSError:
        return False


def accounts(uid):
    """Who has the number, and which number the name has."""

    def asked(function, key):
        try:
            return function(key)
        except KeyError:
            return None

    user, group = asked(pwd.getpwnam, "outpost"), asked(grp.getgrnam, "outpost")
    by_uid, by_gid = asked(pwd.getpwuid, uid), asked(grp.getgrgid, uid)
    return {
        "uid": uid,
        "user_of_uid": by_uid.pw_name if by_uid else "",
        "group_of_gid": by_gid.gr_name if by_gid else "",
        "uid_of_name": user.pw_uid if user else None,
        "home_of_name": user.pw_dir if user else "",
        "shell_of_name": user.pw_shell if user else "",
        "group_of_name": user.pw_gid if user else None,
        "gid_of_name": group.gr_gid if group else None,
    }


def places():
    """What is in the directories that we use, and the files of our names, each with whether it says it is ours."""
    entries = {}
    for path in PLACES:
        try:
            entries[path] = sorted(os.listdir(path))[:200]
        except NotADirectoryError:
            entries[path] = None
        except OSError:
            entries[path] = []
    inside = [
        name
        for name in (entries["/var/lib/outpost"] or [])
        if glob.glob("/var/lib/outpost/%s/journal*" % name)
    ]
    files = {
        path: any(word in text_of(path)[:2000] for word in OURS_SAYS)
        for path in UNITS
        if os.path.lexists(path)
    }
    return {"entries": entries, "journals": inside, "files": files}


def routes():
    """Networks that the host reaches without its default route, each with the interface."""
    rows = []
    for family in ("-4", "-6"):
        for line in said(["ip", family, "route", "show", "table", "all"])[1].splitlines():
            words = line.split()
            if not words or words[0] in (
                "default",
                "broadcast",
                "local",
                "anycast",
                "multicast",
                "unreachable",
            ):
                continue
            device = words[words.index("dev") + 1] if "dev" in words[:-1] else ""
            rows.append({"network": words[0], "device": device})
    return rows


def timekeeping():
    """Who keeps the time now, and the settings of chrony with the files that it reads beside them."""
    active = []
    for block in said(["systemctl", "show", "--property=Id,ActiveState", *KEEPERS])[1].split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("ActiveState") == "active" and values.get("Id") not in active:
            active.append(values.get("Id", ""))
    # One name for one file, also where its package links the other path to it.
    config = next(
        (
            os.path.realpath(path)
            for path in ("/etc/chrony/chrony.conf", "/etc/chrony.conf")
            if os.path.exists(path)
        ),
        "",
    )
    text = text_of(config)
    beside = {}
    for kind, folder in re.findall(r"^\s*(confdir|sourcedir)\s+(\S+)", text, re.MULTILINE):
        for path in sorted(glob.glob(os.path.join(folder, "*.conf" if kind == "confdir" else "*.sources"))):
            beside[path] = text_of(path)
    for pattern in re.findall(r"^\s*include\s+(\S+)", text, re.MULTILINE):
        for path in sorted(glob.glob(pattern)):
            beside[path] = text_of(path)
    clock = said(["timedatectl", "show", "--property=NTPSynchronized", "--value"])[1].strip()
    tools = program("vmware-toolbox-cmd")
    return {
        "active": active,
        "synchronised": clock == "yes",
        "chrony": {"config": config, "text": text, "beside": beside},
        "vmware": bool(tools) and "Enabled" in said([tools, "timesync", "status"])[1],
        "timesyncd": text_of("/etc/systemd/timesyncd.conf.d/outpost.conf"),
    }


def upgrades():
    """The settings of dnf-automatic; None where it has none."""
    path = "/etc/dnf/automatic.conf"
    there = os.path.exists(path)
    mode = "%04o" % (os.stat(path).st_mode & 0o7777) if there else ""
    return {"automatic": text_of(path) if there else None, "mode": mode}


def journal():
    """What others have set for the system's journal: key to value, the last one counts."""
    folders = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")
    files = ["/etc/systemd/journald.conf"]
    drop_ins = {
        os.path.basename(path): path
        for folder in folders
        for path in glob.glob(folder + "/journald.conf.d/*.conf")
    }
    files += [drop_ins[name] for name in sorted(drop_ins) if name != "outpost.conf"]
    found = {}
    for path in files:
        found.update(JOURNAL_KEYS.findall(text_of(path)))
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "parts": {
                "type": "list",
                "elements": "str",
                "required": True,
                "choices": [
                    "listeners", "docker", "accounts", "places", "routes", "time", "upgrades", "journal",
                ],
            },
            "ports": {"type": "list", "elements": "int", "default": []},
            "uid": {"type": "int", "default": 10001},
        },
        supports_check_mode=True,
    )  # fmt: skip
    readers = {
        "listeners": lambda: listeners(module.params["ports"]),
        "docker": docker,
        "accounts": lambda: accounts(module.params["uid"]),
        "places": places,
        "routes": routes,
        "time": timekeeping,
        "upgrades": upgrades,
        "journal": journal,
    }
    module.exit_json(changed=False, read={part: readers[part]() for part in module.params["parts"]})


if __name__ == "__main__":
    main()
