"""The configuration: one YAML file, checked whole before anything starts.

`load` either returns a valid value or raises `ConfigError` listing every fault at once, each with its path,
the value found, the reason and a remedy. An unknown key is a fault, answered with the nearest known one.
"""

from __future__ import annotations

import codecs
import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


class Section(BaseModel):
    """A part of a configuration file: immutable, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


def _ip(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError("this is not an IP address; write one of this host's, or 0.0.0.0 for all") from None
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,30}", text):
        raise ValueError("use 2 to 31 of a-z, 0-9 and '-', beginning with a letter")
    return text


def _ae_title(text: str) -> str:
    """PS3.5 6.2, VR AE: the default repertoire without backslash and control characters, at most 16."""
    if not re.fullmatch(r"[ -\[\]-~]{1,16}", text):
        raise ValueError("an AE title is 1 to 16 ASCII characters without a backslash")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise ValueError("write a host name or an IP address, without scheme, port or path")
    return text


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        raise ValueError(
            "write an IP address (192.168.7.4), or a network by its first one (192.168.7.0/24)"
        ) from None
    return text


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("the path must be absolute (begin with /)")
    return path


Name = Annotated[str, AfterValidator(_name)]
AeTitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ListenAddress = Annotated[str, AfterValidator(_ip)]


class Tls(Section):
    """PEM files of a TLS endpoint: our certificate (with its chain) and key, and the authorities of our peers.

    `require_client_certificate` is for listeners: without it anyone who trusts us may connect.
    """

    certificate: AbsolutePath
    key: AbsolutePath
    ca: AbsolutePath
    require_client_certificate: bool = True


def _character_set(name: str) -> str:
    """A defined term of Specific Character Set (PS3.3 C.12.1.1.2), or a name that Python knows an encoding by."""
    from pydicom.charset import python_encoding  # here: what reads a configuration elsewhere has no pydicom

    try:
        codecs.lookup(python_encoding.get(name, name))
    except LookupError:
        near = difflib.get_close_matches(name, python_encoding, n=1)
        raise ValueError(
            "this is no character set; write a defined term of DICOM such as ISO_IR 144, or a codec such as cp1251"
            + (f"; did you mean {near[0]}?" if near else "")
        ) from None
    return name


class Sender(Section):
    """What the site knows of a sender: `ae_title` is its AE title, `stow` for what comes by STOW-RS, or `*` for all
    that have no entry of their own. `character_set` is what its texts are really encoded in, where its images do not
    say or say it wrong: a defined term of DICOM (ISO_IR 144) or a codec (cp1251). `addresses` are the IP addresses or
    networks (192.168.7.0/24) it sends from: from elsewhere its title is not believed.
    """

    ae_title: AeTitle
    character_set: Annotated[str, AfterValidator(_character_set)] | None = None
    addresses: tuple[Network, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> Sender:
        if self.character_set is None and not self.addresses:
            raise ValueError(
                "neither character_set nor addresses: add what is known of this sender, or take it out"
            )
        return self


class Intake(Section):
    """The C-STORE listener, and when it stops taking.

    `disk_reserve_mib`: free MiB that stay free. `disk_used_percent`: share of the file system, of its bytes or of its
    inodes, in %, above which nothing more is taken. `tls`: only TLS is spoken where it is given.
    `known_ae_titles`: who may call; empty is anybody. `check_called_ae_title`: whether callers must call us by
    `ae_title`, or by one of `called_ae_titles`. `senders`: what single senders write wrong, and where they send from.

    `max_associations` in all; `max_associations_per_peer` of one AE title at one address (0: half of them).
    `stall_seconds`: so long a line may stall in the middle of a message. `unused_seconds`: so long a sender that never
    stored anything may keep an association open without asking for anything.

    `max_waiting_studies`: studies that may wait to be computed, in all; `max_waiting_studies_per_peer` of one AE title
    at one address (0: half of them). Beyond, images of other studies are refused until some are computed: senders send
    them again. `max_instances_per_study`: what one study may have.
    """

    ae_title: AeTitle = "OUTPOST"
    check_called_ae_title: bool = True
    called_ae_titles: tuple[AeTitle, ...] = ()
    listen: ListenAddress = "0.0.0.0"  # noqa: S104 - the PACS is on another host; the host's firewall limits it
    dicom_port: Port = 11112
    tls: Tls | None = None
    known_ae_titles: tuple[AeTitle, ...] = ()
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 32
    max_associations_per_peer: Annotated[int, Field(ge=0, le=1000)] = 0
    stall_seconds: Seconds = 60
    unused_seconds: Seconds = 60
    max_waiting_studies: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    max_waiting_studies_per_peer: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    max_instances_per_study: Annotated[int, Field(ge=1, le=1_000_000)] = 50_000
    disk_reserve_mib: Annotated[int, Field(ge=0)] = 1024
    disk_used_percent: Annotated[float, Field(gt=0, le=100)] = 95
    senders: tuple[Sender, ...] = ()

    @model_validator(mode="after")
    def _senders_differ(self) -> Intake:
        names = [sender.ae_title for sender in self.senders]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"senders names {', '.join(twice)} twice: keep one")
        return self

    def character_set_of(self, senders: Sequence[str]) -> str:
        """The encoding of texts from these senders, as Python names it: the first that has an entry; else of `*`."""
        from pydicom.charset import python_encoding

        known = {sender.ae_title: sender.character_set for sender in self.senders if sender.character_set}
        name = next((known[sender] for sender in (*senders, "*") if sender in known), "")
        return python_encoding.get(name, name)

    def is_called(self, ae_title: str) -> bool:
        """Whether a peer that calls this AE title means us."""
        return not self.check_called_ae_title or ae_title in (self.ae_title, *self.called_ae_titles)

    def may_come_from(self, sender: str, address: str) -> bool:
        """Whether this sender (an AE title, or `stow`) is at this address, as far as `senders` says."""
        known = {one.ae_title: one.addresses for one in self.senders if one.addresses}
        networks = known.get(sender, known.get("*"))
        if networks is None:
            return True
        try:
            peer = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in ip_network(network) for network in networks)


class Study(Section):
    """When a study is complete: after `quiet_seconds` without a new instance (`open_quiet_seconds`,
    while the association that brought the last one is still open: lines stall); when every series that the bundle
    names is there and quiet for `series_quiet_seconds`; at the latest `forced_seconds` after its first instance, even
    while more arrive. A study of which images are missing waits as long for them.

    An image that comes later makes a new revision. After `revisions` of one study within `revisions_hours` the next
    one waits, collecting what comes, until the first of them is so old.
    """

    quiet_seconds: Seconds = 5
    open_quiet_seconds: Seconds = 20
    series_quiet_seconds: Seconds = 2
    forced_seconds: Seconds = 5400
    revisions: Annotated[int, Field(ge=1, le=1000)] = 10
    revisions_hours: Annotated[float, Field(gt=0, le=720)] = 6


class Storage(Section):
    """Where the host keeps this system's data, and how many hours files stay after proven delivery."""

    root: AbsolutePath
    keep_delivered_hours: Annotated[float, Field(ge=0)] = 24


