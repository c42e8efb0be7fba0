"""Every check of the service: its stable code, what it proves, what to do when it fails.

Codes are an interface (verdicts, alerts, runbooks): never renamed or reused.

`python -m outpost.health en|ru` prints the table as docs/health-codes.md and docs/health-codes.ru.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from outpost.health.russian import RUSSIAN


class CheckCode(StrEnum):
    """Stable identifier of one check; the table `CHECKS` explains each."""

    # The running service, looked at whenever somebody asks.
    PIPELINE_TICKING = "PIPELINE_TICKING"
    WORKER_ALIVE = "WORKER_ALIVE"
    WORKERS_ALIVE = "WORKERS_ALIVE"
    GOLDEN_PASSED = "GOLDEN_PASSED"
    GOLDEN_RECENT = "GOLDEN_RECENT"
    GOLDEN_SPEED = "GOLDEN_SPEED"
    GOLDEN_CRAWLS = "GOLDEN_CRAWLS"
    INFERENCE_PROGRESS = "INFERENCE_PROGRESS"
    RECEIVE_ONLY = "RECEIVE_ONLY"
    LADDER_REDUCED = "LADDER_REDUCED"
    INTAKE_LISTENING = "INTAKE_LISTENING"
    DISK_RESERVE = "DISK_RESERVE"
    DELIVERY_RUNNING = "DELIVERY_RUNNING"
    QUEUE_AGE = "QUEUE_AGE"
    OUTBOX_AGE = "OUTBOX_AGE"
    RESULTS_TAKEN = "RESULTS_TAKEN"
    FILTER_RULES = "FILTER_RULES"
    JOURNAL_ANSWERS = "JOURNAL_ANSWERS"
    RECORDER_RUNNING = "RECORDER_RUNNING"
    RECORDS_SHIPPED = "RECORDS_SHIPPED"
    JOURNAL_USABLE = "JOURNAL_USABLE"
    JOURNAL_WHOLE = "JOURNAL_WHOLE"
    FILES_WHOLE = "FILES_WHOLE"

    # A process that computes, looked at by itself as it starts.
    COMPUTE_CAPABILITY = "COMPUTE_CAPABILITY"
    KERNELS_LAUNCH = "KERNELS_LAUNCH"
    MODULE_OUTPUTS = "MODULE_OUTPUTS"
    DECODERS_WORK = "DECODERS_WORK"
    WEIGHTS_DIGEST = "WEIGHTS_DIGEST"
    PRECISION_IN_USE = "PRECISION_IN_USE"
    PROVIDER_IN_USE = "PROVIDER_IN_USE"
    ENGINE_VERSION = "ENGINE_VERSION"
    MEMORY_FITS = "MEMORY_FITS"
    THREADS_ONE = "THREADS_ONE"

    # The host around it, looked at by the service at its start and now and then, and by the self-test.
    STORAGE_WRITABLE = "STORAGE_WRITABLE"
    SYNC_PROMPT = "SYNC_PROMPT"
    CLOCK_SANE = "CLOCK_SANE"
    MEMORY_SHARE = "MEMORY_SHARE"
    GPU_GIVEN = "GPU_GIVEN"
    SECRETS_READABLE = "SECRETS_READABLE"
    CERTIFICATE_VALID = "CERTIFICATE_VALID"
    CERTIFICATE_EXPIRES = "CERTIFICATE_EXPIRES"
    DESTINATION_ANSWERS = "DESTINATION_ANSWERS"

    # Only the self-test takes the time for these.
    PORTS_USABLE = "PORTS_USABLE"
    JOURNAL_SOUND = "JOURNAL_SOUND"
    ENGINE_MEASURED = "ENGINE_MEASURED"


Place = Literal["service", "worker", "host", "selftest"]


@dataclass(frozen=True, slots=True)
class CheckKind:
    """`critical`: without it the service is not ready; otherwise it is degraded, and works on.

    `place` is where it is looked at, as the groups of `CheckCode` say.
    """

    proves: str
    remedy: str
    critical: bool = True
    place: Place = "service"


CHECKS: Final[dict[CheckCode, CheckKind]] = {
    CheckCode.PIPELINE_TICKING: CheckKind(
        "The thread that keeps the pipeline's time has passed its loop within the last seconds.",
        "Wait for systemd's watchdog to restart the unit; report the log before the last line.",
    ),
    CheckCode.WORKER_ALIVE: CheckKind(
        "At least one inference process runs.",
        "It is started again by itself; if this stays, read GOLDEN_PASSED and the unit's log.",
    ),
    CheckCode.WORKERS_ALIVE: CheckKind(
        "As many inference processes run as the present rung computes studies at once.",
        "Missing ones are started again by themselves; if this stays, read the unit's log for how they end.",
        critical=False,
    ),
    CheckCode.GOLDEN_PASSED: CheckKind(
        "The golden case gave the right answer on every worker that computes studies.",
        "The code shown is explained in outpost/reasons.py; studies are held, not lost.",
    ),
    CheckCode.GOLDEN_RECENT: CheckKind(
        "Every running worker has computed the golden case not long ago.",
        "A study may be taking long: see INFERENCE_PROGRESS; compare inference.golden_period_seconds.",
    ),
    CheckCode.GOLDEN_SPEED: CheckKind(
        "Of its last two runs, the golden case's better one took at most 3 times the fastest seen on this host.",
        "See what else uses the processor (`top`), whether it is throttled by heat, and the host's limits.",
        critical=False,
    ),
    CheckCode.GOLDEN_CRAWLS: CheckKind(
        "Of its last two runs, the golden case's better one took at most 4 times the fastest seen on this host.",
        "As for GOLDEN_SPEED; so slow a host keeps studies waiting: send them elsewhere meanwhile.",
    ),
    CheckCode.INFERENCE_PROGRESS: CheckKind(
        "No study and no golden case has been in work for much longer than they usually take.",
        "Wait a minute: a process that hangs is replaced, one that works goes on. If it repeats, look at the study.",
    ),
    CheckCode.RECEIVE_ONLY: CheckKind(
        "The service computes; it has not fallen back to receiving only.",
        "The code shown is the cause, explained in outpost/reasons.py; nothing is lost, studies wait.",
    ),
    CheckCode.LADDER_REDUCED: CheckKind(
        "Studies are computed at the fullest rung.",
        "Read why at /events or in the unit's log; the fuller rung is tried again by itself.",
        critical=False,
    ),
    CheckCode.INTAKE_LISTENING: CheckKind(
        "The C-STORE listener accepts associations.",
        "Restart the unit; report the log.",
    ),
    CheckCode.DISK_RESERVE: CheckKind(
        "There is more free space than intake.disk_reserve_mib.",
        "Free space on the file system of storage.root; senders are refused until then, nothing is lost.",
    ),
    CheckCode.DELIVERY_RUNNING: CheckKind(
        "Every destination has a running courier.",
        "Restart the unit; report the log.",
    ),
    CheckCode.QUEUE_AGE: CheckKind(
        "No complete study has been waiting for inference for long.",
        "More studies arrive than this host computes, or they are held: see GOLDEN_PASSED.",
        critical=False,
    ),
    CheckCode.OUTBOX_AGE: CheckKind(
        "No result has been waiting for a destination for long.",
        "See the last error at /studies?state=delivering; check the destination and the link to it.",
        critical=False,
    ),
    CheckCode.RESULTS_TAKEN: CheckKind(
        "No destination refuses a result for a reason that repetition cannot cure.",
        "Read what it says at /events (DELIVERY_REFUSED) and put that right there; then restart the unit, or wait.",
        critical=False,
    ),
    CheckCode.FILTER_RULES: CheckKind(
        "The rule file on disk is the one that judges studies.",
        "Correct the line shown (`outpost filter check FILE`); until then the rule set before it judges.",
        critical=False,
    ),
    CheckCode.JOURNAL_ANSWERS: CheckKind(
        "The journal has answered within the last seconds.",
        "Look at the disk of storage.root and at the unit's log. Nothing is received while the journal is away.",
    ),
    CheckCode.RECORDER_RUNNING: CheckKind(
        "The thread that ships records to Postgres runs.",
        "Restart the unit; report the log. Studies are not affected.",
        critical=False,
    ),
    CheckCode.RECORDS_SHIPPED: CheckKind(
        "The region's Postgres has been taking records.",
        "Check that PostgreSQL runs and records.* in the configuration fits it. Studies are not affected.",
        critical=False,
    ),
    CheckCode.JOURNAL_USABLE: CheckKind(
        "The journal can be read and written, and is not being rebuilt at the moment.",
        "Do what the value says. While it is being rebuilt, wait: studies are taken and computed when it is done.",
    ),
    CheckCode.JOURNAL_WHOLE: CheckKind(
        "The journal was not rebuilt within the last 24 hours.",
        "See the event JOURNAL_REBUILT and the runbook journal-damaged: check the disk and the memory of the host.",
        critical=False,
    ),
    CheckCode.FILES_WHOLE: CheckKind(
        "No file that the service keeps for itself was found damaged within the last 24 hours.",
        "See the event FILE_PUT_ASIDE for what is used instead; check the disk of the host.",
        critical=False,
    ),
    CheckCode.COMPUTE_CAPABILITY: CheckKind(
        "The engine was compiled for this GPU's architecture.",
        "Install a release whose engine supports this GPU; until then set inference.device to cpu.",
        place="worker",
    ),
    CheckCode.KERNELS_LAUNCH: CheckKind(
        "A small product and a small convolution in each precision in use come out right on the device.",
        "Do not use this device: set inference.device to cpu; check driver, memory and temperature.",
        place="worker",
    ),
    CheckCode.MODULE_OUTPUTS: CheckKind(
        "The parts of the network that the bundle names give outputs of the right shape, finite, of usual mean.",
        "Do not use this host for inference; check memory and CPU, then install the release again.",
        place="worker",
    ),
    CheckCode.DECODERS_WORK: CheckKind(
        "A known image decodes right in every transfer syntax that intake accepts.",
        "Install the release again: a decoder is missing or broken. Send uncompressed until then.",
        place="worker",
    ),
    CheckCode.WEIGHTS_DIGEST: CheckKind(
        "The weights on disk are those the bundle was released with (sha256).",
        "Install the release again; do not replace weights by hand.",
        place="worker",
    ),
    CheckCode.PRECISION_IN_USE: CheckKind(
        "The engine computes in the precision of the rung.",
        "Install the release again; report the value: an engine that picks its own precision is a fault of ours.",
        place="worker",
    ),
    CheckCode.PROVIDER_IN_USE: CheckKind(
        "The engine and the device that compute are those of the rung.",
        "Check the driver of the device; onnxruntime, for one, falls back to the CPU without a word.",
        place="worker",
    ),
    CheckCode.ENGINE_VERSION: CheckKind(
        "The engine that is loaded is the version that is installed and was measured.",
        "Restart the unit: the engine was replaced while it ran. If it stays, install the release again.",
        critical=False,
        place="worker",
    ),
    CheckCode.MEMORY_FITS: CheckKind(
        "The memory a worker needs for its largest input is there, and the golden case took no more than that.",
        "Give the system more memory or fewer inference.workers; until then large studies run on a lower rung.",
        critical=False,
        place="worker",
    ),
    CheckCode.THREADS_ONE: CheckKind(
        "A worker computes on one processor at a time: several share the host by their number.",
        "Remove settings of threads (OMP_NUM_THREADS and the like) from the unit; report the value.",
        critical=False,
        place="worker",
    ),
    CheckCode.STORAGE_WRITABLE: CheckKind(
        "Files can be written and synced under storage.root.",
        "Check that the path is mounted, not read-only, not full, and owned by the service's user (uid 10001).",
        place="host",
    ),
    CheckCode.SYNC_PROMPT: CheckKind(
        "The disk confirms a small write (fsync) within a second.",
        "Look at the disk's health (`smartctl -a`) and at what else writes to it: every image waits for this.",
        critical=False,
        place="host",
    ),
    CheckCode.CLOCK_SANE: CheckKind(
        "The clock is not before this release was made, nor before what the journal has already seen.",
        "Set the clock (`timedatectl`); a clock that is lost at each power cut needs a new battery.",
        critical=False,
        place="host",
    ),
    CheckCode.MEMORY_SHARE: CheckKind(
        "All workers at once fit into this system's memory.",
        "Give the system more memory, or set inference.workers to what fits; fewer are started until then.",
        critical=False,
        place="host",
    ),
    CheckCode.GPU_GIVEN: CheckKind(
        "A host with an NVIDIA driver has given its GPUs to this container, unless inference.device is cpu.",
        "The reason is shown: docs/runbooks/en/gpu-not-in-the-container.md. The processor computes, right but slower.",
        critical=False,
        place="host",
    ),
    CheckCode.SECRETS_READABLE: CheckKind(
        "The files with tokens, keys and certificates that the configuration names can be read.",
        "Check path, owner and mode of the file shown: the service's user (uid 10001) must be able to read it.",
        place="host",
    ),
    CheckCode.CERTIFICATE_VALID: CheckKind(
        "No TLS certificate in use is expired or not yet valid.",
        "Replace the certificate and restart the unit; if the date looks wrong, see CLOCK_SANE.",
        place="host",
    ),
    CheckCode.CERTIFICATE_EXPIRES: CheckKind(
        "No TLS certificate in use expires within 30 days.",
        "Have the certificate renewed before the date shown.",
        critical=False,
        place="host",
    ),
    CheckCode.DESTINATION_ANSWERS: CheckKind(
        "A destination answers C-ECHO.",
        "Check its address, and what the value shown says of the reason and the remedy. Results wait in the outbox.",
        critical=False,
        place="host",
    ),
    CheckCode.PORTS_USABLE: CheckKind(
        "Our ports are free, or it is this very service that listens there.",
        "See who listens (`ss -ltnp`): end it, or choose another port in the configuration.",
        place="selftest",
    ),
    CheckCode.JOURNAL_SOUND: CheckKind(
        "The journal passes SQLite's quick check.",
        "Restart the unit: it puts the journal aside and rebuilds it (runbook journal-damaged). Then check disk and "
        "memory: one of them is failing.",
        place="selftest",
    ),
    CheckCode.ENGINE_MEASURED: CheckKind(
        "The engine in use was chosen by measuring on this host, with this bundle and these versions.",
        "Run `outpost optimise`; until then the reference engine computes, right but slower.",
        critical=False,
        place="selftest",
    ),
}


Language = Literal["en", "ru"]


def proves(code: str, language: Language) -> str:
    """What is true when the check is ok; empty for a code that no longer, or not yet, exists."""
    return _said(code, language, 0)


def remedy(code: str, language: Language) -> str:
    """What to do when the check fails; empty for a code that no longer, or not yet, exists."""
    return _said(code, language, 1)


def _said(code: str, language: Language, which: int) -> str:
    if language == "ru" and code in RUSSIAN:
        return RUSSIAN[code][which]
    kind = CHECKS.get(CheckCode(code)) if code in CheckCode.__members__ else None
    return (kind.proves, kind.remedy)[which] if kind is not None else ""


_PLACES: Final[dict[Place, dict[Language, str]]] = {
    "service": {
        "en": "The running service: `GET /health/light`, whenever asked",
        "ru": "Работающая служба: `GET /health/light` и `outpost status`, в любой момент",
    },
    "worker": {
        "en": "A worker: by itself as it starts; shown in `/health/light` and by `outpost selftest`",
        "ru": "Считающий процесс: сам при запуске; видно в `/health/light` и в `outpost selftest`",
    },
    "host": {
        "en": "The host: by the service at its start and every 10 minutes, and by `outpost selftest`",
        "ru": "Сервер: при запуске службы и каждые 10 минут, и в `outpost selftest`",
    },
    "selftest": {"en": "Only `outpost selftest`", "ru": "Только `outpost selftest`"},
}
_HEAD: Final[dict[Language, str]] = {
    "en": """# Health codes

