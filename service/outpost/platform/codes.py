"""Every check of the verdict: its stable code, what it proves, what to do.

Codes are an interface: never renamed or reused.

`python -m outpost.platform codes` prints the table as docs/preflight.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from outpost.platform.line import Language, Line, Words, same

Group = Literal[
    "ground", "inventory", "system", "host", "others", "network", "gpu", "driver", "torch", "astra"
]
GROUPS: Final[Mapping[Group, str]] = {
    "ground": "What the run starts from, on the controller",
    "inventory": "The inventory alone, no host needed",
    "system": "The operating system",
    "host": "What the host offers against what its systems ask",
    "others": "What on the host is the hospital's own",
    "network": "What the host reaches",
    "gpu": "The video cards",
    "driver": "The driver and the kernel",
    "torch": "CUDA, torch and the model bundles",
    "astra": "Astra Linux's own protection",
}
RUNBOOK: Final = "docs/runbooks/{language}/new-server.md"
_PAGE_HEAD: Final = """# Preflight codes

Made by `python -m outpost.platform codes > docs/preflight.md`; a test holds it to the table in
`service/outpost/platform/codes.py`. A code keeps its meaning for good. [По-русски](preflight.ru.md).

`playbooks/preflight.yml` (and the head of every `site.yml` run) judges each host before anything changes. A failed
*critical* line stops that host there; other hosts go on. Other failed lines are warnings. A line whose only ground is
an unverified fact says so and never stops a host. Reports lie in `.preflight/` on the controller: `HOST.json` for
machines, `HOST.html` to send, `index.html` over all hosts of the run. `outpost platform verdict` answers the same
without a host; [what to do with a new server](runbooks/en/new-server.md).

On an unsupported operating system, or without Python 3.8, lines on what the host offers are left out: it cannot be
asked."""
_GROUPS_RU: Final[Mapping[str, str]] = {
    "ground": "От чего начинается запуск",
    "inventory": "По одному инвентарю, сервер не нужен",
    "system": "Операционная система",
    "host": "Что есть на сервере и что нужно системам",
    "others": "Что на сервере принадлежит больнице",
    "network": "До чего сервер достаёт по сети",
    "gpu": "Видеокарты",
    "driver": "Драйвер и ядро",
    "torch": "CUDA, torch и модели",
    "astra": "Собственная защита Astra Linux",
}
_PAGE_HEAD_RU: Final = """# Коды предварительной проверки

Создано командой `python -m outpost.platform codes --language ru > docs/preflight.ru.md`; тест сверяет страницу с
таблицей в `service/outpost/platform/codes.py`. Код сохраняет свой смысл навсегда. [In English](preflight.md).

`playbooks/preflight.yml` (и начало каждого запуска `site.yml`) судит о каждом сервере, прежде чем что-либо изменится.
Непройденная *критичная* строка останавливает этот сервер; остальные идут дальше. Прочие непройденные строки -
предупреждения. Строка, которая держится только на непроверенном сведении, говорит об этом и никого не останавливает.
Отчёты лежат на управляющей машине в `.preflight/`: `HOST.json` для программ, `HOST.html` чтобы переслать, `index.html`
по всем серверам. `outpost platform verdict` отвечает на то же без сервера;
[что делать с новым сервером](runbooks/ru/new-server.md).

В неподдерживаемой системе или без Python 3.8 строк о том, что есть на сервере, нет: его нельзя спросить."""


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table. `proves` is what is true when the line is ok."""

    group: Group
    critical: bool
    proves: Words
    remedy: Words


def _code(group: Group, critical: bool, proves: tuple[str, str], remedy: tuple[str, str]) -> Code:
    return Code(group, critical, Words(*proves), Words(*remedy))


