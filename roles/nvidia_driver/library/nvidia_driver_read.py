#!/usr/bin/python
"""Reads from a host everything about its NVIDIA driver. Changes nothing; Python 3.8, standard library only."""

DOCUMENTATION = r"""
---
module: nvidia_driver_read
short_description: Read packages, locks, kernels, modules, libraries and container specifications of the driver
description:
  - Returns what is there. What it means is decided on the controller, in one place, where it is tested.
  - All in one call, so that a run that changes nothing costs a host one round trip.
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
  names:
    description: Package names wanted beside the families, such as the kernel's.
    type: list
    elements: str
    default: []
  sysfs:
    description: Where the kernel says which modules are loaded.
    type: path
    default: /sys
  proc_modules:
    description: The kernel's list of loaded modules.
    type: path
    default: /proc/modules
  modules_root:
    description: Directory with one directory a kernel.
    type: path
    default: /lib/modules
  cdi_directories:
    description: Where container specifications of devices lie.
    type: list
    elements: path
    default: [/etc/cdi, /var/run/cdi]
  record:
    description: The file in which the role keeps what it installed.
    type: path
    required: true
  under_way:
    description: The file in which the role keeps what it is installing; it is gone once a lock is written.
    type: path
    required: true
  containers:
    description: Ask each running container of Outpost that has a GPU for the driver it sees.
    type: bool
    default: true
  kernel_log:
    description: Look in the kernel's log for the driver's refusals.
    type: bool
    default: false
  upgrades:
    description: Ask the package manager what an upgrade would move. Takes seconds.
    type: bool
    default: false
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read the driver
  nvidia_driver_read:
    manager: apt
    families: [nvidia-*, libnvidia-*]
    record: /etc/outpost/driver.json
    under_way: /etc/outpost/driver-change-under-way.json
"""

RETURN = r"""
read:
  description: What was found, by kind; see the functions of this file.
  returned: always
  type: dict
"""

import fnmatch
import glob
import json
import os
import re
import subprocess
import time

from ansible.module_utils.basic import AnsibleModule

VERSION = re.compile(r"\.so\.(\d{3}\.\d+(?:\.\d+)*)$")
IN_TEXT = re.compile(r"\.so\.(\d{3}\.\d+(?:\.\d+)*)\b")
LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib",
)
# Where Debian, NVIDIA's RPMs, Ubuntu's signed modules and the .run installer put nvidia.ko, packed or not.
MODULES = (
    "updates/dkms/nvidia*.ko*",
    "updates/dkms/*/nvidia*.ko*",
    "kernel/drivers/video/nvidia*.ko*",
    "kernel/nvidia-*/*/nvidia*.ko*",
    "extra/nvidia*.ko*",
    "extra/*/nvidia*.ko*",
)
# What a driver says when it will not serve a card; NVIDIA's own words.
REFUSALS = (
    "will ignore this GPU",
    "No NVIDIA GPU found",
    "NVRM: API mismatch",
    "requires use of the NVIDIA open kernel modules",
)


def say(*command):
    """What a program prints; empty when it fails or is not there."""
    environment = dict(os.environ, LC_ALL="C")
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, timeout=120
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def first_line(path):
    try:
        with open(path) as file:
            return file.readline().strip()
    except OSError:
        return ""


def text(path):
    try:
        with open(path) as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return ""


def dpkg_packages():
    """name -> version, held, state, of everything dpkg knows but what only left its settings behind."""
    found = {}
    form = "${Package}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\n"
    for line in say("dpkg-query", "-W", "-f", form).splitlines():
        name, version, want, state = line.split("\t")
        if state not in ("not-installed", "config-files") or want == "hold":
            found[name] = {"version": version, "held": want == "hold", "state": state}
    return found


def rpm_packages(versionlock):
    """Likewise; a version has its epoch in front, as dnf's version lock writes it. held: locked by name and version.

    Without dnf's plugin nobody reads the list: whatever stands in it, nothing is held.
    """
    locks = [line.strip() for line in text("/etc/dnf/plugins/versionlock.list").splitlines()]
    locks = {line for line in locks if versionlock and line and line[0] not in "#!"}
    found = {}
    form = "%{NAME}\t%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n"
    for line in say("rpm", "-qa", "--qf", form).splitlines():
        name, version = line.split("\t")
        found[name] = {"version": version, "held": "%s-%s.*" % (name, version) in locks, "state": "installed"}
    return found


