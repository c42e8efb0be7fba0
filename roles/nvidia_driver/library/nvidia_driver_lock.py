#!/usr/bin/python
"""Locks the driver's packages: files and holds as one thing. Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: nvidia_driver_lock
short_description: Write the lock of the driver's packages
description:
  - The lock is several files and, with apt, a hold on each installed package. All of it is compared and written in one
    call, so that it is never half there longer than the writing takes, and a run without changes costs one round trip.
  - Files are replaced by rename.
options:
  files:
    description:
      - Path and whole content of each file. Content null takes the file away.
      - With block, a name, only the lines between that block's marks are ours; the administrator's own stay.
    type: list
    elements: dict
    required: true
  hold:
    description: Package names to hold (apt). Names that are not installed are not marked.
    type: list
    elements: str
    default: []
  release:
    description: Package names whose hold ends.
    type: list
    elements: str
    default: []
author: [Outpost]
"""

EXAMPLES = r"""
- name: Lock the driver
  nvidia_driver_lock:
    files:
      - {path: /etc/apt/preferences.d/outpost-driver, content: "..."}
    hold: [nvidia-smi]
"""

RETURN = r"""
did:
  description: What was or would be changed, a line each.
  returned: always
  type: list
"""

import os
import subprocess

from ansible.module_utils.basic import AnsibleModule


def present(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def with_block(old, name, content):
    """The file's text with our block replaced, added at its end, or taken out."""
    begin, end = "# BEGIN %s\n" % name, "# END %s\n" % name
    before, found, rest = (old or "").partition(begin)
    after = rest.partition(end)[2] if found else ""
    if not found and before and not before.endswith("\n"):
        before += "\n"
    return before + (begin + content + end if content is not None else "") + after


def write(path, content):
    """Replaces the file whole; a power cut leaves the old or the new one, and after the return the new one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = path + ".outpost-new"
    with open(beside, "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(beside, 0o644)
    os.rename(beside, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def holds():
    """Names on hold, and names that are installed."""
    form = "${Package}\t${db:Status-Want}\t${db:Status-Status}\n"
    said = subprocess.run(
        ["dpkg-query", "-W", "-f", form], stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    rows = [line.split("\t") for line in said.splitlines()]
    there = {name for name, want, state in rows if state not in ("not-installed", "config-files")}
    return {name for name, want, state in rows if want == "hold"}, there


def main():
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "required": True},
            "hold": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    did, before, after = [], "", ""
    for wanted in module.params["files"]:
        path, content = wanted["path"], wanted["content"]
        old = present(path)
        if wanted.get("block") and not (old is None and content is None):
            content = with_block(old, wanted["block"], content)
        if old == content:
            continue
        did.append(("remove " if content is None else "write ") + path)
        before += "==> %s\n%s" % (path, old or "")
        after += "==> %s\n%s" % (path, content or "")
        if module.check_mode:
            continue
        if content is None:
            os.unlink(path)
        else:
            write(path, content)
    if module.params["hold"] or module.params["release"]:
        held, there = holds()
        add = sorted((set(module.params["hold"]) & there) - held)
        drop = sorted(set(module.params["release"]) & held)
        for verb, names in (("hold", add), ("unhold", drop)):
            if not names:
                continue
            did.append("%s %s" % (verb, " ".join(names)))
            if not module.check_mode:
                done = subprocess.run(
                    ["apt-mark", verb, *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
                if done.returncode:
                    module.fail_json(
                        msg="apt-mark %s: %s" % (verb, done.stdout.decode(errors="replace")), did=did
                    )
    module.exit_json(changed=bool(did), did=did, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
