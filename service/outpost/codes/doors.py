"""Why something other than an image was turned away: connections, associations, their contexts, HTTP requests.

The codes are `outpost.intake.doors.Turned`: labels of a metric, and named in events (SENDER_REFUSED) and in the log.
A test asks that each is here; docs/reason-codes.md has them with the reasons of images and studies.
"""

from __future__ import annotations

from typing import Final

_LIMITS: Final = (
    "Look who it is (`outpost events`, the log): a program that asks in a loop, or a sender with many associations. "
    "Stop it there, or raise the limit that the event names."
)
_LIMITS_RU: Final = (
    "Посмотрите, кто это (`outpost events`, журнал): программа, спрашивающая без остановки, или отправитель со "
    "многими "
    "ассоциациями. Остановите его или поднимите предел, названный в событии."
)

# Meaning and remedy in English, then in Russian.
AT_THE_DOORS: Final[dict[str, tuple[str, str, str, str]]] = {
    "TLS_HANDSHAKE": (
        "A peer connected and no TLS came about: it speaks none, or does not trust our certificate, or we not its.",
        "Turn TLS on at the sender, and give it the authority of our certificate; clients that must show one: "
        "`tls.ca`.",
        "Узел подключился, но TLS не установился: он его не использует, не доверяет нашему сертификату или мы - его.",
        "Включите TLS у отправителя и дайте ему удостоверяющий центр нашего сертификата; если свой сертификат обязан "
        "показать клиент - `tls.ca`.",
    ),
    "CALLING_AE_UNKNOWN": (
        "The sender's AE title is not one that this system knows.",
        "If it may send, add it to `intake.known_ae_titles` (`inference_known_ae_titles` in the region's file).",
        "AE title отправителя этой системе не известен.",
        "Если ему можно отправлять, добавьте его в `intake.known_ae_titles` (`inference_known_ae_titles` в файле "
        "региона).",
    ),
    "CALLED_AE_UNKNOWN": (
        "The sender calls an AE title that is not ours: it means another system.",
        "Correct the called AE title at the sender, or add it to `intake.called_ae_titles`.",
        "Отправитель обращается к чужому AE title: ему нужна другая система.",
        "Исправьте called AE title у отправителя или добавьте его в `intake.called_ae_titles`.",
    ),
    "ADDRESS_UNKNOWN": (
        "The sender has a known name, and comes from an address that does not belong to it.",
        "If the sender moved, correct its addresses in `intake.senders`; else find out who uses its name.",
        "Имя отправителя известно, но адрес не его.",
        "Если отправитель переехал, исправьте его адреса в `intake.senders`; иначе выясните, кто назвался его "
        "именем.",
    ),
    "TOO_MANY_ASSOCIATIONS": (
        "As many associations are open as are allowed in all, to one sender, or to one address.", _LIMITS,
        "Открыто столько ассоциаций, сколько разрешено всего, одному отправителю или одному адресу.", _LIMITS_RU,
    ),
    "TOO_MANY_CONNECTIONS": (
        "As many connections are open, or wait to be let in, as there is room for.", _LIMITS,
        "Открыто или ждёт столько соединений, сколько есть места.", _LIMITS_RU,
    ),
    "TOO_MANY_REQUESTS": (
        "Costly answers were already being made, and as many asked for another.", _LIMITS,
        "Дорогие ответы уже готовились, и ещё столько же ждали.", _LIMITS_RU,
    ),
    "NO_REQUEST": (
        "What came first on the DICOM port is no request for an association.",
        "Often a port scanner or a monitor: none of a sender's studies is concerned. A balancer's check: C-ECHO.",
        "Первое, что пришло на порт DICOM, - не запрос ассоциации.",
        "Часто это сканер портов или мониторинг: исследований отправителей это не касается. Для проверки - C-ECHO.",
    ),
    "REQUEST_LATE": (
        "Somebody connected and did not say in time what they want.",
        "Nothing, where it is seldom; where it is often, see the line and who connects.",
        "Кто-то подключился и вовремя не сказал, чего хочет.",
        "Если редко - ничего; если часто, проверьте линию и кто подключается.",
    ),
    "NEVER_USED": (
        "An association was opened and nothing was asked on it for `intake.unused_seconds`.",
        "Have the sender open associations when it has something to send; its studies are not concerned.",
        "Ассоциация открыта, но за `intake.unused_seconds` по ней ничего не спросили.",
        "Пусть отправитель открывает ассоциации, когда есть что отправить; исследований это не касается.",
    ),
    "TOO_SLOW": (
        "In the middle of a message the peer was slower than any line for `intake.stall_seconds`.",
        "Look at the line and at the sender; it sends again what was not confirmed.",
        "Посреди сообщения узел был медленнее любой линии дольше `intake.stall_seconds`.",
        "Проверьте линию и отправителя; неподтверждённое он отправит снова.",
    ),
    "GAVE_WAY": (
        "An idle association was closed, as another sender found no place.",
        "Nothing, where it is seldom; else raise `intake.max_associations`, or have the sender close what it left.",
        "Простаивавшая ассоциация закрыта: другому отправителю не хватило места.",
        "Если редко - ничего; иначе поднимите `intake.max_associations` или пусть отправитель закрывает лишнее.",
    ),
    "BEYOND_BOUNDS": (
        "What the peer sends is none of DICOM's messages, or longer than they are.",
        "Look at who connects: a scanner, or a broken program. Nothing of it was taken.",
        "То, что прислал узел, - не сообщение DICOM или длиннее, чем они бывают.",
        "Посмотрите, кто подключается: сканер или сломанная программа. Ничего не принято.",
    ),
    "NOT_NEGOTIATED": (
        "The association asks for something that is not done here, as a user identity.",
        "Switch it off at the sender.",
        "Ассоциация просит то, чего здесь нет, например учётную запись пользователя.",
        "Выключите это у отправителя.",
    ),
    "COMMITMENT_NOT_OFFERED": (
        "The sender asks for storage commitment; this service is no archive.",
        "Nothing: images are taken all the same. Switch the request off at the sender if it disturbs.",
        "Отправитель просит storage commitment; эта служба - не архив.",
        "Ничего: снимки принимаются и так. Если мешает, выключите запрос у отправителя.",
    ),
    "SERVICE_NOT_OFFERED": (
        "The sender asks for another service than storing, as query or printing.",
        "Nothing, where it also sends images; else it means another system: correct its destination.",
        "Отправитель просит не приём, а другое: поиск, печать.",
        "Если он при этом шлёт и снимки - ничего; иначе ему нужна другая система: исправьте назначение.",
    ),
    "ROLE_NOT_OFFERED": (
        "The sender proposes to be the one that stores, too.",
        "Have it propose the role of SCU for storage.",
        "Отправитель предлагает самому быть хранилищем.",
        "Настройте у него роль SCU для storage.",
    ),
    "SYNTAX_NOT_OFFERED": (
        "None of the transfer syntaxes proposed for this class is known.",
        "Have the sender propose Explicit VR Little Endian, too.",
        "Ни один предложенный для этого класса transfer syntax не известен.",
        "Пусть отправитель предлагает и Explicit VR Little Endian.",
    ),
    "OPERATION_NOT_OFFERED": (
        "An operation was asked for that is not C-STORE or C-ECHO.",
        "Look what the sender wants; images that it stores are taken.",
        "Запрошена операция, отличная от C-STORE и C-ECHO.",
        "Выясните, чего хочет отправитель; снимки, которые он шлёт, принимаются.",
    ),
    "BODY_MALFORMED": (
        "A STOW-RS request is no whole multipart body; what was whole in it is taken.",
        "Send it again; if it stays, the client or a proxy before us breaks it: the answer says where.",
        "Запрос STOW-RS - не целое тело multipart; целые части приняты.",
        "Отправьте ещё раз; если не помогло, его портит клиент или прокси: в ответе сказано, где.",
    ),
    "BODY_TOO_LARGE": (
        "A STOW-RS request is larger, or has more parts, than one request may.",
        "Have the client split it: a request a series.",
        "Запрос STOW-RS больше или с большим числом частей, чем можно.",
        "Пусть клиент его делит: запрос на серию.",
    ),
    "TYPE_NOT_TAKEN": (
        "The request's Content-Type is not multipart/related of application/dicom.",
        "Correct it at the client; the answer shows the one that is taken.",
        "Content-Type запроса - не multipart/related из application/dicom.",
        "Исправьте у клиента; нужный показан в ответе.",
    ),
    "ENCODING_NOT_TAKEN": (
        "The request's Content-Encoding is not gzip or deflate.",
        "Have the client send it without compression.",
        "Content-Encoding запроса - не gzip и не deflate.",
        "Пусть клиент отправляет без сжатия.",
    ),
}  # fmt: skip
