"""`python -m outpost.filter > docs/filter-rules.md`."""

import sys

from outpost.filter.page import page

if __name__ == "__main__":
    sys.stdout.write(page())
