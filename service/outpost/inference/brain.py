"""Brain extraction with the two networks of deepbet: one finds the brain's box, one draws the mask in it.

The networks, and the constants they were trained with, are deepbet's (Fisch et al., Computers in Biology and
Medicine 2024, doi 10.1016/j.compbiomed.2024.108845; package deepbet 1.0.2, MIT, `deepbet/bet.py`). The steps
around them are written anew on torch and scipy; `tests/unit/test_inference_brain.py` holds them equal to
deepbet's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from outpost.inference.codes import Code, InferenceFailed, InputRejected

# Mean and deviation the networks saw in training.
_TRAINING_MEAN: Final = 0.449
_TRAINING_DEVIATION: Final = 0.226
# A plane belongs to the box if more than this part of it is brain.
_PLANE_SHARE: Final = 0.02

Network = Callable[[torch.Tensor], torch.Tensor]
Box = tuple[slice, slice, slice]


class BrainExtraction:
    """Callable that turns a head volume into a brain mask.

    Args:
        finder: network (1, 1, *finder_shape) -> (1, 2, *finder_shape), channel 1 = brain, 0 to 1.
        segmenter: the same at `segmenter_shape`, on the box the finder found.
        finder_shape: voxels the whole volume is resampled to.
        segmenter_shape: voxels the box is resampled to.
        percentiles: intensities, in percent, that become 0 and 1.
        box_margin: enlargement of the box on each side, as part of its size.
        threshold: least value of a brain voxel.
        device: where to compute: `cpu` or `cuda:N`.
    """

    def __init__(
        self,
        finder: Network,
        segmenter: Network,
        finder_shape: Sequence[int],
        segmenter_shape: Sequence[int],
        percentiles: Sequence[float],
        box_margin: float,
        threshold: float,
        device: str,
    ) -> None:
        self._finder = finder
        self._segmenter = segmenter
        self._finder_shape = tuple(finder_shape)
        self._segmenter_shape = tuple(segmenter_shape)
        self._percentiles = tuple(percentiles)
        self._box_margin = box_margin
        self._threshold = threshold
        self._device = torch.device(device)

    def __call__(self, volume: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Segment one volume.

        Args:
            volume: intensities, axes pointing right, anterior and superior, any size and unit.

        Returns:
            Mask of the same shape: one connected piece without holes.

        Raises:
            InputRejected: PIXELS_CONSTANT, REGION_NOT_FOUND.
            InferenceFailed: OUTPUT_NOT_FINITE, OUTPUT_CONSTANT.
        """
        with torch.inference_mode():
            voxels = torch.from_numpy(np.ascontiguousarray(volume)).to(self._device)
            percents = self._percentiles
            small = _resample(voxels, self._finder_shape)
            # numpy selects where torch would sort: a third of the time, the same values but for rounding.
            low, high = (float(value) for value in np.percentile(small.cpu().numpy(), percents))
            if not high > low:
                raise InputRejected(
                    Code.PIXELS_CONSTANT,
                    f"voxels from percentile {percents[0]:g} to {percents[1]:g} all have the value {low:g}",
                )
            rough = self._probability(self._finder, _normalise(small, low, high), "finder")
            box = self._box(_largest_piece(rough > self._threshold), volume.shape)
            inside = _normalise(_resample(voxels[box], self._segmenter_shape), low, high)
            fine = torch.from_numpy(self._probability(self._segmenter, inside, "segmenter"))
            brain = (_resample(fine, voxels[box].shape) > self._threshold).numpy()
        mask = np.zeros(volume.shape, dtype=np.bool_)
        mask[box] = _without_holes(_largest_piece(brain))
        return mask

    def _probability(self, network: Network, image: torch.Tensor, name: str) -> NDArray[np.float32]:
        output = network(image[None, None])[0, 1]
        low, high = (float(value) for value in output.aminmax())
        # NaN and infinity anywhere reach the extremes.
        if not np.isfinite([low, high]).all():
            raise InferenceFailed(
                Code.OUTPUT_NOT_FINITE, f"the output of network {name} runs from {low} to {high}"
            )
        if low == high:
            raise InferenceFailed(Code.OUTPUT_CONSTANT, f"network {name} gave {low:g} for every voxel")
        array: NDArray[np.float32] = output.cpu().numpy()
        return array

    def _box(self, rough: NDArray[np.bool_], shape: Sequence[int]) -> Box:
        """The box around `rough`, enlarged by the margin, in voxels of a volume of `shape`."""
        bounds = []
        for axis, size in enumerate(shape):
            others = tuple(other for other in range(3) if other != axis)
            planes = np.flatnonzero(rough.mean(axis=others) > _PLANE_SHARE)
            if not planes.size:
                raise InputRejected(Code.REGION_NOT_FOUND, "the model finds no brain in this series")
            scale = size / rough.shape[axis]
            first, end = float(planes[0]), float(planes[-1] + 1)
            centre = np.round(scale * (first + end) / 2)
            extent = np.round(scale * (end - first) * (1 + 2 * self._box_margin))
            bounds.append(slice(max(0, int(centre - extent / 2)), min(size, int(centre + extent / 2))))
        return bounds[0], bounds[1], bounds[2]


def _resample(volume: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    return functional.interpolate(volume[None, None], tuple(shape), mode="nearest-exact")[0, 0]


def _normalise(volume: torch.Tensor, low: float, high: float) -> torch.Tensor:
    # In place: at 256 voxels a side every further copy costs as much as a tenth of the network.
    image = volume.sub(low).div_(high - low).clamp_(0, 1)
    deviation, mean = torch.std_mean(image)
    return image.sub_(mean).mul_(_TRAINING_DEVIATION / deviation).add_(_TRAINING_MEAN)


def _largest_piece(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the largest piece, voxels touching by a corner counting as one."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count == 0:
        raise InputRejected(Code.REGION_NOT_FOUND, "the model finds no brain in this series")
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    piece: NDArray[np.bool_] = labels == sizes.argmax()
    return piece


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what the mask encloses: background that no path through faces joins to the volume's border."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=np.bool_)
    for axis in range(3):
        for face in (0, -1):
            outside[np.take(labels, face, axis=axis)] = True
    outside[0] = False  # label 0 is the mask itself
    filled: NDArray[np.bool_] = ~outside[labels]
    return filled
