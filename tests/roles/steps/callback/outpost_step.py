"""Tells the connection plugin which play and task is being run: workers are forked and inherit the environment."""

from __future__ import annotations

import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: outpost_step
type: aggregate
short_description: names the running play and task in OUTPOST_PLAY and OUTPOST_STEP
description: [For tests. See connection/outpost_broken.py.]
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "outpost_step"

    def v2_playbook_on_play_start(self, play: Any) -> None:
        os.environ["OUTPOST_PLAY"] = play.name

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        os.environ["OUTPOST_STEP"] = task.name or task.action

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        os.environ["OUTPOST_STEP"] = task.name or task.action
