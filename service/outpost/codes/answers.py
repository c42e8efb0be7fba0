"""What a person is answered when something is not done: the Russian of each English sentence.

The code says its sentence in English, where it happens. Here is the same in Russian, found by the sentence itself: `{}`
stands for what is filled in. A test reads the sentences out of the code and asks that each is here.

HTTP says both (`detail`, `detail_ru`), the command line speaks the language of its reader, and what goes to machines
stays English: logs, metrics, comments of C-STORE. Standard library only: the controller reads it.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import Final

from outpost.codes.matching import Sentences
from outpost.options import Language, preferred_language

# Longer ones are none of ours, or have something of a stranger's in them that is long.
_LONGEST: Final = 1500

ANSWERS: Final[dict[str, str]] = {
    # HTTP: who may ask (web/).
    "this method is not served here": "этот метод здесь не поддерживается",
    "this server does not go by the name in the Host header: add the name to api.hosts if it does": (
        "этот сервер не знает себя под именем из заголовка Host: если имя верное, добавьте его в api.hosts"
    ),
    "requests from pages of other sites are not taken": "запросы со страниц других сайтов не принимаются",
    "with a user name and password this is taken from this server's own pages alone: send a Bearer token": (
        "с именем и паролем это принимается только с собственных страниц сервера: пришлите токен Bearer"
    ),
    "too many wrong tokens from this address: wait a minute, then send the right one": (
        "с этого адреса слишком много неверных токенов: подождите минуту и пришлите верный"
    ),
    "this token is not known here": "этот токен здесь неизвестен",
    "nobody may use this API but for its health, as no tokens are configured: `outpost token NAME ROLE` makes one "
    "for "
    "api.tokens; the playbook site.yml sets those of the fleet": (
        "API закрыт для всех, кроме проверки состояния: токены не настроены. `outpost token NAME ROLE` создаёт токен "
        "для api.tokens; плейбук site.yml ставит токены всей сети"
    ),
    "a token with the role {} is needed: send Authorization: Bearer TOKEN": (
        "нужен токен с ролью {}: пришлите Authorization: Bearer TOKEN"
    ),
    "the token {} may {} only; {} is needed": "токен {} позволяет только {}, а нужно {}",
    "{} is needed": "нужна роль {}",
    "this went wrong inside the service; its log says more": (
        "внутренняя ошибка службы; подробности в её журнале (journalctl)"
    ),
    "Not Found": "по этому адресу ничего нет",
    "Method Not Allowed": "этот метод здесь не поддерживается",
    # HTTP: how much may be asked (api/limits.py, errand.py).
    "{} answers of this kind are worked on and others wait: ask again later, and ask less often": (
        "таких ответов уже готовится {}, и другие ждут: спросите позже и спрашивайте реже"
    ),
    "{} connections are open, {} of one address at most: close those that are not needed, and connect again later": (
        "открыто соединений: {}, с одного адреса не больше {}: закройте лишние и подключитесь позже"
    ),
    "the headers have {} bytes, at most {} are read: send less": (
        "в заголовках {} байт, читается не больше {}: пришлите меньше"
    ),
    "the request has {} headers, at most {} are read: send fewer": (
        "в запросе {} заголовков, читается не больше {}: пришлите меньше"
    ),
    "the path has {} bytes, at most {} are read: shorten it": (
        "в адресе {} байт, читается не больше {}: сократите его"
    ),
    "the body has {} bytes, at most {} are taken here: images are sent to /dicom-web/studies": (
        "в теле запроса {} байт, здесь принимается не больше {}: снимки отправляют на /dicom-web/studies"
    ),
    "the answer took longer than {} s and was given up: ask for less, a shorter period or a smaller limit": (
        "ответ готовился дольше {} с и отменён: запросите меньше - короче период или меньше limit"
    ),
    "more connections than there is room for wait to be let in": "ожидающих соединений больше, чем есть места",
    "it connected and did not ask in time": "подключился и вовремя ничего не спросил",
    "it sends its body, or reads the answer, slower than any line is: look at the line or at the client": (
        "передаёт тело запроса или читает ответ медленнее любой линии: проверьте линию или клиента"
    ),
    "all of its connections are in use": "все его соединения заняты",
    # HTTP: what is asked for (api/).
    "no model {} here; this service runs {}": "модели {} здесь нет; эта служба работает с {}",
    "no study with this Study Instance UID was received here": (
        "исследование с таким Study Instance UID сюда не поступало"
    ),
    "drift is not watched here: set drift.enabled": "дрейф здесь не отслеживается: включите drift.enabled",
    "from {} is later than to {}: exchange them": "начало {} позже конца {}: поменяйте их местами",
    "{} to {} are {} days, at most {} are read at a time: ask for a shorter period": (
        "с {} по {} - {} дней, за раз читается не больше {}: запросите период короче"
    ),
    "the year {} is not one of 1990 to 2200: correct it": "год {} не из 1990-2200: исправьте его",
    # STOW-RS (intake/).
    "its address is not among those that intake.senders names for stow": (
        "его адреса нет среди тех, что intake.senders называет для stow"
    ),
    "the path names no Study Instance UID": "в адресе нет Study Instance UID",
    "the connection ended before the body did": "соединение кончилось раньше тела запроса",
    "{}: send again later": "{}: отправьте позже ещё раз",
    "the Content-Type is longer than {} characters: {}": "Content-Type длиннее {} знаков: {}",
    "a bare instance is not taken: make it a part of a body, {}": (
        "отдельный объект не принимается: вложите его частью в тело, {}"
    ),
    "metadata and bulk data apart are not taken: send whole instances, {}": (
        "метаданные отдельно от данных не принимаются: отправляйте объекты целиком, {}"
    ),
    "send {}": "отправьте {}",
    "the Content-Type has no boundary of 1 to {} ASCII characters": (
        "в Content-Type нет boundary из 1-{} знаков ASCII"
    ),
    "a request of more than {} parts, or of {} that are refused: split it": (
        "в запросе больше {} частей или {} отклонённых: разделите его"
    ),
    "this Content-Encoding is not taken: send gzip, deflate, or none": (
        "такой Content-Encoding не принимается: отправьте gzip, deflate или без сжатия"
    ),
    "the compressed body ends before its end": "сжатое тело запроса обрывается",
    "the body unfolds to more than {} times its size: send it without compressing it": (
        "тело разворачивается больше чем в {} раз: отправьте его без сжатия"
    ),
    "the body is not compressed as its Content-Encoding says": "тело сжато не так, как сказано в Content-Encoding",
    "the boundary that the Content-Type names is not in the body": "boundary из Content-Type в теле не встречается",
    "the body ends before its closing boundary: its last part may be cut off, and was not stored": (
        "тело кончается раньше закрывающего boundary: последняя часть могла оборваться и не сохранена"
    ),
    "the body holds no part": "в теле нет ни одной части",
    "a boundary is followed by other text on its line": "после boundary в строке идёт другой текст",
    "the headers of a part exceed {} bytes": "заголовки части больше {} байт",
    # Of single images, as intake answers them (intake/refusal.py).
    "the bytes cannot be read as DICOM": "байты не читаются как DICOM",
    "the data set has more elements or items than images have": (
        "в наборе данных больше элементов или вложенных записей, чем бывает в снимках"
    ),
    "a study, series, class or instance UID is missing": "нет UID исследования, серии, класса или снимка",
    "a UID is not digits and dots of at most 64": "UID - не цифры и точки длиной до 64",
    "the UID announced is not the one in the data set": "объявлен не тот UID, что в наборе данных",
    "this instance UID is held with other content": "снимок с этим UID уже принят с другим содержимым",
    "this system goes out of service, send elsewhere": ("система выводится из работы, отправляйте в другую"),
    "too many studies of this sender wait, send it later": (
        "слишком много исследований этого отправителя ждут, отправьте позже"
    ),
    "the study has as many instances as one may have": "в исследовании уже столько снимков, сколько допускается",
    "the disk has reached its reserve": "на диске остался только резерв",
    "the instance could not be stored; see the log": "объект не удалось сохранить; смотрите журнал",
    "the instance is of another study than the request names": "объект из другого исследования, чем назвал запрос",
    # DICOM associations (intake/scp.py, guests.py): in events and logs.
    "association of {}: {}, {}": "ассоциация {}: {}, {}",
    "context of {}: {}, {}": "контекст {}: {}, {}",
    "connection of {}: {}, {}": "соединение {}: {}, {}",
    "request of {}: {}, {}": "запрос {}: {}, {}",
    "instance of {}: {}, {}": "объект {}: {}, {}",
    "{} repeats what is refused ({}): it waits up to {} s for each answer": (
        "{} повторяет то, в чём отказано ({}): каждого ответа он ждёт до {} с"
    ),
    "its calling AE title is not in intake.known_ae_titles": "его calling AE title нет в intake.known_ae_titles",
    "its address is not among those that intake.senders names for its AE title": (
        "его адреса нет среди тех, что intake.senders называет для его AE title"
    ),
    "it calls an AE title that is not intake.ae_title or in intake.called_ae_titles": (
        "он обращается к AE title, который не intake.ae_title и не из intake.called_ae_titles"
    ),
    "the disk has reached intake.disk_reserve_mib or disk_used_percent": (
        "диск дошёл до intake.disk_reserve_mib или disk_used_percent"
    ),
    "it asks for what cannot be negotiated, as a user identity that is not known": (
        "он просит то, о чём нельзя договориться, например неизвестную учётную запись"
    ),
    "it connected and did not ask for an association in time": "подключился и вовремя не запросил ассоциацию",
    "its association was open and nothing was asked on it in intake.unused_seconds": (
        "ассоциация была открыта, но за intake.unused_seconds по ней ничего не спросили"
    ),
    "in the middle of a message it sent less than {} bytes a second for intake.stall_seconds: look at the line or at "
    "the sender": (
        "посреди сообщения он передавал меньше {} байт в секунду в течение intake.stall_seconds: проверьте линию или "
        "отправителя"
    ),
    "its association did nothing while another sender found no place: see intake.max_associations and "
    "intake.max_associations_per_peer": (
        "ассоциация простаивала, пока другому отправителю не хватало места: см. intake.max_associations и "
        "intake.max_associations_per_peer"
    ),
    # Quarantine and studies.
    "skip_filter is for studies: intake refused this image before any filter saw it": (
        "skip_filter - для исследований: этот снимок отклонён приёмом ещё до фильтра"
    ),
    "{} is here no more: have it sent again": "{} здесь уже нет: пусть отправят ещё раз",
    "{} of the {} images of {} are here no more: send the study again from the archive; it is then taken as new": (
        "{0} из {1} снимков {2} здесь уже нет: отправьте исследование из архива ещё раз, оно будет принято как новое"
    ),
    "intake refuses {} again: {}; it is kept as {}": "приём снова отклоняет {}: {}; объект сохранён как {}",
    "{} has {} images here; number {} is none of them": "в {} снимков: {}; номера {} среди них нет",
    "the decoder gave no picture": "декодер не выдал изображения",
    "another file is being opened and {} more wait for it: ask again in a moment": (
        "открывается другой файл, и ещё {} ждут: спросите через минуту"
    ),
    "another file is being opened: ask again in a moment": "открывается другой файл: спросите через минуту",
    "the answer is longer than any picture": "ответ длиннее любого изображения",
    "opening it takes more memory than is allowed for looking": (
        "для открытия нужно больше памяти, чем разрешено для просмотра"
    ),
    "opening it took longer than {} s or more memory than is allowed, or the decoder crashed (status {})": (
        "открытие заняло больше {} с или больше памяти, чем разрешено, или декодер упал (статус {})"
    ),
    "{} is not in quarantine: see the list": "{} нет в карантине: смотрите список",
    "{} is no study here: see the lists of studies and of quarantine": (
        "{} - не исследование этой системы: смотрите списки исследований и карантина"
    ),
    "{} names no item: write study-N or file-N, as the list shows them": (
        "{} не называет ничего из карантина: пишите study-N или file-N, как в списке"
    ),
    "there is no study row {}: see the list of studies": "исследования {} нет: смотрите список исследований",
    "revision {} of this study is {}: wait for its end": (
        "ревизия {} этого исследования ещё в состоянии {}: дождитесь её конца"
    ),
    "revision {} of this study is newer (study-{}): take that": (
        "ревизия {} этого исследования новее (study-{}): возьмите её"
    ),
    "no answer in {} s ({})": "нет ответа за {} с ({})",
    "it answers {} to a request for its verdict: set OUTPOST_TOKEN": (
        "на запрос заключения служба отвечает {}: задайте OUTPOST_TOKEN"
    ),
    "the archive broke off ({}): export again": "архив оборвался ({}): выгрузите ещё раз",
    "the service holds the storage but does not answer at {} ({}): is it starting? try again, or see its log": (
        "служба держит хранилище, но не отвечает по адресу {} ({}): может быть, запускается? повторите или смотрите "
        "её журнал"
    ),
    "the service says {}": "служба отвечает {}",
    "{}: set OUTPOST_TOKEN to one": "{}: задайте его в OUTPOST_TOKEN",
    # The journal.
    "there is no journal at {}: this system has not run here yet": (
        "журнала {} нет: эта система здесь ещё не запускалась"
    ),
    "journal {} has schema {}, this release knows {}: install the release that wrote it, or a newer one": (
        "у журнала {} схема {}, эта версия знает {}: установите версию, которая его писала, или новее"
    ),
    "journal {} has schema {}, this release knows {}: install the release that wrote it, or a newer one; nothing was "
    "changed": (
        "у журнала {} схема {}, эта версия знает {}: установите версию, которая его писала, или новее; ничего не "
        "изменено"
    ),
    "journal {} has schema {}, this release reads {}: it is brought forward when the service starts": (
        "у журнала {} схема {}, эта версия читает {}: он обновится при запуске службы"
    ),
    "journal {} cannot be read ({}): see the runbook on a damaged journal": (
        "журнал {} не читается ({}): см. карточку journal-damaged"
    ),
    "journal {} cannot be written: give the service's user the file, or mount its file system for writing; nothing "
    "was "
    "changed": (
        "в журнал {} нельзя писать: отдайте файл пользователю службы или смонтируйте файловую систему на запись; "
        "ничего не изменено"
    ),
    "centre.sslrootcert: {} is not there: the playbook centre.yml writes it": (
        "centre.sslrootcert: нет файла {}: его пишет плейбук centre.yml"
    ),
    "journal {} is a link to what is not there: mount it; nothing was changed": (
        "журнал {} - ссылка на то, чего нет: смонтируйте; ничего не изменено"
    ),
    "journal {}: {}: {}; nothing was changed": "журнал {}: {}: {}; ничего не изменено",
    "free space on its file system": "освободите место на его файловой системе",
    "free space on its file system, or raise the quota": (
        "освободите место на его файловой системе или увеличьте квоту"
    ),
    "mount its file system for writing, or give the service's user the file": (
        "смонтируйте файловую систему на запись или отдайте файл пользователю службы"
    ),
    "mount its file system for writing": "смонтируйте файловую систему на запись",
    "give the service's user the folder and the file": "отдайте каталог и файл пользователю службы",
    "end what else has it open": "завершите программу, которая держит его открытым",
    "see the kernel's log for faults of the disk": "смотрите в журнале ядра ошибки диска",
    "storage.root {} is gone: mount it; nothing was changed": (
        "storage.root {} пропал: смонтируйте; ничего не изменено"
    ),
    "{} is in use by the running service: stop its unit first, or restart it: it checks the journal as it starts and "
    "rebuilds it where that is needed": (
        "{} занят работающей службой: сначала остановите её или перезапустите: при запуске она проверяет журнал и, "
        "если "
        "нужно, восстанавливает его"
    ),
    "{}: {}: {} (study {})": "{}: {}: {} (исследование {})",  # event DELIVERY_REFUSED
    # What is wrong with a journal (heal/damage.py), as `outpost journal check` says it.
    "its write-ahead log is there, the file is not": "его лог упреждающей записи есть, а самого файла нет",
    "there are studies, and no journal": "исследования есть, а журнала нет",
    "something that is no file has its name": "его имя занято не файлом",
    "something that is no file has the name {}": "имя {} занято не файлом",
    "the file is empty, and its write-ahead log is not": "файл пуст, а его лог упреждающей записи - нет",
    "the file is empty, and there are studies": "файл пуст, а исследования есть",
    "it has no tables, and there are studies": "в нём нет таблиц, а исследования есть",
    "the disk cannot read its beginning": "диск не читает его начала",
    "it does not begin as an SQLite file does": "он начинается не как файл SQLite",
    "it has no table {}": "в нём нет таблицы {}",
    "a row of {} holds what the journal never writes": "в строке {} записано то, чего журнал никогда не пишет",
    "the outbox has results of a study that it does not know": "в outbox есть результаты исследования, которого он "
    "не знает",
    "quarantine has a study that it does not know": "в карантине есть исследование, которого он не знает",
    "the spool has a computed study that it does not know": "в spool есть посчитанное исследование, которого он не "
    "знает",
    "an administrator asked for it": "так попросил администратор",
    "said by the last run": "так сказал прошлый запуск",
    "sound": "цел",
    "put aside: {}": "отложен: {}",
    "do what the detail says": "сделайте, что сказано выше",
    "restart the unit: it rebuilds the journal by itself; or run `outpost journal rebuild`": (
        "перезапустите службу: она восстановит журнал сама; или выполните `outpost journal rebuild`"
    ),
    # Starting, and the command line.
    "storage.root {} cannot be written ({}): mount or chown it": (
        "в storage.root {} нельзя писать ({}): смонтируйте или смените владельца"
    ),
    "storage.root {} is in use by another outpost process: stop that one": (
        "storage.root {} занят другим процессом outpost: остановите его"
    ),
    "{}: cannot listen on {}:{} ({}): see `ss -ltnp`, or choose another port": (
        "{}: нельзя слушать {}:{} ({}): смотрите `ss -ltnp` или выберите другой порт"
    ),
    "cannot listen on {}:{} ({}): end what uses the port, or set api.port": (
        "нельзя слушать {}:{} ({}): завершите программу, занявшую порт, или задайте api.port"
    ),
    "this process may open {} descriptors, {} are needed for {} associations (intake.max_associations): raise the "
    "limit "
    "(LimitNOFILE= of the unit, ulimit -n, --ulimit nofile= of the container), or lower intake.max_associations": (
        "процесс может открыть {0} дескрипторов, для {2} ассоциаций (intake.max_associations) нужно {1}: поднимите "
        "предел "
        "(LimitNOFILE= у службы, ulimit -n, --ulimit nofile= у контейнера) или уменьшите intake.max_associations"
    ),
    "this command needs {}, which is not installed here: run it on a host that Outpost is installed on, or install "
    "the "
    "service's libraries (make setup)": (
        "этой команде нужна библиотека {}, её здесь нет: запустите команду на сервере с Outpost или установите "
        "библиотеки "
        "службы (make setup)"
    ),
    "storage.root {} {}: run this where the service runs, as root or as its user": (
        "storage.root {} {}: запускайте там, где работает служба, от root или её пользователя"
    ),
    "cannot be read": "не читается",
    "does not exist": "не существует",
    "the outbox cannot be read: run this as root": "исходящие не читаются: запустите от root",
    "name a file, or set OUTPOST_CONFIG": "назовите файл или задайте OUTPOST_CONFIG",
    "{} does not exist: name a DICOM file or a folder": "{} не существует: назовите файл DICOM или каталог",
    "{} does not exist: name a DICOM image or a folder": "{} не существует: назовите снимок DICOM или каталог",
    "{}: write 0.2 to 3600 seconds": "{}: напишите от 0.2 до 3600 секунд",
    "{} is no day or moment: write YYYY-MM-DD or YYYY-MM-DDTHH:MM, in UTC": (
        "{} - не день и не время: пишите ГГГГ-ММ-ДД или ГГГГ-ММ-ДДTЧЧ:ММ, по UTC"
    ),
    # A command line (argparse).
    "the following arguments are required: {}": "не хватает: {}",
    "one of the arguments {} is required": "нужно одно из: {}",
    "unrecognized arguments: {}": "неизвестно: {}",
    "ambiguous option: {} could match {}": "{} можно понять по-разному: {}",
    "argument {}: {}": "{}: {}",
    "invalid choice: {} (choose from {})": "{} не подходит, можно: {}",
    "expected one argument": "нужно значение",
    "expected at least one argument": "нужно хотя бы одно значение",
    "expected {} arguments": "нужно значений: {}",
    "ignored explicit argument {}": "лишнее значение {}",
    "not allowed with argument {}": "нельзя вместе с {}",
    "invalid int value: {}": "{} - не целое число",
    "invalid float value: {}": "{} - не число",
    "invalid Path value: {}": "{} - не путь",
    "invalid {} value: {}": "{1} не подходит ({0})",
    # Backup and restore.
    "this is no text: write it to a file with -o FILE, or with > FILE": (
        "это не текст: пишите в файл, -o FILE или > FILE"
    ),
    "no room for a copy of the journal beside it in {}: free space there": (
        "рядом с журналом в {} нет места для его копии: освободите место"
    ),
    "the journal is damaged ({}): see the runbook on a damaged journal": (
        "журнал повреждён ({}): см. карточку journal-damaged"
    ),
    "{} is in use: stop the service first": "{} занят: сначала остановите службу",
    "{} is not empty: nothing is overwritten. Move it aside (sudo mv {} {}.old), make it again, and repeat": (
        "{} не пуст: ничего не перезаписано. Отодвиньте его (sudo mv {} {}.old), создайте снова и повторите"
    ),
    "the archive is of system {}, this one is {}: give the configuration of that system": (
        "архив системы {}, а эта - {}: укажите конфигурацию той системы"
    ),
    "the archive has no manifest at its end: it was cut off, take another one": (
        "в конце архива нет описи: он обрезан, возьмите другой"
    ),
    "the archive has format {}, this release reads {}": "у архива формат {}, эта версия читает {}",
    "the archive's journal is not the one that was written: take another archive": (
        "журнал в архиве не тот, что был записан: возьмите другой архив"
    ),
    "the archive holds {} files, {} were written: take another one": (
        "в архиве {} файлов, а записано было {}: возьмите другой"
    ),
    "the archive cannot be read to its end ({}): take another one": (
        "архив не читается до конца ({}): возьмите другой"
    ),
    "{} has no place in a backup of ours: this archive is another's": (
        "{} в нашей резервной копии быть не может: это чужой архив"
    ),
    "{} files, {} MB, studies: {}, as of {}": "файлов: {}, {} МБ, исследований: {}, на момент {}",
    "restored: {} studies, {} files, as of {}. Now start the service: sudo systemctl start outpost@{}": (
        "восстановлено: исследований {}, файлов {}, на момент {}. Теперь запустите службу: sudo systemctl start "
        "outpost@{}"
    ),
    # Drift.
    "{} does not exist: the service has not run with drift.enabled yet": (
        "{} не существует: служба ещё не работала с drift.enabled"
    ),
    "both hold {}, at least one together with other days: merge the books of single days, or take one of the two out": (
        "в обеих книгах есть {}, хотя бы в одной вместе с другими днями: сливайте книги отдельных дней или уберите "
        "одну"
    ),
    "this book has format {}, this release reads {}: use the release that wrote it": (
        "у этой книги формат {}, эта версия читает {}: возьмите версию, которая её писала"
    ),
    "this is no drift book ({}: {}): copy the file again from its source": (
        "это не книга дрейфа ({}: {}): скопируйте файл из источника ещё раз"
    ),
    "one tag is counted in categories here and as a number there: the books do not match": (
        "один тег здесь считается по категориям, а там числом: книги не совпадают"
    ),
    "{} is no CSV table of headers ({})": "{} - не таблица CSV с заголовками ({})",
    "{} has no column {}: it has {}": "в {} нет столбца {}: есть {}",
    "{} to {} holds {} observations, at least {} are wanted: choose a longer period": (
        "с {} по {} - {} наблюдений, нужно не меньше {}: выберите период длиннее"
    ),
    "{}; write --column TAG=NAME for each column": "{}; укажите --column ТЕГ=ИМЯ для каждого столбца",
    "the table has no image from {} to {}: choose another --reference": (
        "в таблице нет снимков с {} по {}: выберите другой --reference"
    ),
    "all senders: {} ({}): {} -> {}, since about {} ({}, effect {})": (
        "все отправители: {} ({}): {} -> {}, примерно с {} ({}, эффект {})"
    ),
    "sender {}: {} ({}): {} -> {}, since about {} ({}, effect {})": (
        "отправитель {}: {} ({}): {} -> {}, примерно с {} ({}, эффект {})"
    ),
    "raised on {}: {}": "поднята {}: {}",
    # The centre.
    "no connection to the centre's database {} at {}:{}: {}": "нет связи с базой центра {} на {}:{}: {}",
    "database {} has fleet schema {}, this release needs {}: apply outpost/fleet/sql (playbook centre.yml)": (
        "в базе {} схема fleet {}, этой версии нужна {}: примените outpost/fleet/sql (плейбук centre.yml)"
    ),
    "the centre's database failed: {}": "сбой базы центра: {}",
    "is the centre's, which has no studies of its own: `outpost fleet table`, or -s with a system's name": (
        "это файл центра, своих исследований у него нет: `outpost fleet table` или -s с именем системы"
    ),
    # Will it run (platform/).
    "os: {} is none of ours: it looks like ubuntu-24.04, astra-1.8, redos-8": (
        "os: {} не из наших: пишется как ubuntu-24.04, astra-1.8, redos-8"
    ),
    "modules: {} is none of open, proprietary; leave it out to be told which fits": (
        "modules: {} - не open и не proprietary; не указывайте, и будет сказано, что подходит"
    ),
    "torch: {} is no torch build: it looks like 2.13.0+cu126, or 2.13.0+cpu": (
        "torch: {} - не сборка torch: пишется как 2.13.0+cu126 или 2.13.0+cpu"
    ),
    "{} is no version: numbers with dots between them are wanted, such as 580.95.05": (
        "{} - не версия: нужны числа через точку, например 580.95.05"
    ),
    "driver: {} is no version: numbers with dots between them are wanted, such as 580.95.05": (
        "driver: {} - не версия: нужны числа через точку, например 580.95.05"
    ),
    "cuda: {} is no version: numbers with dots between them are wanted, such as 580.95.05": (
        "cuda: {} - не версия: нужны числа через точку, например 580.95.05"
    ),
    "{} is no PCI id of an NVIDIA GPU: it looks like 10de:1b06. `cat /sys/bus/pci/devices/*/device` or `lspci -nn | "
    "grep -i nvidia` shows it.": (
        "{} - не PCI-идентификатор видеокарты NVIDIA: он пишется как 10de:1b06. Его покажет `cat "
        "/sys/bus/pci/devices/*/device` или `lspci -nn | grep -i nvidia`."
    ),
    "{} has the format {}, {} is wanted; run collect.yml of this release": (
        "у {} формат {}, нужен {}; запустите collect.yml этой версии"
    ),
    "{}; name the file that collect.yml wrote": "{}; назовите файл, который записал collect.yml",
    "{} is no JSON ({}); send it as a file, not as pasted text": (
        "{} - не JSON ({}); присылайте файлом, а не вставленным текстом"
    ),
    # A configuration, and rules of the filter (config.py, filter/rulefile.py).
    "cannot be read ({}): name an existing UTF-8 file": "не читается ({}): назовите существующий файл UTF-8",
    "cannot be read ({}): name an existing file": "не читается ({}): назовите существующий файл",
    "is not YAML: {}": "не YAML: {}",
    "is not UTF-8 text ({} at byte {})": "не текст UTF-8 ({} в байте {})",
    "is nested too deeply: simplify it": "слишком глубокая вложенность: упростите",
    "is larger than {} KiB: this is no rule file": "больше {} КиБ: это не файл правил",
    "holds {}, not keys and values: see the example": "содержит {}, а не ключи и значения: смотрите пример",
    "holds {}, not keys and values: see docs/filter-rules.md": (
        "содержит {}, а не ключи и значения: смотрите docs/filter-rules.md"
    ),
    "the key {} appears twice: keep one (line {}, column {})": (
        "ключ {} встречается дважды: оставьте один (строка {}, столбец {})"
    ),
    "another rule is called {}: give each its own": "так уже называется другое правило, {}: дайте каждому своё имя",
    "there is no such key; did you mean {}?": "такого ключа нет; может быть, {}?",
    "there is no such key; known keys here: {}": "такого ключа нет; здесь известны: {}",
    "missing; add it": "отсутствует; добавьте",
    "this must be text: put it in quotes": "это должен быть текст: возьмите в кавычки",
    "use 2 to 31 of a-z, 0-9 and '-', beginning with a letter": "от 2 до 31 знака a-z, 0-9 и '-', первой - буква",
    "an AE title is 1 to 16 ASCII characters without a backslash": (
        "AE title - от 1 до 16 знаков ASCII без обратной косой черты"
    ),
    "write a host name or an IP address, without scheme, port or path": (
        "напишите имя узла или IP-адрес, без схемы, порта и пути"
    ),
    "the path must be absolute (begin with /)": "путь должен быть полным (начинаться с /)",
    "this is not an IP address; write one of this host's, or 0.0.0.0 for all": (
        "это не IP-адрес; напишите один из адресов этого сервера или 0.0.0.0 для всех"
    ),
    "write an IP address (192.168.7.4), or a network by its first one (192.168.7.0/24)": (
        "напишите IP-адрес (192.168.7.4) или сеть по её первому адресу (192.168.7.0/24)"
    ),
    "this is no character set; write a defined term of DICOM such as ISO_IR 144, or a codec such as cp1251": (
        "это не кодировка; напишите термин DICOM, например ISO_IR 144, или кодек, например cp1251"
    ),
    "this is no character set; write a defined term of DICOM such as ISO_IR 144, or a codec such as cp1251; did "
    "you mean "
    "{}?": "это не кодировка; напишите термин DICOM, например ISO_IR 144, или кодек, например cp1251; может быть, "
    "{}?",
    "neither character_set nor addresses: add what is known of this sender, or take it out": (
        "нет ни character_set, ни addresses: добавьте, что известно об отправителе, или уберите его"
    ),
    "senders names {} twice: keep one": "в senders дважды назван {}: оставьте один",
    "reasons names {} twice: keep one": "в reasons дважды назван {}: оставьте один",
    "threads is now called workers (processes of one thread each): rename it": (
        "threads теперь называется workers (процессы по одному потоку): переименуйте"
    ),
    "two destinations are called {}: give each its own name": (
        "два получателя называются {}: дайте каждому своё имя"
    ),
    "retry_max_seconds is smaller than retry_first_seconds: raise it": (
        "retry_max_seconds меньше retry_first_seconds: увеличьте"
    ),
    "sslmode {} without sslrootcert: name the authorities' file, /etc/outpost/tls/fleet-ca.pem": (
        "sslmode {} без sslrootcert: назовите файл удостоверяющих центров, /etc/outpost/tls/fleet-ca.pem"
    ),
    "{} missing: set it, or set records.enabled to false": "нет {}: задайте или поставьте records.enabled: false",
    "open is true and tokens are named: tokens would close nothing, keep one of the two": (
        "open: true и названы токены: они ничего не закроют, оставьте одно из двух"
    ),
    "keep_days is less than twice window_days: a window is looked at with the one before it": (
        "keep_days меньше двух window_days: окно сравнивается с предыдущим"
    ),
    "stow_url and {}: a destination is one or the other": "stow_url и {}: получатель либо то, либо другое",
    "tls with a stow_url that is not https: correct the URL": "tls при stow_url без https: исправьте адрес",
    "{} missing: add it, or give stow_url alone": "нет {}: добавьте или дайте только stow_url",
    "stow_token without stow_url: C-STORE knows no tokens; take it out": (
        "stow_token без stow_url: в C-STORE токенов нет; уберите"
    ),
    "stow_proxy without stow_url: C-STORE knows no proxies; take it out": (
        "stow_proxy без stow_url: в C-STORE прокси нет; уберите"
    ),
    "the password is empty: set the one of the role fleet_collector": (
        "пароль пуст: задайте пароль роли fleet_collector"
    ),
    "a dead link is noticed after {} s, so a pass needs longer: set at least {}": (
        "обрыв связи заметен через {} с, проход должен быть длиннее: задайте не меньше {}"
    ),
    "write the keyword, not the number of the tag{}": "пишите ключевое слово, а не номер тега{}",
    "{} is no keyword of the DICOM data dictionary{}": "{} - не ключевое слово из словаря DICOM{}",
    "{} is no sequence: nothing lies below it": "{} - не последовательность: под ним ничего нет",
    "{} is a sequence: name an attribute in it, such as {}.CodeValue": (
        "{} - последовательность: назовите атрибут в ней, например {}.CodeValue"
    ),
    "{} lies behind the header: pixels are judged by `pixels`, not by rules": (
        "{} лежит за заголовком: о пикселях судит `pixels`, а не правила"
    ),
    "this is not a regular expression: {}": "это не регулярное выражение: {}",
    "give text or a number, and put true and false in quotes": (
        "дайте текст или число, а true и false возьмите в кавычки"
    ),
    "this is no reason code, and a code of your own begins with {}{}": (
        "это не код причины, а свой код начинается с {}{}"
    ),
    "use up to 61 of a-z, 0-9 and '-', beginning with a letter": "до 61 знака a-z, 0-9 и '-', первой - буква",
    "no kind is known by this name ({}){}": "вида с таким именем нет ({}){}",
    "a condition has one of all, any, not, tag and fact, here is {}": (
        "в условии одно из all, any, not, tag, fact, а здесь {}"
    ),
    "{} beside {}: put it into a condition with a tag or a fact": (
        "{} рядом с {}: перенесите в условие с тегом или фактом"
    ),
    "a {} has one operator ({}), here is {}": "у {} один оператор ({}), а здесь {}",
    "between is given as [least, greatest]: exchange the two": (
        "between пишется как [меньшее, большее]: поменяйте местами"
    ),
    "{} is no fact ({}){}": "{} - не факт ({}){}",
    "a fact is one value: value, values and over are for tags": (
        "факт - одно значение: value, values и over - для тегов"
    ),
    "{} is one of {}, never {}{}": "{} - одно из {}, но не {}{}",
    "{} is neither a UID nor the keyword of one{}": "{} - не UID и не ключевое слово UID{}",
    "a rule has either require or exclude": "в правиле либо require, либо exclude",
    "the fact {} is known of a {}: scope {} does not have it": "факт {} известен для {}: в scope {} его нет",
    "; did you mean {}?": "; может быть, {}?",
    "; see docs/filter-rules.md": "; смотрите docs/filter-rules.md",
    "{} cannot be read ({}): put it there, readable for the service's user": (
        "{} не читается ({}): положите его туда, чтобы его мог читать пользователь службы"
    ),
    "{} is no model bundle (no outpost.yaml): name one of the release's": (
        "{} - не пакет модели (нет outpost.yaml): назовите пакет из выпуска"
    ),
    # What pydantic says of a value.
    "Input should be a valid integer": "нужно целое число",
    "Input should be a valid integer, {}": "нужно целое число",
    "Input should be a valid number": "нужно число",
    "Input should be a valid number, {}": "нужно число",
    "Input should be a valid boolean": "нужно true или false",
    "Input should be a valid boolean, {}": "нужно true или false",
    "Input should be a valid string": "нужен текст",
    "Input should be a valid list": "нужен список",
    "Input should be a valid tuple": "нужен список",
    "Input should be a valid dictionary": "нужны ключи и значения",
    "Input should be a valid dictionary or instance of {}": "нужны ключи и значения",
    "Input should be a valid date or datetime, {}": "нужна дата ГГГГ-ММ-ДД",
    "Input should be a valid date, {}": "нужна дата ГГГГ-ММ-ДД",
    "Input should be a valid datetime, {}": "нужна дата и время, ГГГГ-ММ-ДДTЧЧ:ММ",
    "Input should be a finite number": "нужно конечное число",
    "Input should be greater than or equal to {}": "нужно не меньше {}",
    "Input should be less than or equal to {}": "нужно не больше {}",
    "Input should be greater than {}": "нужно больше {}",
    "Input should be less than {}": "нужно меньше {}",
    "Input should be {}": "нужно {}",
    "Input is not a valid path for {}": "это не путь",
    "String should match pattern {}": "текст должен подходить под {}",
    "String should have at least {}": "текст слишком короткий: нужно не меньше {}",
    "String should have at most {}": "текст слишком длинный: не больше {}",
    "List should have at least {}": "список слишком короткий: нужно не меньше {}",
    "List should have at most {}": "список слишком длинный: не больше {}",
    "Tuple should have at least {}": "список слишком короткий: нужно не меньше {}",
    "Tuple should have at most {}": "список слишком длинный: не больше {}",
    "Field required": "отсутствует; добавьте",
    "Value error, {}": "{}",
    # Destinations (delivery/link.py).
    "{} ended the association without an answer: see its log": (
        "{} закончил ассоциацию без ответа: смотрите его журнал"
    ),
    "the name {} cannot be resolved ({}): correct the destination's address, or the name service of this host": (
        "имя {} не разрешается ({}): исправьте адрес получателя или службу имён этого сервера"
    ),
    "{} cannot be reached (connection refused): nothing listens there; see that the peer runs, and check the port": (
        "{} недоступен (соединение отклонено): там никто не слушает; проверьте, что узел работает, и номер порта"
    ),
    "{} cannot be reached ({}): check address, route and firewall": (
        "{} недоступен ({}): проверьте адрес, маршрут и межсетевой экран"
    ),
    "no answer in {} s": "нет ответа за {} с",
    "no answer": "нет ответа",
    "the connection was closed": "соединение закрыто",
    "TLS with {} fails ({}): check that it speaks TLS on this port, and the certificates and authorities (tls.ca) of "
    "both sides": (
        "TLS с {} не удаётся ({}): проверьте, что на этом порту TLS, и сертификаты и удостоверяющие центры (tls.ca) "
        "обеих сторон"
    ),
    "{} rejects the association: {} ({}): {}": "{} отклоняет ассоциацию: {} ({}): {}",
    "make the peer know our AE title {}, with this host's address": (
        "внесите у получателя наш AE title {} с адресом этого сервера"
    ),
    "the peer is not called {}: correct the destination's ae_title": (
        "получатель называется не {}: исправьте ae_title получателя"
    ),
    "is this a DICOM storage peer?": "это точно архив DICOM?",
    "is this a DICOM port?": "это точно порт DICOM?",
    "it is busy; we try again soon": "он занят; скоро попробуем снова",
    "it has as many associations as it takes; we try again soon": (
        "у него уже столько ассоциаций, сколько он принимает; скоро попробуем снова"
    ),
    "it calls this transient; we try again soon": "он называет это временным; скоро попробуем снова",
    "see the peer's log for what it misses": "смотрите в журнале получателя, чего ему не хватает",
    "{} accepts the connection, but does not answer the request for an association within {} s: check that this is a "
    "DICOM port, and whether it wants TLS": (
        "{} принимает соединение, но не отвечает на запрос ассоциации за {} с: проверьте, что это порт DICOM и не "
        "нужен "
        "ли TLS"
    ),
    "{} closed the connection during the negotiation of an association: see its log (many do so to an AE title or "
    "address "
    "they do not know), and whether it wants TLS": (
        "{} закрыл соединение при согласовании ассоциации: смотрите его журнал (так часто отвечают незнакомому AE "
        "title "
        "или адресу) и не нужен ли TLS"
    ),
    "{} aborted during the negotiation of an association: see its log (many do so to an AE title or address they "
    "do not "
    "know), and whether it wants TLS": (
        "{} оборвал согласование ассоциации: смотрите его журнал (так часто отвечают незнакомому AE title или "
        "адресу) и "
        "не нужен ли TLS"
    ),
    # Destinations: a class, a file, the answer (delivery/link.py, scu.py, stow.py, commitment.py).
    "{} has neither taken data nor answered for {} s: see its log and the link to it": (
        "{} не берёт данные и не отвечает уже {} с: смотрите его журнал и линию до него"
    ),
    "{} gave an answer without a status: see its log": "{} ответил без статуса: смотрите его журнал",
    "SOP class {} was not offered to {}": "SOP class {0} не предлагался получателю {1}",
    "{} accepts the association, but not SOP class {}": "{} принимает ассоциацию, но не SOP class {}",
    "{} (abstract syntax not supported): enable this class there": (
        "{} (abstract syntax not supported): включите там этот класс"
    ),
    "{} in transfer syntax {} (transfer syntaxes not supported): enable one there": (
        "{} в transfer syntax {} (transfer syntaxes not supported): включите там один из них"
    ),
    "{} ({}): see whether it lets AE title {} store this class": (
        "{} ({}): проверьте, разрешено ли там AE title {} сохранять этот класс"
    ),
    "{} answers C-ECHO with status 0x{}: see its log": "{} отвечает на C-ECHO статусом 0x{}: смотрите его журнал",
    "the file cannot be read ({}): see the disk": "файл не читается ({}): проверьте диск",
    "the peer takes SOP class {} in transfer syntax {} alone, and the file cannot be sent in it ({}): enable {} at "
    "the "
    "peer": (
        "получатель берёт SOP class {} только в transfer syntax {}, а файл в нём не отправить ({}): включите у "
        "получателя "
        "{}"
    ),
    "the peer answered C-STORE for another instance: see its log": (
        "получатель ответил на C-STORE за другой объект: смотрите его журнал"
    ),
    "the peer answered {} with status {}: {}": "получатель ответил на {} статусом {}: {}",
    "the DICOMweb server does not take the result's transfer syntax, and in {} it cannot be sent ({}): enable it "
    "there": (
        "сервер DICOMweb не берёт transfer syntax результата, а в {} его не отправить ({}): включите его там"
    ),
    "{} has not answered the request for {} s: see its log and the link to it": (
        "{} не отвечает на запрос уже {} с: смотрите его журнал и линию до него"
    ),
    "{} ended the connection without a reply ({}): see its log, and check scheme and port of stow_url": (
        "{} закрыл соединение без ответа ({}): смотрите его журнал, проверьте схему и порт в stow_url"
    ),
    "the DICOMweb server answered {} ({}): {}": "сервер DICOMweb ответил {} ({}): {}",
    "the DICOMweb server answered {} (moved to {}): correct stow_url; results and tokens are sent to no address but "
    "that": (
        "сервер DICOMweb ответил {} (переехал на {}): исправьте stow_url; на другие адреса результаты и токены не "
        "отправляются"
    ),
    "the DICOMweb server answered {} without naming the instance: that proves nothing; see its log": (
        "сервер DICOMweb ответил {}, не назвав объекта: это ничего не доказывает; смотрите его журнал"
    ),
    "the DICOMweb server refused the instance, failure reason {}": (
        "сервер DICOMweb отклонил объект, failure reason {}"
    ),
    "{}: see its log": "{}: смотрите его журнал",
    "{} (it is just being stored): we ask again": "{} (он как раз сохраняется): спросим ещё раз",
    "{} ({}): see its log": "{} ({}): смотрите его журнал",
    "{} does not offer storage commitment: enable it there, or set commitment to false": (
        "{} не предлагает storage commitment: включите там или поставьте commitment: false"
    ),
    "{} answered the request for storage commitment with status {}: see its log": (
        "{} ответил на запрос storage commitment статусом {}: смотрите его журнал"
    ),
    "see its log": "смотрите его журнал",
    "check stow_token": "проверьте stow_token",
    "let this token, or this host, store there; check stow_token": (
        "разрешите там сохранять этому токену или этому серверу; проверьте stow_token"
    ),
    "check stow_url: the URL of its studies": "проверьте stow_url: это адрес его исследований",
    "check stow_url, and see its log": "проверьте stow_url и смотрите его журнал",
    "let this host pass the proxy": "разрешите этому серверу проходить через прокси",
    "see the link to it and its limits": "смотрите линию до него и его пределы",
    "we try again when it wants": "попробуем, когда он разрешит",
    "we try again when it wants; see its log if it stays": (
        "попробуем, когда он разрешит; если не проходит, смотрите его журнал"
    ),
    "free space there": "освободите там место",
    "raise the limit of the server, or of the proxy before it": "поднимите предел сервера или прокси перед ним",
    "have it take Explicit or Implicit VR Little Endian as application/dicom": (
        "пусть принимает Explicit или Implicit VR Little Endian как application/dicom"
    ),
    "see its log for the attribute; report it to us with the SOP class if it names none": (
        "смотрите в его журнале, какой атрибут; если не назван, сообщите нам вместе с SOP class"
    ),
    "enable this SOP class at the peer": "включите этот SOP class у получателя",
    "look there for an object of another class under this UID and remove it": (
        "найдите там объект другого класса с этим UID и удалите его"
    ),
    "allow our AE title to store there": "разрешите там сохранять нашему AE title",
    "it takes no C-STORE": "он не принимает C-STORE",
    "it has no room: see its log": "у него нет места: смотрите его журнал",
    "enable Explicit or Implicit VR Little Endian at the peer": (
        "включите у получателя Explicit или Implicit VR Little Endian"
    ),
    # More of associations.
    "{} others are shaking hands": "{} других уже согласуют TLS",
    "the TLS handshake failed ({})": "не удалось согласовать TLS ({})",
    "what it sends first is no request for an association": "первое, что он прислал, - не запрос ассоциации",
    "more connections than there is room for wait without having asked for anything": (
        "соединений, которые ничего не спросили, больше, чем есть места"
    ),
    "the disk reached its mark in the middle of an instance, and the association was ended": (
        "посреди объекта диск дошёл до отметки, и ассоциация закончена"
    ),
    "storage commitment is not offered: this is no archive, and the peer no destination that reports": (
        "storage commitment не предлагается: это не архив, а узел - не получатель, который отчитывается"
    ),
    "{} is not offered: instances are stored here, no more": "{} не предлагается: здесь только принимают объекты",
    "no transfer syntax proposed for {} is known": "ни один из предложенных transfer syntax для {} не известен",
    "for {} the peer proposes a role that leaves us none": "для {} узел предлагает роль, при которой нам её не "
    "остаётся",
    "{} associations are open, as many as intake.max_associations allows": (
        "открыто ассоциаций {}, столько разрешает intake.max_associations"
    ),
    "{} associations of this sender are open, as many as intake.max_associations_per_peer allows one AE title at one "
    "address": (
        "у этого отправителя открыто ассоциаций {}, столько intake.max_associations_per_peer разрешает одному AE "
        "title с "
        "одного адреса"
    ),
    "{} associations of this address are open; the other {} of intake.max_associations are kept for others": (
        "с этого адреса открыто ассоциаций {}; остальные {} из intake.max_associations оставлены другим"
    ),
    "a command that cannot be read ({})": "команда не читается ({})",
    "a PDU that has no content bears some": "в PDU без содержимого есть содержимое",
    "a fragment without a control header": "фрагмент без заголовка",
    "a command in the middle of a data set": "команда посреди набора данных",
    "a command of more than {} bytes": "команда длиннее {} байт",
    "a data set without a command": "набор данных без команды",
    "a data set of more than {} MiB that is not to be stored": "набор данных больше {} МиБ, который не сохраняется",
    "a request for an association of more than {} KiB": "запрос ассоциации больше {} КиБ",
    "a request for more than {} presentation contexts": "запрос больше чем на {} presentation contexts",
    "a request of more than {} transfer syntaxes": "запрос больше чем с {} transfer syntaxes",
    "a request of more than {} items of user information": "запрос больше чем с {} записями user information",
    "a fragment that is not as long as it says": "длина фрагмента не та, что он называет",
    "a PDU of more than {} fragments": "PDU больше чем из {} фрагментов",
    "a command that ends in the middle of an element": "команда кончается посреди элемента",
    "a command that is no list of command elements": "команда - не список элементов команды",
    "a command that DICOM does not know": "команды нет в DICOM",
    "a command that does not say whether a data set follows": "команда не говорит, идёт ли за ней набор данных",
    # More of the command line.
    "--days {}: write 1 to 3660": "--days {}: напишите от 1 до 3660",
    "storage.root {} cannot be opened ({}): run this where the service runs, as its user": (
        "storage.root {} не открывается ({}): запускайте там, где работает служба, от её пользователя"
    ),
    "the journal cannot be opened ({}): `outpost journal check` says more; a service that starts rebuilds a damaged "
    "one": (
        "журнал не открывается ({}): подробности скажет `outpost journal check`; служба при запуске восстанавливает "
        "повреждённый"
    ),
    "{} cannot be written ({}): name another place": "в {} нельзя писать ({}): назовите другое место",
    "{}: no DICOM files in this folder": "{}: в этом каталоге нет файлов DICOM",
    "{}: not a DICOM file (Part 10): name files or folders of such": (
        "{}: не файл DICOM (Part 10): назовите такие файлы или каталоги с ними"
    ),
    # What the kernel says of a file, a folder or a line (errno), as it is filled in above.
    "Permission denied": "нет прав",
    "Operation not permitted": "операция не разрешена",
    "No such file or directory": "такого файла или каталога нет",
    "File exists": "файл уже есть",
    "Not a directory": "это не каталог",
    "Is a directory": "это каталог",
    "No space left on device": "на диске нет места",
    "Disk quota exceeded": "превышена квота диска",
    "Read-only file system": "файловая система только для чтения",
    "Input/output error": "ошибка ввода-вывода",
    "Structure needs cleaning": "файловая система повреждена",
    "Stale file handle": "сетевой каталог недоступен",
    "Transport endpoint is not connected": "сетевой каталог недоступен",
    "Too many open files": "открыто слишком много файлов",
    "File name too long": "слишком длинное имя файла",
    "Device or resource busy": "устройство занято",
    "No such device": "такого устройства нет",
    "Cannot allocate memory": "не хватает памяти",
    "Address already in use": "адрес занят",
    "Cannot assign requested address": "такого адреса на этом сервере нет",
    "Connection refused": "соединение отклонено",
    "connection refused": "соединение отклонено",
    "Connection reset by peer": "соединение сброшено той стороной",
    "Connection timed out": "соединение не установлено вовремя",
    "Broken pipe": "соединение разорвано",
    "No route to host": "нет маршрута до узла",
    "Network is unreachable": "сеть недоступна",
    "Name or service not known": "имя не найдено",
    "Temporary failure in name resolution": "служба имён не отвечает",
    "No address associated with hostname": "у имени нет адреса",
}


_SENTENCES: Final = Sentences(ANSWERS)


@functools.lru_cache(maxsize=256)
def russian(sentence: str) -> str | None:
    """The Russian of a sentence of ours, what was filled in translated as well; None where there is none."""
    if len(sentence) > _LONGEST:
        return None
    return _SENTENCES.russian(sentence, lambda value: russian(value) or value)


def said(told: object, language: Language) -> str:
    """What was told, in the language; the English itself where nothing else is known."""
    text = str(told)
    return text if language == "en" else russian(text) or text


def complain(what: str, told: object, language: Language | None = None) -> None:
    """Print why a command cannot do it, on standard error: "outpost backup: ...", in the language of its reader."""
    spoken = said(told, language or preferred_language())
    print(f"{what}: {spoken}" if what else spoken, file=sys.stderr)


def both(text: str) -> dict[str, str]:
    """The members `detail` and, where it is known, `detail_ru` of an answer in JSON."""
    told = russian(text)
    return {"detail": text} if told is None else {"detail": text, "detail_ru": told}


def faults(text: str, language: Language) -> str:
    """A list of faults of a file, a line each: the key and the value found stay, the reason is said in the "
    "language."""
    if language == "en":
        return text
    return "\n".join(_fault(line) for line in text.splitlines())


def _fault(line: str) -> str:
    begin, dash, rest = line.rpartition("  - ") if line.startswith("  - ") else ("", "", line)
    if (head := re.fullmatch(r"(.+): (\d+) faults?", line)) is not None:
        return f"{head[1]}: ошибок {head[2]}"
    place = re.match(r"((?:line \d+: )?[\w.\[\]-]+|the file): ", rest)
    if place is None:
        return f"{begin}{dash}{russian(rest) or rest}"
    reason, found = rest[place.end() :], ""
    if (shown := re.search(r" \(found (.*)\)$", reason, re.DOTALL)) is not None:
        reason, found = reason[: shown.start()], f" (найдено {shown[1]})"
    where = place[1].replace("the file", "файл").replace("line ", "строка ")
    return f"{begin}{dash}{where}: {russian(reason) or reason}{found}"
