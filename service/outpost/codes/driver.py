"""Every code of the NVIDIA driver: what is checked, why a change is refused, what to do, in English and Russian.

The checks themselves are Ansible's (`plugins/filter/outpost_driver.py` and the roles), which say a code with the value
they found; a test asks that every code they can say is here. Standard library only: the controller reads it.

`python -m outpost.codes.driver en|ru` prints docs/driver-codes.md and docs/driver-codes.ru.md; with files of
`playbooks/doctor.yml -e doctor_directory=DIRECTORY` it prints these verdicts for a person.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from outpost.codes.code_text import CodeText
from outpost.options import LANGUAGES, Exit, Language

# Judged on a host as it is: by playbooks/doctor.yml, and by site.yml before a container of ours starts.
CHECKED: Final[Mapping[str, CodeText]] = {
    "SET_INSTALLED": CodeText(
        "A host with a GPU has a driver set (doctor only).",
        "Name `nvidia_driver_set` in the region's file and run `site.yml`.",
        "У сервера с видеокартой есть набор драйвера (только в doctor).",
        "Укажите `nvidia_driver_set` в файле региона и запустите `site.yml`.",
    ),
    "PACKAGES": CodeText(
        "Every package of the set is there at its exact version, configured.",
        "Run `site.yml` for this host: it installs and locks the set.",
        "Каждый пакет набора установлен точно той версии и настроен.",
        "Запустите `site.yml` для этого сервера: набор будет установлен и закреплён.",
    ),
    "FOREIGN_PACKAGES": CodeText(
        "No other package of the driver's families is installed; a change of the set is refused too where another "
        "branch's packages would stay beside the new ones.",
        "Remove them, add them to the set, or allow them in `nvidia_driver_allow`.",
        "Других пакетов семейства драйвера нет; смена набора тоже не начнётся, если рядом остались бы пакеты другой "
        "ветки.",
        "Удалите их, добавьте в набор или разрешите в `nvidia_driver_allow`.",
    ),
    "LOCKED": CodeText(
        "Every package is on hold (apt) or in the version lock by name and version, and dnf has the plugin that "
        "reads "
        "it; of a `.run` set, which has no package, the driver's families are hidden from the repositories.",
        "Run `site.yml` for this host: it locks again. Until then do not upgrade packages there.",
        "Каждый пакет закреплён: hold в apt или versionlock в dnf с плагином, который его читает; для набора "
        "`.run`, у "
        "которого пакетов нет, семейства драйвера скрыты из репозиториев.",
        "Запустите `site.yml` для этого сервера: он закрепит заново. До тех пор не обновляйте там пакеты.",
    ),
    "LOCK_FILES": CodeText(
        "Pins, blacklist, needrestart exclusion, version lock and nouveau file are as written, and no change was cut "
        "off (doctor only).",
        "Run `site.yml` for this host.",
        "Файлы закрепления (pin, чёрный список, исключение needrestart, versionlock, nouveau) такие, как записаны, "
        "и ни "
        "одна смена не прервана на середине (только в doctor).",
        "Запустите `site.yml` для этого сервера.",
    ),
    "UPGRADE_MOVES": CodeText(
        "A simulated upgrade of the whole host moves nothing of the driver (doctor only).",
        "Run `site.yml` for this host. Until then do not upgrade packages there.",
        "Пробное обновление всего сервера ничего не меняет в драйвере (только в doctor).",
        "Запустите `site.yml` для этого сервера. До тех пор не обновляйте там пакеты.",
    ),
    "LIBRARIES": CodeText(
        "The driver's libraries on disk have one version, the set's.",
        "Two versions side by side: find the owner of the wrong files (`dpkg -S` or `rpm -qf`) and remove it.",
        "Библиотеки драйвера на диске одной версии, той, что в наборе.",
        "Две версии рядом: найдите владельца лишних файлов (`dpkg -S` или `rpm -qf`) и удалите его.",
    ),
    "MODULE_BUILT": CodeText(
        "Each installed kernel has the module: DKMS says `installed`, or the vendor's file has the version (of a "
        "`.run` "
        "set DKMS alone counts).",
        "`dkms status`, then the make.log it names. Do not reboot this host before the module is built.",
        "У каждого установленного ядра есть модуль: DKMS говорит `installed` или версия в файле поставщика верна "
        "(для "
        "набора `.run` считается только DKMS).",
        "`dkms status`, затем make.log, который он назовёт. Не перезагружайте сервер, пока модуль не собран.",
    ),
    "NOUVEAU_OFF": CodeText(
        "nouveau is not loaded, not in the initial ramdisk's list, not in X's configuration, and no initial "
        "ramdisk is "
        "older than the settings that keep it out.",
        "Run `site.yml` for this host; in `nvidia_driver_reboot_window` it also reboots a host whose change was "
        "cut off "
        "before its reboot.",
        "nouveau не загружен, его нет в начальном образе и в настройках X, и ни один начальный образ не старше "
        "настроек, "
        "которые его исключают.",
        "Запустите `site.yml` для этого сервера; в окне `nvidia_driver_reboot_window` он и перезагрузит сервер, если "
        "смена прервалась до перезагрузки.",
    ),
    "MODULE_LOADED": CodeText(
        "The kernel holds the module (hosts with a GPU).",
        "`modprobe nvidia; dmesg | tail` says why not: docs/runbooks/en/driver-does-not-come-up.md.",
        "Модуль загружен в ядро (серверы с видеокартой).",
        "`modprobe nvidia; dmesg | tail` скажет, почему нет: docs/runbooks/ru/driver-does-not-come-up.md.",
    ),
    "LATENT_MISMATCH": CodeText(
        "Loaded module and libraries are the same version: otherwise the *next* container fails, days later.",
        "Reboot the host in its window; restart no container and no Docker before.",
        "Загруженный модуль и библиотеки одной версии: иначе *следующий* контейнер не запустится, через несколько "
        "дней.",
        "Перезагрузите сервер в его окно; до этого не перезапускайте ни контейнеры, ни Docker.",
    ),
    "TOOLKIT": CodeText(
        "NVIDIA's container toolkit is there or comes with the set, on a host with a GPU whose containers are to "
        "have it "
        "(`nvidia_driver_containers`).",
        "Put the toolkit's four packages, one version, into the set; beside a `.run` installer install them and name "
        "them in `nvidia_driver_allow`. Where the processor is to compute: `nvidia_driver_containers: false`, and "
        "`device: cpu` for the systems.",
        "NVIDIA container toolkit установлен или входит в набор на сервере с видеокартой, которую получают "
        "контейнеры "
        "(`nvidia_driver_containers`).",
        "Добавьте в набор четыре пакета toolkit одной версии; рядом с установщиком `.run` установите их и назовите в "
        "`nvidia_driver_allow`. Если считать должен процессор: `nvidia_driver_containers: false` и `device: cpu` у "
        "систем.",
    ),
    "CDI_PRESENT": CodeText(
        "Such a host has a container specification of `nvidia.com/gpu`.",
        "Run `site.yml` for this host, or `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
        "На таком сервере есть описание `nvidia.com/gpu` для контейнеров.",
        "Запустите `site.yml` для этого сервера или `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
    ),
    "CDI_FRESH": CodeText(
        "No container specification in `/etc/cdi`, `/var/run/cdi` names another driver version.",
        "Run `site.yml`, or `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`, and remove the stale file.",
        "Ни одно описание для контейнеров в `/etc/cdi`, `/var/run/cdi` не называет другую версию драйвера.",
        "Запустите `site.yml` или `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` и удалите устаревший файл.",
    ),
    "CONTAINER_SEES": CodeText(
        "Each running container of ours that was given a GPU reads the same version inside, and none was started "
        "without one that the host has.",
        "Do what the value says (docs/runbooks/en/gpu-not-in-the-container.md), then `systemctl restart "
        "outpost@SYSTEM`, "
        "once LATENT_MISMATCH is ok.",
        "Каждый наш работающий контейнер с видеокартой видит внутри ту же версию, и ни один не запущен без карты, "
        "которая "
        "на сервере есть.",
        "Сделайте, что сказано в значении (docs/runbooks/ru/gpu-not-in-the-container.md), затем "
        "`systemctl restart outpost@СИСТЕМА`, когда LATENT_MISMATCH в порядке.",
    ),
    "KERNEL_RUNS": CodeText(
        "The set's kernel runs, where the set names one.",
        "Reboot the host in its window; if another kernel comes up again, set the boot loader's default.",
        "Работает ядро набора, если набор его называет.",
        "Перезагрузите сервер в его окно; если снова загрузится другое ядро, задайте ядро по умолчанию в загрузчике.",
    ),
    "NO_REFUSAL": CodeText(
        "The kernel's log holds no refusal of the driver (hosts with a GPU, doctor only).",
        "The card and the branch do not fit: Maxwell, Pascal and Volta end with 580; Blackwell needs open modules.",
        "В журнале ядра нет отказов драйвера (серверы с видеокартой, только в doctor).",
        "Карта и ветка драйвера не подходят друг к другу: Maxwell, Pascal и Volta кончаются на 580; Blackwell "
        "требует "
        "открытых модулей.",
    ),
}

# Why a change of the set is refused before anything is touched.
REFUSED: Final[Mapping[str, CodeText]] = {
    "WINDOW_OPEN": CodeText(
        "A module is loaded, the change needs a reboot, and no `nvidia_driver_reboot_window` is open for "
        "`nvidia_driver_window_minutes` more; asked again once the files are here and once the systems have stopped.",
        "Set `nvidia_driver_reboot_window` (such as '01:00-05:00', the region's time) and run within it.",
        "Модуль загружен, смена требует перезагрузки, а окно `nvidia_driver_reboot_window` не открыто ещё на "
        "`nvidia_driver_window_minutes` минут; спрашивается снова, когда файлы доставлены и когда системы "
        "остановлены.",
        "Задайте `nvidia_driver_reboot_window` (например '01:00-05:00', время региона) и запускайте внутри окна.",
    ),
    "WAY_BACK": CodeText(
        "The driver there, of packages or of somebody's `.run`, was installed by nobody's set: without a known set "
        "there "
        "is nothing to go back to.",
        "Make a set of what is installed (`playbooks/driver_set.yml`) and run with it once: it changes no package, "
        "locks, "
        "and keeps the way back. Then choose the new one.",
        "Драйвер на сервере, из пакетов или чужого `.run`, установлен не из набора: без известного набора некуда "
        "вернуться.",
        "Сделайте набор из того, что установлено (`playbooks/driver_set.yml`), и запустите с ним один раз: пакеты не "
        "изменятся, будут закреплены, и останется путь назад. Затем выберите новый набор.",
    ),
    "HEADERS": CodeText(
        "A module has to be built and a kernel has no headers, or no kernel is installed.",
        "Install the headers of each named kernel at its exact version; the message names the command, past the "
        "lock. Or "
        "remove that kernel.",
        "Модуль надо собрать, а у ядра нет заголовков, или не установлено ни одного ядра.",
        "Установите заголовки каждого названного ядра точно той же версии; команда в обход закрепления есть в "
        "сообщении. "
        "Или удалите это ядро.",
    ),
    "SECURE_BOOT": CodeText(
        "A module has to be built, Secure Boot is on, no key is enrolled; a `.run` set in any case, as its module "
        "reaches "
        "DKMS unsigned.",
        "Enrol a machine owner key at the console (`mokutil --import`, reboot) and set "
        "`nvidia_driver_secure_boot_key_enrolled`, or switch Secure Boot off in the firmware.",
        "Модуль надо собрать, Secure Boot включён, ключ не внесён; для набора `.run` - в любом случае: его модуль "
        "приходит "
        "в DKMS без подписи.",
        "Внесите ключ владельца с консоли (`mokutil --import`, перезагрузка) и задайте "
        "`nvidia_driver_secure_boot_key_enrolled` или выключите Secure Boot в прошивке.",
    ),
    "CLOSED_ENVIRONMENT": CodeText(
        "Astra's closed software environment (ЗПС) forbids the `.run` installer.",
        "Use the vendor's signed packages, or have the security officer decide about `astra-digsig-control`.",
        "Замкнутая программная среда Astra (ЗПС) запрещает установщик `.run`.",
        "Возьмите подписанные пакеты поставщика, или пусть администратор безопасности решит об "
        "`astra-digsig-control`.",
    ),
    "RUN_OVER_PACKAGES": CodeText(
        "A `.run` installer would go over packages of the driver's families that `nvidia_driver_allow` does not "
        "name.",
        "Remove the packages first: the installer overwrites their files and their next update breaks both.",
        "Установщик `.run` лёг бы поверх пакетов семейства драйвера, которых нет в `nvidia_driver_allow`.",
        "Сначала удалите пакеты: установщик перезапишет их файлы, и следующее обновление сломает и то и другое.",
    ),
    "PACKAGES_OVER_RUN": CodeText(
        "Packages would go over a driver of NVIDIA's installer: its files belong to no package.",
        "Stop the inference systems, run `nvidia-uninstall --silent`, then this again.",
        "Пакеты легли бы поверх драйвера из установщика NVIDIA: его файлы не принадлежат ни одному пакету.",
        "Остановите ИИ-системы, выполните `nvidia-uninstall --silent` и повторите запуск.",
    ),
}

# Said by other roles on a host with a card, before a system of ours is touched.
STOPS: Final[Mapping[str, CodeText]] = {
    "DOCKER_CDI": CodeText(
        "Docker is older than 25 and gives no GPU to containers by CDI (role `container_runtime`).",
        "Have Docker 25 or later installed: docs/runbooks/en/gpu-not-in-the-container.md. Where the processor is to "
        "compute: `nvidia_driver_containers: false`, and `device: cpu` for the systems.",
        "Docker старше 25 и не даёт контейнерам видеокарту через CDI (роль `container_runtime`).",
        "Установите Docker 25 или новее: docs/runbooks/ru/gpu-not-in-the-container.md. Если считать должен "
        "процессор: "
        "`nvidia_driver_containers: false` и `device: cpu` у систем.",
    ),
    "GPU_GIVEN": CodeText(
        "A system's `device` cannot be given to its container now: no module, no specification, a stale one, no "
        "such card "
        "(role `inference`).",
        "The message says which: docs/runbooks/en/gpu-not-in-the-container.md. Nothing was changed or restarted.",
        "Карту из `device` системы сейчас нельзя дать контейнеру: нет модуля, нет описания, описание устарело или "
        "такой "
        "карты нет (роль `inference`).",
        "Что именно, сказано в сообщении: docs/runbooks/ru/gpu-not-in-the-container.md. Ничего не изменено и не "
        "перезапущено.",
    ),
}

_HEAD: Final[dict[Language, str]] = {
    "en": """# Driver codes