class ReasonQuota(Section):
    """What quarantine may hold of one reason code: MiB, and studies or single files."""

    reason: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{1,79}$")]
    max_mib: Annotated[int, Field(ge=1)]
    max_items: Annotated[int, Field(ge=1)]


class SenderQuota(Section):
    """What quarantine may hold of one sender (AE title, or `stow`), whatever the reason: MiB, and studies or files."""

    ae_title: AeTitle
    max_mib: Annotated[int, Field(ge=1)]
    max_items: Annotated[int, Field(ge=1)]


class Quarantine(Section):
    """How much of what ended without a result is kept; beyond it the oldest goes, of the sender that holds most.

    `max_mib` and `max_items` hold for each reason code that `reasons` does not name; `disk_percent`, of the whole
    file system of storage.root, for all reasons together; `senders` for single senders.
    """

    max_mib: Annotated[int, Field(ge=1)] = 10240
    max_items: Annotated[int, Field(ge=1)] = 1000
    disk_percent: Annotated[float, Field(gt=0, le=100)] = 20
    reasons: tuple[ReasonQuota, ...] = ()
    senders: tuple[SenderQuota, ...] = ()

    @model_validator(mode="after")
    def _reasons_differ(self) -> Quarantine:
        names = [quota.reason for quota in self.reasons]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"reasons names {', '.join(twice)} twice: keep one")
        titles = [quota.ae_title for quota in self.senders]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"senders names {', '.join(twice)} twice: keep one")
        return self

    def of(self, reason: str) -> ReasonQuota:
        """The quota of one reason code."""
        return next(
            (quota for quota in self.reasons if quota.reason == reason),
            ReasonQuota.model_construct(reason=reason, max_mib=self.max_mib, max_items=self.max_items),
        )


