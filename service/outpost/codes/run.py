"""Why a run of a playbook stops, beside preflight and the driver: each code in English and Russian, with what to do.

The roles name the code and what is filled in (`outpost_stop` of plugins/filter/outpost_words.py); the texts are here. A
test asks that every `fail` and `assert` of roles and playbooks is said so. Standard library only: the controller reads
it. `python -m outpost.codes.run en|ru` prints docs/run-codes.md and docs/run-codes.ru.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from outpost.codes import answers, found
from outpost.codes.code_text import CodeText
from outpost.codes.matching import Sentences
from outpost.options import LANGUAGES, Exit, Language

# Before a host is touched.
BEFORE: Final[Mapping[str, CodeText]] = {
    "RUN_CANNOT_END": CodeText(
        "This run cannot end well; no host was asked and nothing was changed:\n{lines}", "",
        "Этот запуск не может кончиться хорошо; ни один сервер не опрошен, ничего не изменено:\n{lines}", "",
    ),
    "INVENTORY_UNFIT": CodeText(
        "The inventory of {host} is wrong:\n{lines}", "",
        "Инвентарь для {host} неверен:\n{lines}", "",
    ),
    "HOST_UNFIT": CodeText(
        "{host} cannot carry what is asked of it:\n{lines}", "",
        "{host} не потянет того, что от него требуется:\n{lines}", "",
    ),
    "NETWORKS_UNFIT": CodeText(
        "{host} would be open to everybody or closed to all:\n{lines}", "",
        "{host} оказался бы открыт для всех или закрыт от всех:\n{lines}", "",
    ),
    "RULES_WRONG": CodeText(
        "The filter's rule sets of {host} are wrong; nothing was changed:\n{lines}\n",
        "Correct them in the inventory, or in the file that it names; docs/filter-rules.md explains the language.",
        "Наборы правил фильтра для {host} неверны; ничего не изменено:\n{lines}\n",
        "Исправьте их в инвентаре или в файле, который он называет; язык описан в docs/filter-rules.md.",
    ),
    "UID_KEY_NOT_DERIVED": CodeText(
        "{host}: the key of study keys cannot be derived: {why} Nothing was changed.",
        "outpost_uid_secret, where it is set, is the root secret that the region was first set up with "
        "(docs/security.md).",
        "{host}: не удаётся вычислить ключ, по которому исследования узнают в центре: {why} Ничего не изменено.",
        "outpost_uid_secret, если задан, - это корневой секрет, с которым регион был впервые настроен "
        "(docs/security.md).",
    ),
    "UID_KEY_CHANGED": CodeText(
        "{host}: the inventory gives {systems} another key of study keys than the host has: the root secret was "
        "changed. Nothing was changed on the host.",
        "Keep the key: set outpost_uid_secret to the root secret that the region was first set up with, beside "
        "outpost_root_secret (docs/security.md). If the history may part here, run once with "
        "-e inference_uid_key_may_change=true.",
        "{host}: у {systems} по инвентарю другой ключ исследований, чем на сервере: корневой секрет сменили. На "
        "сервере ничего не изменено.",
        "Сохраните ключ: рядом с outpost_root_secret задайте outpost_uid_secret - корневой секрет, с которым регион "
        "был впервые настроен (docs/security.md). Если история может здесь разделиться, запустите один раз с "
        "-e inference_uid_key_may_change=true.",
    ),
    "ROTATION_UNPREPARED": CodeText(
        "A rotation needs three lines in the vault: outpost_root_secret (the new one), outpost_root_secret_before "
        "(the old one, another than the new), and outpost_uid_secret (the root secret that the fleet was first set "
        "up with; after a first rotation that is the old one). Nothing was changed.",
        "Put them there and run this again; the head of playbooks/rotate.yml shows them.",
        "Для смены секрета в хранилище нужны три строки: outpost_root_secret (новый), outpost_root_secret_before "
        "(прежний, не равный новому) и outpost_uid_secret (корневой секрет, с которым сеть была впервые настроена; "
        "при первой смене это прежний). Ничего не изменено.",
        "Добавьте их и запустите снова; образец - в начале playbooks/rotate.yml.",
    ),
    "SYSTEM_RENAMED": CodeText(
        "{host}: a renamed system or region is a new one, and nothing was changed:\n{lines}\n",
        "Keep the old name, or remove the old one first: docs/runbooks/en/remove-or-rename.md.",
        "{host}: переименованная система или регион - это новая система, новый регион; ничего не изменено:\n{lines}\n",
        "Оставьте прежнее имя или сначала выведите из работы прежнюю: docs/runbooks/ru/remove-or-rename.md.",
    ),
    "MODULES_DO_NOT_RUN": CodeText(
        "{host}: no module of Ansible runs there: {why} Its room for temporary files (df -Pk /tmp and the home "
        "directory, df -Pi /tmp, ls -ld /tmp): {room}. Nothing was changed.",
        "Free space in /tmp (a restart of the host empties it), see that it is drwxrwxrwt, and run this again.",
        "{host}: модули `Ansible` там не запускаются: {why} Место для временных файлов (`df -Pk` для /tmp и домашнего "
        "каталога, `df -Pi /tmp`, `ls -ld /tmp`): {room}. Ничего не изменено.",
        "Освободите место в /tmp (перезагрузка сервера его очищает), проверьте, что права на него `drwxrwxrwt`, и "
        "запустите снова.",
    ),
    "ACCOUNT_TAKEN": CodeText(
        "{host}: the service's account is not free:\n{lines}", "",
        "{host}: учётная запись службы занята:\n{lines}", "",
    ),
    "DOCKER_SETTINGS_UNFIT": CodeText(
        "{host}: Docker's settings and what the systems need contradict each other; nothing was changed:\n{lines}\n",
        "Next: docs/runbooks/en/existing-server.md.",
        "{host}: настройки Docker противоречат тому, что нужно системам; ничего не изменено:\n{lines}\n",
        "Дальше: docs/runbooks/ru/existing-server.md.",
    ),
    "DATABASE_CLUSTER_UNFIT": CodeText(
        "{host}: PostgreSQL cannot be used as it is there:\n{lines}", "",
        "{host}: PostgreSQL в таком виде использовать нельзя:\n{lines}", "",
    ),
    "UPGRADE_NOT_NAMED": CodeText(
        "An upgrade of PostgreSQL takes one host, and the cluster that its database goes to. Given: {hosts}; "
        "{cluster}. Nothing was changed.",
        "Say both: `-l HOST -e postgresql_upgrade_to=VERSION/NAME`.",
        "Обновление PostgreSQL делается на одном сервере, и нужно назвать кластер, куда перейдёт база. Дано: {hosts}; "
        "{cluster}. Ничего не изменено.",
        "Укажите то и другое: `-l HOST -e postgresql_upgrade_to=VERSION/NAME`.",
    ),
    "UPGRADE_IMPOSSIBLE": CodeText(
        "{host}: the database cannot be brought over; nothing was changed:\n{lines}", "",
        "{host}: перенести базу нельзя; ничего не изменено:\n{lines}", "",
    ),
    "REMOVAL_NOT_NAMED": CodeText(
        "Nobody said what is to go, and on which host. Given: hosts {hosts}; system {system}; region {region}. Nothing "
        "was changed.",
        "Say `-l HOST -e outpost_system=NAME`, or `-l HOST,CENTRE -e outpost_region=HOST`.",
        "Не сказано, что вывести из работы и на каком сервере. Дано: серверы {hosts}; система {system}; регион "
        "{region}. Ничего не изменено.",
        "Укажите `-l HOST -e outpost_system=NAME` или `-l HOST,CENTRE -e outpost_region=HOST`.",
    ),
    "SYSTEM_UNKNOWN": CodeText(
        "{host} has no system {system}; it has {found}. Nothing was changed.",
        "Name one that it has.",
        "{host}: системы {system} нет; есть: {found}. Ничего не изменено.",
        "Назовите одну из имеющихся.",
    ),
    "SYSTEM_STILL_WANTED": CodeText(
        "{host}: {system} is in outpost_systems: the next site.yml would set it up again. Nothing was changed.",
        "Take it out of the inventory, then run this again.",
        "{host}: {system} указана в outpost_systems: следующий запуск site.yml настроил бы её заново. Ничего не "
        "изменено.",
        "Уберите её из инвентаря и запустите снова.",
    ),
}  # fmt: skip

# While a host is being changed.
DURING: Final[Mapping[str, CodeText]] = {
    "CONFIGURATION_NOT_WRITTEN": CodeText(
        '{host}: task "{task}" failed in /etc/outpost: {why} What runs goes on as it is.',
        "Remove the cause and run this again.",
        '{host}: не удалась задача "{task}" в /etc/outpost: {why} Работающее не тронуто.',
        "Устраните причину и запустите снова.",
    ),
    "CERTIFICATE_NOT_WRITTEN": CodeText(
        "{host}: {file}, certificate and key, was not written: {why} What runs goes on as it is.",
        "Remove the cause and run this again.",
        "{host}: {file} с сертификатом и ключом не записан: {why} Работающее не тронуто.",
        "Устраните причину и запустите снова.",
    ),
    "LOGIN_NOT_CREATED": CodeText(
        "{host}: a login of PostgreSQL ({logins}, port {port}) was not created: {why}",
        "Remove the cause and run this again.",
        "{host}: учётная запись PostgreSQL ({logins}, порт {port}) не создана: {why}",
        "Устраните причину и запустите снова.",
    ),
    "REGION_NOT_ATTACHED": CodeText(
        "{host}: {regions} was not attached to the centre's database: {why} The regions are not touched by it.",
        "Remove the cause and run this again.",
        "{host}: {regions} - не удалось подключить к базе центра: {why} Сами регионы не затронуты.",
        "Устраните причину и запустите снова.",
    ),
    "REGIONS_NOT_ASKED": CodeText(
        '{host}: task "{task}" failed: {why} The logins at the regions stay as they are.',
        "Remove the cause and run this again.",
        '{host}: не удалась задача "{task}": {why} Учётные записи в регионах остались прежними.',
        "Устраните причину и запустите снова.",
    ),
    "RULES_NOT_IN_USE": CodeText(
        "{host}: a rule set does not judge {seconds} s after it was written:\n{lines}\n"
        "The rule set before it goes on judging, no study is lost.",
        "Where the service names a fault, the release of the host does not know what the rule set says: update it "
        "first, or take the new key out.",
        "{host}: через {seconds} с после записи набор правил ещё не действует:\n{lines}\n"
        "Действует прежний набор, ни одно исследование не потеряно.",
        "Если служба называет ошибку, её выпуск не знает того, что есть в наборе: сначала обновите сервер или уберите "
        "новый ключ.",
    ),
    "RELEASE_WENT_BACK": CodeText(
        "{host}: release {release} did not become ready. The host runs {before} again; no study was lost, they wait "
        "in the spool.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Сервер снова работает на {before}; исследования не потеряны, они ждут "
        "в очереди.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "CONFIGURATION_WENT_BACK": CodeText(
        "{host}: release {release} did not become ready. The configuration that was there before is back in place; no "
        "study was lost, they wait in the spool.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Прежняя конфигурация возвращена; исследования не потеряны, они ждут в "
        "очереди.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "NOTHING_TO_GO_BACK_TO": CodeText(
        "{host}: release {release} did not become ready. There is no other release to go back to; studies are kept in "
        "/var/lib/outpost and wait.",
        "Next: docs/runbooks/en/service-does-not-answer.md. The last lines of its log:\n{log}",
        "{host}: выпуск {release} не стал готов. Другого выпуска, к которому можно вернуться, нет; исследования "
        "хранятся в /var/lib/outpost и ждут.",
        "Дальше: docs/runbooks/ru/service-does-not-answer.md. Последние строки журнала:\n{log}",
    ),
    "CONFIGURATION_NOT_BACK": CodeText(
        "{host}: release {release} did not become ready, and the configuration that was there before could not be put "
        "back: {why} No study was lost, they wait in the spool.",
        "Remove the cause and run this again. Next: docs/runbooks/en/service-does-not-answer.md.",
        "{host}: выпуск {release} не стал готов, и прежнюю конфигурацию не удалось вернуть: {why} Исследования не "
        "потеряны, они ждут в очереди.",
        "Устраните причину и запустите снова. Дальше: docs/runbooks/ru/service-does-not-answer.md.",
    ),
    "HOST_NOT_READ": CodeText(
        "{host} could not be read: {why}",
        "Log in and see that /bin/sh runs and that sudo asks for nothing; then run this again.",
        "{host}: не удалось прочитать сервер: {why}",
        "Войдите на него и проверьте, что /bin/sh работает и sudo ничего не спрашивает; затем запустите снова.",
    ),
    "FILE_NOT_WRITTEN": CodeText(
        "{file} was not written: {why}",
        "Remove the cause and run this again.",
        "{file} не записан: {why}",
        "Устраните причину и запустите снова.",
    ),
    "TIME_ZONE_UNKNOWN": CodeText(
        "{host}: the host's package tzdata knows no time zone {zone}. /etc/localtime is as it was.",
        "Bring tzdata up to date there, or name a zone that `timedatectl list-timezones` lists, and run this again.",
        "{host}: пакет `tzdata` на сервере не знает часового пояса {zone}. Ссылка /etc/localtime прежняя.",
        "Обновите там `tzdata` или укажите пояс из списка `timedatectl list-timezones` и запустите снова.",
    ),
    "DOCKER_NOT_RESTARTED": CodeText(
        "{host}: Docker has to be restarted for {keys}, and with that would take another data-root, which somebody "
        "wrote into {file} and did not bring into force: every image and container would be gone from sight.",
        "Restart Docker yourself, or take data-root out of the file, and run this again.",
        "{host}: для {keys} нужно перезапустить Docker, но тогда он взял бы и другой `data-root`: кто-то записал его в "
        "{file}, но не ввёл в действие. Все образы и контейнеры пропали бы из виду.",
        "Перезапустите Docker сами или уберите `data-root` из файла и запустите снова.",
    ),
    "DOCKER_SETTINGS_NOT_TAKEN": CodeText(
        "{host}: Docker was restarted and runs without {keys} all the same. While containers run (live-restore) it "
        "does not move its bridge.",
        "Stop those of others ({others}) and ours (`systemctl stop outpost@SYSTEM`), and run this again.",
        "{host}: Docker перезапущен, но по-прежнему работает без {keys}. Пока работают контейнеры (`live-restore`), "
        "свой мост он не переносит.",
        "Остановите чужие контейнеры ({others}) и наши (`systemctl stop outpost@SYSTEM`) и запустите снова.",
    ),
    "DATABASE_NOT_ON_ITS_FILES": CodeText(
        "{host}: PostgreSQL ({unit}) does not run as its files say: {why}",
        "Remove the cause and run this again; what runs goes on as it is.",
        "{host}: PostgreSQL ({unit}) работает не так, как записано в его файлах: {why}",
        "Устраните причину и запустите снова; работающее не тронуто.",
    ),
    "LOGIN_NOT_LET_IN": CodeText(
        "{host}: a login of PostgreSQL ({logins}) does not work, so records would stay on the host: {why}",
        "Look at {file}, remove the cause and run this again.",
        "{host}: учётную запись PostgreSQL ({logins}) не пускают, записи копились бы на сервере: {why}",
        "Проверьте {file}, устраните причину и запустите снова.",
    ),
    "UPGRADE_ROLES_NOT_COPIED": CodeText(
        "{host}: the roles were not copied to {cluster}: {why}",
        "Remove the cause and run this again.",
        "{host}: роли не скопированы в {cluster}: {why}",
        "Устраните причину и запустите снова.",
    ),
    "UPGRADE_ROWS_DIFFER": CodeText(
        "{host}: the new database has other rows than the old one ({rows}).",
        "The old one goes on; run this again.",
        "{host}: в новой базе не те строки, что в прежней ({rows}).",
        "Работает прежняя; запустите снова.",
    ),
    "UPGRADE_TAKEN_BACK": CodeText(
        "{host}: the upgrade was taken back, {cluster} serves as before and no row is lost. {why}",
        "Remove the cause and run this again.",
        "{host}: обновление отменено, {cluster} работает как прежде, ни одна строка не потеряна. {why}",
        "Устраните причину и запустите снова.",
    ),
    "SYSTEM_NOT_EMPTY": CodeText(
        "{host}: {system} is not empty after {seconds} s: {left} It opens no more studies and goes on computing and "
        "delivering.",
        "`outpost -s {system} status` names the destination that does not take results; run this again when that is "
        "mended. What will never be delivered stays on the disk with -e removal_undelivered_stays=true. To keep the "
        "system, put it back into the inventory and run site.yml.",
        "{host}: система {system} не опустела за {seconds} с: {left} Новых исследований она не открывает, начатые "
        "считает и доставляет.",
        "`outpost -s {system} status` покажет, какой получатель не принимает результаты; устраните это и запустите "
        "снова. То, что доставить уже нельзя, останется на диске с -e removal_undelivered_stays=true. Чтобы система "
        "осталась, верните её в инвентарь и запустите site.yml.",
    ),
    "RECORDS_NOT_SHIPPED": CodeText(
        "{host}: {count} records of {system} did not reach the region's database within {seconds} s. They wait in the "
        "journal and the system goes on.",
        "`outpost -s {system} status` says why; run this again when the database is back. "
        "-e removal_undelivered_stays=true leaves them on the disk.",
        "{host}: записи системы {system} ({count}) не попали в базу региона за {seconds} с. Они ждут в журнале, "
        "система работает дальше.",
        "`outpost -s {system} status` назовёт причину; запустите снова, когда база заработает. "
        "-e removal_undelivered_stays=true оставит их на диске.",
    ),
    "PASSWORD_NOT_GIVEN": CodeText(
        "{host}: a system that is not in the inventory ({systems}) was not given the database's password: {why} It "
        "goes on as it is.",
        "Remove the cause and run this again.",
        "{host}: система, которой нет в инвентаре ({systems}), не получила пароль базы: {why} Она работает как прежде.",
        "Устраните причину и запустите снова.",
    ),
    "REGION_NOT_READ": CodeText(
        "{host} could not read {region} to its end within {seconds} s. The region's database and its logins stay.",
        "See `outpost fleet status`; run this again when the centre reaches the region.",
        "{host} не дочитал базу региона {region} до конца за {seconds} с. База региона и её учётные записи остаются.",
        "Посмотрите `outpost fleet status`; запустите снова, когда у центра будет связь с регионом.",
    ),
}  # fmt: skip
CODES: Final[Mapping[str, CodeText]] = {**BEFORE, **DURING}

# What a playbook says beside: when it has done its work, and of a code of the driver. English, Russian.
SAYS: Final[Mapping[str, tuple[str, str]]] = {
    "HOST_FITS": (
        "{host}: {system}, {passed} checks passed",
        "{host}: {system}, пройдено проверок: {passed}",
    ),
    "COLLECTED": (
        "{host}: {file}; look through it before you send it",
        "{host}: {file}; просмотрите его перед отправкой",
    ),
    "REGIONS_LEFT": (
        "Still under the secret of before: {regions}. Run this again when they can be reached.",
        "Ещё с прежним секретом: {regions}. Запустите снова, когда с ними будет связь.",
    ),
    "NO_REGION_LEFT": (
        "No region is left. Take the secret of before out of the vault and run site.yml: then it ends.",
        "Регионов с прежним секретом не осталось. Уберите его из хранилища и запустите site.yml: тогда он перестанет "
        "действовать.",
    ),
    "GPU_WITHHELD": (
        "{host}, system {system}: {why} Nothing was changed or restarted.",
        "{host}, система {system}: {why} Ничего не изменено и не перезапущено.",
    ),
    "TIME_SERVERS_NOT_GIVEN": (
        "{host}: {keeper} keeps the time; outpost_ntp_servers is not given to it: {servers}",
        "{host}: время держит {keeper}; outpost_ntp_servers ему не передан: {servers}",
    ),
    "DOCKER_RESTARTS": (
        "{host}: Docker is restarted for {keys}. Containers of others: {others}; {they}.",
        "{host}: Docker перезапускается ради {keys}. Чужие контейнеры: {others}; {they}.",
    ),
    "DOCKER_WOULD_RESTART": (
        "{host}: would restart Docker for {keys}; containers of others: {others}",
        "{host}: Docker был бы перезапущен ради {keys}; чужие контейнеры: {others}",
    ),
    "DOCKER_WOULD_READ": (
        "{host}: would have Docker read {keys} again, without a restart",
        "{host}: Docker перечитал бы {keys}, без перезапуска",
    ),
    "UPGRADE_DONE": (
        "{host}: database {database} is in {cluster} ({data}).",
        "{host}: база {database} уже в {cluster} ({data}).",
    ),
    "SYSTEM_REMOVED": (
        "{host}: {system} is removed. Its data stays in /var/lib/outpost/{system}.",
        "{host}: система {system} выведена из работы. Её данные остались в /var/lib/outpost/{system}.",
    ),
    "SYSTEM_REMOVED_WHOLE": (
        "{host}: {system} is removed. Its data is removed, too.",
        "{host}: система {system} выведена из работы. Её данные тоже удалены.",
    ),
    "SYSTEM_REMOVED_UNDELIVERED": (
        "{host}: {system} is removed. Its data stays in /var/lib/outpost/{system}. NOT ALL OF IT IS DELIVERED: put the "
        "system back into the inventory and run site.yml to deliver it.",
        "{host}: система {system} выведена из работы. Её данные остались в /var/lib/outpost/{system}. ДОСТАВЛЕНО НЕ "
        "ВСЁ: чтобы доставить остальное, верните систему в инвентарь и запустите site.yml.",
    ),
    "REGION_REMOVED": (
        "{host} is out of service. Delete its file from the inventory: until then the next site.yml sets it up again. "
        "Its data stays in /var/lib/outpost and in PostgreSQL's directory.",
        "{host} выведен из работы. Удалите его файл из инвентаря: пока он там, следующий запуск site.yml настроит "
        "сервер заново. Данные остались в /var/lib/outpost и в каталоге PostgreSQL.",
    ),
    "TOKENS_OF_SYSTEM": ("{system}: port {port} of {address}", "{system}: порт {port} на {address}"),
    "PAGE_OF_CENTRE": ("page: {url}", "страница: {url}"),
}

# Parts of what is filled in that only playbooks say: of tasks (controller/reason.py), of rule sets
# (plugins/filter/outpost_rules.py).
PARTS: Final[dict[str, str]] = {
    "the task failed without a word.": "задача кончилась ошибкой без объяснения.",
    "the shell there ended with status {}.": "оболочка там кончилась со статусом {}.",
    "PostgreSQL refused: {}.": "PostgreSQL отказал: {}.",
    "a region": "регион",
    "none": "нет",
    # Of the module postgresql_running.
    "{} does not restart: {}": "{} не перезапускается: {}",
    "{}: not within {} s.": "{}: не за {} с.",
    "the server reads its files": "сервер перечитывает файлы",
    "the server answers after its restart": "сервер отвечает после перезапуска",
    "the server goes on with its settings of before, it refuses these files: {}": (
        "сервер работает с прежними настройками, эти файлы он отвергает: {}"
    ),
    "the server does not read {}: something in postgresql.conf leads elsewhere.": (
        "сервер не читает {}: что-то в postgresql.conf ведёт в другое место."
    ),
    "settings of {} do not act: {}. Take them out there (ALTER SYSTEM RESET where that is postgresql.auto.conf), or "
    "name the value in postgresql_settings.": (
        "настройки из {} не действуют: {}. Уберите их там (ALTER SYSTEM RESET, если это postgresql.auto.conf) или "
        "задайте значение в postgresql_settings."
    ),
    "the server runs on port {}, wanted is {}.": "сервер работает на порту {}, а нужен {}.",
    "the server speaks no TLS on port {}.": "сервер не говорит по TLS на порту {}.",
    "the server shows another certificate than that of {}.": "сервер предъявляет не тот сертификат, что в {}.",
    "{} holds no certificate.": "в {} нет сертификата.",
    "{} cannot be asked: {}": "{} не удаётся опросить: {}",
    "a login is not let in on port {}: {}": "на порту {} не пускают: {}",
    "they run on": "они продолжат работу",
    "they are restarted with it": "они перезапустятся вместе с ним",
    "nothing": "ничего",
    "{}: wanted {}, found {}": "{}: нужно {}, есть {}",
    "the host has no such system (it has {}); {}": "у сервера нет такой системы (есть: {}); {}",
    "did you mean {}?": "может быть, {}?",
    "correct dicom_filter_rules, or outpost_systems": "исправьте dicom_filter_rules или outpost_systems",
    "{} is neither a rule set nor the path of one; {} is the model's own": (
        "{} - не набор правил и не путь к нему; {} - собственный набор модели"
    ),
    "{} is no absolute path on the controller; write {}": (
        "{} - не полный путь на управляющей машине; пишите {}"
    ),
    "{} cannot be read ({}); name an existing file on the controller": (
        "{} не читается ({}); назовите существующий файл на управляющей машине"
    ),
}
_PARTS: Final = Sentences(PARTS)


def stop(code: str, language: Language, values: Mapping[str, object]) -> str:
    """The message of a run that stops. Raises KeyError where the code is unknown or a value is missing."""
    meaning, remedy = CODES[code].said(language)
    text = f"[{code}] {meaning}" + (f"{'' if meaning.endswith(chr(10)) else ' '}{remedy}" if remedy else "")
    return _filled(text, language, values)


def say(key: str, language: Language, values: Mapping[str, object]) -> str:
    """What a playbook says that has done its work. Raises KeyError as `stop` does."""
    return _filled(SAYS[key][language == "ru"], language, values)


def _filled(text: str, language: Language, values: Mapping[str, object]) -> str:
    known = {name: str(value) for name, value in values.items()}
    if language == "ru":
        known = {
            name: "\n".join(map(_line, value.splitlines())) if name != "log" else value
            for name, value in known.items()
        }
    # The text is ours; what is filled in may hold braces, and stays as it is.
    return re.sub(r"\{(\w+)\}", lambda place: known[place[1]], text)


def _line(line: str) -> str:
    """One line of what is filled in, in Russian: the longest end of it that is known."""
    at = 0
    while True:
        rest = line[at:]
        told = _PARTS.russian(rest, _part) or answers.faults(rest, "ru")
        # More than the word before the value found: the reason itself.
        if told.partition(" (найдено ")[0] != rest.partition(" (found ")[0]:
            return re.sub(r"\bline (\d+): ", r"строка \1: ", line[:at] + told)
        following = line.find(": ", at)
        if following < 0:
            return found.russian(line)
        at = following + 2


def _part(value: str) -> str:
    return _PARTS.russian(value, _part) or found.russian(value)


_HEAD: Final[dict[Language, str]] = {
    "en": """# Codes of a run

