"""A model bundle on disk: which series it reads, which weights it runs, which answer proves it works.

A bundle is a MONAI Bundle (`configs/metadata.json`, `configs/inference.json`) with an `outpost.yaml` beside
it. This module reads what the service needs to know without loading the model: no torch, no MONAI.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from outpost.inference.codes import Code, InferenceFailed
from outpost.inference.header import read_headers
from outpost.inference.rung import Rung
from outpost.inference.selection import choose_stack

EngineName = Literal["torchscript", "torch", "torch-compile", "onnxruntime", "openvino", "tensorrt"]
Precision = Literal["float32", "bfloat16", "float16"]
WeightsFormat = Literal["torchscript", "torch_export", "onnx", "state_dict"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    return pattern


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"{path!r} leads out of its folder: give a path inside it, without `..`")
    return path


Pattern = Annotated[str, AfterValidator(_compiles)]
InnerPath = Annotated[str, AfterValidator(_inside)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
    """A weights file and the digest it was released with.

    It lies inside an installed package (`package` and `file`) or inside the bundle (`path`). `example` is the
    smallest input (batch, channels, ...) the network takes, with which it is traced where an engine needs
    that; left out, the one of metadata.json.
    """

    package: str = ""
    file: InnerPath = ""
    path: InnerPath = ""
    sha256: Digest
    format: WeightsFormat
    example: list[Annotated[int, Field(ge=1)]] = Field(default=[], max_length=5)

    @model_validator(mode="after")
    def _lies_somewhere(self) -> Self:
        if bool(self.path) == bool(self.package and self.file) or bool(self.package) != bool(self.file):
            raise ValueError("give either path (inside the bundle), or package and file (inside a package)")
        return self


class EngineChoice(_Strict):
    """What computes, and in which numbers. Precision is always said: engines choose differently by CPU."""

    engine: EngineName
    precision: Precision


class Engines(_Strict):
    """The engine the golden answer was made with, and those that may take its place if they are as good."""

    reference: EngineChoice
    candidates: list[EngineChoice] = []


class Size(_Strict):
    """A size of the networks' input.

    `values` reach configs/inference.json as `@sizes#...`. `tolerance` is what the golden metric must hold at
    this size: the least Dice, or the greatest absolute difference.
    """

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    values: dict[str, Any] = {}
    tolerance: float = Field(ge=0)


class Golden(_Strict):
    """A case whose answer was kept on release (path inside the bundle), and how answers are compared.

    `case` is made by code (`head_phantom`) or is a file or folder inside the bundle. `dice` counts overlap, so
    more is better; `max_abs` counts difference, so less is.
    """

    case: str
    expected: InnerPath
    metric: Literal["dice", "max_abs"]


class Resources(_Strict):
    """What one worker process needs at full size."""

    memory_mib: int = Field(ge=1)
    vram_mib: int = Field(default=0, ge=0)


class ModuleAssert(_Strict):
    """What a module of an eager network must give on the golden case.

    Its output is finite, has this shape, and a mean that differs from `mean` by `tolerance` at most; what is
    left out is not looked at.
    """

    network: str
    module: str
    finite: bool = True
    shape: list[int] | None = None
    mean: float | None = None
    tolerance: float = Field(default=1e-3, ge=0)


class NeededSeries(_Strict):
    """A series without which the study is not complete. The description is searched whatever its case."""

    description: Pattern = ""
    modality: str = ""
    min_instances: int = Field(default=1, ge=1)


class Completeness(_Strict):
    """When a study is there as a whole, before its quiet time is over."""

    required_series: list[NeededSeries] = Field(min_length=1)


class Gpu(_Strict):
    """The least a GPU must be; left out, anything the engine runs on."""

    min_driver: str = Field(default="", pattern=r"^$|^[0-9]+(\.[0-9]+)*$")
    min_compute_capability: str = Field(default="", pattern=r"^$|^[0-9]+\.[0-9]+$")


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


class BundleManifest(_Strict):
    """`outpost.yaml`: what holds for a bundle of any task."""

    task: str
    weights: dict[str, Weights] = Field(min_length=1)
    engines: Engines
    sizes: list[Size] = Field(min_length=1)
    batches: list[Annotated[int, Field(ge=1)]] = Field(default=[1], min_length=1)
    golden: Golden
    resources: Resources
    module_asserts: list[ModuleAssert] = []
    completeness: Completeness | None = None
    gpu: Gpu = Gpu()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        names = [size.name for size in self.sizes]
        if names[0] != "full":
            raise ValueError(f"sizes begin with {names[0]!r}: the first is the released one, called full")
        if len(set(names)) != len(names):
            raise ValueError(f"sizes {', '.join(names)}: give each a name of its own")
        if any(set(size.values) != set(self.sizes[0].values) for size in self.sizes):
            raise ValueError("sizes: give each the same values as full has")
        if self.golden.metric == "dice" and any(size.tolerance > 1 for size in self.sizes):
            raise ValueError("sizes: a tolerance in Dice is at most 1")
        if self.batches != sorted(set(self.batches), reverse=True):
            raise ValueError(f"batches {self.batches}: give them descending, each once")
        for one in self.module_asserts:
            if one.network not in self.weights:
                raise ValueError(f"module_asserts: {one.network!r} is not one of {', '.join(self.weights)}")
        return self


class Likeness(_Strict):
    """The mean of the organ (path inside the bundle), and how unlike it a mask may be: `outpost.inference.plausible`.

    Below `doubtful_below` the result is told to be doubtful, below `implausible_below` the study is refused; both are
    probabilities by the coefficients in the file, chosen on examples of both kinds.
    """

    path: InnerPath
    sha256: Digest
    doubtful_below: float = Field(ge=0, le=1)
    implausible_below: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _doubt_comes_first(self) -> Self:
        if self.implausible_below > self.doubtful_below:
            raise ValueError(
                f"implausible_below {self.implausible_below:g} is more than doubtful_below {self.doubtful_below:g}"
            )
        return self


class Plausible(_Strict):
    """What an answer of this model looks like; left out, no answer is doubted.

    `volume_ml` are the least and the greatest usual volume of the mask. `golden_sha256` is of the golden answer of the
    model that the limits were measured with: of a model that answers otherwise they say nothing, and are not used.
    """

    golden_sha256: Digest | None = None
    volume_ml: tuple[float, float] | None = None
    likeness: Likeness | None = None

    @model_validator(mode="after")
    def _range_is_one(self) -> Self:
        if self.volume_ml is not None and not 0 <= self.volume_ml[0] < self.volume_ml[1]:
            raise ValueError(f"volume_ml {list(self.volume_ml)}: give the least, then the greatest")
        return self


class VolumeManifest(BundleManifest):
    """`outpost.yaml` of a bundle that segments a volume."""

    task: Literal["volume_segmentation"]
    input: InputRules
    segment: Segment
    # What becomes of a volume that is a part, once no more is waited for: `outpost.inference.completeness`.
    incomplete: Literal["refuse", "compute"] = "refuse"
    plausible: Plausible = Plausible()

    @model_validator(mode="after")
    def _golden_is_a_mask(self) -> Self:
        if self.golden.case != "head_phantom":
            raise ValueError(f"golden.case is {self.golden.case!r}: the case of this task is head_phantom")
        if self.golden.metric != "dice":
            raise ValueError(f"golden.metric is {self.golden.metric!r}: masks are compared by dice")
        return self


class RadiographRules(_Strict):
    """Which images of a study the model reads. All rules must hold; every image that fits is read."""

    modalities: list[str] = Field(min_length=1)
    sop_class_uids: list[str] = Field(min_length=1)
    exclude_image_types: list[str]
    min_pixels: int = Field(ge=1)


class DoubtfulAnswers(_Strict):
    """Which answers about a radiograph are told to be doubtful; left out, none.

    `views` are answers that say the model does not know the image; `below` is a probability: an answer that is
    reported and less probable is doubtful.
    """

    views: list[Literal["chest_frontal", "chest_lateral", "other"]] = []
    below: float = Field(default=0, ge=0, le=1)


class ReportTexts(_Strict):
    """What a report is called, and what its reader must know before the findings."""

    title: str = Field(min_length=1, max_length=40)
    notice: str = Field(min_length=1)


class RadiographManifest(BundleManifest):
    """`outpost.yaml` of a bundle that classifies single radiographs."""

    task: Literal["radiograph_classification"]
    input: RadiographRules
    report: ReportTexts
    # What becomes of a study of which images are missing, once no more is waited for.
    incomplete: Literal["refuse", "compute"] = "compute"
    doubtful: DoubtfulAnswers = DoubtfulAnswers()


# By the name in `task`; the classes that do them are in `outpost.inference.task`.
MANIFESTS: dict[str, type[BundleManifest]] = {
    "volume_segmentation": VolumeManifest,
    "radiograph_classification": RadiographManifest,
}


@dataclass(frozen=True)
class Bundle:
    """A validated bundle.

    Attributes:
        path: its folder.
        name: from metadata.json.
        version: from metadata.json.
        manifest: its outpost.yaml.
        example: smallest whole input (batch, channels, ...) of the network, from metadata.json; empty where
            it does not say.
    """

    path: Path
    name: str
    version: str
    manifest: BundleManifest
    example: tuple[int, ...] = ()

    @cached_property
    def weights(self) -> dict[str, Path]:
        """Weights files by their name in outpost.yaml, each checked against its digest.

        Raises:
            InferenceFailed: BUNDLE_INVALID if a file is not there, WEIGHTS_MISMATCH if it is another one.
        """
        return {name: self.find_weights(name) for name in self.manifest.weights}

    def find_weights(self, name: str) -> Path:
        """One of the weights files, checked. Raises as `weights` does."""
        return _locate(self.path, name, self.manifest.weights[name])

    @property
    def sop_class_uids(self) -> frozenset[str] | None:
        """SOP classes of the images that the model reads; None where its task does not say."""
        if isinstance(self.manifest, VolumeManifest | RadiographManifest):
            return frozenset(self.manifest.input.sop_class_uids)
        return None

    def size(self, name: str) -> Size:
        """An entry of `sizes`.

        Raises:
            InferenceFailed: BUNDLE_INVALID: there is none of this name.
        """
        for size in self.manifest.sizes:
            if size.name == name:
                return size
        names = ", ".join(size.name for size in self.manifest.sizes)
        raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {self.path} has no size {name!r}, only {names}")

    def select(self, files: Sequence[Path]) -> list[Path]:
        """Choose the images of a study that this model reads, sorted along the slice normal.

        Raises:
            InputRejected: no series fits, or the one that fits is not a sound volume.
            InferenceFailed: BUNDLE_INVALID: this bundle does not read volumes.
        """
        if not isinstance(self.manifest, VolumeManifest):
            raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {self.path} does not read volumes")
        return list(choose_stack(read_headers(files), self.manifest.input).files)


def full_rung(
    bundle: Bundle, choice: EngineChoice | None = None, workers: int = 1, device: str = "cpu"
) -> Rung:
    """The rung that reduces nothing; without a choice, of the engine the golden answer was made with."""
    choice = choice or bundle.manifest.engines.reference
    return Rung(
        name="full",
        parallel=workers,
        batch=bundle.manifest.batches[0],
        size=bundle.manifest.sizes[0].name,
        engine=choice.engine,
        precision=choice.precision,
        device=device,
    )


def load_bundle(path: Path) -> Bundle:
    """Read and validate a bundle; the weights are not read before `Bundle.weights` is.

    Raises:
        InferenceFailed: BUNDLE_INVALID, naming the file and the key.
    """
    try:
        metadata = json.loads((path / "configs" / "metadata.json").read_text(encoding="utf-8"))
        manifest = read_manifest(path / "outpost.yaml")
        if not (path / "configs" / "inference.json").is_file():
            raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {path} lacks configs/inference.json")
        return Bundle(path, str(metadata["name"]), str(metadata["version"]), manifest, _example(metadata))
    except (OSError, UnicodeDecodeError) as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"bundle {path}: {error}") from error
    except json.JSONDecodeError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/configs/metadata.json: {error}") from error
    except KeyError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{path}/configs/metadata.json lacks {error}") from error


def read_manifest(file: Path) -> BundleManifest:
    """Read and validate an outpost.yaml by the rules of its task.

    Raises:
        InferenceFailed: BUNDLE_INVALID, naming every wrong key, and the nearest right one.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{file}: {error}") from error
    task = content.get("task") if isinstance(content, dict) else None
    if task not in MANIFESTS:
        names = ", ".join(MANIFESTS)
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{file}: task is {task!r}, it must be one of {names}")
    try:
        return MANIFESTS[task].model_validate(content)
    except ValidationError as error:
        problems = "; ".join(_problem(MANIFESTS[task], dict(problem)) for problem in error.errors())
        raise InferenceFailed(Code.BUNDLE_INVALID, f"{file}: {problems}") from error


