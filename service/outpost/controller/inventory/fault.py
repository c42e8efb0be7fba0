"""What is wrong with an inventory, one line each, in English and Russian. `MEANING` is the table of all texts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from outpost.platform.line import Language, Words, same


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written: a file with a line (from 1; 0 is the whole file), else `who` says whose it is."""

    file: str = ""
    line: int = 0
    who: str = ""

    def said(self, language: Language) -> str:
        if self.file:
            return f"{self.file}:{self.line}" if self.line else self.file
        return self.who or Words("inventory", "инвентарь").said(language)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. name: the variable or key, dotted. value: what was found, never a secret."""

    code: str
    place: Place
    name: str
    value: Words
    wanted: Words
    remedy: Words

    def said(self, language: Language) -> str:
        """The whole line."""
        head = f"{self.place.said(language)}: " + (f"{self.name}: " if self.name else "")
        wanted = Words("wanted", "нужно").said(language)
        return (
            f"{head}{self.value.said(language)}; {wanted}: {self.wanted.said(language)}."
            f" {self.remedy.said(language)} [{self.code}]"
        )


def fault(code: str, place: Place, name: str = "", value: object = "", **more: object) -> Fault:
    """A fault of the table, its texts filled with `more`."""
    wanted, remedy = MEANING[code]
    seen = value if isinstance(value, Words) else same(value)
    return Fault(code, place, name, seen, wanted.by(**more), remedy.by(**more))


def text(faults: Iterable[Fault], language: Language) -> list[str]:
    """The lines in the order of files and lines; what several hosts have from one place is said once."""
    ordered = sorted(faults, key=lambda one: (one.place.file == "", one.place, one.name, one.code))
    return list(dict.fromkeys(one.said(language) for one in ordered))


# Code -> (what is wanted, what to do).
MEANING: Final[dict[str, tuple[Words, Words]]] = {
    # --- Files.
    "source-missing": (
        Words("a file or directory", "файл или каталог"),
        Words("Correct the path after -i.", "Исправьте путь после -i."),
    ),
    "no-hosts": (
        Words("hosts in the groups region or fleet", "узлы в группах region или fleet"),
        Words(
            "Name your inventory: -i DIRECTORY. A region is a file in regions/, see inventories/example.",
            "Назовите свой инвентарь: -i КАТАЛОГ. Регион - файл в regions/, смотрите inventories/example.",
        ),
    ),
    "encoding": (
        Words("UTF-8 without a byte order mark", "UTF-8 без метки порядка байтов (BOM)"),
        Words("Save it as UTF-8: {how}", "Сохраните файл в UTF-8: {how}"),
    ),
    "character": (
        Words("printable characters", "печатные знаки"),
        Words("Remove it and write the line again.", "Удалите его и напишите строку заново."),
    ),
    "tab": (
        Words("spaces", "пробелы"),
        Words("Replace each tab with two spaces.", "Замените каждую табуляцию двумя пробелами."),
    ),
    "yaml": (
        Words("YAML that can be read", "читаемый YAML"),
        Words(
            "Look at this line and the one above: indentation, a colon, a quote or a bracket.",
            "Посмотрите на эту строку и на строку выше: отступ, двоеточие, кавычка или скобка.",
        ),
    ),
    "unread": (
        Words("an inventory that Ansible can read", "инвентарь, который читает Ansible"),
        Words(
            "Ansible's own message says more: ansible-inventory -i {file} --list",
            "Подробности в сообщении Ansible: ansible-inventory -i {file} --list",
        ),
    ),
    "unreadable": (
        Words("a file that can be read", "файл, который можно прочесть"),
        Words("Give yourself the right to read it.", "Дайте себе право на чтение."),
    ),
    "shape": (
        Words("{wanted}", "{wanted}"),
        Words("Compare with the files of inventories/example.", "Сравните с файлами в inventories/example."),
    ),
    "duplicate-key": (
        Words("each key once", "каждый ключ один раз"),
        Words(
            "The last one wins and the others are lost. Keep one of the lines {lines}.",
            "Действует последний, остальные теряются. Оставьте одну из строк {lines}.",
        ),
    ),
    "group-key": (
        Words("hosts, vars or children", "hosts, vars или children"),
        Words(
            "Ansible skips all below it.{near} Variables of a group belong under vars.",
            "Ansible пропустит всё, что под ним.{near} Переменные группы пишут под vars.",
        ),
    ),
    "vault": (
        Words("the password of the vault", "пароль хранилища"),
        Words(
            "Add --ask-vault-pass or --vault-password-file FILE; {why}.",
            "Добавьте --ask-vault-pass или --vault-password-file ФАЙЛ; {why}.",
        ),
    ),
    "vars-unread": (
        Words("group_vars and host_vars beside the inventory itself", "group_vars и host_vars рядом с инвентарём"),
        Words("Nobody reads it here. Move it to {there}.", "Здесь его никто не читает. Перенесите в {there}."),
    ),
    "vars-of-nobody": (
        Words("the name of a {kind} of the inventory", "имя {kind} из инвентаря"),
        Words(
            "Nobody reads this file.{near} Rename or delete it.",
            "Этот файл никто не читает.{near} Переименуйте или удалите его.",
        ),
    ),
    # --- Hosts and groups.
    "limit": (
        Words("a host or group of the inventory", "узел или группа из инвентаря"),
        Words("{near}Correct -l.", "{near}Исправьте -l."),
    ),
    "limit-nobody": (
        Words("hosts that this playbook is for", "узлы, для которых этот плейбук"),
        Words("Nothing would be done. Correct -l.", "Ничего не было бы сделано. Исправьте -l."),
    ),
    "region-code": (
        Words("2 to 31 of a-z, 0-9 and -, beginning with a letter", "от 2 до 31 знаков a-z, 0-9 и -, первой буква"),
        Words(
            "Rename the host; what people call the region goes into region_title.",
            "Переименуйте узел; как регион называют люди, пишут в region_title.",
        ),
    ),
    "host-unread": (
        Words("a host name that Ansible can load", "имя узла, которое Ansible может загрузить"),
        Words(
            "Ansible has not loaded it, so it counts as removed. Begin it with a letter and use a-z, 0-9 and -.",
            "Ansible его не загрузил, для него узел удалён. Начните имя с буквы; можно a-z, 0-9 и -.",
        ),
    ),
    "host-twice": (
        Words("each host in one file", "каждый узел в одном файле"),
        Words(
            "Ansible mixes the two. Rename or remove one of: {places}.",
            "Ansible смешает оба. Переименуйте или удалите один из: {places}.",
        ),
    ),
    "host-both": (
        Words("region or fleet, not both", "region или fleet, но не обе"),
        Words(
            "The centre and a region need hosts of their own: each writes its own firewall and database.",
            "Центру и региону нужны свои узлы: каждый пишет свой межсетевой экран и свою базу.",
        ),
    ),
    "host-nowhere": (
        Words("a host of group region or fleet", "узел группы region или fleet"),
        Words(
            "It has variables of ours, but no playbook would touch it.{near}",
            "У него наши переменные, но ни один плейбук его не коснётся.{near}",
        ),
    ),
    "address-twice": (
        Words("an address for each host", "свой адрес у каждого узла"),
        Words("It is also that of {others}. Correct one.", "Он же у {others}. Исправьте один."),
    ),
    "code-twice": (
        Words("a code of its own for each region", "свой код у каждого региона"),
        Words(
            "{others} call themselves so too. Remove inference_region: the code is the host's name.",
            "Так же называют себя {others}. Удалите inference_region: код - имя узла.",
        ),
    ),
    # --- Variables.
    "unknown-name": (
        Words("a variable of docs/variables.md", "переменная из docs/variables.md"),
        Words("Nobody reads it.{near}", "Её никто не читает.{near}"),
    ),
    "unknown-key": (
        Words("one of {known}", "один из {known}"),
        Words("Nobody reads it.{near}", "Его никто не читает.{near}"),
    ),
    "missing": (
        Words("{wanted}", "{wanted}"),
        Words("Add it, as inventories/example has it.", "Добавьте, как в inventories/example."),
    ),
    "empty": (
        Words("{wanted}", "{wanted}"),
        Words("Give it a value or remove the line.", "Дайте значение или удалите строку."),
    ),
    "type": (
        Words("{wanted}", "{wanted}"),
        Words("{hint}", "{hint}"),
    ),
    "secret-type": (
        Words("text in quotes", "текст в кавычках"),
        Words(
            'Put it into quotes: {key}: "...". A secret\'s value is not shown.',
            'Возьмите его в кавычки: {key}: "...". Значение секрета не показано.',
        ),
    ),
    "choice": (
        Words("one of {choices}", "одно из {choices}"),
        Words("Correct the value.{near}", "Исправьте значение.{near}"),
    ),
    "zone": (
        Words("an IANA time zone such as Asia/Chita", "часовой пояс IANA, например Asia/Chita"),
        Words("Correct the name.{near}", "Исправьте имя.{near}"),
    ),
    "range": (
        Words("{wanted}", "{wanted}"),
        Words("Correct the number.", "Исправьте число."),
    ),
    "form": (
        Words("{wanted}", "{wanted}"),
        Words("Correct the value.", "Исправьте значение."),
    ),
    "template": (
        Words("a template that can be read", "читаемый шаблон"),
        Words("{why}", "{why}"),
    ),
    "network": (
        Words("an address or a network, such as 10.0.0.0/24", "адрес или сеть, например 10.0.0.0/24"),
        Words("{why}.", "{why}."),
    ),
    "port-twice": (
        Words("a port for each on one host", "у каждого на узле свой порт"),
        Words("Change one of them: {users}.", "Измените один из них: {users}."),
    ),
    "ports-differ": (
        Words("the port of the region's database, {port}", "порт базы региона, {port}"),
        Words("Remove {key}, or set both alike.", "Удалите {key} или задайте оба одинаково."),
    ),
    "unknown-system": (
        Words("a system of outpost_systems: {known}", "система из outpost_systems: {known}"),
        Words("Correct the name.{near}", "Исправьте имя.{near}"),
    ),
    "unknown-bundle": (
        Words("a folder of service/bundles: {known}", "каталог из service/bundles: {known}"),
        Words("Correct the name.{near}", "Исправьте имя.{near}"),
    ),
}  # fmt: skip


def near(found: str) -> Words:
    """The sentence that names the likeliest word; nothing where there is none."""
    return Words(" Did you mean {n}?", " Возможно, {n}?").by(n=found) if found else same("")