class Ladder(Section):
    """When to step down and up again, and when to stop trying.

    `deaths_allowed`: failures of one cause in a row, without a success between, before this system only
    receives. `climb_after_seconds`: quiet time after which a rung that failed is tried again.
    """

    deaths_allowed: Annotated[int, Field(ge=1, le=100)] = 5
    climb_after_seconds: Annotated[float, Field(gt=0, le=30 * 86400)] = 3600
    receive_only_retry_seconds: Seconds = 900


class Inference(Section):
    """Which model bundle to run, on which share of the host, and how long one study may take.

    `workers` is the number of child processes, of one CPU thread each. `memory_mib` and `vram_mib` are this
    system's share of the host; 0 is what the control group, or the GPU, allows. `engine` is `auto` (the
    fastest that `outpost optimise` found within tolerance) or `name` or `name/precision`.
    """

    bundle: AbsolutePath = Path("/opt/outpost/bundles/brain_extraction")
    workers: Annotated[int, Field(ge=1, le=256)] = 2
    memory_mib: Annotated[int, Field(ge=0)] = 0
    vram_mib: Annotated[int, Field(ge=0)] = 0
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")] = "auto"
    engine: Annotated[str, Field(pattern=r"^[a-z-]+(/[a-z0-9]+)?$")] = "auto"
    timeout_seconds: Seconds = 300
    golden_period_seconds: Seconds = 900
    optimise_after_idle_seconds: Annotated[float, Field(ge=0, le=86400)] = 120
    ladder: Ladder = Ladder()

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if isinstance(value, dict) and "threads" in value:
            raise ValueError("threads is now called workers (processes of one thread each): rename it")
        return value


class Filter(Section):
    """Which studies are worth computing. `rules` is a rule file (docs/filter-rules.md) in place of the bundle's own;
    a change of it takes effect without a restart."""

    rules: AbsolutePath | None = None


class Destination(Section):
    """A peer that results are sent to: a DICOM node (`ae_title`, `host`, `port`), or a DICOMweb server
    (`stow_url`, the URL of its studies).

    `commitment` asks a DICOM node for storage commitment, and takes nothing less for proof of delivery; the
    node must know our AE title and `intake.dicom_port` to report to. `stow_token` is sent as a bearer token.
    `stow_proxy` (http://HOST:PORT) is the proxy that the DICOMweb server is behind; one of the environment is never
    taken.
    """

    name: Name
    ae_title: AeTitle | None = None
    host: Host | None = None
    port: Port | None = None
    commitment: bool = False
    stow_url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = None
    stow_token: SecretStr = SecretStr("")
    stow_proxy: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    tls: Tls | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Destination:
        dimse = [key for key in ("ae_title", "host", "port") if getattr(self, key) is not None]
        if self.stow_url is not None:
            if dimse or self.commitment:
                raise ValueError(
                    f"stow_url and {(dimse or ['commitment'])[0]}: a destination is one or the other"
                )
            if self.tls is not None and not self.stow_url.startswith("https:"):
                raise ValueError("tls with a stow_url that is not https: correct the URL")
        elif len(dimse) < 3:
            missing = [key for key in ("ae_title", "host", "port") if key not in dimse]
            raise ValueError(f"{' and '.join(missing)} missing: add it, or give stow_url alone")
        elif self.stow_token.get_secret_value():
            raise ValueError("stow_token without stow_url: C-STORE knows no tokens; take it out")
        elif self.stow_proxy is not None:
            raise ValueError("stow_proxy without stow_url: C-STORE knows no proxies; take it out")
        return self


