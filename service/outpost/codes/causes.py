"""What keeps a result from its destination: the codes of `outpost.delivery.cause.Cause`, explained.

They are in the event DELIVERY_REFUSED, in /studies, in the log and in metrics. A test asks that each is here;
docs/reason-codes.md has them. Standard library only.
"""

from __future__ import annotations

from typing import Final

_TRIED = "It is tried again by itself; results wait in the outbox."
_TRIED_RU = "Попытки повторяются сами; результаты ждут."
_LOG = "The words of the event say more; then the destination's log."
_LOG_RU = "Подробности - в словах события, затем в журнале получателя."

# Meaning and remedy in English, then in Russian.
CAUSES: Final[dict[str, tuple[str, str, str, str]]] = {
    "name-not-resolved": (
        "The destination's name has no address.",
        f"`getent hosts NAME` on this host; correct the destination's address, or the name service. {_TRIED}",
        "Имя получателя не имеет адреса.",
        f"`getent hosts ИМЯ` на этом сервере; исправьте адрес получателя или службу имён. {_TRIED_RU}",
    ),
    "connection-refused": (
        "The destination's host is there and nothing listens on the port.",
        f"See that the PACS runs, and check the port. {_TRIED}",
        "Узел получателя есть, но на порту никто не слушает.",
        f"Проверьте, что PACS работает, и номер порта. {_TRIED_RU}",
    ),
    "no-route": (
        "The destination does not answer at its address.",
        f"Check address, route and firewall. {_TRIED}",
        "Получатель не отвечает по своему адресу.",
        f"Проверьте адрес, маршрут и межсетевой экран. {_TRIED_RU}",
    ),
    "tls-failed": (
        "There is no TLS with the destination.",
        "Check that it speaks TLS on this port, the certificates of both sides and the authorities (`tls.ca`).",
        "С получателем не устанавливается TLS.",
        "Проверьте, что на этом порту TLS, сертификаты обеих сторон и удостоверяющие центры (`tls.ca`).",
    ),
    "no-answer": (
        "The destination takes the connection and does not answer.",
        f"See its log and the link to it; is it a DICOM port, and does it want TLS? {_TRIED}",
        "Получатель принимает соединение, но не отвечает.",
        f"Смотрите его журнал и линию; точно ли это порт DICOM и не нужен ли TLS? {_TRIED_RU}",
    ),
    "calling-ae-not-recognised": (
        "The destination does not know our AE title.",
        "Have its admin add our AE title with this host's address.",
        "Получатель не знает наш AE title.",
        "Попросите его администратора внести наш AE title с адресом этого сервера.",
    ),
    "called-ae-not-recognised": (
        "The destination has another AE title than we call.",
        "Correct the destination's `ae_title`.",
        "У получателя другой AE title, чем мы называем.",
        "Исправьте `ae_title` получателя.",
    ),
    "busy": (
        "The destination has as much to do as it takes.",
        f"Nothing, unless it lasts. {_TRIED}",
        "Получатель занят.",
        f"Ничего, если это ненадолго. {_TRIED_RU}",
    ),
    "association-rejected": (
        "The destination rejects our association, for the reason that the words name.", _LOG,
        "Получатель отклоняет ассоциацию по причине, названной в словах.", _LOG_RU,
    ),
    "association-aborted": (
        "The destination broke off the association.", f"{_LOG} Many do so to a name or address they do not know.",
        "Получатель оборвал ассоциацию.", f"{_LOG_RU} Так часто отвечают незнакомому имени или адресу.",
    ),
    "sop-class-not-supported": (
        "The destination does not take results of this class.",
        "Enable the class there (DICOM SEG, Basic Text SR), or send its results elsewhere.",
        "Получатель не принимает результаты этого класса.",
        "Включите там этот класс (DICOM SEG, Basic Text SR) или отправляйте результаты в другое место.",
    ),
    "transfer-syntax-not-supported": (
        "The destination does not take the result's transfer syntax.",
        "Enable Explicit or Implicit VR Little Endian there.",
        "Получатель не принимает transfer syntax результата.",
        "Включите там Explicit или Implicit VR Little Endian.",
    ),
    "context-rejected": (
        "The destination takes the association and not this class from us.",
        "See whether it lets our AE title store this class.",
        "Получатель принимает ассоциацию, но не этот класс от нас.",
        "Проверьте, разрешено ли там нашему AE title сохранять этот класс.",
    ),
    "out-of-resources": (
        "The destination has no room.", f"Free space there. {_TRIED}",
        "У получателя нет места.", f"Освободите там место. {_TRIED_RU}",
    ),
    "processing-failure": (
        "The destination failed over the result.", f"{_LOG} {_TRIED}",
        "Получатель не справился с результатом.", f"{_LOG_RU} {_TRIED_RU}",
    ),
    "not-authorised": (
        "The destination does not let us store.",
        "Allow our AE title there; of DICOMweb check `stow_token`.",
        "Получатель не разрешает нам сохранять.",
        "Разрешите там наш AE title; для DICOMweb проверьте `stow_token`.",
    ),
    "attribute-refused": (
        "The destination refuses an attribute of the result.",
        "See its log for the attribute; report it to us with the SOP class if it names none.",
        "Получатель отвергает атрибут результата.",
        "Смотрите в его журнале, какой; если не назван, сообщите нам вместе с SOP class.",
    ),
    "instance-refused": (
        "The destination refuses this object, as one of another class under its UID.",
        "Look there for an object under this UID and remove it.",
        "Получатель отвергает объект, например из-за объекта другого класса с тем же UID.",
        "Найдите там объект с этим UID и удалите его.",
    ),
    "data-set-does-not-match-class": (
        "The destination says that the result does not fit its class.", _LOG,
        "Получатель говорит, что результат не соответствует своему классу.", _LOG_RU,
    ),
    "cannot-understand": (
        "The destination cannot understand the result; many say so for any fault of their own.", _LOG,
        "Получатель не понимает результата; так часто отвечают на любую свою ошибку.", _LOG_RU,
    ),
    "operation-refused": (
        "The destination does not do what is asked of it.", _LOG,
        "Получатель не выполняет запрошенного.", _LOG_RU,
    ),
    "duplicate-invocation": (
        "The destination saw the number of our message before.", f"{_LOG} {_TRIED}",
        "Номер нашего сообщения получателю уже встречался.", f"{_LOG_RU} {_TRIED_RU}",
    ),
    "unknown-status": (
        "The destination answered with a status that the standard does not have.", f"{_LOG} {_TRIED}",
        "Получатель ответил статусом, которого нет в стандарте.", f"{_LOG_RU} {_TRIED_RU}",
    ),
    "commitment-not-offered": (
        "The destination offers no storage commitment, which its entry asks for.",
        "Enable it there, or set `commitment: false` for this destination.",
        "Получатель не предлагает storage commitment, а у него он включён.",
        "Включите там или поставьте у этого получателя `commitment: false`.",
    ),
    "commitment-refused": (
        "The destination did not vouch for results that it took.", f"{_LOG} They are sent again.",
        "Получатель не подтвердил хранение принятых результатов.", f"{_LOG_RU} Они отправляются снова.",
    ),
    "wrong-address": (
        "There is no STOW-RS at the destination's address.",
        "Check `stow_url`: the URL of its studies.",
        "По адресу получателя нет STOW-RS.",
        "Проверьте `stow_url`: это адрес его исследований.",
    ),
    "too-large": (
        "The result is larger than the server, or a proxy before it, takes.",
        "Raise the limit there.",
        "Результат больше, чем принимает сервер или прокси перед ним.",
        "Поднимите там предел.",
    ),
    "request-refused": (
        "The DICOMweb server refuses the request.", _LOG,
        "Сервер DICOMweb отклоняет запрос.", _LOG_RU,
    ),
    "server-fault": (
        "The DICOMweb server, or a proxy before it, failed.", f"{_LOG} {_TRIED}",
        "Сбой сервера DICOMweb или прокси перед ним.", f"{_LOG_RU} {_TRIED_RU}",
    ),
    "instance-not-named": (
        "The DICOMweb server answered without naming the result: that proves nothing.", f"{_LOG} {_TRIED}",
        "Сервер DICOMweb ответил, не назвав результата: это ничего не доказывает.", f"{_LOG_RU} {_TRIED_RU}",
    ),
    "file-unusable": (
        "Our own file of the result cannot be read or sent.",
        "Check the disk of this host; compute the study again if it stays.",
        "Наш собственный файл результата не читается или не отправляется.",
        "Проверьте диск этого сервера; если не прошло, посчитайте исследование заново.",
    ),
}  # fmt: skip