def kernels(root):
    """Each installed kernel: the driver's module file and what DKMS says of it, and whether headers are there.

    A directory without a kernel's own list of modules is what a removed one left behind.
    """
    dkms = {}
    for line in say("dkms", "status").splitlines():
        # "nvidia-current/535.261.03, 6.1.0-50-amd64, x86_64: installed"; dkms 2 has a comma after the name.
        match = re.match(r"(nvidia[a-z-]*)[/,] ?([\d.]+), ([^,]+), [^:]+: (\w+)", line)
        # Of two versions known for one kernel the installed one is what loads.
        if match and dkms.get(match.group(3), {}).get("state") != "installed":
            dkms[match.group(3)] = {
                "module": match.group(1),
                "version": match.group(2),
                "state": match.group(4),
            }
    found = []
    for directory in sorted(glob.glob(os.path.join(root, "*"))):
        if not os.path.exists(os.path.join(directory, "modules.builtin")):
            continue
        release = os.path.basename(directory)
        files = [path for pattern in MODULES for path in glob.glob(os.path.join(directory, pattern))]
        version = say("modinfo", "-F", "version", sorted(files, key=len)[0]).strip() if files else ""
        headers = os.path.exists(os.path.join(directory, "build", "Makefile"))
        found.append(
            {"release": release, "headers": headers, "file_version": version, "dkms": dkms.get(release)}
        )
    return found


def libraries():
    """Version -> the driver's libraries of that version. Two versions side by side are what breaks programs later."""
    found = {}
    for directory in LIBRARIES:
        for pattern in ("libnvidia-*.so.*", "libcuda.so.*", "libnvcuvid.so.*"):
            for path in glob.glob(os.path.join(directory, pattern)):
                match = VERSION.search(path)
                if match and not os.path.islink(path):
                    found.setdefault(match.group(1), []).append(path)
    return {version: sorted(set(paths)) for version, paths in found.items()}


def cdi(directories):
    """File -> driver versions its paths name; only specifications of NVIDIA's devices."""
    found = {}
    for directory in directories:
        for path in sorted(glob.glob(os.path.join(directory, "*"))):
            content = text(path)
            if "nvidia.com/" in content:
                found[path] = sorted(set(IN_TEXT.findall(content)))
    return found


def containers():
    """Running containers of Outpost that have a GPU, or should have: what nvidia-smi says inside.

    An answer of several lines (one a GPU) that are all the same is one line.
    """
    found = {}
    for name in say("docker", "ps", "--filter", "name=^outpost-", "--format", "{{.Names}}").split():
        asked = say("docker", "inspect", "--format", "{{json .}}", name)
        container = json.loads(asked) if asked else {}
        settings = container.get("HostConfig", {})
        # The launcher's word for a container that it had to start without.
        withheld = [
            value.partition("=")[2]
            for value in container.get("Config", {}).get("Env") or []
            if value.startswith("OUTPOST_GPU_WITHHELD=")
        ]
        if withheld:
            found[name] = "no GPU was given: %s" % withheld[0]
            continue
        devices = [device.get("PathOnHost", "") for device in settings.get("Devices") or []]
        if (
            settings.get("Runtime") != "nvidia"
            # With CDI: Driver "cdi", DeviceIDs ["nvidia.com/gpu=all"].
            and not settings.get("DeviceRequests")
            and not any("nvidia" in path for path in devices)
        ):
            continue
        command = [
            "docker",
            "exec",
            name,
            "nvidia-smi",
            "--query-gpu=driver_version",
            "--format=csv,noheader",
        ]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
            said = done.stdout.decode(errors="replace").strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            said = str(error)
        # In their order: of a mismatch the first line says what, the second which version.
        found[name] = (
            "; ".join(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip())) or "nothing"
        )
    return found


def installer():
    """Where NVIDIA's own installer has a driver here: a stamp of its list of files, which each of its runs that touches
    anything writes anew, the removal of an older driver first."""
    try:
        listed = os.stat("/var/lib/nvidia/log")
    except OSError:
        return "no list" if os.path.exists("/usr/bin/nvidia-uninstall") else ""
    return "%d-%d" % (listed.st_ino, listed.st_mtime_ns)


def families_locked(manager, families, versionlock):
    """Whether no repository can bring a package of the driver: the lock of a host on which none is installed."""
    if manager == "apt":
        return os.path.exists("/etc/apt/preferences.d/outpost-driver")
    lines = text("/etc/dnf/plugins/versionlock.list").splitlines()
    return versionlock and all("!" + family in lines for family in families)


def old_ramdisks(releases):
    """Initial ramdisks from before the settings that keep nouveau out: they bring it, whatever the settings say.

    A power cut between the two leaves such ones. Without our settings there is nothing to be older than.
    """
    ours = "/etc/modprobe.d/outpost-nouveau.conf"
    if not os.path.exists(ours):
        return []
    settings = [path for path in (ours, "/etc/initramfs-tools/modules") if os.path.exists(path)]
    since = max(os.stat(path).st_mtime for path in settings)
    forms = ("/boot/initrd.img-%s", "/boot/initramfs-%s.img")
    paths = [form % release for release in releases for form in forms]
    return [path for path in paths if os.path.exists(path) and os.stat(path).st_mtime < since]


