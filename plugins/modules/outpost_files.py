#!/usr/bin/python
"""Has files, directories and links of a host as they are described, in one call. Python 3.8, standard library."""

DOCUMENTATION = r"""
---
module: outpost_files
short_description: Have many files, directories and links of a host as they are described
description:
  - Each is compared with what is on the host (content, owner, group, mode) and written where it differs, in the order
    of the list. One call does what a task each would do, since nearly all of the time of a run that changes nothing is
    the way to the host and back.
  - On the controller an action of the same name fills in C(src) and C(template) of the role, and leaves out entries
    whose C(when) is false; see there.
options:
  files:
    description: >-
      What is to be on the host, in its order.
    type: list
    elements: dict
    required: true
    options:
      path:
        type: path
        required: true
        description: Where.
      state:
        type: str
        choices: [file, directory, link, absent]
        default: file
        description: Of a file the content counts too. A directory is made with those above it.
      content:
        type: str
        description: Of a file.
      target:
        type: path
        description: Of a link; it has to be there.
      owner:
        type: str
        default: root
        description: Name or number.
      group:
        type: str
        default: root
        description: Name or number.
      mode:
        type: str
        description: Octal. Default is 0644, of a directory 0755.
      validate:
        type: str
        default: ""
        description: Command that judges a new content before it is kept; %s is its file.
      backup:
        type: bool
        default: false
        description: Whether the content of before stays beside it.
      follow:
        type: bool
        default: false
        description: Whether a link leads to the file that is written. Else the file takes its place.
      force:
        type: bool
        default: false
        description: Whether a link takes the place of a file.
      secret:
        type: bool
        default: false
        description: Whether the content is kept out of the difference that is shown.
      keep:
        type: bool
        default: false
        description: Whether what was there is returned where it is changed; the task has to be hidden if it is secret.
author: [Outpost]
"""

EXAMPLES = r"""
- name: Write two files
  outpost_files:
    files:
      - {path: /etc/outpost, state: directory}
      - {path: /etc/outpost/greeting, content: "hello\n", mode: "0640"}
"""

RETURN = r"""
written:
  description: Paths that were changed, or in a dry run would be.
  returned: always
  type: list
  elements: str
kept:
  description: Of changed entries with C(keep) that were there, path, content (base64), owner, group (numbers) and mode.
  returned: always
  type: list
  elements: dict
"""

import base64
import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule


