"""Reads what else a run rests on: the package tool and its repositories, the release's web server, places to write.

Changes nothing; Python 3.8, standard library only. What it means is decided on the controller
(service/outpost/platform/surroundings.py).
"""

import configparser
import contextlib
import glob
import os
import socket
import subprocess
import urllib.error
import urllib.request
from urllib.parse import urlsplit

# Where a run writes; on a host whose disk has failed the kernel makes them read-only.
TEMPORARY = "/tmp"  # noqa: S108 - nothing is written there, its room is read
WRITTEN = ("/etc", "/opt", "/run", TEMPORARY, "/usr", "/var/lib")
DOCKER_SETTINGS = "/etc/docker/daemon.json"
PORTS = {"http": 80, "https": 443, "ftp": 21}


def said(command, timeout=60):
    """Standard output of a command, in English; empty where there is no such program or it does not end."""
    environment = dict(os.environ, LC_ALL="C", LANGUAGE="C")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            timeout=timeout, check=False, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def existing(path):
    """The path, or its nearest parent that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def writable():
    """Maps each directory that a run writes to, to whether root may: not on a read-only file system, not immutable."""
    return {path: os.access(existing(path), os.W_OK) for path in WRITTEN}


def free_inodes(paths):
    """Maps each path to the number of files it can still take; -1 where the file system counts none."""
    counted = {}
    for path in paths:
        found = os.statvfs(existing(path))
        counted[path] = found.f_favail if found.f_files else -1
    return counted


def apt_repositories():
    """Addresses of the repositories, each with the proxy that apt asks it through, or empty."""
    # 'ADDRESS/dists/SUITE/InRelease' and a file's name, a row each.
    rows = said(["apt-get", "--print-uris", "update"]).splitlines()
    sites = [row.split("'")[1].partition("/dists/")[0] for row in rows if row.startswith("'")]
    proxies = {}
    for row in said(["apt-config", "dump"]).splitlines():
        name, _, value = row.partition(" ")
        parts = name.lower().split("::")
        if parts[0] == "acquire" and parts[-1] == "proxy" and len(parts) == 3:
            proxies[parts[1]] = value.strip().strip(';"')
    return {site: proxy_of(site, proxies.get(urlsplit(site).scheme, "")) for site in sites}


def dnf_repositories(etc="/etc"):
    """The same of dnf: of each repository that is switched on its first address."""
    main = configparser.ConfigParser(interpolation=None, strict=False)
    found = {}
    with contextlib.suppress(configparser.Error, UnicodeDecodeError):
        main.read(etc + "/dnf/dnf.conf")
    for file in sorted(glob.glob(etc + "/yum.repos.d/*.repo")):
        one = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            one.read(file)
        except (configparser.Error, UnicodeDecodeError):
            continue
        for name in one.sections():
            section = one[name]
            if section.get("enabled", "1").strip().lower() in ("0", "false", "no"):
                continue
            address = (
                section.get("baseurl") or section.get("metalink") or section.get("mirrorlist") or ""
            ).split()
            if address:
                # An empty one of the repository's own leaves out that of [main]. yum's word _none_ is a name to dnf 4.
                proxy = section.get("proxy", main.get("main", "proxy", fallback=""))
                found[address[0]] = proxy_of(address[0], proxy)
    return found


def proxy_of(address, configured):
    """The proxy that a package tool asks an address through: its own setting, or that of the environment."""
    if configured:
        return "" if configured.upper() == "DIRECT" else configured
    scheme = urlsplit(address).scheme
    host = urlsplit(address).hostname or ""
    return "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, "")


def reachable(address, proxy, timeout):
    """ "ok", or why there is no TCP connection to where an address is asked for. Files and discs are there."""
    parts = urlsplit(proxy if "//" in proxy else "http://" + proxy) if proxy else urlsplit(address)
    if parts.scheme not in PORTS or not parts.hostname or "$" in parts.hostname:
        return "ok"
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), timeout=timeout).close()
    except (OSError, ValueError) as error:
        return "%s%s" % (error, " (proxy %s)" % parts.hostname if proxy else "")
    return "ok"


def whole_archive_there(archive):
    """Whether the release's archive lies on the host already, by its size."""
    try:
        return os.path.getsize(archive["path"]) == archive["bytes"]
    except OSError:
        return False


def offered(archive, timeout):
    """ "ok", or why the web server will not give the release's archive."""
    handlers = [] if archive["by_proxy"] else [urllib.request.ProxyHandler({})]
    request = urllib.request.Request(archive["url"], method="HEAD")  # noqa: S310 - of the inventory; get_url asks it, too
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            length = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        # A server that knows no HEAD is asked with GET in the run itself.
        return "ok" if error.code in (405, 501) else "HTTP %d" % error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    if length.isdigit() and int(length) != archive["bytes"]:
        return "%s bytes, not %d" % (length, archive["bytes"])
    return "ok"


def surroundings(packages, archive, timeout, all_at_once):
    """All of it. packages: {manager, names, script} or empty; archive: {url, path, bytes, by_proxy} or empty."""
    read = {
        "writable": writable(), "packages": "", "repositories": {}, "release": "",
        "archive_there": bool(archive) and whole_archive_there(archive),
    }  # fmt: skip
    if packages:
        read["packages"] = said(["/bin/sh", "-c", packages["script"]], timeout=120)
        whole = sum(row.startswith(("is|ii |", "is|hi |")) for row in read["packages"].splitlines())
        if whole < len(packages["names"]):
            places = apt_repositories() if packages["manager"] == "apt" else dnf_repositories()
            read["repositories"] = all_at_once(
                lambda place: reachable(place, places[place], timeout),
                places,
                timeout,
                "no answer in %g s" % timeout,
            )
    if archive and archive["url"] and not read["archive_there"]:
        read["release"] = offered(archive, timeout)
    return read
