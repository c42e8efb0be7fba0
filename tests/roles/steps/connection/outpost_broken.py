"""This machine, where the tasks that a play's name says after "break: " fail after their arguments were templated.

They fail in the worst way: with a crash that repeats all that the module was given, arguments and files. Those named in
$OUTPOST_PASS (a regular expression, as the other) succeed without a change: what needs a systemd, a Docker or the
network. $OUTPOST_SEEN, a file, gets what each task handed to a shell, as a process list would show it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ansible.plugins.connection.local import DOCUMENTATION as _LOCAL
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = _LOCAL.replace("name: local", "name: outpost_broken")
# How Ansible itself prepares and clears its directory on the host.
_OWN = re.compile(r"echo ~|umask 77|rm -f -r|chmod |setfacl|chown ")


class Connection(Local):
    transport = "outpost_broken"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given: list[bytes] = []

    def put_file(self, in_path: str, out_path: str) -> None:
        self.given.append(Path(in_path).read_bytes())
        super().put_file(in_path, out_path)

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        with Path(os.environ["OUTPOST_SEEN"]).open("a") as seen:
            seen.write(cmd + "\n")
        step = os.environ.get("OUTPOST_STEP", "")
        if _OWN.search(cmd) and "OS_RELEASE" not in cmd:
            return super().exec_command(cmd, in_data, sudoable)
        if re.fullmatch(os.environ.get("OUTPOST_PLAY", "").partition("break: ")[2], step):
            told = b"\n".join([cmd.encode(), in_data or b"", *self.given])
            return (
                1,
                told,
                b"Traceback (most recent call last):\n"
                + told
                + b"\nOSError: [Errno 28] No space left on device",
            )
        if re.fullmatch(os.environ.get("OUTPOST_PASS", ""), step):
            return 0, b'{"changed": false, "rc": 0, "stdout": "", "stderr": ""}', b""
        return super().exec_command(cmd, in_data, sudoable)
