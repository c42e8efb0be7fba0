#!/usr/bin/python
"""Reads which inference systems a host has, whatever the inventory says. Changes nothing; Python 3.8."""

DOCUMENTATION = r"""
---
module: removal_systems
short_description: Read the inference systems of a host
description:
  - A system is there while its configuration, its unit's link or its container is; its data alone is no system.
options:
  root:
    description: Directory that is read as the host's root; for tests.
    type: path
    default: /
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read the systems
  removal_systems:
"""

RETURN = r"""
systems:
  description: >-
    Name to region, dicom_port, api_port (0 where not known), configured, enabled, active, container, leaving (it opens
    no studies any more).
  returned: always
  type: dict
data:
  description: Names of all systems whose data is on the host.
  returned: always
  type: list
closed:
  description: Those of them that open no studies any more.
  returned: always
  type: list
"""

import glob
import os
import re
import subprocess

from ansible.module_utils.basic import AnsibleModule

NAME = re.compile(r"[a-z][a-z0-9-]{1,30}")


def said(*command):
    """Standard output of a command; empty where it fails or is missing."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False,
            env=dict(os.environ, LC_ALL="C"),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def named(pattern, before, after):
    """Names of systems out of paths: what is between `before` and `after` of the last part."""
    names = (os.path.basename(path)[len(before) : -len(after)] for path in glob.glob(pattern))
    return {name for name in names if NAME.fullmatch(name) and name != "fleet"}


def configuration(path):
    """region, dicom_port and api_port as a system's file says them; that file is ours, a key a line."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return {"region": "", "dicom_port": 0, "api_port": 0}

    def first(expression):
        match = re.search(expression, text, re.MULTILINE)
        return match.group(1) if match else ""

    return {
        "region": first(r"^region: *['\"]?([^\s'\"]+)"),
        "dicom_port": int(first(r"^  dicom_port: *(\d+)") or 0),
        "api_port": int(first(r"^api:\n(?:  .*\n)*?  port: *(\d+)") or 0),
    }


def main():
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    root = module.params["root"]
    real = root == "/"

    def at(path):
        return os.path.join(root, path)

    configured = named(at("etc/outpost/*.yaml"), "", ".yaml") | named(at("etc/outpost/*.env"), "", ".env")
    enabled = named(at("etc/systemd/system/*.wants/outpost@*.service"), "outpost@", ".service")
    listed = (
        said("systemctl", "list-units", "--no-legend", "--plain", "--all", "outpost@*.service")
        if real
        else ""
    )
    rows = [line.split() for line in listed.splitlines() if len(line.split()) > 3]
    active = {row[0][8:-8] for row in rows if row[2] in ("active", "activating", "reloading", "deactivating")}
    told = said("docker", "ps", "--all", "--format", "{{.Names}}") if real else ""
    # A container of the command `outpost` has its process's number behind the name.
    containers = {name[8:] for name in told.split() if re.fullmatch(r"outpost-[a-z][a-z0-9-]*", name)}
    containers = {
        name for name in containers if not re.search(r"-\d+$", name) or name in configured | enabled
    }
    data = sorted(
        os.path.basename(path)
        for path in glob.glob(at("var/lib/outpost/*"))
        if os.path.isdir(path)
        and NAME.fullmatch(os.path.basename(path))
        and os.path.basename(path) != "fleet"
    )
    systems = {
        name: dict(
            configuration(at("etc/outpost/%s.yaml" % name)),
            configured=os.path.exists(at("etc/outpost/%s.yaml" % name)),
            enabled=name in enabled,
            active=name in active,
            container=name in containers,
            leaving=os.path.exists(at("var/lib/outpost/%s/out-of-service" % name)),
        )
        for name in sorted(configured | enabled | active | containers)
        if name != "fleet" and NAME.fullmatch(name)
    }
    closed = [name for name in data if os.path.exists(at("var/lib/outpost/%s/out-of-service" % name))]
    module.exit_json(changed=False, systems=systems, data=data, closed=closed)


if __name__ == "__main__":
    main()
