"""One run at a time on a host: the lock of a run, as scripts for the host and as words for the second controller.

The lock is a file under /run of the host, which all controllers see and a reboot removes. It holds who took it and a
beat: the host's uptime, which no clock moves. A run renews it while it lives; one that died is forgotten after
`FORGOTTEN_SECONDS`, and at once by a run of the same controller, which sees that the process is gone
(docs/decisions/0019).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outpost.platform.line import Words

PATH: Final = "/run/outpost-controller.lock"
RENEW_SECONDS: Final = 20
FORGOTTEN_SECONDS: Final = 90

_HEAD: Final = """\
set -u; umask 022
f={path}; mine={id}
exec 9>"$f.mutex" || exit 1
if command -v flock >/dev/null; then flock 9; fi
now=$(cut -d. -f1 /proc/uptime)
id= beat=0 who=
if [ -e "$f" ]; then {{ read -r id; read -r beat; read -r who; }} <"$f"; fi
case $beat in '' | *[!0-9]*) beat=0 ;; esac
write() {{ printf '%s\\n%s\\n%s\\n' "$mine" "$now" "$1" >"$f.new" && mv "$f.new" "$f"; }}
"""
_TAKE: Final = """\
if [ -n "$id" ] && [ "$id" != "$mine" ] && [ "$id" != {dead} ] && [ $((now - beat)) -lt {forgotten} ]; then
    printf 'held\\n%s\\n%s\\n%s\\n' "$id" "$((now - beat))" "$who"; exit 0
fi
write {who} || exit 1
if [ "$id" = "$mine" ]; then echo mine; else echo taken; fi
"""
_RENEW: Final = """\
if [ -z "$id" ] || [ "$id" = "$mine" ]; then write {who}; fi
"""
_RELEASE: Final = """\
if [ "$id" = "$mine" ]; then rm -f "$f"; fi
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of Ansible on a controller: the machine's boot, the process and when it was started."""

    boot: str
    process: int
    started: int

    def __str__(self) -> str:
        return f"{self.boot}:{self.process}:{self.started}"

    @classmethod
    def of(cls, process: int) -> Run:
        """The run whose main process this is. Raises `OSError` where there is none."""
        return cls(_boot(), process, _started(process))

    @classmethod
    def read(cls, text: str) -> Run | None:
        """What a lock holds; None where it is no run."""
        boot, _, rest = text.partition(":")
        process, _, started = rest.partition(":")
        return cls(boot, int(process), int(started)) if process.isdigit() and started.isdigit() else None

    def lives(self) -> bool | None:
        """Whether its process does; None where that is another controller's."""
        if self.boot != _boot():
            return None
        try:
            return _started(self.process) == self.started
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a host says: `taken` or `mine` (the run has the lock), or `held` by the run `holder`."""

    state: str
    holder: str = ""
    silent_seconds: int = 0
    who: str = ""


def taking(run: Run, who: str, path: str = PATH, dead: str = "-") -> str:
    """The script that takes the lock. dead: the text of a run that is known to have ended."""
    return _filled(
        _TAKE, run, path, who=shlex.quote(who), dead=shlex.quote(dead), forgotten=FORGOTTEN_SECONDS
    )


def renewing(run: Run, who: str, path: str = PATH) -> str:
    """The script that says that the run lives. A host that was restarted has lost the lock: it is taken again."""
    return _filled(_RENEW, run, path, who=shlex.quote(who))


def releasing(run: Run, path: str = PATH) -> str:
    """The script that gives the lock back, if the run has it."""
    return _filled(_RELEASE, run, path)


def answered(text: str) -> Answer | None:
    """What `taking` printed; None where it printed none of its words."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if line in ("taken", "mine"):
            return Answer(line)
        if line == "held" and len(lines) >= number + 4:
            holder, silent, who = lines[number + 1 : number + 4]
            return Answer("held", holder, int(silent) if silent.isdigit() else 0, who)
    return None


HELD: Final = Words(
    "{host} is being changed by {who}; that run was last heard of {silent} s ago. Wait until it ends; one that has"
    " died is forgotten after {forgotten} s. Nothing was changed here.",
    "{host} сейчас меняет {who}; последний признак жизни той работы был {silent} с назад. Дождитесь её конца; умершая"
    " забывается через {forgotten} с. Здесь ничего не изменено.",
)


def held(host: str, answer: Answer) -> Words:
    """What the second controller is told."""
    return HELD.by(host=host, who=answer.who, silent=answer.silent_seconds, forgotten=FORGOTTEN_SECONDS)


def _filled(script: str, run: Run, path: str, **more: object) -> str:
    return (_HEAD + script).format(path=shlex.quote(path), id=shlex.quote(str(run)), **more)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started(process: int) -> int:
    """When a process was started, in clock ticks since the boot (proc(5), stat, field 22)."""
    stat = Path(f"/proc/{process}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(process)
    return int(fields[19])
