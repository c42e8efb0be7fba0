"""`python -m outpost.health en|ru` prints the table of checks as docs/health-codes.md and docs/health-codes.ru.md."""

from __future__ import annotations

import sys

from outpost.health.codes import page

if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["en"], ["ru"]):
        sys.exit("usage: python -m outpost.health en|ru")
    print(page("ru" if sys.argv[1:] == ["ru"] else "en"), end="")
