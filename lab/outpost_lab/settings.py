"""What the lab consists of: hosts, addresses, ports, directories; read from LAB_* variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from outpost_lab.errors import LabError

REPOSITORY = Path(__file__).resolve().parents[2]

# OSes a host can have; the appliances (mirror, hospital) are servers of the lab, not hosts under test.
HOST_OSES = ("ubuntu", "astra", "redos")
APPLIANCES = ("mirror", "hospital")

# Debian releases that stand-ins can be made of. The RPMs of `redos` are bookworm's whatever this says.
SUITES = ("bookworm", "trixie")

# Narrower than what Docker allows: the name also goes into ssh_config and into an nft table.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_PREFIX = re.compile(r"(\d{1,3})\.(\d{1,3})")


@dataclass(frozen=True)
class Host:
    """One container. `page` is (port in the container, port on the machine's loopback)."""

    name: str
    os: str
    vpn_octet: int | None
    hospital_octet: int | None
    page: tuple[int, int] | None = None

    @property
    def is_region(self) -> bool:
        return self.os in HOST_OSES and self.hospital_octet is not None

    @property
    def has_ssh(self) -> bool:
        return self.os in HOST_OSES


HOSTS = (
    Host("centre", "ubuntu", 10, None, (8090, 18090)),
    Host("chita", "ubuntu", 11, 11, (8080, 18080)),
    Host("tver", "astra", 12, 12, (8080, 18081)),
    Host("train", "redos", 13, 13, (8080, 18082)),
    Host("mirror", "mirror", 2, None),
    Host("hospital", "hospital", None, 5, (8042, 18042)),
)


@dataclass(frozen=True)
class Settings:
    """One lab. `vendor_images` maps an OS to the vendor's image that replaces our stand-in; `suite` is the Debian
    release that stand-ins are made of."""

    name: str
    vpn_prefix: str
    hospital_prefix: str
    directory: Path
    publish: bool
    vendor_images: Mapping[str, str]
    suite: str = "bookworm"

    @property
    def state(self) -> Path:
        """What belongs to this lab alone: SSH key, ssh_config, known_hosts."""
        return self.directory / self.name

    @property
    def cache(self) -> Path:
        """What labs share: the repackaged RPMs and the key they are signed with."""
        return self.directory / "cache"

    @property
    def vpn_network(self) -> str:
        return f"{self.name}-vpn"

    @property
    def hospital_network(self) -> str:
        return f"{self.name}-hospital"

    def container(self, host: Host) -> str:
        return f"{self.name}-{host.name}"

    def docker_volume(self, host: Host) -> str:
        return f"{self.name}-{host.name}-docker"

    def vpn_address(self, host: Host) -> str | None:
        return None if host.vpn_octet is None else f"{self.vpn_prefix}.0.{host.vpn_octet}"

    def hospital_address(self, host: Host) -> str | None:
        return None if host.hospital_octet is None else f"{self.hospital_prefix}.0.{host.hospital_octet}"

    def image_kind(self, os: str) -> str:
        """How reports name the image: never as the OS itself when it is ours."""
        if os in APPLIANCES:
            return "appliance"
        return "vendor image" if os in self.vendor_images else "stand-in"


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings from LAB_NAME, LAB_SUBNET, LAB_DIR, LAB_PUBLISH, LAB_SUITE and LAB_IMAGE_<OS>."""
    name = environment.get("LAB_NAME", "outpost")
    if not _NAME.fullmatch(name):
        raise LabError(
            f"LAB_NAME={name!r}: use a-z, 0-9 and '-', starting with a letter, at most 31 characters."
        )
    publish = environment.get("LAB_PUBLISH", "yes")
    if publish not in ("yes", "no"):
        raise LabError(f"LAB_PUBLISH={publish!r}: use 'yes' (pages on 127.0.0.1) or 'no'.")
    suite = environment.get("LAB_SUITE", "bookworm")
    if suite not in SUITES:
        raise LabError(f"LAB_SUITE={suite!r}: stand-ins are made of Debian {' or '.join(SUITES)}.")
    vpn_prefix, hospital_prefix = network_prefixes(environment.get("LAB_SUBNET", "10.77"))
    return Settings(
        name=name,
        vpn_prefix=vpn_prefix,
        hospital_prefix=hospital_prefix,
        directory=Path(environment.get("LAB_DIR") or REPOSITORY / ".lab").resolve(),
        publish=publish == "yes",
        suite=suite,
        vendor_images={
            os: image for os in HOST_OSES if (image := environment.get(f"LAB_IMAGE_{os.upper()}", "").strip())
        },
    )


def network_prefixes(subnet: str) -> tuple[str, str]:
    """The two /16 prefixes of a lab: VPN as given, hospital the next one ('10.77' -> '10.77', '10.78')."""
    match = _PREFIX.fullmatch(subnet)
    if not match or int(match[1]) not in range(1, 224) or int(match[2]) > 254:
        raise LabError(
            f"LAB_SUBNET={subnet!r}: give the first two numbers of a private network, such as 10.77; "
            "the number after it (10.78) becomes the hospital network."
        )
    first, second = int(match[1]), int(match[2])
    return f"{first}.{second}", f"{first}.{second + 1}"


def choose_hosts(words: list[str]) -> list[Host]:
    """Hosts named on the command line as NAME or NAME=OS; all of them when none is named."""
    known = {host.name: host for host in HOSTS}
    chosen = []
    for word in words:
        name, _, os = word.partition("=")
        if name not in known:
            raise LabError(f"{name!r} is no host of the lab. Hosts: {', '.join(known)}.")
        host = known[name]
        if os:
            if os not in HOST_OSES or not host.has_ssh:
                raise LabError(f"{word!r}: centre, chita, tver and train can be {', '.join(HOST_OSES)}.")
            host = replace(host, os=os)
        chosen.append(host)
    return chosen or list(HOSTS)
