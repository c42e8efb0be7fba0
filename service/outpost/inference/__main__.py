"""`python -m outpost.inference BUNDLE...`: compute the golden case of each bundle as the service would."""

import os
import sys
from pathlib import Path

from outpost.inference import InferenceFailed, InferenceWorker


def main() -> int:
    """Print a line for each bundle; 1 if one may not serve."""
    failed = False
    for bundle in sys.argv[1:]:
        worker = InferenceWorker(Path(bundle), threads=os.cpu_count() or 1, timeout_seconds=60)
        try:
            verdict = worker.start()
            print(
                f"{bundle}: ok, Dice {verdict.value:.4f} (at least {verdict.wanted}), {verdict.seconds:.1f} s"
            )
        except InferenceFailed as failure:
            print(f"{bundle}: {failure}", file=sys.stderr)
            failed = True
        finally:
            worker.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