def nouveau(proc_modules, releases):
    """Every place that brings nouveau in: loaded now, asked for in the initial ramdisk or left in it, named by X."""
    loaded = any(line.split(" ", 1)[0] == "nouveau" for line in text(proc_modules).splitlines())
    ramdisk = [
        line.strip()
        for line in text("/etc/initramfs-tools/modules").splitlines()
        if line.split("#")[0].split()[:1] == ["nouveau"]
    ]
    x11 = bool(re.search(r'^\s*Driver\s+"nouveau"', text("/etc/X11/xorg.conf"), re.MULTILINE))
    return {"loaded": loaded, "initial_ramdisk": ramdisk, "old_ramdisks": old_ramdisks(releases), "xorg": x11}


def upgrades(manager):
    """Names an upgrade of the whole host would install, move or remove now."""
    if manager == "apt":
        said = say("apt-get", "--simulate", "--quiet", "full-upgrade")
        return sorted(set(re.findall(r"^(?:Inst|Remv) (\S+)", said, re.MULTILINE)))
    # --assumeno always ends with an error, so say() cannot be used.
    done = subprocess.run(
        ["dnf", "--quiet", "check-update"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    said = done.stdout.decode(errors="replace").split("Obsoleting Packages")[0]
    return sorted(set(re.findall(r"^(\S+)\.(?:x86_64|noarch|i686)\s", said, re.MULTILINE)))


def secure_boot():
    """on, off, or empty where nobody can say; mokutil is not everywhere, the firmware's variable is."""
    for path in glob.glob("/sys/firmware/efi/efivars/SecureBoot-*"):
        try:
            with open(path, "rb") as file:
                return "on" if file.read()[-1:] == b"\x01" else "off"
        except OSError:
            pass
    return "off" if not os.path.isdir("/sys/firmware/efi") else ""


def digsig_mode():
    """Astra's closed software environment: 0 off, 1 enforced, 2 logs only; empty elsewhere."""
    match = re.search(
        r"^\s*DIGSIG_ELF_MODE\s*=\s*(\d)", text("/etc/digsig/digsig_initramfs.conf"), re.MULTILINE
    )
    return match.group(1) if match else ""


def main():
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "families": {"type": "list", "elements": "str", "required": True},
            "names": {"type": "list", "elements": "str", "default": []},
            "sysfs": {"type": "path", "default": "/sys"},
            "proc_modules": {"type": "path", "default": "/proc/modules"},
            "modules_root": {"type": "path", "default": "/lib/modules"},
            "cdi_directories": {"type": "list", "elements": "path", "default": ["/etc/cdi", "/var/run/cdi"]},
            "record": {"type": "path", "required": True},
            "under_way": {"type": "path", "required": True},
            "containers": {"type": "bool", "default": True},
            "kernel_log": {"type": "bool", "default": False},
            "upgrades": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    asked = module.params
    versionlock = os.path.exists("/etc/dnf/plugins/versionlock.conf")
    known = dpkg_packages() if asked["manager"] == "apt" else rpm_packages(versionlock)
    belongs = re.compile("|".join(fnmatch.translate(pattern) for pattern in asked["families"]))
    names = set(asked["names"])
    record, under_way = text(asked["record"]), text(asked["under_way"])
    log = say("journalctl", "--dmesg", "--boot", "--no-pager", "--output=cat") if asked["kernel_log"] else ""
    there = kernels(asked["modules_root"])
    units = say(
        "systemctl", "list-units", "--plain", "--no-legend", "--state=running,activating", "outpost@*.service"
    )
    read = {
        "packages": {name: known[name] for name in sorted(known) if name in names or belongs.match(name)},
        "kernels": there,
        "kernel": os.uname().release,
        "loaded": first_line(os.path.join(asked["sysfs"], "module/nvidia/version")),
        "libraries": libraries(),
        "cdi": cdi(asked["cdi_directories"]),
        "toolkit": os.path.exists("/usr/bin/nvidia-ctk"),
        "persistenced": os.path.exists("/lib/systemd/system/nvidia-persistenced.service"),
        "versionlock": versionlock,
        "families_locked": families_locked(asked["manager"], asked["families"], versionlock),
        "installer": installer(),
        "nouveau": nouveau(asked["proc_modules"], [kernel["release"] for kernel in there]),
        "secure_boot": secure_boot(),
        "digsig_mode": digsig_mode(),
        "containers": containers() if asked["containers"] else {},
        "refusals": [line for line in log.splitlines() if any(words in line for words in REFUSALS)][:5],
        "upgrades": upgrades(asked["manager"]) if asked["upgrades"] else [],
        "units": [line.split()[0] for line in units.splitlines() if line.strip()],
        "record": json.loads(record) if record else {},
        "under_way": json.loads(under_way) if under_way else {},
        "clock": time.time(),
    }
    module.exit_json(changed=False, read=read)


if __name__ == "__main__":
    main()
