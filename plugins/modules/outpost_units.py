#!/usr/bin/python
"""Brings systemd units to run on the files that are there, whoever wrote those. Python 3.8, standard library."""

DOCUMENTATION = r"""
---
module: outpost_units
short_description: Have units run, each on its files as they are
description:
  - A unit is started where it does not run, and restarted where it was started on other files than those that are
    there. So a run that was interrupted before a restart is made up for by the next.
  - Of each start (systemd's InvocationID) a record lies in /run, with the digests of the files. A start without a
    record is judged by time, whether a file changed after it.
  - systemd is told to read its unit files again where it says that one of these units changed on disk, and never
    otherwise, since that detaches GPUs from running containers.
options:
  units:
    description: >-
      Units in their order.
    type: list
    elements: dict
    required: true
    options:
      name:
        type: str
        required: true
        description: Name with its suffix, chrony.service.
      files:
        type: list
        elements: path
        default: []
        description: What its process reads as it starts.
      enabled:
        type: bool
        default: true
        description: Whether it starts at boot.
      changes:
        type: list
        elements: path
        default: []
        description: In a dry run, those of the files that the run would have changed before this.
      runs:
        type: bool
        default: true
        description: Whether it is to run. Of one that is not only what changed on disk is looked at.
author: [Outpost]
"""

EXAMPLES = r"""
- name: Have the clock kept by the servers that are named
  outpost_units:
    units:
      - {name: chrony.service, files: [/etc/chrony/chrony.conf]}
"""

RETURN = r"""
done:
  description: What was done, or in a dry run would be, a sentence each.
  returned: always
  type: list
  elements: str
"""

import hashlib
import json
import os
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

RECORDS = "/run/outpost-started"
PROPERTIES = [
    "Id",
    "LoadState",
    "ActiveState",
    "InvocationID",
    "NeedDaemonReload",
    "ActiveEnterTimestampMonotonic",
]
RUNS = ("active", "reloading")


def systemctl(*arguments):
    """Its answer; None where it failed or is not there."""
    try:
        done = subprocess.run(
            ["systemctl", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, universal_newlines=True,
        )  # fmt: skip
    except OSError as error:
        return None, str(error)
    return (done.stdout if done.returncode == 0 else None), done.stdout.strip()


def shown(name):
    """Properties of a unit; of one that is not there, LoadState not-found."""
    answer, said = systemctl("show", "--property=" + ",".join(PROPERTIES), name)
    if answer is None:
        return {"LoadState": "not-found", "why": said}
    return dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)


def digest(path):
    """Of a file's content; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def recorded(name):
    """What the last start that we know of found; empty for none."""
    try:
        with open(os.path.join(RECORDS, name)) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def record(name, invocation, files):
    os.makedirs(RECORDS, mode=0o755, exist_ok=True)
    path = os.path.join(RECORDS, name)
    with open(path + ".new", "w") as file:
        json.dump({"invocation": invocation, "files": files}, file)
    os.rename(path + ".new", path)


def changed_after(path, started):
    """Whether a file changed after a moment of the monotonic clock, as far as the clock of the files can tell."""
    try:
        age = time.time() - os.stat(path).st_ctime
    except OSError:
        return False
    return age <= time.clock_gettime(time.CLOCK_MONOTONIC) - started


def stale(unit, state, files):
    """Names of the files that a running unit was not started on. Of a file without a record time is the judge."""
    known = recorded(unit["name"])
    of_this_start = known.get("invocation") == state.get("InvocationID") and state.get("InvocationID")
    found = known.get("files", {}) if of_this_start else {}
    started = int(state.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    return [
        path
        for path in files
        if (found[path] != files[path] if path in found else files[path] and changed_after(path, started))
    ]


def main():
    units = {
        "type": "list", "elements": "dict", "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "changes": {"type": "list", "elements": "path", "default": []},
            "enabled": {"type": "bool", "default": True},
            "runs": {"type": "bool", "default": True},
        },
    }  # fmt: skip
    module = AnsibleModule(argument_spec={"units": units}, supports_check_mode=True)
    wanted, done = module.params["units"], []

    def act(why, *arguments):
        done.append(why)
        if not module.check_mode:
            answer, said = systemctl(*arguments)
            if answer is None:
                module.fail_json(msg="systemctl %s: %s" % (" ".join(arguments), said), done=done)

    states = {unit["name"]: shown(unit["name"]) for unit in wanted}
    outdated = [name for name in states if states[name].get("NeedDaemonReload") == "yes"]
    if outdated:
        act("systemd reads what changed on disk: %s" % ", ".join(outdated), "daemon-reload")
    for unit in wanted:
        name, state = unit["name"], states[unit["name"]]
        if not unit["runs"] and state.get("LoadState") != "loaded":
            continue
        if state.get("LoadState") != "loaded":
            if not module.check_mode:
                module.fail_json(
                    msg="%s: systemd does not have it: %s"
                    % (name, state.get("why") or state.get("LoadState")),
                    done=done,
                )
            done.append("%s will be started, once it is there" % name)
            continue
        files = {path: digest(path) for path in unit["files"]}
        if unit["enabled"] and systemctl("is-enabled", name)[0] is None:
            act("%s starts at boot" % name, "enable", name)
        if not unit["runs"]:
            continue
        if state.get("ActiveState") not in RUNS:
            act("%s was %s and is started" % (name, state.get("ActiveState")), "start", name)
        else:
            others = stale(unit, state, files)
            if module.check_mode:
                others += [path for path in unit["changes"] if path not in others]
            if others:
                act("%s ran on another %s" % (name, ", ".join(others)), "restart", name)
        if files and not module.check_mode:
            record(name, shown(name).get("InvocationID", ""), files)
    module.exit_json(changed=bool(done), done=done, diff={"prepared": "".join("%s\n" % one for one in done)})


if __name__ == "__main__":
    main()
