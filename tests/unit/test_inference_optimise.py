"""The engines of a bundle tried on this host, in short: two good ones. All of it is tests/slow/test_engines.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_bundle import BUNDLE, bundle_of

from outpost.inference import Code, InferenceFailed, load_bundle
from outpost.inference.bundle import EngineChoice
from outpost.inference.choice import chosen, evidence_file
from outpost.inference.optimise import optimise


def test_the_faster_of_two_engines_is_kept(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", {}, {"torch.jit": 0.3}, without=("openvino",))
    evidence = optimise(bundle, tmp_path)
    found = {f"{row['engine']}/{row['precision']}": row["verdict"] for row in evidence["rows"]}
    assert found == {
        "torchscript/float32": "within tolerance",
        "onnxruntime/float32": "chosen",
        "tensorrt/float32": "skipped",
    }
    assert chosen(bundle, tmp_path, "auto") == (EngineChoice(engine="onnxruntime", precision="float32"), True)
    assert evidence_file(bundle, tmp_path).with_suffix(".html").exists()


def test_a_configured_engine_is_used_without_evidence(tmp_path: Path) -> None:
    bundle = load_bundle(BUNDLE)
    for configured in ("openvino/bfloat16", "openvino", "torchscript"):
        engine, _, precision = configured.partition("/")
        found = EngineChoice(engine=engine, precision=precision or "float32")  # type: ignore[arg-type]
        assert chosen(bundle, tmp_path, configured) == (found, True)


def test_other_weights_than_the_released_ones_end_the_measuring(tmp_path: Path) -> None:
    settings = bundle_of(tmp_path / "bundle", {}).path / "outpost.yaml"
    settings.write_text(settings.read_text().replace("sha256: 39a7", "sha256: 39a8"))
    with pytest.raises(InferenceFailed) as failed:
        optimise(load_bundle(tmp_path / "bundle"), tmp_path)
    assert failed.value.code == Code.WEIGHTS_MISMATCH
