"""Kills the run, and all that it started here, between two tasks: as a power cut of the controller would.

$OUTPOST_CUT is a task's name (a regular expression), after which it is cut, or a number: after so many tasks.
$OUTPOST_TASKS, a file, gets the name of each task that began.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: outpost_cut
type: aggregate
short_description: kills the run between two tasks
description: [For tests. The run has to be the leader of its process group.]
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "outpost_cut"

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._next(task)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._next(task)

    def _next(self, task: Any) -> None:
        cut = os.environ.get("OUTPOST_CUT", "")
        if cut.isdigit():
            due = len(self.begun) == int(cut)
        else:
            due = bool(cut and self.begun and re.fullmatch(cut, self.begun[-1]))
        if due:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        self.begun.append(task.name or task.action)
        if os.environ.get("OUTPOST_TASKS"):
            with Path(os.environ["OUTPOST_TASKS"]).open("a") as file:
                file.write(f"{self.begun[-1]}\n")
