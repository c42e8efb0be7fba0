"""What a small grey picture shows: a tiny convolutional network in numpy, trained by service/training/anatomy.

Three networks of the same shape, trained from different seeds, look at the picture and at its mirror image; what
they say is averaged, so that pictures unlike those they learnt from, on which they disagree, get no high
probability. What they were trained on, and how often they are wrong: docs/models.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
from numpy.typing import NDArray

CLASSES: Final = ("chest_frontal", "chest_lateral", "limb", "head_slice", "body_slice", "other")
SIDE: Final = 96  # pixels a side that the networks see
WEIGHTS: Final = "anatomy.npz"
WEIGHTS_SHA256: Final = ""
# (output channels, kernel size, stride) of each convolution.
LAYERS: Final = ((12, 5, 2), (16, 3, 2), (16, 3, 1), (24, 3, 2), (24, 3, 1), (32, 3, 2))

Grey = NDArray[np.float32]
Network = dict[str, Grey]


@dataclass(frozen=True, slots=True)
class Shown:
    """The classifier's answer.

    `probabilities` are of `CLASSES`, in that order; `inverted` is the probability that dark is shown as bright,
    which means something only where the picture is a radiograph.
    """

    probabilities: tuple[float, ...]
    inverted: float

    @property
    def best(self) -> str:
        """The most probable class."""
        return CLASSES[int(np.argmax(self.probabilities))]

    def probability(self, *names: str) -> float:
        """Of any of these classes."""
        return sum(self.probabilities[CLASSES.index(name)] for name in names)


class AnatomyWeightsError(Exception):
    """The weights file is not the one this release was made with."""


def classify(grey: Grey, networks: Sequence[Network] | None = None) -> Shown:
    """What a picture of (row, column), brighter = more, shows; by the released networks if no others are given.

    Raises:
        AnatomyWeightsError: the weights are not those of this release.
    """
    picture = standardised(resized(grey, SIDE))
    both = np.stack((picture, picture[:, ::-1]))[:, None]
    answers = np.mean([_answers(network, both) for network in networks or _released()], axis=(0, 1))
    return Shown(tuple(float(value) for value in answers[:-1]), float(answers[-1]))


def resized(grey: Grey, side: int) -> Grey:
    """Area average to `side` x `side` pixels, whatever the shape before."""
    rows, columns = (_area_weights(size, side) for size in grey.shape)
    return np.asarray(rows @ grey @ columns.T, dtype=np.float32)


def standardised(grey: Grey) -> Grey:
    """Grey values between the 1st and the 99th hundredth stretched to -2 to 2."""
    low, high = np.percentile(grey, (1, 99))
    stretched: Grey = (4 * np.clip((grey - low) / max(float(high - low), 1e-6), 0, 1) - 2).astype(np.float32)
    return stretched


@cache
def _area_weights(size: int, side: int) -> Grey:
    """Matrix (side, size): how much of each old pixel lies in each new one; rows sum to 1."""
    edges = np.arange(side + 1) * size / side
    old = np.arange(size)
    overlap = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return np.asarray(np.clip(overlap, 0, None) * side / size, dtype=np.float32)


def read_networks(content: bytes) -> tuple[Network, ...]:
    """The networks in the bytes of a weights file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        count = 1 + max(int(name.partition("/")[0]) for name in archive.files)
        return tuple(
            {
                name.partition("/")[2]: archive[name].astype(np.float32)
                for name in archive.files
                if name.startswith(f"{number}/")
            }
            for number in range(count)
        )


@cache
def _released() -> tuple[Network, ...]:
    content = (resources.files("outpost.filter") / WEIGHTS).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise AnatomyWeightsError(
            f"{WEIGHTS} has sha256 {found}, this release wants {WEIGHTS_SHA256}: install the release again"
        )
    return read_networks(content)


def _answers(network: Network, pictures: Grey) -> Grey:
    """(picture, class and inverted) as probabilities, of pictures (picture, 1, row, column)."""
    value = pictures
    for number, (_, _, stride) in enumerate(LAYERS):
        value = np.maximum(
            _convolved(value, network[f"kernel{number}"], network[f"bias{number}"], stride), np.float32(0)
        )
    logits = value.mean(axis=(2, 3)) @ network["answers"].T + network["answers_bias"]
    classes = np.exp(logits[:, :-1] - logits[:, :-1].max(axis=1, keepdims=True))
    inverted = 1 / (1 + np.exp(-logits[:, -1:]))
    return np.concatenate((classes / classes.sum(axis=1, keepdims=True), inverted), axis=1)


def _convolved(value: Grey, kernel: Grey, bias: Grey, stride: int) -> Grey:
    """2-D convolution with zeros around, as torch's conv2d with padding of half the kernel."""
    half = kernel.shape[-1] // 2
    padded = np.pad(value, ((0, 0), (0, 0), (half, half), (half, half)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[-2:], axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    count, _, rows, columns = windows.shape[:4]
    flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(count * rows * columns, -1)
    out = flat @ kernel.reshape(kernel.shape[0], -1).T + bias
    return np.ascontiguousarray(out.reshape(count, rows, columns, -1).transpose(0, 3, 1, 2))