class Files:
    """Brings one after the other to what is described; remembers what was changed, and how."""

    def __init__(self, module):
        self.module, self.written, self.diff, self.kept = module, [], [], []

    def fail(self, path, why):
        self.module.fail_json(
            msg="%s: %s" % (path, why), path=path, written=self.written, invocation={"module_args": {}}
        )

    def bring(self, one):
        try:
            changed = getattr(self, "_" + one["state"])(one)
        except OSError as error:
            self.fail(one["path"], error.strerror or error)
        if changed:
            self.written.append(one["path"])

    def _tell(self, one, before, after):
        if one["secret"]:
            before = after = "(not shown)\n"
        self.diff.append(
            {"before_header": one["path"], "after_header": one["path"], "before": before, "after": after}
        )

    def _keep(self, one, path):
        if one["keep"] and os.path.isfile(path):
            is_at = os.stat(path)
            with open(path, "rb") as file:
                content = base64.b64encode(file.read()).decode("ascii")
            self.kept.append(
                {"path": one["path"], "content": content, "owner": str(is_at.st_uid), "group": str(is_at.st_gid),
                 "mode": "%04o" % stat.S_IMODE(is_at.st_mode)}
            )  # fmt: skip

    def _owned(self, path, one, usual, changed, told=None):
        """Owner, group and mode of a path that is there; in a dry run perhaps not yet."""
        mode = one["mode"] or usual
        wanted = self.module.load_file_common_arguments(
            {"path": path, "owner": one["owner"], "group": one["group"], "mode": mode}
        )
        differs = {}
        if self.module.set_fs_attributes_if_different(wanted, False, differs, expand=False):
            if not changed and differs and told is not None:
                self._tell(told, *["%s\n" % differs.get(side) for side in ("before", "after")])
            return True
        return changed

    def _file(self, one):
        path = os.path.realpath(one["path"]) if one["follow"] else one["path"]
        if os.path.isdir(path) and not os.path.islink(path):
            self.fail(path, "is a directory, wanted is a file")
        content = one["content"].encode("utf-8")
        before, is_file = b"", os.path.isfile(path) and not os.path.islink(path)
        if is_file:
            with open(path, "rb") as file:
                before = file.read()
        changed = not is_file or before != content
        if changed:
            self._keep(one, path)
            self._tell(one, before.decode("utf-8", "replace"), one["content"])
            if not self.module.check_mode:
                self._write(path, content, one)
        return self._owned(path, one, "0644", changed, one)

    def _write(self, path, content, one):
        if not os.path.isdir(os.path.dirname(path)):
            self.fail(path, "its directory is not there")
        handle, new = tempfile.mkstemp(dir=self.module.tmpdir)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            if one["validate"]:
                status, out, error = self.module.run_command(one["validate"] % new)
                if status:
                    said = (error or out).strip().replace(new, path)
                    self.fail(
                        path, "%s refuses it, the one before stays: %s" % (one["validate"].split()[0], said)
                    )
            if one["backup"] and os.path.exists(path):
                self.module.backup_local(path)
            if os.path.islink(path):
                os.unlink(path)
            self.module.atomic_move(new, path)
        finally:
            self.module.cleanup(new)

    def _directory(self, one):
        path = os.path.realpath(one["path"])
        if os.path.lexists(path) and not os.path.isdir(path):
            self.fail(path, "is no directory")
        changed = not os.path.isdir(path)
        if changed:
            self._tell(one, "absent\n", "directory\n")
            if self.module.check_mode:
                return True
            missing = []
            while not os.path.isdir(path):
                missing.append(path)
                path = os.path.dirname(path)
            for each in reversed(missing):
                os.mkdir(each)
                self._owned(each, one, "0755", True)
            return True
        return self._owned(path, one, "0755", changed, one)

    def _link(self, one):
        path, target = one["path"], one["target"]
        there = os.readlink(path) if os.path.islink(path) else None
        if there is None and (os.path.isdir(path) or (os.path.lexists(path) and not one["force"])):
            self.fail(path, "is no link")
        if not self.module.check_mode and not os.path.exists(target):
            self.fail(path, "%s is not there" % target)
        changed = there != target
        if changed:
            self._tell(one, "%s\n" % (there or "absent"), "%s\n" % target)
            if self.module.check_mode:
                return True
            new = "%s.new-%d" % (path, os.getpid())
            os.symlink(target, new)
            os.rename(new, path)
        return self._owned(path, one, None, changed, one)

    def _absent(self, one):
        path = one["path"]
        if not os.path.lexists(path):
            return False
        if os.path.isdir(path) and not os.path.islink(path):
            self.fail(path, "is a directory, wanted is no file there")
        self._keep(one, path)
        self._tell(one, "file\n", "absent\n")
        if not self.module.check_mode:
            os.unlink(path)
        return True


def main():
    options = {
        "path": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["file", "directory", "link", "absent"], "default": "file"},
        "content": {"type": "str"},
        "target": {"type": "path"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str"},
        "validate": {"type": "str", "default": ""},
        "backup": {"type": "bool", "default": False},
        "follow": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "secret": {"type": "bool", "default": False},
        "keep": {"type": "bool", "default": False},
    }
    needed = [("state", "file", ["content"]), ("state", "link", ["target"])]
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list", "elements": "dict", "required": True, "options": options, "required_if": needed,
            }
        },
        supports_check_mode=True,
        # Whole files in the host's journal, in each run, help nobody; some are secret.
        no_log=True,
    )  # fmt: skip
    # Until it has its mode, what is new is for nobody else.
    os.umask(0o077)
    files = Files(module)
    for one in module.params["files"]:
        files.bring(one)
    # Nor does the controller get back what it has sent.
    module.exit_json(
        changed=bool(files.written), written=files.written, kept=files.kept, diff=files.diff,
        invocation={"module_args": {}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
