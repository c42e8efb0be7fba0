"""A bundle whose engines fail as a test says: the brain's, around engine_model.EngineModel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from outpost.inference import load_bundle
from outpost.inference.bundle import Bundle
from outpost.inference.golden import write_golden
from outpost.inference.phantom import head_phantom

BUNDLE = Path(__file__).parents[2] / "service/bundles/brain_extraction"
# As EngineModel names them: provider and precision.
OPENVINO, OPENVINO_LOW, ONNX = "CPU float32", "CPU bfloat16", "CPUExecutionProvider float32"


def bundle_of(
    folder: Path, faults: dict[str, str], slow: dict[str, float] | None = None, without: tuple[str, ...] = ()
) -> Bundle:
    """A copy in `folder`; `faults` and `slow` as in EngineModel; `without`: candidates that it does not list."""
    shutil.copytree(BUNDLE, folder)
    config = json.loads((folder / "configs/inference.json").read_text())
    slow = slow if slow is not None else {"torch.jit": 0.3, "CPU": 0.01, "CPUExecutionProvider": 0.15}
    config["inferer"] = {
        "_target_": "engine_model.EngineModel",
        "networks": "@networks",
        "faults": faults,
        "slow": slow,
    }
    (folder / "configs/inference.json").write_text(json.dumps(config))
    settings = folder / "outpost.yaml"
    lines = settings.read_text().splitlines(keepends=True)
    kept = [
        line for line in lines if not line.strip().startswith(tuple(f"- {{engine: {one}" for one in without))
    ]
    assert len(lines) - len(kept) >= len(without), f"the bundle lists none of {without}"
    settings.write_text("".join(kept))
    write_golden(head_phantom() > 45, folder / "golden/head_phantom.npz")
    return load_bundle(folder)