Made by `python -m outpost.health en > docs/health-codes.md`; a test holds it to the table in
`service/outpost/health/codes.py`. A code is never renamed or reused. [По-русски](health-codes.ru.md).

A verdict is `ok`, `degraded` (works on, needs a person) or `failed` (`/v2/health/ready` says 503).
*Critical* codes make it `failed`, others `degraded`. `outpost status` shows what fails and what to do.
""",
    "ru": """# Коды проверок

Создано командой `python -m outpost.health ru > docs/health-codes.ru.md`; тест сверяет страницу с таблицей в
`service/outpost/health/russian.py`. Код не переименовывается и не используется повторно.
[In English](health-codes.md).

Заключение: `ok` (здорова), `degraded` (работает, но нужен человек) или `failed` (не готова: `/v2/health/ready`
отвечает 503). *Критичные* коды дают `failed`, остальные - `degraded`. Что не проходит и что делать, показывает
`outpost status`.
""",
}
_CRITICAL: Final[dict[Language, str]] = {"en": "yes", "ru": "да"}
_COLUMNS: Final[dict[Language, str]] = {
    "en": "| code | critical | proves | remedy |",
    "ru": "| код | критичный | что доказывает | что делать |",
}


def page(language: Language = "en") -> str:
    """The table as a page of documentation."""
    lines = [_HEAD[language].rstrip("\n")]
    for place, title in _PLACES.items():
        lines += ["", f"## {title[language]}", "", _COLUMNS[language], "|---|---|---|---|"]
        lines += [
            f"| `{code}` | {_CRITICAL[language] if kind.critical else ''} | "
            f"{proves(code, language)} | {remedy(code, language)} |"
            for code, kind in CHECKS.items()
            if kind.place == place
        ]
    return "\n".join([*lines, ""])
