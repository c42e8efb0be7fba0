"""What of a role's packages a host lacks, and what to do about it: scripts for the host, words for a person.

The network is asked only where something is missing. A repository that does not answer is named, and stops the run
only where what is missing came from nowhere else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Literal

from outpost.platform.line import Words, listed, same

Manager = Literal["apt", "dnf"]
# Lists older than this are fetched again before something is installed.
LISTS_SECONDS: Final = 3600
# How long a run waits for another program that holds the package tool's lock.
LOCK_SECONDS: Final = 180

# What is parsed is asked for in English, whatever the host speaks.
_HEAD: Final = "export LC_ALL=C LANGUAGE=C; PATH=$PATH:/usr/sbin:/sbin\n"
_LOOK_APT: Final = """\
dpkg-query -W -f='is|${{db:Status-Abbrev}}|${{Package}}|${{Version}}\\n' {names} 2>/dev/null
said=$(dpkg-query -W 2>&1 >/dev/null) || echo "unreadable|$(echo "$said" | grep -v warning: | tr '\\n' ' ')"
torn=$(dpkg-query -W -f='${{db:Status-Abbrev}} ${{Package}}\\n' 2>/dev/null | sed -n 's/^.[FUHWt]. *//p' | tr '\\n' ' ')
[ -z "$(ls -A "${{DPKG_ADMINDIR:-/var/lib/dpkg}}/updates" 2>/dev/null)" ] || torn="$torn(journal) "
echo "torn|$torn"
now=$(date +%s); oldest=
for list in /var/lib/apt/lists/*_Packages*; do
    if [ -e "$list" ]; then oldest=$(stat -c %Y /var/lib/apt/lists 2>/dev/null); break; fi
done
echo "age|$((now - ${{oldest:-0}}))"
"""
_LOOK_DNF: Final = """\
exec 3>&1
for name in {names}; do
    found=$(rpm -q --whatprovides --qf '%{{VERSION}}\\n' "$name" 2>/dev/null | head -n 1) || found=
    if rpm -q "$name" || rpm -q --whatprovides "$name"; then echo "is|ii |$name|$found" >&3; fi >/dev/null 2>&1
done
said=$(timeout 60 rpm -qa 2>&1 >/dev/null); ended=$?
if [ $ended -ne 0 ] || echo "$said" | grep -q '^error'; then echo "unreadable|$(echo "$said" | tr '\\n' ' ')"; fi
echo "torn|"
echo "age|0"
"""
_REPAIR: Final = """\
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 DPKG_COLORS=never
dpkg --force-confdef --force-confold --configure -a </dev/null 2>&1
"""
# A list that is being fetched by somebody else is locked for as long as that takes.
_REFRESH: Final = """\
tries=0
while :; do
    said=$(apt-get -q -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o Acquire::Retries=1 \\
        update </dev/null 2>&1)
    case $said in *"Could not get lock"*) ;; *) break ;; esac
    tries=$((tries + 1)); [ $tries -lt {tries} ] || break
    sleep 5
done
printf '%s\\n' "$said"
"""

_APT_DEAD: Final = re.compile(
    r"^[WE]: (?:Failed to fetch |The repository '|Release file for |GPG error: )(?P<where>\w+:\S+) ?(?P<why>.*)$",
    re.M,
)
_DNF_DEAD: Final = re.compile(
    r"(?:Failed to download metadata for repo|metadata for repository) ['\"](?P<where>[^'\"]+)"
)


@dataclass(frozen=True, slots=True)
class Looked:
    """What a host has of the packages that were asked for.

    Attributes:
        missing: names that are not installed whole, in the order asked.
        torn: names of any packages that dpkg has not finished; `(journal)` for its own unfinished writing.
        unreadable: what the package tool says where its database cannot be read; empty where it can.
        lists_age: seconds since the package lists were fetched; of dnf 0, as it looks after its own.
    """

    missing: tuple[str, ...]
    torn: tuple[str, ...]
    unreadable: str
    lists_age: int


def looking(manager: Manager, names: Sequence[str]) -> str:
    """The script that says what is there; it changes nothing and asks no network."""
    plain = [_name(manager, name) for name in names]
    script = _LOOK_APT if manager == "apt" else _LOOK_DNF
    return _HEAD + script.format(names=" ".join(map(shlex.quote, plain)))


def looked(manager: Manager, names: Sequence[str], text: str) -> Looked | None:
    """What `looking` printed; None where it broke off."""
    there: dict[str, str] = {}
    torn, unreadable, age = "", "", None
    for line in text.splitlines():
        kind, _, rest = line.strip().partition("|")
        if kind == "is":
            state, name, version = [*rest.split("|"), "", ""][:3]
            if state[1:2] == "i" and state[:1] in "ih" and not state[2:3].strip():
                there[name.partition(":")[0]] = version
        elif kind == "torn":
            torn = rest
        elif kind == "unreadable":
            unreadable = " ".join(rest.split()) or "no word"
        elif kind == "age" and rest.lstrip("-").isdigit():
            age = int(rest)
    if age is None:
        return None
    missing = tuple(name for name in names if not _is_there(manager, name, there))
    return Looked(missing, tuple(torn.split()), unreadable, age)


def repairing() -> str:
    """The script that finishes what dpkg began: the command that dpkg itself asks for."""
    return _HEAD + _REPAIR


def refreshing() -> str:
    """The script that fetches apt's lists; it prints what apt-get says."""
    return _HEAD + _REFRESH.format(tries=LOCK_SECONDS // 5)


def dead_repositories(manager: Manager, text: str) -> dict[str, str]:
    """Repositories that did not answer, and why, out of what the package tool said."""
    pattern = _APT_DEAD if manager == "apt" else _DNF_DEAD
    return {
        found["where"].rstrip("':,"): " ".join(found.groupdict().get("why", "").split())[:200]
        for found in pattern.finditer(text)
    }


_JOURNAL: Final = re.compile(r"/var/lib/dpkg/updates/[0-9]+")
_FINISH: Final = "dpkg --configure -a && apt-get --fix-broken install"
_UNREADABLE: Final = Words(
    "{host}: the database of the package tool cannot be read: {why} Nothing was changed. On the host: {command}; then"
    " run this again.",
    "{host}: база пакетов не читается: {why} Ничего не изменено. На сервере: {command}; затем запустите это снова.",
)
_TORN: Final = Words(
    "{host}: packages are half installed ({names}) and could not be finished: {why} On the host: {command}; then run"
    " this again.",
    "{host}: пакеты установлены наполовину ({names}), довести их до конца не удалось: {why} На сервере: {command};"
    " затем запустите это снова.",
)
_NOT_INSTALLED: Final = Words(
    "{host}: not installed: {names}. The package tool says: {why}{dead} Give the host a repository that has them, and"
    " run this again.",
    "{host}: не установлено: {names}. Пакетный менеджер говорит: {why}{dead} Дайте серверу репозиторий, где они есть,"
    " и запустите это снова.",
)
_NOT_LOOKED_AT: Final = Words(
    "{host}: the host cannot say what is installed: {why} Look whether /bin/sh and the package tool run there, and run"
    " this again.",
    "{host}: сервер не может сказать, что установлено: {why} Проверьте, что /bin/sh и пакетный менеджер там работают, и"
    " запустите это снова.",
)
_NOT_NEEDED: Final = Words(
    "{host}: repository {place} did not answer; nothing was needed from it",
    "{host}: репозиторий {place} не ответил; из него ничего не требовалось",
)
_NO_ANSWER: Final = Words("no answer.", "ответа нет.")
_DEAD: Final = Words(" No answer from: {places}.", " Не отвечают: {places}.")


def not_looked_at(host: str, why: str) -> Words:
    """The script of `looking` broke off."""
    return _NOT_LOOKED_AT.by(host=host, why=_sentence(why) if why else _NO_ANSWER)


def not_needed(host: str, place: str) -> Words:
    """A repository did not answer, and everything that was missing came from others."""
    return _NOT_NEEDED.by(host=host, place=place)


def unreadable(host: str, manager: Manager, why: str) -> Words:
    """The package tool cannot say what is installed."""
    return _UNREADABLE.by(host=host, why=_sentence(why), command=repair(manager, why))


def repair(manager: Manager, why: str) -> str:
    """The commands that mend a package database of which the tool says `why`."""
    if manager == "dnf":
        return "rpm --rebuilddb"
    half = _JOURNAL.search(why)
    if half:
        return f"rm {half.group()} && {_FINISH}"
    # dpkg keeps the file of before beside it, and Debian one of each day in /var/backups.
    return f"cp /var/lib/dpkg/status-old /var/lib/dpkg/status && {_FINISH}"


def unfinished(host: str, names: Sequence[str], why: str) -> Words:
    """dpkg could not finish what it had begun."""
    return _TORN.by(host=host, names=listed(names), why=_sentence(why), command=_FINISH)


def not_installed(host: str, names: Sequence[str], why: str, dead: dict[str, str]) -> Words:
    """What was missing is missing still."""
    places = "; ".join(f"{where} ({said})" if said else where for where, said in dead.items())
    silent = _DEAD.by(places=places) if dead else same("")
    return _NOT_INSTALLED.by(host=host, names=listed(names), why=_sentence(why), dead=silent)


def _sentence(text: str) -> str:
    line = " ".join(text.split())[-600:]
    return line if line.endswith((".", "!", "?")) else line + "."


def _name(manager: Manager, wanted: str) -> str:
    """The name of what may be NAME=VERSION or NAME/SUITE for apt."""
    return re.split(r"[=/]", wanted, maxsplit=1)[0] if manager == "apt" and wanted[:1] != "/" else wanted


def _is_there(manager: Manager, wanted: str, there: dict[str, str]) -> bool:
    name = _name(manager, wanted)
    if name.partition(":")[0] not in there:
        return False
    version = wanted.partition("=")[2] if manager == "apt" else ""
    return not version or fnmatchcase(there[name.partition(":")[0]], version)
