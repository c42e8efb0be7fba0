"""`python -m outpost.health` prints the table of checks as a page: docs/health-codes.md."""

from __future__ import annotations

from outpost.health.codes import page

if __name__ == "__main__":
    print(page(), end="")
