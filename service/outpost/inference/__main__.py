"""`python -m outpost.inference BUNDLE...`: compute the golden case of each bundle as the service would."""

import sys
import tempfile
from pathlib import Path

from outpost.inference import InferenceFailed, InferenceWorker
from outpost.inference.bundle import full_rung, load_bundle


def main() -> int:
    """Print a line for each bundle; 1 if one may not serve."""
    failed = False
    for path in map(Path, sys.argv[1:]):
        try:
            with (
                tempfile.TemporaryDirectory() as storage,
                InferenceWorker(path, full_rung(load_bundle(path)), 60, Path(storage)) as worker,
            ):
                golden = worker.start().golden
        except InferenceFailed as failure:
            print(f"{path}: {failure}", file=sys.stderr)
            failed = True
        else:
            print(
                f"{path}: ok, {golden.metric} {golden.value:g} ({golden.wanted:g} wanted), {golden.seconds:.1f} s"
            )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
