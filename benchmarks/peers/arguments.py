"""The command line that every peer's module takes."""

from __future__ import annotations

import argparse
import sys


def parse() -> argparse.Namespace:
    """`port`, `workers`, `timeout` (seconds). They are taken off the command line: some peers read it too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--timeout", type=float, required=True)
    arguments = parser.parse_args()
    del sys.argv[1:]
    return arguments