class Delivery(Section):
    """Where results go; an attempt that failed is repeated after `retry_first_seconds`, doubling up to
    `retry_max_seconds`, without end. A result refused for a reason that repetition cannot cure is offered again
    after `refused_retry_seconds`, and at each start. A storage commitment not reported on within
    `commitment_seconds` is asked for again."""

    destinations: Annotated[tuple[Destination, ...], Field(min_length=1)]
    retry_first_seconds: Seconds = 5
    retry_max_seconds: Seconds = 300
    commitment_seconds: Seconds = 300
    refused_retry_seconds: Seconds = 4 * 3600

    @model_validator(mode="after")
    def _names_differ(self) -> Delivery:
        names = [destination.name for destination in self.destinations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two destinations are called {', '.join(twice)}: give each its own name")
        if self.retry_max_seconds < self.retry_first_seconds:
            raise ValueError("retry_max_seconds is smaller than retry_first_seconds: raise it")
        return self


class DatabaseLink(Section):
    """How a connection to PostgreSQL is encrypted, as libpq names it; verify-full proves who answers."""

    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    sslrootcert: AbsolutePath | None = None

    @model_validator(mode="after")
    def _authority_named(self) -> Self:
        if self.sslmode.startswith("verify") and self.sslrootcert is None:
            raise ValueError(
                f"sslmode {self.sslmode} without sslrootcert: name the authorities' file, /etc/outpost/tls/fleet-ca.pem"
            )
        return self

    @property
    def authorities(self) -> str | None:
        """`sslrootcert` for libpq."""
        return str(self.sslrootcert) if self.sslrootcert else None


class Records(DatabaseLink):
    """The region's Postgres, and the key that makes a pseudonym of every study UID sent there.

    `heartbeat_seconds`: how often a row there says how this system is; the centre judges by it.
    """

    enabled: bool = True
    host: Host = "127.0.0.1"
    port: Port = 5432
    database: str = "outpost"
    user: str = "outpost_recorder"
    password: SecretStr = SecretStr("")
    uid_key: SecretStr = SecretStr("")
    heartbeat_seconds: Annotated[float, Field(ge=1, le=300)] = 60

    @model_validator(mode="after")
    def _secrets_present(self) -> Records:
        missing = [name for name in ("password", "uid_key") if not getattr(self, name).get_secret_value()]
        if self.enabled and missing:
            raise ValueError(f"{' and '.join(missing)} missing: set it, or set records.enabled to false")
        return self


class Token(Section):
    """Who may use the HTTP API as what: `read` looks, `send` sends (STOW-RS) and no more, `admin` may all.

    Only the token's SHA-256 stands here; `outpost token NAME ROLE` makes both.
    """

    name: Name
    role: Literal["read", "send", "admin"]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Api(Section):
    """The HTTP listener: health, DICOMweb, metrics, status page.

    Without `tokens` it answers how this system is, and nothing else; `open` lets everyone do all. `hosts`: names and
    addresses by which it is called, beside its own; requests that name another host are refused.
    """

    listen: ListenAddress = "0.0.0.0"  # noqa: S104 - as for intake
    port: Port = 8080
    tls: Tls | None = None
    tokens: tuple[Token, ...] = ()
    open: bool = False
    hosts: tuple[Host, ...] = ()

    @model_validator(mode="after")
    def _open_or_not(self) -> Api:
        if self.open and self.tokens:
            raise ValueError(
                "open is true and tokens are named: tokens would close nothing, keep one of the two"
            )
        return self


class Drift(Section):
    """When what comes in counts as changed: the last `window_days` against the reference, judged once a day.

    `min_sample` observations at least on both sides; a false share of `false_discovery` at most among all alarms;
    and a change of at least `effect` (Jensen-Shannon distance of categories) or `effect_numbers`
    (Kolmogorov-Smirnov distance of numbers), both 0 to 1. Days are kept as days for `keep_days`, then as months.
    """

    enabled: bool = True
    window_days: Annotated[int, Field(ge=1, le=180)] = 28
    min_sample: Annotated[int, Field(ge=20, le=1_000_000)] = 100
    false_discovery: Annotated[float, Field(gt=0, le=0.2)] = 0.01
    effect: Annotated[float, Field(gt=0, le=1)] = 0.25
    effect_numbers: Annotated[float, Field(gt=0, le=1)] = 0.35
    save_minutes: Annotated[float, Field(gt=0, le=1440)] = 5
    keep_days: Annotated[int, Field(ge=60, le=3660)] = 400

    @model_validator(mode="after")
    def _days_reach(self) -> Drift:
        if self.keep_days < 2 * self.window_days:
            raise ValueError(
                "keep_days is less than twice window_days: a window is looked at with the one before it"
            )
        return self


class Config(Section):
    """Everything one system (an AI service on one host) needs to know."""

    system: Name
    region: Name
    intake: Intake = Intake()
    study: Study = Study()
    storage: Storage
    quarantine: Quarantine = Quarantine()
    inference: Inference = Inference()
    filter: Filter = Filter()
    delivery: Delivery
    records: Records
    api: Api = Api()
    drift: Drift = Drift()


class ConfigError(Exception):
    """The configuration cannot be used; the text lists every fault."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        what = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{path}: {what}\n" + "\n".join(f"  - {fault}" for fault in faults))


Model = TypeVar("Model", bound=BaseModel)


# The key by which a file is known to be of the one kind or the other, and what to do where the other one is needed.
_OF_ANOTHER: Final = {
    "centre": "is the centre's, which computes nothing and keeps no images, events or rules: there answer `outpost "
    "status`, `outpost top` and `outpost fleet table`; ask this on the region's host, or name a system of this host "
    "with -s",
    "system": "is an inference system's: `outpost fleet` is for the centre, and takes /etc/outpost/fleet.yaml there; "
    "how this system is says `outpost status`",
}


def load(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into `model` (for the service: `Config`). Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(path, [f"cannot be read ({error}): name an existing UTF-8 file"]) from None
    try:
        value = yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader that refuses double keys
    except yaml.YAMLError as error:
        raise ConfigError(path, [f"is not YAML: {yaml_fault(error)}"]) from None
    if not isinstance(value, dict):
        raise ConfigError(path, [f"holds {type(value).__name__}, not keys and values: see the example"])
    for key, told in _OF_ANOTHER.items():
        if (
            key in value
            and key not in model.model_fields
            and value.keys().isdisjoint(_OF_ANOTHER.keys() - {key})
        ):
            raise ConfigError(path, [told])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(
            path, [told for _, told in faults_of(model, error)]
        ) from None  # its text prints secrets


def faults_of(model: type[BaseModel], error: ValidationError) -> list[tuple[tuple[int | str, ...], str]]:
    """Every fault that pydantic found: its place, and a line with key, reason, value and remedy."""
    details = error.errors(include_url=False)
    return [(detail["loc"], _fault(model, detail)) for detail in details if not _follows(detail, details)]


def _follows(detail: ErrorDetails, others: list[ErrorDetails]) -> bool:
    """A list is also called too short when its only item is faulty: that is no fault of its own."""
    depth = len(detail["loc"])
    return detail["type"] == "too_short" and any(
        other["loc"][:depth] == detail["loc"] and len(other["loc"]) > depth for other in others
    )


def _fault(model: type[BaseModel], detail: ErrorDetails) -> str:
    location = tuple(part for part in detail["loc"] if part != "[key]")  # a key itself, not what it holds
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if detail["type"] == "extra_forbidden":
        return f"{path}: there is no such key; {_nearest(model, location)}"
    if detail["type"] == "missing":
        return f"{path}: missing; add it"
    context = detail.get("ctx", {})
    reason = str(context["error"]) if "error" in context else detail["msg"]
    if detail["type"] == "string_type":
        reason = "this must be text: put it in quotes"
    # A fault of several keys together names them in its reason; the section's values may be secret.
    found = "" if isinstance(detail["input"], dict) else f" (found {_shown(model, detail)})"
    return f"{path or 'the file'}: {reason}{found}"


def _nearest(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The remedy for an unknown key: the closest one beside it, else its place elsewhere, else the list."""
    key = str(location[-1])
    beside = _section_at(model, location[:-1])
    names = _keys(beside) if beside is not None else []
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    elsewhere = dict(_all_keys(model))
    for candidate in difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.75):
        return f"did you mean {elsewhere[candidate]}?"
    return f"known keys here: {', '.join(names)}"


