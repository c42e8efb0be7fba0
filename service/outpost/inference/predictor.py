"""The model in memory: networks in the engine of a rung, and the task that knows the study. Runs in the child."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from pydicom import dcmread

from outpost.codes.notes import Note, merged
from outpost.drift import observe
from outpost.drift.book import Value
from outpost.filter.anatomy import AnatomyWeightsError, check_weights
from outpost.filter.doubt import with_doubt
from outpost.filter.identity import require_one_patient
from outpost.filter.rulefile import RulesInvalid, open_rules, rules_of, source_of
from outpost.filter.verdict import HeaderVerdict, Judge
from outpost.inference import broken, engines, progress
from outpost.inference.bounded import bounded
from outpost.inference.bundle import Bundle, RadiographManifest, VolumeManifest
from outpost.inference.codes import Code, InferenceFailed, InputRejected
from outpost.inference.completeness import hold_if_more_may_come
from outpost.inference.context import StudyContext
from outpost.inference.extent import require_files
from outpost.inference.header import read_study
from outpost.inference.result import GoldenVerdict, InferenceResult
from outpost.inference.rung import Rung
from outpost.inference.state import Step
from outpost.inference.task import Case, make_task
from outpost.results.provenance import Provenance, ResultObject


class Predictor:
    """A bundle loaded for the engine, precision and device of a rung; computes with one CPU thread.

    Args:
        bundle: what to load.
        rung: how to compute; `run` and `golden` take other rungs of the same process too.
        storage: folder of the system; converted models are kept below it. None converts at each start.

    Attributes:
        networks: by their names in outpost.yaml.
        engine_facts: engine, version, and what really computes: provider, precision, device.
        verdict: what the filter said of the study that was read last.
        step: where it is in the study in work.
        observed: what was seen of the study in work, for watching drift; also of one that was rejected.

    Raises:
        InferenceFailed: BUNDLE_INVALID, WEIGHTS_MISMATCH or ENGINE_UNAVAILABLE.
    """

    def __init__(self, bundle: Bundle, rung: Rung, storage: Path | None = None) -> None:
        torch.set_num_threads(1)
        if torch.get_num_interop_threads() != 1:  # may be set once in a process
            torch.set_num_interop_threads(1)
        _share_gpu(rung.device, int(os.environ.get("OUTPOST_VRAM_MIB") or 0))
        self._bundle = bundle
        self._process = rung.process
        self._task = make_task(bundle)
        self._inferers: dict[str, Any] = {}
        self._seconds_reading = 0.0
        self.verdict: HeaderVerdict | None = None
        self._notes: tuple[Note, ...] = ()  # of the study that was read last, before its pixels
        self._context = StudyContext()
        self.step = Step.READ
        self.observed: dict[str, list[dict[str, Value]]] = {}
        config = self._config()
        self.networks: dict[str, engines.Network] = {
            name: engines.load(
                rung.engine,
                rung.precision,
                _source(bundle, name, config),
                rung.device,
                tuple(bundle.manifest.weights[name].example) or bundle.example,
                storage / "engines" / "cache" if storage is not None else None,
            )
            for name in bundle.manifest.weights
        }
        self.engine_facts: dict[str, str] = {
            "engine": rung.engine,
            "version": engines.version(rung.engine),
            **next(iter(self.networks.values())).facts,
        }
        self.inferer(bundle.manifest.sizes[0].name)  # a wrong configuration shows now, not at a study
        try:
            check_weights()
        except AnatomyWeightsError as error:
            raise InferenceFailed(Code.WEIGHTS_MISMATCH, str(error)) from error

    def read(
        self, files: Sequence[Path], judge: Judge | None = None, context: StudyContext | None = None
    ) -> Case:
        """Judge the headers of a study, choose and decode the images among those left, judge what they show.

        Args:
            files: of one study; each is parsed once.
            judge: by which rule set; left out, by the bundle's own.
            context: what no header says.

        Raises:
            InputRejected: the study is not one for this model.
            StudyIncomplete: images are missing that may still come.
        """
        started = time.monotonic()
        self.verdict, self.step = None, Step.READ
        progress.step(Step.READ)
        self._notes, self._context = (), context or StudyContext()
        judge = judge or self._own_judge
        # Who overrules the filter answers for the study as it is.
        overruled = self._context.overruled or judge.file.text == open_rules().text
        context = self._context = replace(self._context, overruled=overruled)
        require_files(len(files))
        headers, unreadable = read_study(files)
        broken.require_something(unreadable, len(headers))
        identity = require_one_patient(
            [*headers, *unreadable], judge.file.rules.identity, context.character_set
        )
        self.observed["images"] = observe.safely(
            lambda: observe.of_headers((header.series_instance_uid, header.dataset) for header in headers)
        )
        verdict = judge(headers)
        # Without the headers: those of thousands of images would stay until the next study.
        self.verdict = broken.counted_in(replace(verdict, accepted=()), unreadable)
        wanted = broken.wanted_of(unreadable, self._classes)
        try:
            try:
                taken = verdict.require()
            except InputRejected as rejection:
                hold_if_more_may_come(rejection, headers, context)
                raise
            kept = {id(header) for header in taken}
            left_out = [header for header in headers if id(header) not in kept]
            case = self._task.read(taken, judge.file.rules.pixels, left_out, context)
        except InputRejected as rejection:
            raise broken.blamed(rejection, wanted) from rejection
        if isinstance(self._bundle.manifest, VolumeManifest):
            broken.require_no_part(wanted, case.images)
            wanted = []  # of other series: left out like any other object
        self._notes = (*identity, *broken.notes_of(unreadable, wanted))
        self.observed["pixels"] = observe.safely(
            lambda: [observe.of_pixels(pixels) for pixels in self._task.pixels(case)]
        )
        self._seconds_reading = time.monotonic() - started
        return case

    @cached_property
    def _golden_size(self) -> int:
        """Values of the golden case's input."""
        return max(1, math.prod(self._task.golden_case().shape))

    @property
    def _classes(self) -> Collection[str]:
        """SOP Class UIDs that the model reads."""
        manifest = self._bundle.manifest
        if isinstance(manifest, VolumeManifest | RadiographManifest):
            return manifest.input.sop_class_uids
        return ()

    @cached_property
    def _own_judge(self) -> Judge:
        """By the bundle's own rule set. Not looked at where the caller names one: it may be wrong, and unused."""
        try:
            return Judge(rules_of(source_of(self._bundle.path, None)))
        except RulesInvalid as invalid:
            raise InferenceFailed(Code.BUNDLE_INVALID, str(invalid)) from invalid

    def run(self, case: Case, rung: Rung, output_dir: Path, revision: int) -> InferenceResult:
        """Compute the study that was read last and write its DICOM results into `output_dir`.

        Raises:
            InputRejected: the study is not one for this model.
            InferenceFailed: the model failed on it.
        """
        started, self.step = time.monotonic(), Step.COMPUTE
        progress.step(Step.COMPUTE, scale=math.prod(case.shape) / self._golden_size)
        output = self._compute(case, rung)
        self.step = Step.WRITE
        progress.step(Step.WRITE, mib=math.prod(case.shape) / (1 << 20))
        self.observed["numbers"] = observe.safely(lambda: self._task.numbers(case, output))
        provenance = Provenance(
            model=self._bundle.name,
            model_version=self._bundle.version,
            engine=f"{rung.engine} {self.engine_facts['version']}",
            precision=rung.precision,
            rung=rung.name,
            device=rung.device,
            notes=merged(with_doubt((*self._notes, *case.notes, *self._task.doubts(case, output)))),
            replaces=self._context.replaces,
        )
        with bounded():
            written = self._task.write(case, output, provenance, revision, output_dir)
        return InferenceResult(
            files=written.files,
            objects=tuple(_object(file) for file in written.files),
            model=provenance.model,
            model_version=provenance.model_version,
            engine=provenance.engine,
            precision=provenance.precision,
            rung=provenance.rung,
            device=provenance.device,
            seconds=self._seconds_reading + time.monotonic() - started,
            notes=merged((*provenance.notes, *written.notes)),
        )

    def golden(self, rung: Rung) -> GoldenVerdict:
        """Compute the golden case at a rung and hold it against the bundle's answer, as that size allows.

        Raises:
            InferenceFailed: there is no answer to compare.
        """
        started = time.monotonic()
        golden = self._bundle.manifest.golden
        wanted = self._bundle.size(rung.size).tolerance
        ok, value = self._task.compare(self.golden_output(rung), self._bundle.path / golden.expected, wanted)
        seconds = round(time.monotonic() - started, 3)
        return GoldenVerdict(ok, float(f"{value:.6g}"), wanted, seconds, golden.metric)

    def golden_output(self, rung: Rung) -> Any:
        """What the model makes of the golden case. Raises as `golden` does."""
        try:
            return self._compute(self._task.golden_case(), rung)
        except InputRejected as rejection:
            raise InferenceFailed(
                Code.GOLDEN_MISMATCH, f"the golden case was rejected: {rejection}"
            ) from rejection

    def inferer(self, size: str) -> Any:
        """What `inferer` in configs/inference.json makes at a size of the bundle.

        Raises:
            InferenceFailed: BUNDLE_INVALID.
        """
        if size not in self._inferers:
            config = self._config()
            config["sizes"] = self._bundle.size(size).values
            config["networks"] = dict(self.networks)
            config["device"] = self._process[2]
            self._inferers[size] = _parsed(self._bundle, config, "inferer")
        return self._inferers[size]

    def replace_networks(self, networks: dict[str, engines.Network]) -> None:
        """Compute with other networks from now on; for looking at what goes into them."""
        self.networks = networks
        self._inferers.clear()

    def _compute(self, case: Case, rung: Rung) -> Any:
        if rung.process != self._process:
            raise ValueError(f"rung {rung} is of another process than {self._process}")
        return self._task.compute(case, self.inferer(rung.size), rung.batch)

    def _config(self) -> ConfigParser:
        config = ConfigParser()
        try:
            config.read_config(str(self._bundle.path / "configs" / "inference.json"))
        except Exception as error:  # whatever is wrong with the file, MONAI raises what that raises
            raise _wrong(self._bundle, error) from error
        return config