Made by `python -m outpost.codes.driver en > docs/driver-codes.md`; a test holds it to the tables in
`service/outpost/codes/driver.py`. A code keeps its meaning for good. [По-русски](driver-codes.ru.md).

`playbooks/doctor.yml` judges the NVIDIA driver of each host, read only, and ends with an exit code that is not 0 when
a check fails. Its verdict is one JSON object a host:
`{host, set, status, failed, note, checks: [{code, ok, value, wanted, remedy}]}`; with
`-e doctor_directory=DIRECTORY` it is written to `DIRECTORY/HOST.json` on the controller, and
`PYTHONPATH=service python3 -m outpost.codes.driver en DIRECTORY/*.json` says it for a person. `site.yml` judges by
the same checks before anything of ours starts a container, and stops there, in the language of `outpost_language`.
""",
    "ru": """# Коды драйвера

Создано командой `python -m outpost.codes.driver ru > docs/driver-codes.ru.md`; тест сверяет страницу с таблицами в
`service/outpost/codes/driver.py`. Код сохраняет свой смысл навсегда. [In English](driver-codes.md).

`playbooks/doctor.yml` судит о драйвере NVIDIA каждого сервера, ничего не меняя, и кончается кодом не 0, если проверка
не пройдена. Заключение - один объект JSON на сервер:
`{host, set, status, failed, note, checks: [{code, ok, value, wanted, remedy}]}`; с
`-e doctor_directory=КАТАЛОГ` он пишется в `КАТАЛОГ/СЕРВЕР.json` на управляющей машине, и
`PYTHONPATH=service python3 -m outpost.codes.driver ru КАТАЛОГ/*.json` скажет его по-человечески. `site.yml` судит по
тем же проверкам, прежде чем запустить наш контейнер, и там останавливается; он говорит на языке `outpost_language`.
""",
}
_GROUPS: Final = (
    (
        CHECKED,
        ("What is checked", "code", "what is checked", "what to do"),
        ("Что проверяется", "код", "что проверяется", "что делать"),
    ),
    (
        REFUSED,
        ("What refuses a change of the set, before anything is touched", "code", "why", "what to do"),
        ("Что не даёт начать смену набора; ничего ещё не тронуто", "код", "почему", "что делать"),
    ),
    (
        STOPS,
        (
            "What stops `site.yml` on a host with a card, before a system of ours is touched",
            "code", "why", "what to do",
        ),
        (
            "Что останавливает `site.yml` на сервере с видеокартой; наши системы ещё не тронуты",
            "код", "почему", "что делать",
        ),
    ),
)  # fmt: skip
CODES: Final[Mapping[str, CodeText]] = {**CHECKED, **REFUSED, **STOPS}


def explain(code: str) -> CodeText | None:
    """What the code means; None for one that is none of the driver's."""
    return CODES.get(code)


