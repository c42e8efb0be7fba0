"""What the structures of an inventory hold, where the roles' argument_specs say only that they are dictionaries.

The service's own reader (outpost/config.py) and outpost/platform/host.py want the same of them, on the host.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from ipaddress import ip_address
from typing import Any, Final

from outpost.controller.inventory.names import Option
from outpost.platform.line import Words

_TLS: Final = Option(
    "dict",
    options={
        "certificate": Option("path", required=True),
        "key": Option("path", required=True),
        "ca": Option("path", required=True),
        "require_client_certificate": Option("bool"),
    },
)
_NODE: Final = {
    "name": Option(),
    "ae_title": Option(),
    "host": Option(),
    "port": Option("int"),
    "commitment": Option("bool"),
    "stow_url": Option(),
    "stow_token": Option(secret=True),
    "stow_proxy": Option(),
    "tls": _TLS,
}
_SYSTEM: Final = Option(
    "dict",
    options={
        "dicom_port": Option("int", required=True),
        "api_port": Option("int", required=True),
        "cores": Option("float", required=True),
        "memory_mib": Option("int", required=True),
        "vram_mib": Option("int"),
        "device": Option(),
    },
)
_SYSTEMS: Final = Option("dict", each=_SYSTEM)
_PORTS: Final = {"port": Option("int", required=True), "from": Option("list", "str", required=True)}
_TEXTS: Final = Option("list", "str")

SHAPES: Final[dict[str, Option]] = {
    "outpost_systems": _SYSTEMS,
    "inference_systems": _SYSTEMS,
    "preflight_systems": _SYSTEMS,
    "dicom_filter_systems": _SYSTEMS,
    "region_pacs": Option("dict", options=_NODE),
    "inference_destinations": Option("list", "dict", options={**_NODE, "name": Option(required=True)}),
    "inference_dicom_tls": _TLS,
    "inference_api_tls": _TLS,
    "outpost_firewall_ports": Option("list", "dict", options=_PORTS),
    "base_firewall_ports": Option("list", "dict", options=_PORTS),
    "outpost_ntp_servers": _TEXTS,
    "outpost_certificate_names": _TEXTS,
    "outpost_root_secret": Option(secret=True),
    "outpost_root_secret_before": Option(secret=True),
    "outpost_uid_secret": Option(secret=True),
    "outpost_language": Option(choices=("en", "ru")),
    "preflight_language": Option(choices=("en", "ru")),
    "preflight_extra_ports": Option("dict", each=Option("int")),
    "preflight_bundles": Option("dict", each=Option()),
    "inference_rule_files": Option("dict", each=Option()),
    # How Ansible itself gets in: not ours, but a password that YAML made a number of opens nothing.
    "ansible_password": Option(secret=True),
    "ansible_ssh_pass": Option(secret=True),
    "ansible_become_password": Option(secret=True),
    "ansible_become_pass": Option(secret=True),
    "ansible_host": Option(),
    "ansible_port": Option("int"),
    "ansible_connection": Option(),
}

NAME: Final = re.compile(r"[a-z][a-z0-9-]{1,30}")
_AE: Final = re.compile(r"[ -\[\]-~]{1,16}")
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}")
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_DEVICE: Final = re.compile(r"auto|cpu|cuda(:[0-9]+)?")


def _is_host(text: str) -> bool:
    if not _HOST.fullmatch(text):
        return False
    if ":" in text or re.fullmatch(r"[0-9.]+", text):
        try:
            ip_address(text)
        except ValueError:
            return False
    return True


# Last word of a variable's or key's path -> (whether a text will do, what is wanted).
_HOST_WANTED: Final = Words(
    "an IP address or a host name, without scheme, port or path",
    "IP-адрес или имя узла без схемы, порта и пути",
)
_AE_WANTED: Final = Words(
    "an AE title: 1 to 16 ASCII characters, no backslash",
    "AE title: от 1 до 16 знаков ASCII без обратной косой черты",
)
_URL_WANTED: Final = Words("a web address: http:// or https://", "веб-адрес: http:// или https://")
FORMS: Final[dict[str, tuple[Callable[[str], bool], Words]]] = {
    "ae_title": (lambda text: bool(_AE.fullmatch(text)) and bool(text.strip()), _AE_WANTED),
    "inference_ae_title": (lambda text: bool(_AE.fullmatch(text)) and bool(text.strip()), _AE_WANTED),
    "inference_known_ae_titles": (lambda text: bool(_AE.fullmatch(text)), _AE_WANTED),
    "inference_called_ae_titles": (lambda text: bool(_AE.fullmatch(text)), _AE_WANTED),
    "host": (_is_host, _HOST_WANTED),
    # A connection other than ssh may call a host as it likes; what looks like an address must be one.
    "ansible_host": (lambda text: not re.fullmatch(r"[0-9]+(\.[0-9]+)+", text) or _is_host(text), _HOST_WANTED),
    "region_address": (_is_host, _HOST_WANTED),
    "outpost_ntp_servers": (_is_host, _HOST_WANTED),
    "stow_url": (lambda text: text.startswith(("http://", "https://")), _URL_WANTED),
    "outpost_release_url": (lambda text: not text or text.startswith(("http://", "https://")), _URL_WANTED),
    "inference_region": (
        lambda text: bool(NAME.fullmatch(text)),
        Words("2 to 31 of a-z, 0-9 and -, beginning with a letter", "от 2 до 31 знаков a-z, 0-9 и -, первой буква"),
    ),
    "outpost_release": (
        lambda text: bool(_VERSION.fullmatch(text)),
        Words("a version such as 0.1.0", "версия, например 0.1.0"),
    ),
    "device": (
        lambda text: bool(_DEVICE.fullmatch(text)),
        Words("auto, cpu, cuda or cuda:N", "auto, cpu, cuda или cuda:N"),
    ),
}  # fmt: skip
# Of these, a text that is wrong is judged elsewhere, with its own words (networks.py, roles/preflight ground).
ELSEWHERE: Final = frozenset(
    {"outpost_hospital_networks", "outpost_admin_networks", "outpost_centre_networks", "dicom_filter_rules"}
)
# Asked as they are, by a condition or a program: a text would fail on the host, or be true whatever it says.
BARE: Final = frozenset(
    {
        "inference_api_open",
        "fleet_database_page_open",
        "dicom_filter_api_tls",
        "preflight_deploys",
        "preflight_secure_boot_key",
    }
)
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "1", "0"})
ZONES: Final = frozenset({"region_timezone", "base_timezone", "nvidia_driver_timezone"})
KINDS: Final[dict[str, Words]] = {
    "str": Words("text", "текст"),
    "path": Words("a path", "путь"),
    "int": Words("a whole number", "целое число"),
    "float": Words("a number", "число"),
    "bool": Words("true or false, without quotes", "true или false, без кавычек"),
    "list": Words("a list: [A, B]", "список: [A, B]"),
    "dict": Words("keys with values: {key: value}", "ключи со значениями: {ключ: значение}"),
}


def has_kind(value: Any, kind: str, *, bare: bool = False) -> bool:
    """Whether a value, as YAML made it, will do for this kind where the roles use it. bare: of `BARE`."""
    if kind in ("raw", "any"):
        return True
    if kind in ("str", "path"):
        return isinstance(value, str | int) and not isinstance(value, bool | float | date)
    if kind == "int":
        return _is_whole(value)
    if kind == "float":
        return _is_number(value)
    if kind == "bool":
        if isinstance(value, str):
            return not bare and value.strip().lower() in _WORDS
        return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    if kind == "list":
        return isinstance(value, list | tuple)
    return isinstance(value, dict) if kind == "dict" else True


def _is_whole(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return re.fullmatch(r"\s*[-+]?[0-9]+\s*", value) is not None
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", value) is not None
    return isinstance(value, int | float)
