"""A model bundle on disk: which series it reads, which weights it runs, which answer proves it works.

A bundle is a MONAI Bundle (`configs/metadata.json`, `configs/inference.json`) with an `outpost.yaml` beside
it. This module reads what the service needs to know without loading the model: no torch, no MONAI.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.header import read_header
from outpost.inference.selection import choose_stack


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputRules(_Strict):
    """Which series of a study the model reads. All rules must hold; `prefer_description` breaks the tie."""

    modality: str
    sop_class_uids: list[str] = Field(min_length=1)
    exclude_image_types: list[str]
    min_slices: int = Field(ge=2)
    max_slice_spacing_mm: float = Field(gt=0)
    min_extent_mm: float = Field(gt=0)
    prefer_description: Pattern


class Weights(_Strict):
    """A weights file inside an installed package, and the digest it was released with."""

    package: str
    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CodedConcept(_Strict):
    """A code of a coding scheme, for example SCT 12738006 Brain."""

    value: str
    scheme: str
    meaning: str


class Segment(_Strict):
    """How the mask is named in the DICOM segmentation."""

    label: str
    category: CodedConcept
    type: CodedConcept


class Golden(_Strict):
    """A case made by code, and the mask it gave on release (`numpy.savez` file, path inside the bundle)."""

    case: Literal["head_phantom"]
    expected: str
    min_dice: float = Field(gt=0, le=1)


class BundleManifest(_Strict):
    """`outpost.yaml`."""

    input: InputRules
    engine: Literal["torchscript"]
    precision: Literal["float32"]
    weights: dict[str, Weights] = Field(min_length=1)
    segment: Segment
    golden: Golden


@dataclass(frozen=True)
class Bundle:
    """A validated bundle.

    Attributes:
        path: its folder.
        name: from metadata.json.
        version: from metadata.json.
        manifest: its outpost.yaml.
    """

    path: Path
    name: str
    version: str
    manifest: BundleManifest

    @cached_property
    def weights(self) -> dict[str, Path]:
        """Weights files by their name in outpost.yaml, each checked against its digest.

        Raises:
            InferenceFailed: BUNDLE_INVALID if a file is not there, WEIGHTS_MISMATCH if it is another one.
        """
        return {name: _locate(self.path, name, weights) for name, weights in self.manifest.weights.items()}

    def select(self, files: Sequence[Path]) -> list[Path]:
        """Choose the images of a study that this model reads, sorted along the slice normal.

        Raises:
            InputRejected: no series fits, or the one that fits is not a sound volume.
        """
        return list(choose_stack([read_header(file) for file in files], self.manifest.input).files)


def load_bundle(path: Path) -> Bundle:
    """Read and validate a bundle; the weights are not read before `Bundle.weights` is.

    Raises:
        InferenceFailed: BUNDLE_INVALID, naming the file and the key.
    """
    try:
        metadata = json.loads((path / "configs" / "metadata.json").read_text(encoding="utf-8"))
        manifest = BundleManifest.model_validate(
            yaml.safe_load((path / "outpost.yaml").read_text(encoding="utf-8"))
        )
        if not (path / "configs" / "inference.json").is_file():
            raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {path} lacks configs/inference.json")
        return Bundle(path, str(metadata["name"]), str(metadata["version"]), manifest)
    except OSError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/configs/metadata.json: {error}") from error
    except KeyError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/configs/metadata.json lacks {error}") from error
    except yaml.YAMLError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/outpost.yaml: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/outpost.yaml: {problems}") from error


def _locate(bundle: Path, name: str, weights: Weights) -> Path:
    try:
        file = Path(str(distribution(weights.package).locate_file(weights.file)))
    except PackageNotFoundError as error:
        raise InferenceFailed(
            Code.BUNDLE_INVALID,
            f"{bundle}/outpost.yaml: weights.{name} lie in package {weights.package}, which is not installed",
        ) from error
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"weights.{name}: {error}") from error
    if found != weights.sha256:
        raise InferenceFailed(
            Code.WEIGHTS_MISMATCH, f"{file} has sha256 {found}, bundle {bundle} wants {weights.sha256}"
        )
    return file
