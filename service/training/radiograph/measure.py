"""How wrong the network is: on simulated pictures held back, on real images, and through other engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from outpost.inference.header import read_header
from outpost.inference.radiograph import (
    HEADS,
    VIEWS,
    RadiographNetwork,
    chest_phantoms,
    probabilities,
    read_picture,
)

if TYPE_CHECKING:
    from train import Drawer

# Real images of installed packages, none of them trained on: name -> package, file and what it shows. The
# photometric interpretation of the radiographs is right.
REAL = {
    "chest PA (pydicom-data RG1)": ("pydicom-data", "data_store/data/RG1_UNCR.dcm", "chest_frontal"),
    "lower leg (pydicom-data RG3)": ("pydicom-data", "data_store/data/RG3_UNCR.dcm", "other"),
    "cat, tagged DX CHEST AP (deid-data)": ("deid-data", "deid_data/data/animals/cat.dcm", "other"),
    "CT slice (pydicom-data 693)": ("pydicom-data", "data_store/data/693_UNCR.dcm", "other"),
    "beam, RT image (pynetdicom)": ("pynetdicom", "pynetdicom/tests/dicom_files/RTImageStorage.dcm", "other"),
}


def confusion(network: torch.nn.Module, drawer: Drawer, side: int, batches: int = 40) -> dict[str, Any]:
    """Share of right answers to each question on pictures drawn from those held back."""
    right: dict[str, list[float]] = {head: [] for head in HEADS}
    with torch.inference_mode():
        for _ in range(batches):
            images, answers = drawer.batch(16, side)
            for head, part in _split(network(images)).items():
                known = answers[head] >= 0
                said = part.argmax(1) if part.shape[1] > 1 else (part[:, 0] > 0).long()
                right[head] += (said == answers[head])[known].float().tolist()
    return {head: {"right": round(float(np.mean(hits)), 4), "of": len(hits)} for head, hits in right.items()}


def real_images(network: torch.nn.Module, side: int) -> dict[str, Any]:
    """Each real image in 16 presentations: four turns, mirrored or not, reversed or not."""
    inferer = RadiographNetwork(network, side, "cpu")
    told: dict[str, Any] = {}
    for name, (package, file, view) in REAL.items():
        pixels = read_picture(read_header(Path(str(distribution(package).locate_file(file))))).pixels
        shown, wanted = [], []
        for turns in range(4):
            for mirrored in (False, True):
                for inverted in (False, True):
                    image = torch.rot90(pixels.flip(-1) if mirrored else pixels, turns)
                    shown.append(-image if inverted else image)
                    wanted.append((VIEWS.index(view), turns, mirrored, inverted))
        parts = _split(torch.cat([inferer(image[None]) for image in shown]))
        truth = torch.tensor(wanted)
        found: dict[str, Any] = {
            "presentations": len(shown),
            "view_right": int((parts["view"].argmax(1) == truth[:, 0]).sum()),
            "said": {
                view_name: int((parts["view"].argmax(1) == index).sum())
                for index, view_name in enumerate(VIEWS)
            },
            "inverted_right": int(((parts["inverted"][:, 0] > 0).long() == truth[:, 3]).sum()),
        }
        if view == "chest_frontal":
            found["rotation_right"] = int((parts["rotation"].argmax(1) == truth[:, 1]).sum())
            found["mirrored_right"] = int(((parts["mirrored"][:, 0] > 0).long() == truth[:, 2]).sum())
        told[name] = found
    return told


def sizes_and_engines(network: torch.nn.Module, onnx_file: Path, side: int) -> dict[str, Any]:
    """Largest difference of a probability from torch at full size, and milliseconds an image, one thread."""
    phantoms = torch.from_numpy(chest_phantoms())
    with torch.inference_mode():
        wanted = probabilities(RadiographNetwork(network, side, "cpu")(phantoms))
    told: dict[str, Any] = {}
    runs: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
        f"torch float32, {other}": (network, other) for other in (side, 192, 160, 128)
    }
    runs |= {f"{name}, {side}": (run, side) for name, run in _engines(onnx_file).items()}
    for name, (run, pixels) in runs.items():
        inferer = RadiographNetwork(run, pixels, "cpu")
        found = probabilities(inferer(phantoms))
        took = []
        for _ in range(5):
            started = time.monotonic()
            inferer(phantoms[:1])
            took.append(time.monotonic() - started)
        told[name] = {
            "max_abs": float(f"{np.abs(found - wanted).max():.3g}"),
            "ms_an_image": round(min(took) * 1000, 1),
        }
    return told


def _engines(onnx_file: Path) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The other engines, where they are installed."""
    engines: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    try:
        import onnxruntime
    except ImportError:
        pass
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(onnx_file, options, providers=["CPUExecutionProvider"])
        engines["onnxruntime float32"] = lambda x: torch.from_numpy(
            session.run(None, {"image": x.numpy()})[0]
        )
    try:
        import openvino
    except ImportError:
        return engines
    core = openvino.Core()
    model = core.read_model(onnx_file)
    for word in ("f32", "bf16"):
        compiled = core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": word, "INFERENCE_NUM_THREADS": 1}
        )
        engines[f"openvino {word}"] = lambda x, compiled=compiled: torch.from_numpy(
            compiled(x.numpy())[compiled.output(0)].copy()
        )
    return engines


def _split(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    return dict(zip(HEADS, logits.split(list(HEADS.values()), dim=1), strict=True))