CODES: Final[Mapping[str, Code]] = {
    # The controller.
    "root-secret": _code(
        "ground",
        True,
        (
            "outpost_root_secret is set, long enough, and nobody else's.",
            "outpost_root_secret задан, достаточно длинный и только ваш.",
        ),
        (
            "Make one with `openssl rand -hex 32`, keep it in ansible-vault; inventories/example/README.md.",
            "Создайте: `openssl rand -hex 32`, храните в ansible-vault; inventories/example/README.md.",
        ),
    ),
    "release-there": _code(
        "ground",
        True,
        (
            "The release to be deployed lies on the controller, with a manifest of that version.",
            "Нужный выпуск лежит на управляющем узле, и манифест той же версии.",
        ),
        (
            "Set outpost_release and outpost_release_directory, or bring the release; `make release` builds one.",
            "Задайте outpost_release, outpost_release_directory или положите выпуск; `make release` собирает его.",
        ),
    ),
    "release-whole": _code(
        "ground",
        True,
        (
            "The release's archive has the size and the digest of its manifest.",
            "Размер и контрольная сумма архива выпуска те же, что в манифесте.",
        ),
        (
            "Copy the archive again from where it was built, and compare with `sha256sum`.",
            "Скопируйте архив заново оттуда, где он собран, и сверьте `sha256sum`.",
        ),
    ),
    "controller-clock": _code(
        "ground",
        True,
        (
            "The controller's clock is not before the release was made.",
            "Часы управляющего узла не раньше времени создания выпуска.",
        ),
        (
            "Set the controller's clock: hosts are judged by it, and certificates are dated by it.",
            "Переведите часы управляющего узла: по ним судят об узлах и датируют сертификаты.",
        ),
    ),
    # The inventory.
    "system-name": _code(
        "inventory",
        True,
        (
            "A system's name is a letter, then 1 to 30 of a-z 0-9 -.",
            "Имя системы: буква, затем от 1 до 30 знаков a-z 0-9 -.",
        ),
        ("Rename the system in outpost_systems.", "Переименуйте систему в outpost_systems."),
    ),
    "system-keys": _code(
        "inventory",
        True,
        (
            "A system has dicom_port, api_port, cores, memory_mib, and vram_mib, device if it likes; nothing else.",
            "У системы есть dicom_port, api_port, cores, memory_mib, по желанию vram_mib, device, и ничего больше.",
        ),
        (
            "Correct outpost_systems in the region's file or in group_vars/region.yml.",
            "Исправьте outpost_systems в файле региона или в group_vars/region.yml.",
        ),
    ),
    "ports-distinct": _code(
        "inventory",
        True,
        ("No two systems of a host share a port.", "У систем одного узла нет общих портов."),
        (
            "Give every system of the host its own dicom_port and api_port.",
            "Дайте каждой системе узла свои dicom_port и api_port.",
        ),
    ),
    # The operating system.
    "os-supported": _code(
        "system",
        True,
        (
            "The operating system is one the roles are written for.",
            "Операционная система из числа тех, для которых написаны роли.",
        ),
        (
            "Nothing was changed. Install a supported release, or take the host out of the inventory.",
            "Ничего не изменено. Установите поддерживаемую версию или уберите узел из инвентаря.",
        ),
    ),
    "python": _code(
        "system",
        True,
        (
            "/usr/bin/python3 is 3.8 or later, which Ansible needs.",
            "/usr/bin/python3 версии 3.8 или новее: этого требует Ansible.",
        ),
        ("Install the system's own package python3.", "Установите пакет python3 самой системы."),
    ),
    "init-systemd": _code(
        "system",
        True,
        ("Process 1 is systemd.", "Процесс 1: systemd."),
        (
            "Outpost runs under systemd; install the system with its own init.",
            "Outpost работает под systemd; установите систему с её собственным init.",
        ),
    ),
    "rights-root": _code(
        "system",
        True,
        ("The playbook acts as root.", "Плейбук работает от root."),
        (
            "Connect as root, or as a user with sudo and set ansible_become_password.",
            "Подключайтесь как root или как пользователь с sudo и задайте ansible_become_password.",
        ),
    ),
    # Capacity.
    "memory": _code(
        "host",
        True,
        (
            "Memory of all systems and a reserve fit the host.",
            "Памяти узла хватает всем системам и на запас.",
        ),
        (
            "Lower memory_mib of the systems, or move one to another host.",
            "Уменьшите memory_mib систем или перенесите одну на другой узел.",
        ),
    ),
    "cores": _code(
        "host",
        True,
        ("Cores of all systems fit the host.", "Ядер узла хватает всем системам."),
        (
            "Lower cores of the systems, or move one to another host.",
            "Уменьшите cores систем или перенесите одну на другой узел.",
        ),
    ),
    "vram": _code(
        "host",
        True,
        (
            "The systems' vram_mib together fit the smallest video card's memory.",
            "Сумма vram_mib систем помещается в память наименьшей видеокарты.",
        ),
        (
            "Lower vram_mib of the systems, or move one to another host.",
            "Уменьшите vram_mib систем или перенесите одну на другой узел.",
        ),
    ),
    "disk": _code(
        "host",
        True,
        ("Enough is free under each directory.", "В каждом каталоге достаточно свободного места."),
        (
            "Free space; `du -xh DIRECTORY | sort -h | tail` names the largest.",
            "Освободите место; `du -xh КАТАЛОГ | sort -h | tail` покажет самое большое.",
        ),
    ),
    "boot-space": _code(
        "host",
        False,
        (
            "/boot has room for one more kernel's boot image.",
            "В /boot есть место ещё под один загрузочный образ ядра.",
        ),
        (
            "Remove kernels that are not needed before a driver rebuilds the boot images.",
            "Удалите ненужные ядра, прежде чем драйвер пересоберёт загрузочные образы.",
        ),
    ),
    "inodes": _code(
        "host",
        True,
        ("File systems can take the files of a release.", "Файловые системы вместят файлы выпуска."),
        (
            "Remove what made so many files: `du --inodes -x DIRECTORY | sort -n | tail` names where they are.",
            "Удалите то, что создало столько файлов: `du --inodes -x КАТАЛОГ | sort -n | tail` покажет, где они.",
        ),
    ),
    "temp-space": _code(
        "host",
        True,
        (
            "There is room for temporary files of the run.",
            "Для временных файлов запуска есть место.",
        ),
        (
            "Free space there; files of /tmp that nobody uses go with a restart of the host.",
            "Освободите там место; ненужные файлы в /tmp уходят с перезагрузкой сервера.",
        ),
    ),
    "writable": _code(
        "host",
        True,
        (
            "The directories that a run writes to are not read-only.",
            "Каталоги, куда пишет запуск, открыты для записи.",
        ),
        (
            "Look at `findmnt`, `lsattr -d DIRECTORY` and `journalctl -k`: of a failing disk the kernel makes it"
            " read-only.",
            "Посмотрите `findmnt`, `lsattr -d КАТАЛОГ` и `journalctl -k`: при сбое диска ядро делает его доступным"
            " только для чтения.",
        ),
    ),
    "package-tool": _code(
        "host",
        True,
        (
            "The package tool's database can be read.",
            "База пакетного менеджера читается.",
        ),
        (
            "Mend it: dpkg's with /var/lib/dpkg/status-old, rpm's with `rpm --rebuilddb`.",
            "Почините её: у dpkg - из /var/lib/dpkg/status-old, у rpm - командой `rpm --rebuilddb`.",
        ),
    ),
    "package-torn": _code(
        "host",
        False,
        (
            "No package is half installed.",
            "Нет пакетов, установленных наполовину.",
        ),
        (
            "A run that installs something finishes them first; by hand: `dpkg --configure -a`.",
            "Запуск, которому нужно что-то установить, сначала доведёт их до конца; вручную: `dpkg --configure -a`.",
        ),
    ),
    "clock": _code(
        "host",
        True,
        (
            "The host's clock is within seconds of the controller's.",
            "Часы узла расходятся с часами управляющей машины на секунды.",
        ),
        (
            "Set it (`timedatectl set-time`), then look at `chronyc sources`.",
            "Выставьте (`timedatectl set-time`), затем посмотрите `chronyc sources`.",
        ),
    ),
    "port-free": _code(
        "host",
        True,
        ("Each port is free, or held by its own unit.", "Каждый порт свободен или занят своей службой."),
        (
            "Leave the stranger (`ss -ltnp`) and choose another port for ours, or stop it if nobody needs it.",
            "Оставьте чужую программу (`ss -ltnp`) и выберите нашей другой порт или остановите её, если она не нужна.",
        ),
    ),
    # What is not ours.
    "docker-engine": _code(
        "others",
        True,
        (
            "Docker is not there yet, or an engine that the systems can use; it is never replaced.",
            "Docker ещё нет, или есть движок, годный для систем; его никогда не заменяют.",
        ),
        (
            "Look at `docker version` and at the package that brought it.",
            "Посмотрите `docker version` и пакет, которым он поставлен.",
        ),
    ),
    "docker-settings": _code(
        "others",
        True,
        (
            "What we need can be merged into /etc/docker/daemon.json, and what is there stays.",
            "Нужное нам можно добавить в /etc/docker/daemon.json, и всё, что там есть, останется.",
        ),
        (
            "Correct that file, or set the key by container_runtime_settings; nothing was changed.",
            "Исправьте этот файл или задайте ключ через container_runtime_settings; ничего не изменено.",
        ),
    ),
    "docker-networks": _code(
        "others",
        True,
        (
            "Docker's bridge, networks and address pools are apart from the host's routes and the hospital's networks.",
            "Мост, сети и диапазоны Docker не пересекаются с маршрутами узла и сетями больницы.",
        ),
        (
            "Set container_runtime_bip and container_runtime_address_pools to networks that are free there.",
            "Задайте в container_runtime_bip и container_runtime_address_pools сети, свободные у вас.",
        ),
    ),
    "containers-others": _code(
        "others",
        False,
        (
            "Containers of others live through a restart of Docker.",
            "Чужие контейнеры переживут перезапуск Docker.",
        ),
        (
            "Docker is restarted in this run and they with it: tell their owners, or set live-restore before.",
            "В этом запуске Docker перезапустится, и они с ним: предупредите владельцев или включите"
            " live-restore заранее.",
        ),
    ),
    "service-account": _code(
        "others",
        True,
        (
            "The name and the number of the service's user and group are free, or ours.",
            "Имя и номер пользователя и группы службы свободны или наши.",
        ),
        (
            "The number is part of the image. Give the other account another one (`usermod -u`, `groupmod -g`,"
            " and `chown`"
            " of its files), or give the systems another host; nothing was changed.",
            "Номер записан в образе. Дайте той учётной записи другой (`usermod -u`, `groupmod -g` и `chown` её"
            " файлов) или"
            " дайте системам другой узел; ничего не изменено.",
        ),
    ),
    "names-ours": _code(
        "others",
        True,
        (
            "Directories, units and commands of our names are not there yet, or ours.",
            "Каталогов, служб и команд с нашими именами ещё нет, или они наши.",
        ),
        (
            "Another program has that name. Move it away yourself, or give the systems another host; nothing was"
            " changed.",
            "Это имя занято другой программой. Перенесите её сами или дайте системам другой узел; ничего не изменено.",
        ),
    ),
    "time-keeper": _code(
        "others",
        False,
        (
            "One program keeps the clock; the one that is there stays.",
            "Часы держит одна программа; та, что есть, остаётся.",
        ),
        (
            "Let one of them keep the time, and look that it is synchronised: `timedatectl`.",
            "Оставьте одну из них и посмотрите, что время синхронно: `timedatectl`.",
        ),
    ),
    "firewall-other": _code(
        "others",
        True,
        (
            "No firewall beside Outpost's own table closes the ports to those who are named.",
            "Кроме таблицы самого Outpost, порты не закрывает никакой межсетевой экран.",
        ),
        (
            "It would drop what Outpost's rules let in, behind a green run. Switch it off (`ufw disable`,"
            " `systemctl disable --now firewalld`); or open the ports of docs/closed-hosts.md in it yourself and set"
            " preflight_other_firewalls: true.",
            "Он отбросит то, что правила Outpost пропускают, и запуск об этом не узнает. Выключите его (`ufw disable`,"
            " `systemctl disable --now firewalld`); или откройте в нём порты из docs/closed-hosts.md и задайте"
            " preflight_other_firewalls: true.",
        ),
    ),
    "database-cluster": _code(
        "host",
        True,
        (
            "One cluster of PostgreSQL holds our database, or there never was one; its disk is mounted, its port free.",
            "База есть ровно в одном кластере PostgreSQL или её ещё не было; диск смонтирован, порт свободен.",
        ),
        (
            "The line names every cluster and what to do; docs/runbooks/en/postgres-upgrade.md.",
            "В строке названы все кластеры и что делать; docs/runbooks/ru/postgres-upgrade.md.",
        ),
    ),
    "system-left": _code(
        "host",
        False,
        (
            "Every inference system of the host is in the inventory.",
            "Каждая система узла есть в инвентаре.",
        ),
        (
            "It runs on as it is. Put it back into outpost_systems, or take it out of service: "
            "playbooks/remove.yml -e outpost_system=NAME.",
            "Она работает как есть. Верните её в outpost_systems или выведите из работы: "
            "playbooks/remove.yml -e outpost_system=ИМЯ.",
        ),
    ),
    "system-renamed": _code(
        "host",
        True,
        (
            "No system and no region has another name than the host knows it by.",
            "Ни у одной системы и ни у региона нет другого имени, чем на узле.",
        ),
        (
            "Keep the old name (region_title changes what people read), or remove the old one first: "
            "docs/runbooks/en/remove-or-rename.md.",
            "Оставьте прежнее имя (для людей есть region_title) или сначала выведите прежнюю: "
            "docs/runbooks/ru/remove-or-rename.md.",
        ),
    ),
    # The network.
    "dns": _code(
        "network",
        False,
        ("Names the host needs resolve.", "Нужные узлу имена разрешаются."),
        (
            "Look at /etc/resolv.conf and ask for the name by hand: `getent hosts NAME`.",
            "Посмотрите /etc/resolv.conf и спросите имя вручную: `getent hosts ИМЯ`.",
        ),
    ),
    "reach": _code(
        "network",
        False,
        (
            "Addresses named in preflight_reach take a TCP connection (the centre over the VPN, the PACS).",
            "Адреса из preflight_reach принимают соединение TCP (центр через VPN, PACS).",
        ),
        (
            "Ask the network's admin for TCP to that address. A train without a link may ignore this.",
            "Попросите администратора сети открыть TCP на этот адрес. Для поезда без связи это не ошибка.",
        ),
    ),
    "registry": _code(
        "network",
        False,
        (
            "The image registry named in preflight_registry takes a TCP connection.",
            "Реестр образов из preflight_registry принимает соединение TCP.",
        ),
        (
            "Open the way to the registry, or deliver releases as an archive.",
            "Откройте доступ к реестру или доставляйте выпуски архивом.",
        ),
    ),
    "package-source": _code(
        "network",
        True,
        (
            "Where a package is missing, a repository answers.",
            "Если не хватает пакета, хотя бы один репозиторий отвечает.",
        ),
        (
            "Give the host the way to a repository (a mirror in the region, a disc), or install the packages by hand.",
            "Дайте серверу доступ к репозиторию (зеркало в регионе, диск) или установите пакеты вручную.",
        ),
    ),
    "repository": _code(
        "network",
        False,
        (
            "Every repository answers, while a package is missing.",
            "Пока не хватает пакета, отвечает каждый репозиторий.",
        ),
        (
            "Switch it off if nothing comes from it; the run goes on with the others.",
            "Отключите его, если из него ничего не берут; запуск идёт дальше с остальными.",
        ),
    ),
    "release-fetch": _code(
        "network",
        True,
        (
            "The web server near the host offers the release's archive, at its full size.",
            "Веб-сервер рядом с сервером отдаёт архив выпуска полного размера.",
        ),
        (
            "Copy the release's folder there and open the way to it, or empty outpost_release_url: the archive then"
            " comes from the controller. Behind a proxy: inference_release_by_proxy.",
            "Скопируйте туда папку выпуска и откройте доступ или очистите outpost_release_url: тогда архив придёт с"
            " управляющей машины. За прокси: inference_release_by_proxy.",
        ),
    ),
    # Video cards.
    "gpu-asked": _code(
        "gpu",
        True,
        (
            "A system whose device is cuda or cuda:N has that card on its host.",
            "У системы с device cuda или cuda:N на узле есть такая карта.",
        ),
        (
            "Say device: auto (the processor computes where no card is), or put the system on a host with the card.",
            "Укажите device: auto (без карты считает процессор) или перенесите систему на узел с картой.",
        ),
    ),
    "gpu-present": _code(
        "gpu",
        False,
        (
            "There is an NVIDIA card where a driver or a CUDA build is asked for.",
            "Видеокарта NVIDIA есть там, где заданы драйвер или сборка CUDA.",
        ),
        (
            "See `lspci -nn | grep -i nvidia`; without a card the service computes on the CPU.",
            "Посмотрите `lspci -nn | grep -i nvidia`; без карты служба считает на процессоре.",
        ),
    ),
    "gpu-known": _code(
        "gpu",
        False,
        ("The card's PCI id is in the table of chips.", "PCI-идентификатор карты есть в таблице кристаллов."),
        (
            "Judged by ranges of ids or not at all: compare the card's name with NVIDIA's list for the "
            "driver, "
            "and send us a file of collect.yml.",
            "Судим по диапазонам или никак: сверьте имя карты со списком NVIDIA для драйвера "
            "и пришлите нам файл collect.yml.",
        ),
    ),
    "gpu-mixed": _code(
        "gpu",
        True,
        (
            "Some driver with some kind of module serves all cards of the host.",
            "Какой-нибудь драйвер с каким-нибудь видом модуля обслуживает все карты узла.",
        ),
        (
            "No driver can serve them together: take out the older or the newer card.",
            "Вместе их не обслужит ни один драйвер: выньте старую или новую карту.",
        ),
    ),
    # The driver.
    "driver-named": _code(
        "driver",
        False,
        ("A host with a card has a driver named.", "У узла с картой указан драйвер."),
        (
            "Name a full version; without one the service computes on the CPU.",
            "Укажите полную версию; без неё служба считает на процессоре.",
        ),
    ),
    "driver-exact": _code(
        "driver",
        False,
        (
            "The driver is a full version, not a branch: branch packages have moved to later branches.",
            "Драйвер указан полной версией, а не веткой: пакеты веток уже переезжали на более поздние ветки.",
        ),
        ("Write the full version, such as 580.95.05.", "Запишите полную версию, например 580.95.05."),
    ),
    "driver-support": _code(
        "driver",
        False,
        ("NVIDIA still maintains the driver's branch.", "NVIDIA ещё поддерживает ветку драйвера."),
        (
            "Plan the change to a maintained branch that serves the card.",
            "Запланируйте переход на поддерживаемую ветку, которая обслуживает карту.",
        ),
    ),
    "gpu-driver": _code(
        "driver",
        True,
        ("The driver's branch serves the card.", "Ветка драйвера обслуживает карту."),
        ("Choose another branch.", "Выберите другую ветку."),
    ),
    "gpu-modules": _code(
        "driver",
        True,
        (
            "The kind of kernel module (open, proprietary) serves all cards and exists in the branch.",
            "Вид модуля ядра (открытый, проприетарный) подходит всем картам и есть в этой ветке.",
        ),
        ("Choose the other kind, or another branch.", "Выберите другой вид или другую ветку."),
    ),
    "headers": _code(
        "driver",
        True,
        (
            "Headers of the running kernel are installed or can be.",
            "Заголовки работающего ядра установлены или могут быть установлены.",
        ),
        (
            "Bring them into the repository, or boot a kernel whose headers it has; never let a driver "
            "upgrade the kernel.",
            "Положите их в репозиторий или загрузите ядро, заголовки которого там есть; драйвер не "
            "должен обновлять ядро.",
        ),
    ),
    "headers-all": _code(
        "driver",
        False,
        (
            "Every installed kernel has its headers: the host may boot any of them.",
            "Заголовки есть у каждого установленного ядра: узел может загрузить любое.",
        ),
        (
            "Install their headers or remove those kernels; booted, they would come up without the driver.",
            "Установите их заголовки или удалите эти ядра: загрузившись, они останутся без драйвера.",
        ),
    ),
    "kernel-flavour": _code(
        "driver",
        False,
        ("The running kernel is of an ordinary flavour.", "Работает ядро обычного вида."),
        (
            "Nothing reliable is known of NVIDIA modules on this flavour: try on one host first.",
            "О модулях NVIDIA на таком ядре нет надёжных сведений: сначала проверьте на одном узле.",
        ),
    ),
    "secure-boot": _code(
        "driver",
        True,
        (
            "Secure Boot is off, or a key that signs our module is enrolled.",
            "Secure Boot выключен, или ключ, которым подписан модуль, внесён.",
        ),
        (
            "Switch Secure Boot off in the firmware, or enrol a key: `mokutil --import "
            "/var/lib/dkms/mok.pub`, reboot, "
            "confirm at the console. Then set nvidia_driver_secure_boot_key_enrolled: true.",
            "Выключите Secure Boot в прошивке или внесите ключ: `mokutil --import "
            "/var/lib/dkms/mok.pub`, перезагрузка, "
            "подтверждение на консоли. Затем задайте nvidia_driver_secure_boot_key_enrolled: true.",
        ),
    ),
    "nouveau": _code(
        "driver",
        False,
        ("The free module nouveau is not loaded.", "Свободный модуль nouveau не загружен."),
        (
            "The driver's role switches it off; the host then needs one reboot in a window.",
            "Роль драйвера его выключит; узлу понадобится одна перезагрузка в окно обслуживания.",
        ),
    ),
    # CUDA and torch.
    "cuda-driver": _code(
        "torch",
        True,
        (
            "The driver is new enough for the CUDA major version.",
            "Драйвер достаточно нов для старшей версии CUDA.",
        ),
        (
            "Take a newer driver that serves the card, or a build for an older CUDA.",
            "Возьмите более новый драйвер, который обслуживает карту, или сборку под более старую CUDA.",
        ),
    ),
    "cuda-full": _code(
        "torch",
        False,
        (
            "The driver is the toolkit's own or later, so that PTX compiles on the host too.",
            "Драйвер не более ранний, чем вышедший с этой CUDA: тогда на узле собирается и PTX.",
        ),
        (
            "Compiled kernels run all the same; what is compiled on the host (PTX, torch.compile) may not.",
            "Готовые ядра работают и так; собираемое на узле (PTX, torch.compile) может не работать.",
        ),
    ),
    "gpu-cuda": _code(
        "torch",
        True,
        ("The CUDA version still, or already, knows the card.", "Эта версия CUDA ещё (или уже) знает карту."),
        ("Take a build for another CUDA.", "Возьмите сборку под другую CUDA."),
    ),
    "torch-named": _code(
        "torch",
        False,
        (
            "A host with a card and a driver has the release's torch build named.",
            "У узла с картой и драйвером указана сборка torch из выпуска.",
        ),
        (
            "Name it (preflight_torch, --torch): whether it has kernels for the card shows at the first "
            "study otherwise.",
            "Укажите её (preflight_torch, --torch): иначе о том, есть ли в ней ядра для карты, скажет "
            "первое исследование.",
        ),
    ),
    "torch-build": _code(
        "torch",
        True,
        ("That torch is built for that CUDA.", "Такая сборка torch под такую CUDA существует."),
        ("Choose a build that exists.", "Выберите существующую сборку."),
    ),
    "torch-cpu": _code(
        "torch",
        False,
        (
            "A host with a card and a driver gets a torch with CUDA.",
            "Узел с картой и драйвером получает torch с CUDA.",
        ),
        (
            "This release computes on the CPU; take one with CUDA for the card to be used.",
            "Этот выпуск считает на процессоре; чтобы работала карта, нужен выпуск с CUDA.",
        ),
    ),
    "torch-arch": _code(
        "torch",
        True,
        (
            "The wheel has kernels for the card. Without them torch says `no kernel image is "
            "available`, at the first study.",
            "В сборке есть ядра для карты. Без них torch отвечает `no kernel image is available`, на "
            "первом же исследовании.",
        ),
        ("Choose a build with kernels for the card.", "Выберите сборку с ядрами для карты."),
    ),
    "bundle-driver": _code(
        "torch",
        True,
        (
            "The driver is as new as the model bundle asks.",
            "Драйвер не более ранний, чем просит пакет модели.",
        ),
        (
            "Take a newer driver that serves the card, or another bundle.",
            "Возьмите более новый драйвер, который обслуживает карту, или другой пакет модели.",
        ),
    ),
    "bundle-capability": _code(
        "torch",
        True,
        (
            "The card's compute capability is as high as the model bundle asks.",
            "Вычислительные возможности карты не ниже, чем просит пакет модели.",
        ),
        ("Take another card, or another bundle.", "Возьмите другую карту или другой пакет модели."),
    ),
    "bundle-memory": _code(
        "torch",
        False,
        (
            "The systems are given the memory that all their workers need at full size; MEMORY_SHARE judges the same.",
            "Системам отведено столько памяти, сколько нужно всем их рабочим процессам: то же считает MEMORY_SHARE.",
        ),
        (
            "Raise memory_mib or vram_mib, or lower cores; else fewer workers run, or studies are computed smaller.",
            "Увеличьте memory_mib или vram_mib или уменьшите cores; иначе рабочих процессов меньше или расчёт мельче.",
        ),
    ),
    # Astra.
    "digsig": _code(
        "astra",
        True,
        (
            "Astra's closed software environment does not refuse unsigned programs.",
            "Замкнутая программная среда (ЗПС) Astra не запрещает неподписанные программы.",
        ),
        (
            "Switch it off or to logging by the site's security officer (`astra-digsig-control`), or "
            "have every file signed "
            "with a key in /etc/digsig/keys. The driver's installer and the container's programs would "
            "not start.",
            "Выключите её или переведите в режим записи вместе с ответственным за безопасность "
            "(`astra-digsig-control`) либо "
            "подпишите все файлы ключом из /etc/digsig/keys. Установщик драйвера и программы контейнера "
            "не запустятся.",
        ),
    ),
    "astra-lock": _code(
        "astra",
        False,
        (
            "None of Astra's locks that stop automation is active.",
            "Ни одна из блокировок Astra, мешающих автоматизации, не включена.",
        ),
        (
            "Keep `pipelining = True` (ansible.cfg), which copies no program to the host; if a task "
            "still fails, lift the lock "
            "for the time of the run.",
            "Оставьте `pipelining = True` (ansible.cfg): тогда программы на узел не копируются; если "
            "шаг всё же не проходит, "
            "снимите блокировку на время работы.",
        ),
    ),
    "astra-integrity": _code(
        "astra",
        False,
        (
            "Mandatory integrity control is off, or root works at the high level.",
            "Мандатный контроль целостности выключен, или root работает на высоком уровне.",
        ),
        (
            "Log in at integrity level 63 (`pdpl-user -i 63 root`); a low-integrity session cannot "
            "write system files.",
            "Входите с уровнем целостности 63 (`pdpl-user -i 63 root`); с низким уровнем системные "
            "файлы не записать.",
        ),
    ),
}


