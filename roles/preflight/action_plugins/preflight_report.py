"""Writes the verdicts of a run on the controller: HOST.json and HOST.html each, and index.html over all hosts.

The index keeps hosts that this run left out (-l): their verdicts are there from an earlier run, and say when.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "service"))
from outpost.platform.page import host_page, index_page


class ActionModule(ActionBase):
    """Runs here, once for all hosts; nothing is sent to any of them."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Arguments: directory, reports (JSON), hosts (of the run), known (hosts of the inventory), language."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "directory": {"type": "path", "required": True},
                "reports": {"type": "list", "elements": "dict", "required": True},
                "hosts": {"type": "list", "elements": "str", "required": True},
                "known": {"type": "list", "elements": "str", "default": []},
                "language": {"type": "str", "required": True},
            }
        )
        folder = Path(arguments["directory"])
        at = datetime.now().astimezone().strftime("%d.%m.%Y %H:%M %Z")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for report in arguments["reports"]:
                _write(
                    folder / f"{report['host']}.json",
                    json.dumps({**report, "at": at}, ensure_ascii=False, indent=1) + "\n",
                )
                _write(folder / f"{report['host']}.html", host_page(report, at))
            silent = sorted(set(arguments["hosts"]) - {report["host"] for report in arguments["reports"]})
            earlier = _earlier(folder, sorted(set(arguments["known"]) - set(arguments["hosts"])))
            page = index_page(arguments["reports"], silent, arguments["language"], at, earlier)
            _write(folder / "index.html", page)
        except OSError as error:
            # The report is not the run: where it cannot be written, that is said and the run goes on.
            return {
                "changed": False,
                "written": False,
                "msg": f"no report: {error}; set preflight_report_directory",
            }
        return {"changed": False, "written": True, "msg": f"{folder}/index.html"}


def _earlier(folder: Path, hosts: list[str]) -> list[tuple[dict[str, Any], str]]:
    """Verdicts of these hosts from runs before, and when they were made; one that cannot be read is none."""
    found = []
    for host in hosts:
        path = folder / f"{host}.json"
        try:
            report = json.loads(path.read_text())
            made = datetime.fromtimestamp(path.stat().st_mtime).astimezone().strftime("%d.%m.%Y %H:%M %Z")
            if report["host"] == host and {"level", "status", "lines", "platform"} <= report.keys():
                found.append((report, str(report.get("at", made))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def _write(path: Path, content: str) -> None:
    """Replaced as a whole: a page that is open in a browser is never half of two runs."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(content)
    new.replace(path)
