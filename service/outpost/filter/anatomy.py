"""What a small grey picture shows: tiny convolutional networks, trained by service/training/anatomy.

Three networks of the same shape, trained from different seeds, look at the picture and at its mirror image; what
they say is averaged, so that pictures unlike those they learnt from, on which they disagree, get no high
probability. Answers are divided by a temperature that was fitted
to pictures held back from training. What they were trained on, and how often they are wrong: docs/models.md.
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
import torch
from numpy.typing import NDArray
from torch.nn import functional

CLASSES: Final = ("chest_frontal", "chest_lateral", "limb", "head_slice", "body_slice", "other")
SIDE: Final = 96  # pixels a side that the networks see
WEIGHTS: Final = "anatomy.npz"
WEIGHTS_SHA256: Final = "a0ec6cf82d7805ceb2ea1f931f3363fa50b3c2b970c116a62a580097318401ae"
# (output channels, kernel size, stride) of each convolution.
LAYERS: Final = ((12, 5, 2), (16, 3, 2), (16, 3, 1), (24, 3, 2), (24, 3, 1), (32, 3, 2))

Grey = NDArray[np.float32]
Network = dict[str, torch.Tensor]


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
    with torch.inference_mode():
        both = torch.from_numpy(np.stack((picture, picture[:, ::-1]))[:, None])
        answers = torch.stack([_answers(one, both) for one in networks or _released()]).mean((0, 1)).tolist()
    return Shown(tuple(answers[:-1]), answers[-1])


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
                name.partition("/")[2]: torch.from_numpy(archive[name].astype(np.float32))
                for name in archive.files
                if name.startswith(f"{number}/")
            }
            for number in range(count)
        )


def check_weights() -> None:
    """Read the released networks now, so that a broken installation shows before a study does.

    Raises:
        AnatomyWeightsError: the weights are not those of this release.
    """
    _released()


@cache
def _released() -> tuple[Network, ...]:
    try:
        content = (resources.files("outpost.filter") / WEIGHTS).read_bytes()
    except OSError as error:
        raise AnatomyWeightsError(f"{WEIGHTS}: {error.strerror}; install the release again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise AnatomyWeightsError(
            f"{WEIGHTS} has sha256 {found}, this release wants {WEIGHTS_SHA256}: install the release again"
        )
    return read_networks(content)


def _answers(network: Network, pictures: torch.Tensor) -> torch.Tensor:
    """(picture, class and inverted) as probabilities, of pictures (picture, 1, row, column)."""
    value = pictures
    for number, (_, size, stride) in enumerate(LAYERS):
        value = functional.conv2d(
            value, network[f"kernel{number}"], network[f"bias{number}"], stride, size // 2
        )
        value = value.relu_()
    logits = value.mean((2, 3)) @ network["answers"].T + network["answers_bias"]
    classes, inverted = network["temperature"].tolist()
    return torch.cat(
        ((logits[:, :-1] / classes).softmax(dim=1), (logits[:, -1:] / inverted).sigmoid()), dim=1
    )