def _section_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int):
            continue  # an index: the list's own annotation was unwrapped with its key
        field = _field(section, part) if section is not None else None
        section = _section_type(field.annotation) if field is not None else None
    return section


def _keys(section: type[BaseModel]) -> list[str]:
    """The keys of a section as they are written in a file."""
    return [field.alias or name for name, field in section.model_fields.items()]


def _field(section: type[BaseModel], key: str) -> FieldInfo | None:
    return next((f for name, f in section.model_fields.items() if key == (f.alias or name)), None)


def _section_type(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as Model, tuple[Model, ...] or Model | None."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_section_type, typing.get_args(annotation))), None)


def _all_keys(
    model: type[BaseModel], prefix: str = "", above: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, str]]:
    for key, field in zip(_keys(model), model.model_fields.values(), strict=True):
        yield key, prefix + key
        section = _section_type(field.annotation)
        if section is not None and section not in (*above, model):  # a condition holds conditions
            yield from _all_keys(section, f"{prefix}{key}.", (*above, model))


def _shown(model: type[BaseModel], detail: ErrorDetails) -> str:
    """The value found, never a secret's."""
    *parents, key = detail["loc"] or ("",)
    section = _section_at(model, tuple(parents))
    field = _field(section, str(key)) if section is not None else None
    if (field is not None and field.annotation is SecretStr) or isinstance(detail["input"], dict | list):
        return f"a {type(detail['input']).__name__}, not shown"
    return repr(detail["input"])


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a key appear twice and keeps the last; here that is an error, as one of the two was meant."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice: keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def yaml_fault(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text, in one line, with line and column."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} (line {mark.line + 1}, column {mark.column + 1})" if mark else problem