def _problem(model: type[BaseModel], problem: dict[str, Any]) -> str:
    """One complaint of pydantic, with the nearest allowed key where a key is unknown."""
    place = problem["loc"]
    told = f"{'.'.join(str(part) for part in place)}: {problem['msg']}".removeprefix(": ")
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(place[-1]), _keys(model, place[:-1]), n=1)
        told += f"; did you mean {near[0]}?" if near else ""
    return told


def _keys(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys allowed at a place of the file."""
    found: type[BaseModel] | None = model
    for part in place:
        if found is None:
            return []
        if part in found.model_fields:
            nested = _models(found.model_fields[str(part)].annotation)
            found = nested[0] if nested else None
        # Any other part is a list's index or a dictionary's key: the model is that of its values.
    return list(found.model_fields) if found is not None else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _example(metadata: dict[str, Any]) -> tuple[int, ...]:
    """The whole input of the network by MONAI's `network_data_format`; empty where sizes are not numbers."""
    try:
        image = next(iter(metadata["network_data_format"]["inputs"].values()))
        shape = (1, image["num_channels"], *image["spatial_shape"])
    except (KeyError, StopIteration, TypeError, AttributeError):
        return ()
    return shape if all(isinstance(size, int) for size in shape) else ()


def _locate(bundle: Path, name: str, weights: Weights) -> Path:
    if weights.path:
        file = bundle / weights.path
    else:
        try:
            file = Path(str(distribution(weights.package).locate_file(weights.file)))
        except PackageNotFoundError as error:
            raise InferenceFailed(
                Code.BUNDLE_INVALID,
                f"{bundle}/outpost.yaml: weights.{name} lie in package {weights.package}, which is not "
                "installed",
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
