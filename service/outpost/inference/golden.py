"""The golden case's right answer: how it is compared and kept in a bundle.

`python -m outpost.inference.golden BUNDLE` computes it anew. That belongs to a new version of a bundle, after
the new model has been checked on real heads; never to a host whose answer differs.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outpost.inference.codes import Code, InferenceFailed


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Overlap of two masks: 1 for equal, 0 for disjoint; 0 also for two empty ones or unlike shapes."""
    if one.shape != other.shape or not (one.any() or other.any()):
        return 0.0
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def read_golden(file: Path) -> NDArray[np.bool_]:
    """Read the mask a bundle expects.

    Raises:
        InferenceFailed: BUNDLE_INVALID if the file is broken.
    """
    try:
        with np.load(file) as archive:
            shape = tuple(int(size) for size in archive["shape"])
            bits = np.unpackbits(archive["bits"], count=int(np.prod(shape)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{file} is not a golden mask: {error}") from error
    return bits.reshape(shape).astype(np.bool_)


def write_golden(mask: NDArray[np.bool_], file: Path) -> None:
    """Write a mask as `read_golden` reads it: its shape, and one bit a voxel."""
    np.savez_compressed(file, shape=np.array(mask.shape), bits=np.packbits(mask))


def main() -> int:
    """Write the expected answer of the bundle named on the command line, by its reference engine."""
    from outpost.inference.bundle import full_rung, load_bundle
    from outpost.inference.predictor import Predictor
    from outpost.inference.task import make_task

    bundle = load_bundle(Path(sys.argv[1]))
    target = bundle.path / bundle.manifest.golden.expected
    rung = full_rung(bundle)
    make_task(bundle).keep(Predictor(bundle, rung).golden_output(rung), target)
    print(f"{target}: written by {rung.engine} in {rung.precision}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
