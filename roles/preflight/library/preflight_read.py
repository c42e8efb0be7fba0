#!/usr/bin/python
"""Reads from a host what the preflight report judges. Changes nothing; Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: preflight_read
short_description: Read a host's capacity, ports, init and clock
description:
  - Returns raw figures only. What they mean is decided on the controller, in one place, where it is tested.
options:
  paths:
    description: Directories whose free space is wanted; a missing one is read at its nearest existing parent.
    type: list
    elements: path
    required: true
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read what the host offers
  preflight_read:
    paths: [/var/lib]
"""

RETURN = r"""
read:
  description: memory_mib, cores, disk_free_mib by path, listening (port to process name), units, pid1, uid, clock.
  returned: always
  type: dict
"""

import os
import shutil
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"  # the state column of /proc/net/tcp


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


def socket_owners():
    """Maps socket inode to the name of a process that holds it."""
    owners = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/comm" % pid) as comm:
                name = comm.read().strip()
            for descriptor in os.listdir("/proc/%s/fd" % pid):
                target = os.readlink("/proc/%s/fd/%s" % (pid, descriptor))
                if target.startswith("socket:["):
                    owners[target[8:-1]] = name
        except OSError:
            continue  # the process ended while we looked
    return owners


def listening():
    """Maps each listening TCP port (as text) to the process behind it, or "unknown"."""
    owners = socket_owners()
    ports = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table) as rows:
            for row in rows.readlines()[1:]:
                fields = row.split()
                if fields[3] == LISTEN:
                    port = str(int(fields[1].rsplit(":", 1)[1], 16))
                    ports[port] = owners.get(fields[9], "unknown")
    return ports


def active_units():
    """Names of our own active units, so that a port they hold is not taken for a stranger's."""
    command = ["systemctl", "list-units", "--no-legend", "--plain", "--state=active,activating", "outpost*"]
    try:
        answer = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split()[0] for line in answer.stdout.decode().splitlines() if line.split()]


def main():
    module = AnsibleModule(
        argument_spec={"paths": {"type": "list", "elements": "path", "required": True}},
        supports_check_mode=True,
    )
    with open("/proc/1/comm") as comm:
        pid1 = comm.read().strip()
    module.exit_json(
        changed=False,
        read={
            "memory_mib": memory_mib(),
            "cores": len(os.sched_getaffinity(0)),
            "disk_free_mib": {path: free_mib(path) for path in module.params["paths"]},
            "listening": listening(),
            "units": active_units(),
            "pid1": pid1,
            "uid": os.geteuid(),
            "clock": time.time(),
        },
    )


if __name__ == "__main__":
    main()
