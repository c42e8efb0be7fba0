"""The engines of a bundle tried on this host: what is kept, what a bad engine costs, when it is all done again.

A lane (tests/lanes/lanes.py): `make test-slow-engines`. tests/unit/test_inference_optimise.py is its sample.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_bundle import ONNX, OPENVINO, OPENVINO_LOW, bundle_of

from outpost.inference import choice, load_bundle
from outpost.inference.bundle import Bundle, EngineChoice
from outpost.inference.choice import chosen, evidence_file
from outpost.inference.optimise import optimise, page, table


def verdicts(evidence: dict[str, Any]) -> dict[str, str]:
    return {f"{row['engine']}/{row['precision']}": row["verdict"] for row in evidence["rows"]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, dict[str, Any]]:
    """A bundle whose two fastest engines are no good: one gives a wrong mask, one dies."""
    folder = tmp_path_factory.mktemp("measured")
    bundle = bundle_of(folder / "bundle", {OPENVINO: "wrong", OPENVINO_LOW: "segfault"})
    return bundle, folder, optimise(bundle, folder)


def test_the_fastest_engine_within_tolerance_is_kept(measured: tuple[Bundle, Path, dict[str, Any]]) -> None:
    bundle, storage, evidence = measured
    assert evidence["chosen"] == {"engine": "onnxruntime", "precision": "float32"}
    assert chosen(bundle, storage, "auto") == (EngineChoice(engine="onnxruntime", precision="float32"), True)
    row = next(row for row in evidence["rows"] if row["engine"] == "onnxruntime")
    assert row["ratio"] > 1.4
    assert row["memory_mib"] > 100


def test_an_engine_that_is_wrong_or_dies_is_a_row_of_the_table(
    measured: tuple[Bundle, Path, dict[str, Any]],
) -> None:
    _, _, evidence = measured
    assert verdicts(evidence) == {
        "torchscript/float32": "within tolerance",
        "openvino/float32": "outside tolerance",
        "openvino/bfloat16": "failed",
        "onnxruntime/float32": "chosen",
        "tensorrt/float32": "skipped",
    }
    reasons = {f"{row['engine']}/{row['precision']}": row["reason"] for row in evidence["rows"]}
    assert "signal 11" in reasons["openvino/bfloat16"]
    assert "dice" in reasons["openvino/float32"]
    assert "tensorrt is not installed" in reasons["tensorrt/float32"]


def test_the_page_needs_nothing_from_elsewhere_and_names_all_that_was_found(
    measured: tuple[Bundle, Path, dict[str, Any]],
) -> None:
    bundle, storage, evidence = measured
    html = evidence_file(bundle, storage).with_suffix(".html").read_text()
    assert html == page(evidence)
    assert not any(sign in html for sign in ("http", "src=", "href=", "@import"))
    for row in evidence["rows"]:
        assert f"{row['engine']} {row['version']}".strip() in html
        assert row["engine"] in table(evidence)
    assert evidence["key"]["cpu"]["model"] in html
    assert bundle.manifest.weights["finder"].sha256 in html
    assert not list(storage.glob("engines/*.partial"))


@pytest.mark.parametrize("part", ["settings", "weights", "engines", "cpu", "gpu", "bundle"])
def test_evidence_of_another_host_bundle_or_engine_does_not_hold(
    measured: tuple[Bundle, Path, dict[str, Any]], tmp_path: Path, part: str
) -> None:
    bundle, storage, _ = measured
    evidence = json.loads(evidence_file(bundle, storage).read_text())
    evidence["key"][part] = "another"
    file = evidence_file(bundle, tmp_path)
    file.parent.mkdir()
    file.write_text(json.dumps(evidence))
    assert choice.stale(evidence, bundle) == [part]
    assert chosen(bundle, tmp_path, "auto") == (bundle.manifest.engines.reference, False)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "key": null}', "\x00"])
def test_broken_evidence_is_as_none(
    measured: tuple[Bundle, Path, dict[str, Any]], tmp_path: Path, content: str
) -> None:
    bundle, _, _ = measured
    file = evidence_file(bundle, tmp_path)
    file.parent.mkdir()
    file.write_text(content)
    assert chosen(bundle, tmp_path, "auto") == (bundle.manifest.engines.reference, False)


def test_a_configured_engine_that_is_wrong_is_not_kept(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", {OPENVINO: "wrong"}, {})
    evidence = optimise(bundle, tmp_path, configured="openvino")
    assert evidence["chosen"] is None
    assert not evidence_file(bundle, tmp_path).exists()


def test_hanging_and_greedy_engines_are_ended_and_the_rest_goes_on(tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "bundle", {OPENVINO: "hang", ONNX: "memory"}, {})
    evidence = optimise(bundle, tmp_path, trial_seconds=40)
    found = verdicts(evidence)
    assert (found["openvino/float32"], found["onnxruntime/float32"]) == ("failed", "failed")
    assert "chosen" in found.values()
    reasons = " ".join(row["reason"] for row in evidence["rows"])
    assert "no answer in 40 s" in reasons
    assert "OUT_OF_MEMORY" in reasons


def test_an_engine_that_needs_more_memory_than_declared_is_not_kept(tmp_path: Path) -> None:
    settings = bundle_of(tmp_path / "bundle", {}).path / "outpost.yaml"
    settings.write_text(settings.read_text().replace("memory_mib: 1600", "memory_mib: 150"))
    evidence = optimise(load_bundle(tmp_path / "bundle"), tmp_path)
    assert evidence["chosen"] is None
    assert "needs too much memory" in verdicts(evidence).values()