def in_russian(check: Mapping[str, Any]) -> str:
    """What a failed check means and what to do, in Russian; its own remedy, which may name a version, behind it."""
    known = explain(check["code"])
    if known is None:
        return str(check["remedy"])
    begin = "Должно быть так" if check["code"] in CHECKED else "Почему"
    return f"{begin}: {known.meaning_ru} Сделать: {known.remedy_ru} ({check['remedy']})"


def page(language: Language) -> str:
    """All codes as a page of documentation."""
    text = _HEAD[language]
    for codes, english, russian in _GROUPS:
        title, *columns = russian if language == "ru" else english
        text += f"\n## {title}\n\n| {' | '.join(columns)} |\n|---|---|---|\n"
        for code, known in codes.items():
            cells = (_linked(cell.replace("|", "\\|")) for cell in known.said(language))
            text += f"| `{code}` | {' | '.join(cells)} |\n"
    return text


def _linked(cell: str) -> str:
    return re.sub(r"docs/(runbooks/\w\w/([a-z-]+)\.md)", r"[\2](\1)", cell)


def report(verdict: Mapping[str, Any], language: Language) -> list[str]:
    """A verdict of the doctor as lines of text: what fails first, with what it means and what to do."""
    russian = language == "ru"
    found, wanted = ("есть", "нужно") if russian else ("is", "wanted")
    status = {"ok": "драйвер в порядке", "failed": "драйвер НЕ в порядке"}.get(verdict["status"], "")
    lines = [
        f"{verdict['host']}: {status or verdict['status'] if russian else 'driver ' + verdict['status']}"
    ]
    lines[0] += f" ({verdict['set']})" if verdict["set"] else ""
    checks: Sequence[Mapping[str, Any]] = verdict["checks"]
    for check in (one for one in checks if not one["ok"]):
        lines.append(f"  [{check['code']}] {found}: {check['value']}; {wanted}: {check['wanted']}")
        lines.append(f"      {in_russian(check) if russian else check['remedy']}")
    passed = sum(1 for one in checks if one["ok"])
    return [*lines, f"  {passed} {'проверок пройдено' if russian else 'checks passed'}"]


def main(arguments: Sequence[str]) -> int:
    """`python -m outpost.codes.driver en|ru [FILE...]`. Exit status 1 when a driver is not well."""
    if not arguments or arguments[0] not in LANGUAGES:
        sys.stderr.write("usage: python -m outpost.codes.driver en|ru [HOST.json ...]\n")
        return Exit.USAGE
    language: Language = "ru" if arguments[0] == "ru" else "en"
    if not arguments[1:]:
        sys.stdout.write(page(language))
        return Exit.OK
    failed = False
    for name in arguments[1:]:
        try:
            verdict = json.loads(Path(name).read_text(encoding="utf-8"))
            lines = report(verdict, language)
        except (OSError, ValueError, KeyError, TypeError) as error:
            told = (
                "это не заключение playbooks/doctor.yml"
                if language == "ru"
                else "no verdict of playbooks/doctor.yml"
            )
            sys.stderr.write(f"{name}: {told} ({error})\n")
            return Exit.USAGE
        sys.stdout.write("\n".join(lines) + "\n")
        failed |= verdict["status"] != "ok"
    return Exit.FOUND if failed else Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
