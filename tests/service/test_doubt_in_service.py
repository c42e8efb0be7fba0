"""A phantom sent as a T1 of a patient, and doubt that a site holds: the running service, by C-STORE."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from mr_series import write_mr_series
from numpy.typing import NDArray
from pydicom import dcmread
from running import ROOT, Service, StoreScp

sys.path.append(str(ROOT / "service/training/plausible"))

import volumes as v

RULES = (ROOT / "service/bundles/brain_extraction/filter.yaml").read_text(encoding="utf-8")
MM2 = (2.0, 2.0, 2.0)


def sent(service: Service, folder: Path, volume: NDArray[np.float32]) -> tuple[str, str]:
    """Outcome and reason of a volume of 2 mm, sent as axial slices."""
    pixels = np.clip(volume * (1000 / np.percentile(volume, 99.5)), 0, 4000).astype(np.uint16)
    axial = np.ascontiguousarray(pixels[::-1, ::-1].transpose(2, 1, 0))
    files = write_mr_series(folder, axial, description="T1 MPRAGE")
    assert service.storescu(folder).returncode == 0
    row = service.wait_outcome(str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID))
    return row["outcome"], row["reason"]


def test_a_water_sphere_is_refused_and_half_a_head_is_held_after_computing(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.replace("unsure: accept", "unsure: hold"), encoding="utf-8")
    pacs = StoreScp(tmp_path / "pacs").start()
    service = Service(
        tmp_path / "service",
        [("PACS", pacs.port)],
        inference={"workers": 1, "optimise_after_idle_seconds": 86400},
        filter={"rules": str(rules)},
    ).start()
    service.wait_ready()
    rng = np.random.default_rng(4)
    water, _ = v.rician(20)(v.sphere(75, MM2), MM2, rng)
    head, _ = v.then(v.at(*MM2), v.cut(2, 0.33, 1))(*v.nifti(v.TEMPLATES / "ch2.nii.gz"), rng)
    assert sent(service, tmp_path / "sphere", water) == ("rejected", "PIXELS_ANATOMY")
    assert sent(service, tmp_path / "head", head) == ("quarantined", "PIXELS_UNSURE")
    assert not list((tmp_path / "pacs").rglob("*.dcm")), "neither gave a result"
    service.stop()
    pacs.stop()
