#!/usr/bin/python
"""Reads which clusters of PostgreSQL a host has and what is in them, running or not. Changes nothing.

Python 3.8, standard library only.
"""

DOCUMENTATION = r"""
---
module: postgresql_clusters
short_description: Read every cluster of PostgreSQL of a host from its files
description:
  - Finds clusters by the configuration of Debian's postgresql-common, by the usual directories of both families, by the
    units that name a data directory, and by the servers that run. One that is down is read from its files.
  - What they mean is decided on the controller (outpost.controller.clusters).
options:
  mark:
    description: File in which the role remembers the cluster that holds its database.
    type: path
    required: true
  traces:
    description: Patterns of files that exist only where a database has been used.
    type: list
    elements: str
    default: []
  root:
    description: Directory that is read as the host's root; for tests.
    type: path
    default: /
author: [Outpost]
"""

EXAMPLES = r"""
- name: Read the clusters
  postgresql_clusters:
    mark: /etc/outpost/database-outpost.json
"""

RETURN = r"""
read:
  description: >-
    clusters (list), mark (dict or null; "damaged" where it cannot be read), traces (paths), unmounted (mount points of
    fstab and of systemd that are not mounted), installed (major version to directory of programs).
  returned: always
  type: dict
"""

import glob
import json
import os
import pwd
import re
import struct
import subprocess

from ansible.module_utils.basic import AnsibleModule

PAGE = 8192
MAP_MAGIC = 0x592717
PG_DATABASE = 1262
# Databases that initdb makes; their numbers differ between versions, their names do not.
OWN = ("template0", "template1", "postgres")
XMAX_INVALID, XMAX_LOCK_ONLY = 0x0800, 0x0080  # of a row's head: nobody has deleted or replaced it
ASK = "SELECT datname FROM pg_database"
SHUT_DOWN = (1, 2)  # DB_SHUTDOWNED, DB_SHUTDOWNED_IN_RECOVERY of pg_control.h


