"""Prints docs/inventory-codes.md: `python -m outpost.controller.inventory en|ru`. A test holds it to the table."""

from __future__ import annotations

import sys

from outpost.controller.inventory.fault import MEANING
from outpost.platform.line import Language, Words

_HEAD = Words(
    """# What can be wrong with an inventory

Made by `make pages` from the table in `service/outpost/controller/inventory/fault.py`.

Before a playbook of ours asks a host for anything, the inventory is judged whole. Each fault is one line: file, line,
name, value, what is wanted, what to do, code. All hosts are judged, also those that `-l` leaves out: the centre and
the other regions rest on the same files. No secret is shown.

| code | wanted | what to do |
|---|---|---|
""",
    """# Что может быть не так в инвентаре

Сделано командой `make pages` из таблицы в `service/outpost/controller/inventory/fault.py`.

Прежде чем плейбук обратится к узлу, инвентарь проверяется целиком. Каждая ошибка занимает одну строку: файл, строка,
имя, значение, что нужно, что сделать, код. Проверяются все узлы, и те, которые `-l` не выбирает: на тех же файлах
стоят центр и другие регионы. Секреты не показываются.

| код | нужно | что сделать |
|---|---|---|
""",
)
_FILLED = Words("(what it is)", "(что именно)")


def page(language: Language) -> str:
    """The whole page."""

    def plain(words: Words) -> str:
        said = words.said(language).replace("{near}", "")
        for key in ("wanted", "why", "hint"):
            said = said.replace("{" + key + "}", _FILLED.said(language))
        return " ".join(said.replace("{", "*").replace("}", "*").replace("|", "\\|").split())

    rows = [
        f"| `{code}` | {plain(wanted)} | {plain(remedy)} |\n" for code, (wanted, remedy) in MEANING.items()
    ]
    return _HEAD.said(language) + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page("ru" if sys.argv[1:] == ["ru"] else "en"))