Made by `python -m outpost.codes.run en > docs/run-codes.md`; a test holds it to the tables in
`service/outpost/codes/run.py`. A code keeps its meaning for good. [По-русски](run-codes.ru.md).

Why `site.yml`, or another playbook, stopped: the code is in brackets before the message, whose language
`outpost_language` sets. What preflight says is in [preflight.md](preflight.md), of the driver in
[driver-codes.md](driver-codes.md), of the inventory's files in [inventory-codes.md](inventory-codes.md). `…` is what
the message fills in.
""",
    "ru": """# Коды запуска

Создано командой `python -m outpost.codes.run ru > docs/run-codes.ru.md`; тест сверяет страницу с таблицами в
`service/outpost/codes/run.py`. Код сохраняет свой смысл навсегда. [In English](run-codes.md).

Почему остановился `site.yml` или другой плейбук: код стоит в скобках перед сообщением, а язык сообщения задаёт
`outpost_language`. Коды проверки сервера - в [preflight.ru.md](preflight.ru.md), драйвера - в
[driver-codes.ru.md](driver-codes.ru.md), файлов инвентаря - в [inventory-codes.ru.md](inventory-codes.ru.md).
`…` - то, что подставляет сообщение.
""",
}
_GROUPS: Final = (
    (
        BEFORE,
        ("Before a host is changed", "code", "why", "what to do"),
        ("До изменений на сервере", "код", "почему", "что делать"),
    ),
    (
        DURING,
        ("While hosts are being changed", "code", "why", "what to do"),
        ("Во время изменений", "код", "почему", "что делать"),
    ),
)
_EACH: Final[dict[Language, str]] = {
    "en": "Each line says it, with a code of its own.",
    "ru": "Сказано в каждой строке, с её собственным кодом.",
}


def page(language: Language) -> str:
    """All codes as a page of documentation."""
    text = _HEAD[language]
    for codes, english, russian in _GROUPS:
        title, *columns = russian if language == "ru" else english
        text += f"\n## {title}\n\n| {' | '.join(columns)} |\n|---|---|---|\n"
        for code, known in codes.items():
            meaning, remedy = (_cell(one) for one in known.said(language))
            text += f"| `{code}` | {meaning} | {remedy or _EACH[language]} |\n"
    return text


def _cell(text: str) -> str:
    shown = " ".join(re.sub(r"\{\w+\}", "…", text).split())
    return re.sub(r"docs/(runbooks/\w\w/([a-z-]+)\.md)", r"[\2](\1)", shown)


def main(arguments: Sequence[str]) -> int:
    """`python -m outpost.codes.run en|ru`."""
    if len(arguments) != 1 or arguments[0] not in LANGUAGES:
        sys.stderr.write("usage: python -m outpost.codes.run en|ru\n")
        return Exit.USAGE
    sys.stdout.write(page("ru" if arguments[0] == "ru" else "en"))
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
