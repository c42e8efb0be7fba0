"""What the lab's RPM repository holds, and which Debian packages each RPM is made from.

Names and paths are those of RED OS where the project's references confirm them (`postgresql15-server` and its
unit, `docker-ce-cli`, `runc`). `docker-ce`, `containerd.io`, `chrony` with its paths and the others follow
RHEL-like systems and are NOT verified on a RED OS host.

`python3 -m outpost_lab.rpm_catalogue` (in lab/) prints mirror.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rpm:
    """One RPM. `files` are globs on absolute paths; the first RPM of a payload that matches a file has it.

    `*` stays within one directory, a final `**` takes all below.
    """

    name: str
    summary: str
    files: tuple[str, ...] = ("/**",)
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    # Directories with an owner of their own: (path, mode, user, group).
    directories: tuple[tuple[str, str, str, str], ...] = ()
    before_install: str = ""
    after_install: str = ""
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Payload:
    """Debian packages unpacked into one tree, rearranged, split into RPMs with the first package's version.

    `moves` rename files or directories; `edits` replace text that must be there; `drop` are globs. Files of
    lab/images/rpm/payloads/<name>/ join the tree last.
    """

    name: str
    debs: tuple[str, ...]
    licence: str
    rpms: tuple[Rpm, ...]
    moves: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    edits: tuple[tuple[str, str, str], ...] = ()
    drop: tuple[str, ...] = ()
    remarks: tuple[str, ...] = field(default=())


def _system_user(name: str, home: str, comment: str, shell: str = "/sbin/nologin") -> str:
    return (
        f"getent group {name} >/dev/null || groupadd -r {name}\n"
        f"getent passwd {name} >/dev/null"
        f" || useradd -r -M -g {name} -d {home} -s {shell} -c '{comment}' {name}\n"
    )


_PG = "/usr/pgsql-15"
# PostgreSQL's own split: these make a server; every other module and extension is contrib.
_PG_SERVER_MODULES = tuple(
    f"{_PG}/lib/{pattern}.so"
    for pattern in ("plpgsql", "dict_snowball", "libpqwalreceiver", "pgoutput", "*_and_*", "euc2004_sjis2004")
)
_PG_CLIENT_PROGRAMS = (
    "clusterdb createdb createuser dropdb dropuser pg_basebackup pg_dump pg_dumpall pg_isready pg_receivewal "
    "pg_restore psql reindexdb vacuumdb"
).split()

POSTGRESQL = Payload(
    name="postgresql15",
    debs=("postgresql-15", "postgresql-client-15", "libpq5"),
    licence="PostgreSQL",
    moves=(
        ("/usr/lib/postgresql/15/bin", f"{_PG}/bin"),
        ("/usr/lib/postgresql/15/lib", f"{_PG}/lib"),
        ("/usr/share/postgresql/15", f"{_PG}/share"),
        ("/usr/lib/x86_64-linux-gnu/libpq.so.5*", f"{_PG}/lib"),
    ),
    # Debian's binaries have the Debian directories compiled in.
    links=(
        ("/usr/lib/postgresql/15/lib", f"{_PG}/lib"),
        ("/usr/share/postgresql/15", f"{_PG}/share"),
        *((f"/usr/bin/{program}", f"{_PG}/bin/{program}") for program in _PG_CLIENT_PROGRAMS),
    ),
    drop=(
        f"{_PG}/lib/bitcode*",
        f"{_PG}/lib/llvmjit*",
        f"{_PG}/lib/pgxs*",
        f"{_PG}/lib/sepgsql.so",
        f"{_PG}/bin/pg_config",
    ),
    rpms=(
        Rpm(
            "postgresql15-libs",
            "Client library of PostgreSQL 15",
            # All of its packages' messages in other languages lie together.
            files=(
                f"{_PG}/lib/libpq.so*",
                "/etc/ld.so.conf.d/*",
                "/usr/share/doc/libpq5/**",
                "/usr/share/locale/**",
            ),
            after_install="/sbin/ldconfig\n",
        ),
        Rpm(
            "postgresql15",
            "Client programs of PostgreSQL 15",
            files=(
                *(
                    f"{_PG}/bin/{program}"
                    for program in (*_PG_CLIENT_PROGRAMS, "pg_amcheck", "pg_recvlogical")
                ),
                f"{_PG}/bin/pg_verifybackup",
                f"{_PG}/share/psqlrc.sample",
                "/usr/bin/*",
                "/usr/share/doc/postgresql-client-15/**",
            ),
            requires=("postgresql15-libs = {version}-{release}",),
        ),
        Rpm(
            "postgresql15-server",
            "Server of PostgreSQL 15",
            files=(
                *_PG_SERVER_MODULES,
                f"{_PG}/share/extension/plpgsql*",
                *(f"{_PG}/bin/{name}" for name in ("initdb", "pg_[actwru]*", "post*")),
                f"{_PG}/share/*",
                f"{_PG}/share/timezonesets/**",
                f"{_PG}/share/tsearch_data/**",
                "/usr/lib/**",
                "/usr/share/postgresql/**",
                "/usr/share/doc/postgresql-15/**",
                "/var/**",
            ),
            requires=("postgresql15 = {version}-{release}", "tzdata", "shadow-utils", "systemd"),
            directories=(
                ("/var/lib/pgsql", "0700", "postgres", "postgres"),
                ("/var/lib/pgsql/15", "0700", "postgres", "postgres"),
                ("/var/lib/pgsql/15/backups", "0700", "postgres", "postgres"),
                ("/var/lib/pgsql/15/data", "0700", "postgres", "postgres"),
            ),
            before_install=_system_user("postgres", "/var/lib/pgsql", "PostgreSQL Server", "/bin/bash"),
            after_install="systemd-tmpfiles --create postgresql-15.conf || :\n",
            units=("postgresql-15.service",),
        ),
        Rpm(
            "postgresql15-contrib",
            "Extensions of PostgreSQL 15, postgres_fdw among them",
            files=(f"{_PG}/**",),
            requires=("postgresql15-server = {version}-{release}",),
        ),
    ),
    remarks=(
        "no JIT (RED OS-like repositories carry it apart, as postgresql15-llvmjit), no pgxs, no sepgsql",
        "no Debian cluster tools, no self-signed certificate",
    ),
)

DOCKER = Payload(
    name="docker",
    debs=("docker.io", "tini"),
    licence="Apache-2.0 AND MIT",
    moves=(
        ("/usr/sbin/dockerd", "/usr/bin/dockerd"),
        ("/usr/sbin/docker-proxy", "/usr/bin/docker-proxy"),
        ("/usr/bin/tini-static", "/usr/bin/docker-init"),
    ),
    edits=(
        ("/usr/lib/systemd/system/docker.service", "/usr/sbin/dockerd", "/usr/bin/dockerd"),
        ("/usr/lib/systemd/system/docker.service", "/etc/default/docker", "/etc/sysconfig/docker"),
    ),
    drop=(
        "/etc/init.d*",
        "/etc/default*",
        "/usr/bin/dnet",
        "/usr/bin/tini",
        "/usr/sbin/ovrouter",
        "/usr/share/docker.io*",
        "/usr/share/fish*",
        "/usr/share/zsh*",
        "/usr/share/bash-completion*",
    ),
    rpms=(
        Rpm(
            "docker-ce-cli",
            "The docker command",
            files=("/usr/bin/docker",),
        ),
        Rpm(
            "docker-ce",
            "Docker engine",
            requires=("docker-ce-cli", "containerd.io", "iptables", "shadow-utils"),
            directories=(("/etc/docker", "0755", "root", "root"),),
            before_install="getent group docker >/dev/null || groupadd -r docker\n",
            units=("docker.service", "docker.socket"),
        ),
    ),
    remarks=("Debian's version of the engine, years older than the one in RED OS 8",),
)

CONTAINERD = Payload(
    name="containerd",
    debs=("containerd",),
    licence="Apache-2.0",
    drop=("/usr/share/zsh*",),
    rpms=(
        Rpm(
            "containerd.io",
            "Container runtime under Docker",
            requires=("runc",),
            provides=("containerd = {version}-{release}",),
            units=("containerd.service",),
        ),
    ),
)

RUNC = Payload(
    name="runc",
    debs=("runc",),
    licence="Apache-2.0",
    rpms=(Rpm("runc", "Command that starts containers"),),
)

CHRONY = Payload(
    name="chrony",
    debs=("chrony",),
    licence="GPL-2.0-only",
    # Debian's binary has /etc/chrony/chrony.conf compiled in.
    links=(("/etc/chrony/chrony.conf", "/etc/chrony.conf"),),
    drop=(
        "/etc/apparmor.d*",
        "/etc/chrony/*.d*",
        "/etc/default*",
        "/etc/dhcp*",
        "/etc/init.d*",
        "/etc/network*",
        "/etc/ppp*",
        "/usr/lib/NetworkManager*",
        "/usr/lib/networkd-dispatcher*",
        "/usr/lib/systemd/system/chrony.service",
        "/usr/lib/systemd/system/chrony-*",
        "/usr/libexec*",
        "/usr/share/chrony*",
    ),
    rpms=(
        Rpm(
            "chrony",
            "NTP client and server",
            requires=("shadow-utils", "systemd", "tzdata"),
            directories=(
                ("/var/lib/chrony", "0750", "chrony", "chrony"),
                ("/var/log/chrony", "0755", "chrony", "chrony"),
            ),
            before_install=_system_user("chrony", "/var/lib/chrony", "chrony"),
            units=("chronyd.service",),
        ),
    ),
)

PSYCOPG2 = Payload(
    name="psycopg2",
    debs=("python3-psycopg2",),
    licence="LGPL-3.0-or-later WITH OpenSSL-exception",
    rpms=(Rpm("python3-psycopg2", "PostgreSQL for Python, used by Ansible's modules"),),
    remarks=("in Debian's dist-packages: the interpreter of the stand-in is Debian's",),
)

LIBXSLT = Payload(
    name="libxslt",
    debs=("libxslt1.1",),
    licence="MIT",
    rpms=(Rpm("libxslt", "XSLT library, needed by an extension of PostgreSQL"),),
)

ACL = Payload(
    name="acl",
    debs=("acl",),
    licence="GPL-2.0-or-later",
    rpms=(Rpm("acl", "Access control lists; Ansible uses setfacl to become an unprivileged user"),),
)

RSYNC = Payload(
    name="rsync",
    debs=("rsync",),
    licence="GPL-3.0-or-later",
    drop=("/etc/init.d*", "/etc/default*", "/usr/share/rsync*", "/usr/lib/systemd*"),
    rpms=(Rpm("rsync", "Copies files, resumes what was interrupted"),),
)

TAR = Payload(
    name="tar",
    debs=("tar",),
    licence="GPL-3.0-or-later",
    drop=("/etc/rmt", "/usr/sbin*", "/usr/lib/mime*"),
    rpms=(Rpm("tar", "Archiver"),),
)

CATALOGUE = (POSTGRESQL, DOCKER, CONTAINERD, RUNC, CHRONY, PSYCOPG2, LIBXSLT, ACL, RSYNC, TAR)


def as_markdown() -> str:
    """The published list, mirror.md."""
    lines = [
        "# What the lab's RPM mirror holds",
        "",
        "Generated by `python3 -m outpost_lab.rpm_catalogue` in `lab/`; a unit test keeps it true.",
        "The RPMs are Debian's binaries under the names, paths and units of RED OS. They test our roles and",
        "`dnf`, not RED OS's own packages. Confirmed for RED OS: `postgresql15-server` with",
        "`postgresql-15-setup` and its unit, `docker-ce-cli`, `runc`. The other names are not verified.",
        "",
        "| RPM | from Debian's | units | remarks |",
        "|---|---|---|---|",
    ]
    for payload in CATALOGUE:
        for rpm in payload.rpms:
            units = ", ".join(f"`{unit}`" for unit in rpm.units)
            debs = ", ".join(f"`{deb}`" for deb in payload.debs)
            lines.append(f"| `{rpm.name}` | {debs} | {units} | {'; '.join(payload.remarks)} |")
    lines += [
        "",
        "What the stand-in's root file system itself holds (libraries, shells, Python) is known to rpm",
        "through one package, `lab-base-system`, whose Provides are computed from the files.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown(), end="")
