"""The model in memory: with `brain`, all that loads torch and MONAI. Runs in the child process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from numpy.typing import NDArray

from outpost.delivery.seg import Provenance, write_segmentation
from outpost.inference.bundle import Bundle
from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.golden import dice, read_golden
from outpost.inference.header import read_header
from outpost.inference.orientation import ras_view
from outpost.inference.phantom import head_phantom
from outpost.inference.result import GoldenVerdict, InferenceResult
from outpost.inference.selection import choose_stack
from outpost.inference.series import read_volume

_RUNG = "full"


class Predictor:
    """A loaded bundle.

    Raises:
        InferenceFailed: BUNDLE_INVALID or WEIGHTS_MISMATCH.
    """

    def __init__(self, bundle: Bundle, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        # Nothing may compute in fewer bits than the bundle pins, whatever the CPU offers.
        torch.set_float32_matmul_precision("highest")
        self._bundle = bundle
        weights = bundle.weights
        try:
            config = ConfigParser()
            config.read_config(str(bundle.path / "configs" / "inference.json"))
            config["weights"] = {name: str(file) for name, file in weights.items()}
            networks = {name: config.get_parsed_content(name) for name in weights}
            self.inferer = config.get_parsed_content("inferer")
            self._device = str(config.get_parsed_content("device"))
        # Anything in the configuration may be wrong, and MONAI raises what the wrong part raises.
        except Exception as error:
            raise InferenceFailed(
                Code.BUNDLE_INVALID, f"{bundle.path}/configs/inference.json: {type(error).__name__}: {error}"
            ) from error
        wanted = getattr(torch, bundle.manifest.precision)
        for name, network in networks.items():
            if other := {str(tensor.dtype) for tensor in network.parameters()} - {str(wanted)}:
                raise InferenceFailed(
                    Code.BUNDLE_INVALID, f"weights.{name} are {', '.join(other)}, the bundle pins {wanted}"
                )
        self._provenance = Provenance(
            model=bundle.name,
            model_version=bundle.version,
            engine=f"{bundle.manifest.engine} {torch.__version__}",
            precision=bundle.manifest.precision,
            rung=_RUNG,
            device=self._device,
        )

    def run(self, files: Sequence[Path], output_dir: Path, revision: int) -> InferenceResult:
        """Segment one study and write the DICOM segmentation into `output_dir`.

        Raises:
            InputRejected: the study is not one for this model.
            InferenceFailed: the model failed on it.
        """
        started = time.monotonic()
        stack = choose_stack([read_header(file) for file in files], self._bundle.manifest.input)
        view = ras_view(stack.affine)
        mask = view.invert(self.inferer(view.apply(read_volume(stack))))
        if mask.all() or not mask.any():
            raise InferenceFailed(Code.OUTPUT_CONSTANT, f"the mask is {bool(mask.flat[0])} for every voxel")
        written = write_segmentation(
            stack.files,
            mask.transpose(2, 1, 0),
            self._bundle.manifest.segment,
            self._provenance,
            revision,
            output_dir,
        )
        return InferenceResult(
            files=(written,),
            model=self._provenance.model,
            model_version=self._provenance.model_version,
            engine=self._provenance.engine,
            precision=self._provenance.precision,
            rung=self._provenance.rung,
            device=self._provenance.device,
            seconds=time.monotonic() - started,
        )

    def golden(self) -> GoldenVerdict:
        """Segment the golden case and compare the mask with the bundle's."""
        started = time.monotonic()
        expected = read_golden(self._bundle.path / self._bundle.manifest.golden.expected)
        value = dice(self.golden_mask(), expected)
        wanted = self._bundle.manifest.golden.min_dice
        return GoldenVerdict(value >= wanted, round(value, 6), wanted, round(time.monotonic() - started, 3))

    def golden_mask(self) -> NDArray[np.bool_]:
        """The mask of the golden case, axes pointing right, anterior and superior."""
        mask: NDArray[np.bool_] = self.inferer(head_phantom())
        return mask
