"""The command `outpost` on a host, as an admin types it."""

from __future__ import annotations

import json

from testinfra.host import Host


def test_the_command_tells_how_the_system_is(host: Host) -> None:
    asked = host.run("outpost status --json")
    assert asked.rc in (0, 1), asked.stderr
    found = json.loads(asked.stdout)
    assert (found["system"], found["service"]["state"]) == ("brain", "running")
    assert found["service"]["unit"].startswith("active")
    assert host.run("outpost config check").rc == 0
    assert host.run("outpost no-such-command").rc == 2


def test_bash_completes_it(host: Host) -> None:
    asked = host.run(
        "bash -c 'source /etc/bash_completion.d/outpost; COMP_WORDS=(outpost stat); COMP_CWORD=1; _outpost; "
        'echo "${COMPREPLY[@]}"\''
    )
    assert asked.stdout.strip() == "status"
