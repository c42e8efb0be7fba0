"""`python -m outpost.platform verdict ...`: see cli.py."""

from __future__ import annotations

import sys

from outpost.platform.cli import main

if __name__ == "__main__":
    sys.exit(main())
