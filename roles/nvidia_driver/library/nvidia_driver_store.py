#!/usr/bin/python
"""Brings a driver set's files to the host and proves each by its sha256. Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: nvidia_driver_store
short_description: Keep the files of a driver set on the host
description:
  - Everything is on disk and proven before anything changes, and stays there. A link that breaks in the middle breaks
    nothing, and the way back needs no network.
  - A file that is not what the set says is removed and named.
options:
  directory:
    description: Where the files are kept.
    type: path
    required: true
  files:
    description: Name, version, file and sha256 of each file.
    type: list
    elements: dict
    required: true
  source:
    description: A URL under which the files lie, or empty for the distribution's repositories.
    type: str
    default: ""
  manager:
    description: The host's package manager.
    type: str
    choices: [apt, dnf]
    required: true
  fetch:
    description: Whether to fetch what is missing. Without it the missing ones are only named.
    type: bool
    default: true
author: [Outpost]
"""

EXAMPLES = r"""
- name: Bring the files of the set
  nvidia_driver_store:
    directory: /opt/outpost/drivers/debian-535
    manager: apt
    files:
      - {name: nvidia-smi, version: 535.261.03-1, file: nvidia-smi_535.261.03-1_amd64.deb, sha256: "..."}
"""

RETURN = r"""
missing:
  description: Files that are still not there, as given.
  returned: always
  type: list
"""

import glob
import hashlib
import os
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url


def digest(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def whole(directory, wanted):
    path = os.path.join(directory, wanted["file"])
    return os.path.exists(path) and digest(path) == wanted["sha256"]


def from_url(source, scratch, wanted):
    answer = open_url("%s/%s" % (source.rstrip("/"), wanted["file"]), timeout=60)
    with open(os.path.join(scratch, wanted["file"]), "wb") as file:
        shutil.copyfileobj(answer, file)


def from_distribution(manager, scratch, missing):
    """One command for all: the package manager names the files as it likes, they are found by their sha256."""
    if manager == "apt":
        # root's own sandbox user cannot write here; apt would only warn about it.
        command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root"]
        command += ["%s=%s" % (wanted["name"], wanted["version"]) for wanted in missing]
    else:
        command = ["dnf", "-y", "--disableplugin=versionlock", "download", "--destdir=" + scratch]
        command += ["%s-%s" % (wanted["name"], wanted["version"]) for wanted in missing]
    done = subprocess.run(command, cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout.decode(errors="replace") if done.returncode else ""


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "str", "default": ""},
            "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "fetch": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    directory, files = module.params["directory"], module.params["files"]
    missing = [wanted for wanted in files if not whole(directory, wanted)]
    if module.check_mode or not missing or not module.params["fetch"]:
        module.exit_json(changed=bool(missing) and module.params["fetch"], missing=missing)
    scratch = os.path.join(directory, "partial")
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(scratch)
    said = ""
    if module.params["source"]:
        for wanted in missing:
            try:
                from_url(module.params["source"], scratch, wanted)
            except Exception as error:  # open_url raises half a dozen kinds
                said = "%s: %s" % (wanted["file"], error)
                break
    else:
        said = from_distribution(module.params["manager"], scratch, missing)
    by_digest = {digest(path): path for path in glob.glob(os.path.join(scratch, "*"))}
    for wanted in missing:
        if wanted["sha256"] in by_digest:
            os.rename(by_digest[wanted["sha256"]], os.path.join(directory, wanted["file"]))
    shutil.rmtree(scratch)
    still = [wanted for wanted in missing if not whole(directory, wanted)]
    if still:
        names = ", ".join("%s %s" % (wanted["name"], wanted["version"]) for wanted in still[:6])
        module.fail_json(
            msg="%d of %d files of the driver set did not come, or are not what its sha256 says: %s. The source said: "
            "%s. "
            "Nothing was changed on the host. Give nvidia_driver_repository a directory or URL that holds them; a "
            "distribution drops old versions."
            % (len(still), len(files), names, said[-600:].strip() or "nothing"),
            missing=still,
        )
    module.exit_json(changed=True, missing=[])


if __name__ == "__main__":
    main()
