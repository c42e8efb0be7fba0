"""Takes the lock of a host for this run, so that a second controller is told and does not change the host as well.

A process of its own keeps the lock alive: it renews it by the task's own connection while the run's main process
lives, and gives it back when that has ended, however it ended.
"""

from __future__ import annotations

import getpass
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "service"))
from outpost.controller import lock


class ActionModule(ActionBase):
    """Arguments: path (of the lock on the host)."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fails where another run has the lock; changes nothing that the next run would see."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"path": {"type": "str", "default": lock.PATH}})
        known = task_vars or {}
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "a dry run takes no lock"}
        path, host = arguments["path"], str(known.get("inventory_hostname", ""))
        run = lock.Run.of(os.getppid())
        who = _who(known)
        answer = self._take(run, who, path)
        if isinstance(answer, lock.Answer) and answer.state == "held":
            holder = lock.Run.read(answer.holder)
            if holder is not None and holder.lives() is False:
                answer = self._take(run, who, path, dead=answer.holder)
        if not isinstance(answer, lock.Answer):
            return {
                "changed": False,
                "failed": True,
                "msg": f"{host}: the lock {path} cannot be written: {answer}",
            }
        if answer.state == "held":
            russian = known.get("outpost_language") == "ru"
            said = lock.held(host, answer).said("ru" if russian else "en")
            return {"changed": False, "failed": True, "msg": said}
        if answer.state == "taken":
            self._keep(run, who, path)
        return {"changed": False, "msg": who}

    def _take(self, run: lock.Run, who: str, path: str, dead: str = "-") -> lock.Answer | str:
        """The host's answer, or why there is none."""
        done = self._low_level_execute_command(lock.taking(run, who, path, dead), executable="/bin/sh")
        answer = lock.answered(str(done.get("stdout", ""))) if done.get("rc") == 0 else None
        return answer or str(done.get("stderr") or done.get("stdout") or f"status {done.get('rc')}").strip()

    def _keep(self, run: lock.Run, who: str, path: str) -> None:
        """Starts the process that renews and gives back; twice forked, so that no worker waits for it."""
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            os.setsid()
            if os.fork() == 0:
                self._until_the_end(run, who, path)
        finally:
            os._exit(0)

    def _until_the_end(self, run: lock.Run, who: str, path: str) -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        Display().verbosity = 0  # what it says would go to the run's own queue
        due = time.monotonic() + lock.RENEW_SECONDS
        while run.lives():
            time.sleep(0.5)
            if time.monotonic() >= due:
                with suppress(Exception):  # a host that restarts; the next beat tries again
                    self._low_level_execute_command(lock.renewing(run, who, path), executable="/bin/sh")
                due = time.monotonic() + lock.RENEW_SECONDS
        with suppress(Exception):
            self._low_level_execute_command(lock.releasing(run, path), executable="/bin/sh")


def _who(known: dict[str, Any]) -> str:
    """Who runs this, from where and since when, in one line."""
    user = known.get("awx_user_name") or os.environ.get("SUDO_USER") or _user()
    job = f", AWX job {known['awx_job_id']}" if known.get("awx_job_id") else ""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"{user}@{socket.gethostname()} (process {os.getppid()}{job}) since {since}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return str(os.getuid())
