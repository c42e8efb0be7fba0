"""docs/licences.md tells what the image really holds."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINS = [
    tuple(line.split("=="))
    for line in (ROOT / "service/requirements-image.txt").read_text().splitlines()
    if not line.startswith("#")
]


def licence(package: str) -> str:
    metadata = distribution(package).metadata
    classifiers = [
        line.rsplit(" :: ", 1)[1] for line in metadata.get_all("Classifier", []) if line.startswith("License")
    ]
    return metadata["License-Expression"] or "; ".join(classifiers) or metadata["License"].splitlines()[0]


@pytest.mark.parametrize(("package", "version"), PINS)
def test_the_table_names_each_package_with_the_licence_it_declares(package: str, version: str) -> None:
    table = (ROOT / "docs/licences.md").read_text().splitlines()
    assert f"| {package} | {version} | {licence(package)} |" in table


def test_what_the_service_imports_is_pinned_alike_for_the_image() -> None:
    image = {name.lower().replace("_", "-"): version for name, version in PINS}
    for file in ("requirements.txt", "requirements-nodeps.txt"):
        for line in (ROOT / "service" / file).read_text().splitlines():
            if not line.startswith("#"):
                name, version = line.split("==")
                assert image[name.split("[")[0].lower().replace("_", "-")] == version