def text_of(path):
    """The file's text, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def setting(path, found, depth=0):
    """Reads a configuration file of the server into `found`; a later line counts, includes are followed."""
    if depth > 5:
        return found
    for line in text_of(path).splitlines():
        match = re.match(r"\s*([A-Za-z_]+)\s*(?:=\s*|\s+)('(?:[^']|'')*'|[^\s#']+)", line)
        if not match:
            continue
        name, value = match.group(1).lower(), match.group(2).strip("'").replace("''", "'")
        where = os.path.join(os.path.dirname(path), value)
        if name == "include_dir":
            for more in sorted(glob.glob(os.path.join(where, "*.conf"))):
                setting(more, found, depth + 1)
        elif name in ("include", "include_if_exists"):
            setting(where, found, depth + 1)
        else:
            found[name] = value
    return found


def control(data):
    """(system identifier as text, whether it was shut down cleanly); ("", False) where pg_control cannot be read."""
    try:
        with open(os.path.join(data, "global/pg_control"), "rb") as file:
            head = file.read(20)
        identifier, _, _, state = struct.unpack("=QIII", head)
    except (OSError, struct.error):
        return "", False
    return (str(identifier) if identifier else ""), state in SHUT_DOWN


def node_of(data, relation):
    """The file of a mapped relation of global/."""
    try:
        with open(os.path.join(data, "global/pg_filenode.map"), "rb") as file:
            content = file.read(512)
        magic, count = struct.unpack_from("=ii", content)
        if magic == MAP_MAGIC:
            for number in range(min(count, 62)):
                oid, node = struct.unpack_from("=II", content, 8 + 8 * number)
                if oid == relation:
                    return node
    except (OSError, struct.error):
        pass
    return relation


def rows_of_pg_database(content, with_oids):
    """(oid, name, whether it is the newest) of every row that a page holds, also of rows deleted or replaced since."""
    for start in range(0, len(content) - PAGE + 1, PAGE):
        page = content[start : start + PAGE]
        lower = struct.unpack_from("=H", page, 12)[0]
        if not 24 <= lower <= PAGE:
            continue
        for at in range(24, lower - 3, 4):
            pointer = struct.unpack_from("=I", page, at)[0]
            offset, flags = pointer & 0x7FFF, (pointer >> 15) & 3
            if flags != 1 or offset + 24 > PAGE:
                continue
            body = offset + page[offset + 22]
            if body + 68 > PAGE:
                continue
            # Before version 12 the number is the end of the row's head, since then its first column.
            oid = struct.unpack_from("=I", page, body - 4 if with_oids else body)[0]
            name = page[body if with_oids else body + 4 :][:64]
            gone, mask = (
                struct.unpack_from("=I", page, offset + 4)[0],
                struct.unpack_from("=H", page, offset + 20)[0],
            )
            newest = gone == 0 or bool(mask & (XMAX_INVALID | XMAX_LOCK_ONLY))
            yield oid, name.split(b"\0")[0].decode("utf-8", "replace"), newest


def databases(data, version):
    """(names of the databases that have files, whether there are files of databases without a name)."""
    try:
        with open(os.path.join(data, "global", str(node_of(data, PG_DATABASE))), "rb") as file:
            content = file.read()
    except OSError:
        return [], True
    old = version.startswith("9.") or (version.isdigit() and int(version) < 12)
    named, before = {}, {}
    for oid, name, newest in rows_of_pg_database(content, old):
        (named if newest else before).setdefault(str(oid), set()).add(name)
    named = dict(before, **named)  # one that was renamed has its new name alone
    present = set()
    for folder in [os.path.join(data, "base"), *glob.glob(os.path.join(data, "pg_tblspc/*/PG_*"))]:
        try:
            present.update(name for name in os.listdir(folder) if name.isdigit())
        except OSError:
            continue
    names = set()
    for oid in present:
        names |= named.get(oid, set())
    unnamed = any(int(oid) >= 16384 and oid not in named for oid in present)
    return sorted(names - set(OWN)), unnamed or not present


def mounts(root):
    """Mount points, as /proc/mounts writes them."""
    found = set()
    for line in text_of(os.path.join(root, "proc/mounts")).splitlines():
        words = line.split()
        if len(words) > 1:
            found.add(words[1].replace("\\040", " "))
    return found


def unmounted(root):
    """Mount points that fstab or a unit of systemd names and that are not mounted: [{path, from}]."""
    now, wanted = mounts(root), {}
    for line in text_of(os.path.join(root, "etc/fstab")).splitlines():
        words = line.split("#")[0].split()
        if len(words) > 2 and words[1].startswith("/") and words[2] != "swap":
            wanted[words[1].replace("\\040", " ")] = "/etc/fstab"
    for folder in ("etc/systemd/system", "run/systemd/generator"):
        for unit in glob.glob(os.path.join(root, folder, "*.mount")):
            for where in re.findall(r"^Where=(/\S*)", text_of(unit), re.MULTILINE):
                wanted.setdefault(where, "/" + os.path.relpath(unit, root))
    normal = {path: path.rstrip("/") or "/" for path in wanted}
    return [
        {"path": normal[path], "from": source}
        for path, source in sorted(wanted.items())
        if normal[path] not in now and normal[path] != "/"
    ]


def installed(root):
    """Major version -> directory of the server's programs."""
    found = {}
    for pattern in (
        "usr/lib/postgresql/*/bin/postgres",
        "usr/pgsql-*/bin/postgres",
        "opt/pgpro/*/bin/postgres",
    ):
        for program in glob.glob(os.path.join(root, pattern)):
            folder = os.path.dirname(program)
            version = re.search(r"(\d+(?:\.\d+)?)$", os.path.dirname(folder))
            if version:
                found.setdefault(version.group(1), folder)
    program = os.path.join(root, "usr/bin/postgres")
    if os.path.exists(program):
        try:
            said = subprocess.run(
                [program, "--version"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=20,
                check=False,
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.TimeoutExpired):
            said = ""
        version = re.search(r"(\d+)(?:\.(\d+))?", said)
        if version:
            major = version.group(1) if int(version.group(1)) >= 10 else "%s.%s" % version.groups()
            found.setdefault(major, os.path.dirname(program))
    return found


def unit_directories(root):
    """Data directory -> unit that names it."""
    found = {}
    for folder in ("usr/lib/systemd/system", "lib/systemd/system", "etc/systemd/system"):
        for path in sorted(
            glob.glob(os.path.join(root, folder, "postgres*.service"))
            + glob.glob(os.path.join(root, folder, "postgres*.service.d/*.conf"))
        ):
            unit = re.search(r"/(postgres[^/]*\.service)", path)
            for where in re.findall(r"^Environment=\"?PGDATA=([^\s\"]+)", text_of(path), re.MULTILINE):
                if "%" not in where and unit:
                    found[where.rstrip("/")] = unit.group(1)
    return found


def running_directories(root):
    """Data directories of the servers that run on this host; those of containers have another root."""
    found = set()
    here = os.stat(root)
    for pid in filter(
        str.isdigit,
        os.listdir(os.path.join(root, "proc")) if os.path.isdir(os.path.join(root, "proc")) else [],
    ):
        base = os.path.join(root, "proc", pid)
        try:
            with open(os.path.join(base, "comm")) as comm:
                if comm.read().strip() not in ("postgres", "postmaster"):
                    continue
            theirs = os.stat(os.path.join(base, "root"))
            with open(os.path.join(base, "cmdline"), "rb") as file:
                words = file.read().decode("utf-8", "replace").split("\0")
        except OSError:
            continue
        if (theirs.st_dev, theirs.st_ino) == (here.st_dev, here.st_ino) and "-D" in words[:-1]:
            found.add(words[words.index("-D") + 1].rstrip("/"))
    return found


def runs(root, data):
    """(port, directory of sockets) of the server that runs on a data directory, or None."""
    lines = text_of(os.path.join(data, "postmaster.pid")).splitlines()
    if len(lines) < 4 or not lines[0].strip().isdigit():
        return None
    comm = text_of(os.path.join(root, "proc", lines[0].strip(), "comm")).strip()
    if comm not in ("postgres", "postmaster"):
        return None
    return lines[3].strip(), lines[4].strip() if len(lines) > 4 else ""


def asked(data, programs, port, sockets):
    """The databases that a running server names; None where it does not answer. Its files may be minutes behind."""
    try:
        owner = pwd.getpwuid(os.stat(data).st_uid).pw_name
        psql = os.path.join(programs, "psql") if programs else "psql"
        question = [
            psql,
            "-X",
            "-A",
            "-t",
            "-w",
            "-h",
            sockets,
            "-p",
            port,
            "-U",
            "postgres",
            "-d",
            "template1",
            "-c",
            ASK,
        ]
        done = subprocess.run(
            ["runuser", "-u", owner, "--", *question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
            timeout=20, check=False, env=dict(os.environ, LC_ALL="C", PGCONNECT_TIMEOUT="10", PGAPPNAME="outpost"),
        )  # fmt: skip
    except (OSError, KeyError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    return sorted(set(done.stdout.decode("utf-8", "replace").split("\n")) - set(OWN) - {""})


def contents(data):
    """missing, empty, initialised, or other: files that are no cluster."""
    if not os.path.isdir(data):
        return "missing"
    if os.path.exists(os.path.join(data, "PG_VERSION")):
        return "initialised"
    return "other" if [name for name in os.listdir(data) if name != "lost+found"] else "empty"


def cluster(root, layout, version, name, config, data, unit, programs):
    """One cluster as it is told to the controller; paths without `root`."""
    inside = os.path.join(root, data.lstrip("/"))
    settings = setting(os.path.join(root, config.lstrip("/"), "postgresql.conf"), {})
    settings = setting(os.path.join(inside, "postgresql.auto.conf"), settings)
    data_version = text_of(os.path.join(inside, "PG_VERSION")).strip()
    serves = runs(root, inside)
    identifier, clean = control(inside)
    what = contents(inside)
    names, unnamed = databases(inside, data_version) if what == "initialised" else ([], False)
    version = version or data_version
    program = programs.get(data_version or version, "")
    told = asked(inside, program, *serves) if serves else None
    if told is not None:
        names, unnamed = told, False
    return {
        "layout": layout,
        "version": version,
        "name": name,
        "config": config,
        "data": data,
        "unit": unit,
        "port": serves[0] if serves else settings.get("port", "5432"),
        "running": serves is not None,
        "contents": what,
        "data_version": data_version,
        "system_identifier": identifier,
        "clean": clean,
        "databases": names,
        "unnamed": unnamed,
        "programs": program,
    }


def clusters(root, programs):
    found, seen = [], set()

    def add(layout, version, name, config, data, unit):
        real = os.path.realpath(os.path.join(root, data.lstrip("/")))
        if real in seen:
            return
        seen.add(real)
        found.append(cluster(root, layout, version, name, config, data, unit, programs))

    for path in sorted(glob.glob(os.path.join(root, "etc/postgresql/*/*/postgresql.conf"))):
        config = os.path.dirname(path)
        version, name = config.split(os.sep)[-2:]
        data = setting(path, {}).get("data_directory", "/var/lib/postgresql/%s/%s" % (version, name))
        unit = "postgresql@%s-%s.service" % (version, name)
        add("deb", version, name, "/" + os.path.relpath(config, root), data, unit)
    for data in sorted(glob.glob(os.path.join(root, "var/lib/postgresql/*/*/"))):
        version, name = data.rstrip(os.sep).split(os.sep)[-2:]
        if contents(data) == "initialised":  # its configuration was removed, or never made
            where = "/" + os.path.relpath(data, root)
            add("orphan", version, name, where, where, "")
    units = unit_directories(root)
    for data, unit in sorted(units.items()):
        if os.path.isdir(os.path.join(root, data.lstrip("/"))):
            version = re.search(r"-(\d+(?:\.\d+)?)\.service", unit)
            add("rpm", version.group(1) if version else "", "data", data, data, unit)
    for pattern in ("var/lib/pgsql/data", "var/lib/pgsql/*/data"):
        for folder in sorted(glob.glob(os.path.join(root, pattern))):
            data = "/" + os.path.relpath(folder, root)
            version = re.search(r"/pgsql/(\d+(?:\.\d+)?)/data$", data)
            unit = "postgresql-%s.service" % version.group(1) if version else "postgresql.service"
            add("rpm", version.group(1) if version else "", "data", data, data, unit)
    for data in sorted(running_directories(root)):
        add("other", "", os.path.basename(data), data, data, "")
    return found


def read_mark(path):
    """What the role remembered; None where there is nothing, "damaged" where it cannot be read."""
    if not os.path.exists(path):
        return None
    try:
        mark = json.loads(text_of(path))
        return mark if mark["system_identifier"] else "damaged"
    except (ValueError, KeyError, TypeError):
        return "damaged"


def read(root, mark, traces):
    """All that the controller judges by."""
    programs = installed(root)
    patterns = [os.path.join(root, pattern.lstrip("/")) for pattern in traces]
    found = [path for pattern in patterns for path in glob.glob(pattern)]
    return {
        "clusters": clusters(root, programs),
        "mark": read_mark(os.path.join(root, mark.lstrip("/"))),
        "traces": sorted("/" + os.path.relpath(path, root) for path in found),
        "unmounted": unmounted(root),
        "installed": programs,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "mark": {"type": "path", "required": True},
            "traces": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    asked_for = module.params
    module.exit_json(changed=False, read=read(asked_for["root"], asked_for["mark"], asked_for["traces"]))


if __name__ == "__main__":
    main()
