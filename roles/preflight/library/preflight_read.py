#!/usr/bin/python
"""Reads from a host what the preflight report judges. Changes nothing; Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: preflight_read
short_description: Read a host's capacity, init and clock
description:
  - Returns raw figures only. What they mean is decided on the controller, in one place, where it is tested.
options:
  paths:
    description: Directories whose free space is wanted; a missing one is read at its nearest existing parent.
    type: list
    elements: path
    required: true
  names:
    description: Host names to resolve.
    type: list
    elements: str
    default: []
  reach:
    description: HOST:PORT to connect to by TCP.
    type: list
    elements: str
    default: []
  registry:
    description: HOST:PORT of the image registry, empty where there is none.
    type: str
    default: ""
  packages:
    description: What the roles install, {manager, names, script}; the script says what is there. Empty asks nothing.
    type: dict
    default: {}
  archive:
    description: The release's archive, {url, path, bytes, by_proxy}. Empty asks nothing.
    type: dict
    default: {}
  timeout:
    description: Seconds for all names and addresses together; they are asked at once.
    type: float
    default: 5
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read what the host offers
  preflight_read:
    paths: [/var/lib]
"""

RETURN = r"""
read:
  description: >-
    memory_mib, cores, disk_free_mib by path, firewalls (names), pid1, uid, clock, gpu_memory_mib
    (list, empty without a working driver), names (name to addresses), reach and registry (target to ok or the reason),
    inodes_free by path, temporary_free_mib by path, surroundings (module_utils/preflight_surroundings.py).
  returned: always
  type: dict
"""

import os
import shutil
import socket
import subprocess
import threading
import time

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.preflight_surroundings import TEMPORARY, free_inodes, surroundings

UFW = "/etc/ufw/ufw.conf"


def free_mib(path):
    """Free MiB for an unprivileged writer at path, or at its nearest parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free // 2**20


def memory_mib():
    with open("/proc/meminfo") as meminfo:
        for line in meminfo:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) // 1024
    return 0


def runs(*command):
    """What a program prints; None where it fails or is not there."""
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.decode(errors="replace") if answer.returncode == 0 else None


def firewalls():
    """Names of what closes ports here beside our own table: ufw, firewalld, chains that drop what they do not know."""
    found = []
    if os.path.exists(UFW) and shutil.which("ufw"):
        with open(UFW) as config:
            if any(line.strip().lower() == "enabled=yes" for line in config):
                found.append("ufw")
    if any(
        runs("systemctl", asked, "firewalld.service") is not None for asked in ("is-active", "is-enabled")
    ):
        found.append("firewalld")
    table = chain = ""
    for line in (runs("nft", "list", "chains") or "").splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif (
            "hook input" in line and "policy drop" in line and table != "inet outpost" and "ufw" not in found
        ):
            found.append("nftables %s %s" % (table, chain))
    return found


def gpu_memory_mib():
    """MiB of each GPU as the driver says; nothing but the driver knows before a program runs on it."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [int(word) for word in answer.stdout.decode().split() if word.isdigit()]


def resolve(name):
    try:
        return sorted({found[4][0] for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def connect(target, timeout):
    """ "ok", or why there is no connection to HOST:PORT."""
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        return "not of the form HOST:PORT"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError as error:
        return str(error)
    return "ok"


def all_at_once(function, targets, timeout, late):
    """Maps each target to function(target); one that does not answer in time, to late. Never waits longer."""
    answers = {}
    threads = []
    for target in targets:
        thread = threading.Thread(target=lambda asked=target: answers.update({asked: function(asked)}))
        thread.daemon = True  # a resolver that hangs must not keep the module from ending
        thread.start()
        threads.append(thread)
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    known = dict(answers)
    return {target: known.get(target, late) for target in targets}


def main():
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "reach": {"type": "list", "elements": "str", "default": []},
            "registry": {"type": "str", "default": ""},
            "packages": {"type": "dict", "default": {}},
            "archive": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    with open("/proc/1/comm") as comm:
        pid1 = comm.read().strip()
    timeout = module.params["timeout"]
    registry = [module.params["registry"]] if module.params["registry"] else []
    late = "no answer in %g s" % timeout
    paths = module.params["paths"]
    around = surroundings(module.params["packages"], module.params["archive"], timeout, all_at_once)
    around["remote_tmp"] = os.path.expanduser(module._remote_tmp or "~/.ansible/tmp")
    connected = all_at_once(
        lambda target: connect(target, timeout), set(module.params["reach"] + registry), timeout, late
    )
    module.exit_json(
        changed=False,
        read={
            "memory_mib": memory_mib(),
            "cores": len(os.sched_getaffinity(0)),
            "disk_free_mib": {path: free_mib(path) for path in paths},
            "inodes_free": free_inodes([path for path in paths if path != "/boot"]),
            "temporary_free_mib": {path: free_mib(path) for path in (TEMPORARY, around["remote_tmp"])},
            "surroundings": around,
            "firewalls": firewalls(),
            "pid1": pid1,
            "uid": os.geteuid(),
            "gpu_memory_mib": gpu_memory_mib(),
            "names": all_at_once(resolve, module.params["names"], timeout, []),
            "reach": {target: connected[target] for target in module.params["reach"]},
            "registry": {target: connected[target] for target in registry},
            "clock": time.time(),
        },
    )


if __name__ == "__main__":
    main()
