"""Has many files of a host as they are described, by one call; module `outpost_files` compares and writes on the host.

On the controller an entry may name, instead of its content, a file or a template of the role (`src`, `template`), and
stand for several: with `each`, %s in its path is replaced with each name. A list gives names. A mapping gives, with a
template, the `item` (key, value) of each; else the content of each. A content that is null takes the file away. An
entry whose `when` is false is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible._internal._templating import _template_vars  # the pinned Ansible has no public name for it
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

_HERE = ("src", "template", "each", "when")


class ActionModule(ActionBase):
    """Arguments: files, a list of the module's entries or of what stands for them here."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """`written` names the paths that differed; with several of them each is said on the screen."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {"files": {"type": "list", "elements": "dict", "required": True}}
        )
        known = task_vars or {}
        files = [one for entry in arguments["files"] for one in self._described(entry, known)]
        if not files:
            return {"changed": False, "written": [], "kept": []}
        done: dict[str, Any] = self._execute_module(
            module_name="outpost_files", module_args={"files": files}, task_vars=known
        )
        written = done.get("written") or []
        if written and not self._task.diff:
            would = "would be written" if self._task.check_mode else "written"
            self._display.display(f"{known.get('inventory_hostname', '')}: {would}: {', '.join(written)}")
        return done

    def _described(self, entry: Mapping[str, Any], known: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The entries of the module that one of the task stands for."""
        if not entry.get("when", True):
            return
        kept = {key: value for key, value in entry.items() if key not in _HERE}
        if "mode" in kept and not isinstance(kept["mode"], str):
            raise AnsibleActionFail(
                f"{kept.get('path')}: mode {kept['mode']} is a number; write it in quotes"
            )
        if "src" in entry:
            kept["content"] = Path(self._find_needle("files", entry["src"])).read_text(encoding="utf-8")
        if "each" not in entry:
            if "template" in entry:
                kept["content"] = self._rendered(entry["template"], known)
            yield _or_absent(kept)
            return
        each = entry["each"]
        for name in each:
            one = {**kept, "path": kept["path"].replace("%s", name)}
            if "template" in entry:
                item = {"key": name, "value": each[name]} if isinstance(each, Mapping) else name
                one["content"] = self._rendered(entry["template"], {**known, "item": item})
            elif isinstance(each, Mapping):
                one["content"] = each[name]
            yield _or_absent(one)

    def _rendered(self, name: str, known: dict[str, Any]) -> str:
        """A template of the role, with the variables of the task, as ansible.builtin.template renders it."""
        source = self._find_needle("templates", name)
        folders = [*known.get("ansible_search_path", []), str(Path(source).parent)]
        templar = self._templar.copy_with_new_env(
            searchpath=[path for folder in folders for path in (str(Path(folder, "templates")), folder)],
            available_variables={
                **known,
                **_template_vars.generate_ansible_template_vars(
                    path=name, fullpath=source, include_ansible_managed="ansible_managed" not in known
                ),
            },
        )
        text = trust_as_template(self._loader.get_text_file_contents(source))
        return str(templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True}))


def _or_absent(one: dict[str, Any]) -> dict[str, Any]:
    if one.get("content", "") is not None:
        return one
    return {"path": one["path"], "state": "absent", "keep": one.get("keep", False)}
