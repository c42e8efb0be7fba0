#!/usr/bin/python
"""Gathers a driver set's packages on a host that reaches them. Installs nothing; Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: nvidia_driver_closure
short_description: Find and download the packages of a driver set
description:
  - Of what is installed on the host, or of what installing the named packages would come to; the driver's own packages
    and those of the running kernel, no others.
  - The lock of a set that is here already is looked past, as a set is made to follow it.
options:
  manager:
    description: The host's package manager.
    type: str
    choices: [apt, dnf]
    required: true
  families:
    description: Globs of package names that belong to the driver.
    type: list
    elements: str
    required: true
  kernel_families:
    description: Globs of package names that belong to a kernel.
    type: list
    elements: str
    required: true
  packages:
    description: Packages to make a set of, as one would give them to the package manager. Empty is what is installed.
    type: list
    elements: str
    default: []
  directory:
    description: Where the files are put. Other files in it are removed.
    type: path
    required: true
author: [Outpost]
"""

EXAMPLES = r"""
- name: Gather what is installed
  nvidia_driver_closure:
    manager: apt
    families: [nvidia-*, libnvidia-*]
    kernel_families: [linux-image-*, linux-headers-*]
    directory: /var/tmp/outpost-driver-set
"""

RETURN = r"""
packages:
  description: Name to version of what belongs to the set.
  returned: always
  type: dict
driver:
  description: Full version of the driver.
  returned: always
  type: str
others:
  description: Packages beside the set that the named ones would bring with them.
  returned: always
  type: list
"""

import collections
import fnmatch
import glob
import os
import re
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule

UPSTREAM = re.compile(r"(?:\d+:)?(\d{3}\.\d+(?:\.\d+)*)")
# The versions that a lock of ours keeps from apt; a new set is made of them.
PAST_THE_LOCK = ["-o", "Dir::Etc::preferencesparts=/nonexistent", "--ignore-hold"]
KEPT = "/opt/outpost/drivers/*"


class Refused(Exception):
    """Why no set can be made; the message names the remedy."""


def run(*command, **more):
    environment = dict(os.environ, LC_ALL="C", DEBIAN_FRONTEND="noninteractive")
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        universal_newlines=True,
        **more,
    )


def asked_of(program, *command):
    done = run(program, *command)
    if done.returncode:
        raise Refused("%s: %s" % (program, (done.stderr or done.stdout).strip()[-800:]))
    return done.stdout


def belongs(name, families):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in families)


def number_of_the_running_kernel():
    """What the running kernel's packages carry and no other kernel's: 6.8.0-45, 6.1.90-1, 6.6.52-1.red80."""
    release = os.uname().release
    if ".x86_64" in release:
        return release.split(".x86_64")[0]
    return re.match(r"[\d.]+(-\d+)?", release).group()


class Apt:
    """What dpkg has and apt would do."""

    def installed(self):
        form = "${Package}\t${Version}\t${db:Status-Status}\t${Architecture}\n"
        rows = [line.split("\t") for line in asked_of("dpkg-query", "-W", "-f", form).splitlines()]
        return {row[0]: row[1] for row in rows if row[2] == "installed" and row[3] in ("amd64", "all")}

    def kernel(self, stands, kernel_families):
        """The running kernel's packages by the number in their names, and what those need of its families (kbuild)."""
        numbered = re.compile(re.escape(number_of_the_running_kernel()) + r"(?!\d)")
        ours = {name for name in stands if belongs(name, kernel_families)}
        found, new = set(), {name for name in ours if numbered.search(name)}
        while new:
            found |= new
            described = [run("apt-cache", "show", "%s=%s" % (name, stands[name])).stdout for name in new]
            needed = re.findall(r"^(?:Pre-)?Depends: (.*)$", "\n".join(described), re.MULTILINE)
            new = set(re.findall(r"[a-z0-9][a-z0-9.+-]+", " ".join(needed))) & ours - found
        return found

    def after(self, packages, scratch):
        """Name -> version as it would stand, and the names that change."""
        said = asked_of(
            "apt-get",
            *PAST_THE_LOCK,
            "--simulate",
            "--no-install-recommends",
            "--allow-downgrades",
            "install",
            *packages,
        )
        stands = self.installed()
        for name in re.findall(r"^Remv (\S+)", said, re.MULTILINE):
            stands.pop(name.split(":")[0], None)
        new = dict(re.findall(r"^Inst ([^\s:]+)(?: \[[^\]]*\])? \((\S+) ", said, re.MULTILINE))
        stands.update(new)
        return stands, set(new)

    def download(self, chosen, directory):
        for name, version in sorted(chosen.items()):
            if self.kept(name, version, directory):
                continue
            done = run(
                "apt-get", *PAST_THE_LOCK, "download", "-q", "-o", "APT::Sandbox::User=root", "%s=%s" % (name, version),
                cwd=directory,
            )  # fmt: skip
            if done.returncode:
                yield "%s %s" % (name, version)

    def kept(self, name, version, directory):
        """Takes the file that this host was installed from, where it still has it: apt's cache, or a set of ours."""
        for folder in ("/var/cache/apt/archives", KEPT):
            for path in glob.glob("%s/%s_*.deb" % (folder, name)):
                if run("dpkg-deb", "-f", path, "Version").stdout.strip() == version:
                    shutil.copy(path, os.path.join(directory, os.path.basename(path).replace("%3a", ":")))
                    return True
        return False


