"""The pixel verdict in the running service: what is a chest is computed, what only says so is not."""

from __future__ import annotations

import sqlite3
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from running import ROOT, Service, StoreScp

RULES = """
pixels:
  expected_anatomy: [chest_frontal, chest_lateral]
  unsure: hold
"""


def packaged(package: str, file: str) -> Dataset:
    return dcmread(str(distribution(package).locate_file(file)))


def as_a_chest(image: Dataset, folder: Path) -> str:
    """Write a study of one image tagged as a chest; returns its UID."""
    image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.BodyPartExamined, image.ViewPosition = "CHEST", "PA"
    folder.mkdir()
    image.save_as(folder / "1.dcm", enforce_file_format=True)
    return str(image.StudyInstanceUID)


def test_a_chest_is_computed_a_leg_and_an_empty_image_rejected_a_cat_held_for_a_person(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES, encoding="utf-8")
    pacs = StoreScp(tmp_path / "pacs").start()
    service = Service(
        tmp_path / "service",
        [("PACS", pacs.port)],
        inference={
            "bundle": str(ROOT / "service" / "bundles" / "radiograph_orientation"),
            "workers": 1,
            "optimise_after_idle_seconds": 86400,
        },
        filter={"rules": str(rules)},
    ).start()
    service.wait_ready()
    empty = packaged("pydicom-data", "data_store/data/RG1_UNCR.dcm")
    noise = np.random.default_rng(1).normal(9000, 100, (empty.Rows, empty.Columns))
    empty.PixelData = noise.astype("<u2").tobytes()
    studies = {
        "chest": packaged("pydicom-data", "data_store/data/RG1_UNCR.dcm"),
        "leg": packaged("pydicom-data", "data_store/data/RG3_UNCR.dcm"),
        "cat": packaged("deid-data", "deid_data/data/animals/cat.dcm"),
        "empty": empty,
    }
    ended = {}
    for name, image in studies.items():
        uid = as_a_chest(image, tmp_path / name)
        assert service.storescu(tmp_path / name).returncode == 0
        row = service.wait_outcome(uid)
        ended[name] = (row["outcome"], row["reason"])
    assert ended == {
        "chest": ("delivered", ""),
        "leg": ("rejected", "PIXELS_ANATOMY"),
        "cat": ("quarantined", "PIXELS_UNSURE"),
        "empty": ("rejected", "PIXELS_BLANK"),
    }
    with sqlite3.connect(service.storage / "journal.sqlite3") as journal:
        deaths = journal.execute("SELECT count(*) FROM failures").fetchone()[0]
    assert deaths == 0, "a refusal is no failure of the worker"
    service.stop()
    pacs.stop()
