"""`outpost bundle check`: whether a bundle is sound, one finding a line, with what to do where it is not.

Looks at everything a start of the service would need, and goes on after a fault as far as it makes sense. It loads
the model into this process: for the command, not for the service.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydicom.uid import UID

from outpost.codes.spoken import spoken
from outpost.filter.rulefile import RulesInvalid, rules_of, source_of
from outpost.inference import engines
from outpost.inference.bundle import Bundle, full_rung, load_bundle, read_manifest
from outpost.inference.codes import REASONS, Code, InferenceFailed
from outpost.inference.memory import MIB
from outpost.options import Language

_METADATA_KEYS = ("name", "version", "task", "network_data_format")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at the bundle gave. `what`: what was looked at; `remedy`: empty where it is ok."""

    what: str
    ok: bool
    told: str
    remedy: str = ""

    def __str__(self) -> str:
        return self.said("en")

    def said(self, language: Language) -> str:
        """For people: a line, its remedy below it."""
        mark = "ok  " if self.ok else "СБОЙ" if language == "ru" else "FAIL"
        line = f"{mark} {spoken(self.what, language)}: {spoken(self.told, language)}"
        return line if self.ok else f"{line}\n     {spoken(self.remedy, language)}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class _Unsound(Exception):
    """A look that found a fault: what, and the remedy."""

    def __init__(self, told: str, remedy: str) -> None:
        super().__init__(told)
        self.told = told
        self.remedy = remedy


def check_bundle(path: Path) -> list[Finding]:
    """Look at a bundle; never raises for what is wrong with it."""
    findings: list[Finding] = []

    def look(what: str, at: Callable[[], str], remedy: str) -> bool:
        try:
            findings.append(Finding(what, True, at()))
        except _Unsound as fault:
            findings.append(Finding(what, False, fault.told, fault.remedy))
        except InferenceFailed as failure:
            known = REASONS[failure.code].remedy if failure.code != Code.BUNDLE_INVALID else remedy
            findings.append(Finding(what, False, failure.message, known))
        # Whatever a broken bundle makes a library raise is a finding.
        except Exception as error:
            findings.append(Finding(what, False, f"{type(error).__name__}: {error}", remedy))
        return findings[-1].ok

    sound = all(
        [
            look(
                "configs/metadata.json",
                lambda: _metadata(path),
                "Correct the file; MONAI's bundle specification tells its keys.",
            ),
            look(
                "configs/inference.json",
                lambda: _inference(path),
                "Correct the file; it must be JSON with an `inferer`.",
            ),
            look("outpost.yaml", lambda: _manifest(path), "Correct the keys named."),
            look("filter.yaml", lambda: _filter(path), "Correct the lines named (docs/filter-rules.md)."),
        ]
    )
    if not sound:
        return findings
    bundle = load_bundle(path)
    weights = [
        look(
            f"weights {name}",
            partial(_weights, bundle, name),
            "Put the released file there, or correct `weights`.",
        )
        for name in bundle.manifest.weights
    ]
    look("selection rules", lambda: _rules(bundle), "Correct `input`.")
    look("resources", lambda: _resources(bundle), "Correct `resources`.")
    look("engines", lambda: _engines(bundle), "Correct `engines`.")
    if not all(weights):
        return findings
    predictor: list[Any] = []

    def load() -> str:
        from outpost.inference.predictor import Predictor

        rung = full_rung(bundle)
        predictor.append(Predictor(bundle, rung))
        return f"{len(bundle.weights)} network(s) in {rung.engine}, {rung.precision}"

    remedy = "Correct configs/inference.json, or the weights' `format` and `example`."
    if not look("networks load", load, remedy):
        return findings
    look(
        "network shapes",
        lambda: _shapes(bundle, predictor[0]),
        "Correct network_data_format in metadata.json, or the sizes.",
    )
    remedy = "If the model is as intended: python -m outpost.inference.golden BUNDLE, or set the tolerance measured."
    for size in bundle.manifest.sizes:
        look(f"golden case at {size.name}", partial(_golden, bundle, predictor[0], size.name), remedy)
    return findings


def _metadata(path: Path) -> str:
    content = _json(path / "configs" / "metadata.json")
    if missing := [key for key in _METADATA_KEYS if key not in content]:
        raise _Unsound(f"lacks {', '.join(missing)}", "Add the keys; see MONAI's bundle specification.")
    for direction in ("inputs", "outputs"):
        for name, tensor in content["network_data_format"].get(direction, {}).items():
            if lacking := {"num_channels", "spatial_shape", "dtype"} - set(tensor):
                told = f"network_data_format.{direction}.{name} lacks {', '.join(sorted(lacking))}"
                raise _Unsound(told, "Add the keys: what goes in and comes out is checked by them.")
    return f"{content['name']} {content['version']}"


def _inference(path: Path) -> str:
    content = _json(path / "configs" / "inference.json")
    if "inferer" not in content:
        raise _Unsound("lacks inferer", "Add what computes a case: a `_target_` and its arguments.")
    return ", ".join(content)


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _Unsound("is not there", f"Add {file}: a bundle has it.") from None
    except ValueError as error:
        raise _Unsound(f"is not JSON: {error}", "Correct the line named.") from error
    if not isinstance(content, dict):
        raise _Unsound(f"holds a {type(content).__name__}, an object wanted", "Put `{...}` around it.")
    return content


def _manifest(path: Path) -> str:
    if not (path / "outpost.yaml").is_file():
        raise _Unsound(
            "is not there", f"Add {path / 'outpost.yaml'}; docs/ and the bundles of Outpost show one."
        )
    return read_manifest(path / "outpost.yaml").task