class Dnf:
    """What rpm has and dnf would do."""

    # A repository that does not answer is no reason to fail as long as nothing of the set is in it.
    QUIET = (
        "--quiet", "--assumeyes", "--disableplugin=versionlock", "--setopt=install_weak_deps=False",
        "--setopt=*.skip_if_unavailable=True",
    )  # fmt: skip

    def installed(self):
        """Of kernels, which stand side by side under one name, the running one."""
        form = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
        rows = [line.split("\t") for line in asked_of("rpm", "-qa", "--qf", form).splitlines()]
        return dict(sorted(rows, key=lambda row: number_of_the_running_kernel() in row[1]))

    def kernel(self, stands, kernel_families):
        number = number_of_the_running_kernel()
        return {name for name in stands if belongs(name, kernel_families) and number in stands[name]}

    def after(self, packages, scratch):
        """dnf tells a transaction only by its files, so they are brought; those of the set are brought again later."""
        shutil.rmtree(scratch, ignore_errors=True)
        os.makedirs(scratch)
        try:
            asked_of("dnf", *self.QUIET, "install", "--downloadonly", "--downloaddir=" + scratch, *packages)
            form = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
            files = glob.glob(scratch + "/*.rpm")
            said = asked_of("rpm", "-qp", "--nosignature", "--qf", form, *files) if files else ""
        finally:
            shutil.rmtree(scratch)
        new = dict(line.split("\t") for line in said.splitlines())
        stands = self.installed()
        stands.update(new)
        return stands, set(new)

    def download(self, chosen, directory):
        for name, version in sorted(chosen.items()):
            done = run("dnf", *self.QUIET, "download", "--destdir=" + directory, "%s-%s" % (name, version))
            if done.returncode and not self.kept(name, version, directory):
                yield "%s %s" % (name, version)

    def kept(self, name, version, directory):
        for path in glob.glob("%s/%s-*.rpm" % (KEPT, name)):
            form = "%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}"
            if run("rpm", "-qp", "--nosignature", "--qf", form, path).stdout == "%s %s" % (name, version):
                shutil.copy(path, directory)
                return True
        return False


def driver_of(chosen, families):
    """The version most of the driver's packages carry: settings and toolkit have numbers of their own."""
    found = collections.Counter(
        match.group(1) for name, version in chosen.items() if belongs(name, families)
        for match in [UPSTREAM.match(version)] if match
    )  # fmt: skip
    if not found:
        raise Refused(
            "none of %s carries a driver's version such as 580.95.05. Name the driver's package in "
            "nvidia_driver_set_packages, or install it first." % (", ".join(sorted(chosen)) or "no package")
        )
    return found.most_common(1)[0][0]


def gather(asked):
    """All of it; the directory holds the files afterwards, unless this is a dry run."""
    manager = Apt() if asked["manager"] == "apt" else Dnf()
    families, directory = asked["families"], asked["directory"]
    stands, new = (
        manager.after(asked["packages"], directory) if asked["packages"] else (manager.installed(), set())
    )
    kernel = manager.kernel(stands, asked["kernel_families"])
    chosen = {name: version for name, version in stands.items() if belongs(name, families) or name in kernel}
    result = {"packages": chosen, "driver": driver_of(chosen, families), "others": sorted(new - set(chosen))}
    if asked["dry"]:
        return result
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    lost = list(manager.download(chosen, directory))
    if lost:
        shutil.rmtree(directory)
        raise Refused(
            "the files of %s are neither in the host's repositories nor kept on it. A distribution drops old versions: "
            "make the set of packages it offers now (nvidia_driver_set_packages), or give the host a repository that "
            "still has them." % ", ".join(lost)
        )
    for path in glob.glob(os.path.join(directory, "*")):
        os.chmod(path, 0o644)
    return result


def main():
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "families": {"type": "list", "elements": "str", "required": True},
            "kernel_families": {"type": "list", "elements": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "directory": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        found = gather(dict(module.params, dry=module.check_mode))
    except Refused as reason:
        module.fail_json(msg="No driver set was made: %s" % reason)
    module.exit_json(changed=not module.check_mode, **found)


if __name__ == "__main__":
    main()
