"""Says in our words why a file of the inventory cannot be read, and ends the command. It comes after all other plugins.

`any_unparsed_is_failed` would end it too, with what each of Ansible's own plugins thinks of the file, in English. It
works for `ansible` and `ansible-inventory` as well; callback/outpost_inventory.py judges where our ansible.cfg is not
in force.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.errors import AnsibleParserError
from ansible.inventory.manager import IGNORED
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
from outpost.controller.inventory import judge
from outpost.controller.inventory.sources import read

DOCUMENTATION = """
    name: outpost_unread
    short_description: says why a file of the inventory cannot be read
    description:
      - Takes what no other plugin could read, and ends the command with one line for each fault.
"""


class InventoryModule(BaseInventoryPlugin):
    """Reads nothing; names what is wrong."""

    NAME = "outpost_unread"

    def verify_file(self, path: str) -> bool:
        """Takes any file, and a path where none is: it comes last."""
        return not Path(path).is_dir()

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Ends the command with status 2, unless the fault is one that only the other plugins can tell."""
        given = context.CLIARGS.get("inventory") or (path,)
        sources = read([str(Path(one).absolute()) for one in given if "," not in one], IGNORED)
        missing = any(one.code == "source-missing" for one in sources.faults)
        if not sources.fatal and not missing and _is_empty(Path(path)):
            return  # a region that is commented out whole, behind the line "---"
        if not sources.fatal and not missing:
            raise AnsibleParserError(
                f"{path} is no inventory that Ansible can read; the messages above say why"
            )
        for line in judge.said(sources.faults, [], sources):
            Display().display(line, color=C.COLOR_ERROR)
        sys.exit(2)


def _is_empty(path: Path) -> bool:
    """Whether a file holds comments alone."""
    lines = (line.strip() for line in path.read_text(errors="replace").splitlines())
    return all(not line or line.startswith("#") or line == "---" for line in lines)