def _weights(bundle: Bundle, name: str) -> str:
    file = bundle.find_weights(name)
    return f"{bundle.manifest.weights[name].format}, {file.stat().st_size / MIB:.1f} MiB, digest as released"


def _filter(path: Path) -> str:
    source = source_of(path, None)
    try:
        file = rules_of(source)
    except RulesInvalid as invalid:
        raise InferenceFailed(Code.BUNDLE_INVALID, str(invalid)) from invalid
    return "none: what is known by name is left out" if source is None else f"{len(file.rules.rules)} rules"


def _rules(bundle: Bundle) -> str:
    rules = getattr(bundle.manifest, "input", None)
    if rules is None:
        return "none for this task"
    for value in rules.sop_class_uids:
        uid = UID(value)
        if not uid.is_valid:
            raise _Unsound(f"input.sop_class_uids: {value!r} is not a UID", "Copy the UID from PS3.4 B.5.")
        if "Image Storage" not in uid.name and not uid.name.endswith("For Presentation"):
            raise _Unsound(
                f"input.sop_class_uids: {value} is {uid.name}, not an image",
                "Give the SOP classes of the images that the model reads (PS3.4 B.5).",
            )
    return f"{len(rules.sop_class_uids)} SOP class(es)"


def _resources(bundle: Bundle) -> str:
    need = bundle.manifest.resources.memory_mib
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    least = sum(file.stat().st_size for file in bundle.weights.values()) // MIB
    if need < least:
        told = f"memory_mib is {need}, the weights alone are {least} MiB"
        raise _Unsound(told, "Declare what a worker process needs; `outpost optimise` measures it.")
    if need > host:
        raise _Unsound(f"memory_mib is {need}, this host has {host}", "Correct it, or take a larger host.")
    return f"{need} MiB a worker"


def _engines(bundle: Bundle) -> str:
    formats = sorted({weights.format for weights in bundle.manifest.weights.values()})
    listed = [bundle.manifest.engines.reference, *bundle.manifest.engines.candidates]
    for choice in listed:
        if lack := engines.unsuited(choice.engine, choice.precision, formats):
            raise _Unsound(lack, f"Take {choice.engine}/{choice.precision} out of `engines`.")
    reference = bundle.manifest.engines.reference
    if lack := engines.unavailable(reference.engine, "cpu"):
        told = f"reference {reference.engine}: {lack}"
        raise _Unsound(told, "Take an engine as reference that every host has.")
    if listed.index(reference) != 0 or len({(one.engine, one.precision) for one in listed}) != len(listed):
        raise _Unsound("an engine is listed twice", "List each engine and precision once.")
    return ", ".join(f"{one.engine}/{one.precision}" for one in listed)


def _shapes(bundle: Bundle, predictor: Any) -> str:
    """Run the golden case and hold what goes into the networks against metadata.json."""
    declared = json.loads((bundle.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    formats = declared["network_data_format"]
    wanted = (
        {_declared(tensor) for tensor in formats["inputs"].values()},
        {_declared(tensor) for tensor in formats.get("outputs", {}).values()},
    )
    seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    with _watched(predictor, seen):
        predictor.golden_output(full_rung(bundle))
    if not any(taken[1:] in wanted[0] for _, taken, _ in seen):
        found = ", ".join(f"{name} took {taken[1:]}" for name, taken, _ in seen) or "no network was called"
        raise _Unsound(
            f"{found}; metadata.json declares {sorted(wanted[0])}",
            "Correct num_channels and spatial_shape of the inputs, or the sizes.",
        )
    if wanted[1] and not any(given[1:] in wanted[1] for _, _, given in seen):
        found = ", ".join(f"{name} gave {given[1:]}" for name, _, given in seen)
        raise _Unsound(
            f"{found}; metadata.json declares {sorted(wanted[1])}",
            "Correct num_channels and spatial_shape of the outputs.",
        )
    return ", ".join(f"{name} {list(taken)} -> {list(given)}" for name, taken, given in seen)


def _declared(tensor: dict[str, Any]) -> tuple[int, ...]:
    return (int(tensor["num_channels"]), *(int(size) for size in tensor["spatial_shape"]))


class _Watched:
    """A network that notes what it takes and gives."""

    def __init__(
        self, name: str, network: engines.Network, seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    ) -> None:
        self._name = name
        self._network = network
        self._seen = seen
        self.facts = network.facts
        self.module = network.module

    def __call__(self, image: Any) -> Any:
        output = self._network(image)
        self._seen.append((self._name, tuple(image.shape), tuple(output.shape)))
        return output


@contextmanager
def _watched(predictor: Any, seen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]) -> Iterator[None]:
    """While it lasts, inferers are made anew around networks that are watched."""
    plain = dict(predictor.networks)
    predictor.replace_networks({name: _Watched(name, network, seen) for name, network in plain.items()})
    try:
        yield
    finally:
        predictor.replace_networks(plain)


def _golden(bundle: Bundle, predictor: Any, size: str) -> str:
    verdict = predictor.golden(replace(full_rung(bundle), name=size, size=size))
    told = f"{verdict.metric} {verdict.value:.5g}, {verdict.wanted:g} wanted, {verdict.seconds:.1f} s"
    if not verdict.ok:
        raise _Unsound(
            told,
            "If the model is as intended: python -m outpost.inference.golden BUNDLE writes the answer anew, or "
            "set the size's tolerance to what it really reaches.",
        )
    return told