def line(
    code: str,
    ok: bool,
    value: Words | object,
    wanted: Words | object,
    *,
    subject: str = "",
    remedy: Words | None = None,
    unverified: bool = False,
    source: str = "",
) -> Line:
    """A line of `code`; the table's remedy unless this case has a better one."""
    known = CODES[code]
    return Line(
        code=code,
        ok=bool(ok),
        value=value if isinstance(value, Words) else same(value),
        wanted=wanted if isinstance(wanted, Words) else same(wanted),
        remedy=remedy or known.remedy,
        critical=known.critical,
        subject=subject,
        unverified=unverified,
        source=source,
        proves=known.proves,
        runbook=Words(*(f"{RUNBOOK.format(language=language)}#{known.group}" for language in ("en", "ru"))),
    )


def page(language: Language = "en") -> str:
    """The table as the page docs/preflight.md, or docs/preflight.ru.md."""
    parts = [_PAGE_HEAD if language == "en" else _PAGE_HEAD_RU]
    columns = Words(
        "| code | critical | proves | remedy |", "| код | критичный | что доказывает | что делать |"
    )
    critical = Words("yes", "да").said(language)
    for group, title in GROUPS.items():
        shown = title if language == "en" else _GROUPS_RU[group]
        parts += ["", f"## {shown}", "", columns.said(language), "|---|---|---|---|"]
        for name, code in CODES.items():
            if code.group == group:
                remedy = code.remedy.said(language).replace("|", "\\|")
                proves = code.proves.said(language)
                parts.append(f"| `{name}` | {critical if code.critical else ''} | {proves} | {remedy} |")
    return "\n".join(parts) + "\n"
