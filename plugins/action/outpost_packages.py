"""Has packages on a host; asks the host's repositories only where one is missing.

In a dry run it says what would be installed and neither installs nor fetches anything, not even package lists.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
from outpost.platform import packages
from outpost.platform.line import Language, Words


class ActionModule(ActionBase):
    """Arguments: names (list), manager (apt or dnf)."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Unchanged where all are installed; `missing` names those that were not."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "names": {"type": "list", "elements": "str", "required": True},
                "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            }
        )
        self._known = task_vars or {}
        self._manager: packages.Manager = arguments["manager"]
        names = arguments["names"]
        answer = self._shell(packages.looking(self._manager, names))
        found = packages.looked(self._manager, names, str(answer.get("stdout", "")))
        if found is None:
            why = str(answer.get("stderr") or answer.get("stdout") or "").strip()
            return self._stopped(packages.not_looked_at(self._host, why))
        if found.unreadable:
            return self._stopped(packages.unreadable(self._host, self._manager, found.unreadable))
        if not found.missing:
            return {"changed": False, "missing": []}
        if self._task.check_mode:
            would = f"would install {', '.join(found.missing)}"
            return {
                "changed": True,
                "missing": list(found.missing),
                "msg": would,
                "diff": _diff(found.missing),
            }
        if found.torn:
            done = self._shell(packages.repairing())
            if done.get("rc") != 0:
                return self._stopped(packages.unfinished(self._host, found.torn, str(done.get("stdout", ""))))
        return self._install(found)

    def _install(self, found: packages.Looked) -> dict[str, Any]:
        names, said = list(found.missing), ""
        fresh = self._manager != "apt" or found.lists_age < packages.LISTS_SECONDS
        if not fresh:
            said = self._refresh()
        result = self._tool(names)
        if result.get("failed") and self._manager == "apt" and fresh:
            # Lists of less than an hour may name files that the repository has replaced since.
            said = self._refresh()
            result = self._tool(names)
        dead = packages.dead_repositories(self._manager, said)
        # dnf names the first that does not answer, and the next one only where that is left out.
        while result.get("failed") and self._manager == "dnf":
            more = packages.dead_repositories("dnf", f"{_said(result)} {result.get('exception')}")
            if more.keys() <= dead.keys():
                break
            dead |= more
            result = self._tool(names, disablerepo=sorted(dead))
        if result.get("failed"):
            return self._stopped(packages.not_installed(self._host, names, _said(result), dead))
        for place in dead:
            self._display.warning(packages.not_needed(self._host, place).said(self._language))
        return {"changed": bool(result.get("changed")), "missing": names, "diff": _diff(names)}

    def _refresh(self) -> str:
        return str(self._shell(packages.refreshing()).get("stdout", ""))

    def _tool(self, names: list[str], **more: Any) -> dict[str, Any]:
        arguments = {"name": names, "state": "present", "lock_timeout": packages.LOCK_SECONDS, **more}
        done: dict[str, Any] = self._execute_module(
            module_name=f"ansible.builtin.{self._manager}", module_args=arguments, task_vars=self._known
        )
        return done

    def _shell(self, script: str) -> dict[str, Any]:
        done: dict[str, Any] = self._low_level_execute_command(script, executable="/bin/sh")
        return done

    @property
    def _host(self) -> str:
        return str(self._known.get("inventory_hostname", ""))

    def _stopped(self, words: Words) -> dict[str, Any]:
        return _failed(words.said(self._language))

    @property
    def _language(self) -> Language:
        said = self._templar.template(self._known.get("outpost_language", "en"))
        return "ru" if said == "ru" else "en"


def _said(result: dict[str, Any]) -> str:
    """What a package module says of its failure; dnf names the packages apart from the message."""
    parts = [result.get(key) or "" for key in ("msg", "failures", "module_stderr")]
    return " ".join(
        " ".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts
    ).strip()


def _failed(text: str) -> dict[str, Any]:
    return {"changed": False, "failed": True, "msg": text}


def _diff(names: Any) -> dict[str, str]:
    return {"before": "", "after": "".join(f"{name}\n" for name in names), "after_header": "packages"}
