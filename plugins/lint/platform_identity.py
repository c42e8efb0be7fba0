"""A rule for ansible-lint: roles and playbooks never ask Ansible what the host is.

On Astra Linux and RED OS the answers are "Astra Linux" and "RED": a condition on them skips silently.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ansiblelint.rules import AnsibleLintRule

if TYPE_CHECKING:
    from ansiblelint.errors import MatchError
    from ansiblelint.file_utils import Lintable

# ansible_os_family, ansible_distribution_release, ansible_facts.os_family, ansible_facts['distribution'] ...
MISLEADING = re.compile(
    r"ansible_(?:os_family|distribution\w*|pkg_mgr|lsb)\b"
    r"|ansible_facts(?:\.|\[\s*['\"]|\.get\(\s*['\"])(?:os_family|distribution\w*|pkg_mgr|lsb)\b"
)


class PlatformIdentityRule(AnsibleLintRule):
    """Use the platform role's facts, not os_family or distribution."""

    id = "platform-identity"
    shortdesc = "Use the platform role's facts, not os_family or distribution"
    description = (
        "On Astra Linux and RED OS Ansible's os_family, distribution and pkg_mgr are names that no condition expects: "
        "tasks are skipped without a word. Use platform_id, platform_release, platform_family and "
        "platform_package_manager (roles/platform/README.md)."
    )
    severity = "VERY_HIGH"
    tags = ["idiom"]  # noqa: RUF012 - the parent's own way
    version_changed = "26.10.1"

    def matchyaml(self, file: Lintable) -> list[MatchError]:
        """YAML of every kind: tasks, variables, handlers, playbooks."""
        return self._found(file) if str(file.base_kind) == "text/yaml" else []

    def matchlines(self, file: Lintable) -> list[MatchError]:
        """Templates, which are no YAML."""
        return self._found(file) if str(file.kind) == "jinja2" else []

    def _found(self, file: Lintable) -> list[MatchError]:
        return [
            self.create_matcherror(
                message=f"{matched.group(0)} misleads on Astra Linux and RED OS; use the platform role's facts",
                lineno=number,
                filename=file,
            )
            for number, line in enumerate(file.content.splitlines(), start=1)
            if (
                matched := MISLEADING.search(
                    line.partition(" #")[0] if not line.lstrip().startswith("#") else ""
                )
            )
        ]