def _object(file: Path) -> ResultObject:
    keywords = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"]
    found = dcmread(file, stop_before_pixels=True, specific_tags=keywords)
    return ResultObject(str(found.SOPInstanceUID), str(found.SOPClassUID), str(found.SeriesInstanceUID))


def _source(bundle: Bundle, name: str, config: ConfigParser) -> engines.Source:
    weights = bundle.manifest.weights[name]
    definition = f"network_defs#{name}"
    return engines.Source(
        name=name,
        file=bundle.find_weights(name),
        sha256=weights.sha256,
        format=weights.format,
        define=(lambda: _parsed(bundle, config, definition)) if definition in config else None,
    )


def _parsed(bundle: Bundle, config: ConfigParser, key: str) -> Any:
    try:
        return config.get_parsed_content(key)
    # Anything in the configuration may be wrong, and MONAI raises what the wrong part raises.
    except Exception as error:
        raise _wrong(bundle, error) from error


def _wrong(bundle: Bundle, error: Exception) -> InferenceFailed:
    return InferenceFailed(
        Code.BUNDLE_INVALID, f"{bundle.path}/configs/inference.json: {type(error).__name__}: {error}"
    )


def _share_gpu(device: str, vram_mib: int) -> None:
    """Have torch take no more of a GPU than this process's share: other systems compute on it too."""
    if vram_mib and device.startswith("cuda"):
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, (vram_mib << 20) / total), device)
