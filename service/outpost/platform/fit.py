"""Do GPUs, a driver, its kernel modules, CUDA, a torch build and model bundles fit together?

Pure: from what is asked and the data file (drivers.json) to lines. Needs no host: it answers before a card is bought.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Literal

from outpost.platform.codes import line
from outpost.platform.gpus import Gpu, knowledge
from outpost.platform.line import Line, Words, listed, numbers, same

Kind = Literal["open", "proprietary"]
KINDS: Final[tuple[Kind, ...]] = ("open", "proprietary")
_KIND_SAID: Final[Mapping[str, Words]] = {
    "open": Words("open", "открытый"),
    "proprietary": Words("proprietary", "проприетарный"),
}
_TORCH = re.compile(r"(?P<version>\d+\.\d+(?:\.\d+)?)(?:\+(?P<tag>[a-z0-9.]+))?")


class AskedWrong(ValueError):
    """What was asked cannot be read; the message names value, reason and remedy."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What a model bundle needs: from its outpost.yaml. Memory in MiB, 0 and "" ask nothing."""

    name: str
    min_driver: str = ""
    min_compute_capability: str = ""
    memory_mib: int = 0
    vram_mib: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """The set to be judged. Empty is not asked and not judged.

    Attributes:
        driver: full version or branch.
        modules: kind of kernel module.
        cuda: "12.6"; empty takes the torch build's.
        torch: "2.13.0+cu126"; without a tag it is the build PyPI gives by default; "+cpu" has no CUDA.
    """

    driver: str = ""
    modules: str = ""
    cuda: str = ""
    torch: str = ""
    bundles: tuple[Bundle, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("driver", self.driver), ("cuda", self.cuda)):
            if value:
                try:
                    numbers(value)
                except ValueError as error:
                    raise AskedWrong(f"{name}: {error}") from error
        if self.modules not in ("", *KINDS):
            raise AskedWrong(
                f"modules: {self.modules!r} is none of open, proprietary; leave it out to be told which fits"
            )
        if self.torch:
            torch_of(self.torch)


@dataclass(frozen=True, slots=True)
class Torch:
    """A torch build: its version, minor version, and CUDA ("" for a CPU build; `by_default` when PyPI chose it)."""

    version: str
    minor: str
    cuda: str
    by_default: bool
    known: bool = True

    @property
    def spoken(self) -> str:
        return f"torch {self.version}+{'cu' + self.cuda.replace('.', '') if self.cuda else 'cpu'}"


def torch_of(text: str) -> Torch:
    """Reads "2.13.0+cu126".

    Raises:
        AskedWrong: it is no torch version.
    """
    matched = _TORCH.fullmatch(text.strip().removeprefix("torch=="))
    tag = (matched["tag"] or "") if matched else ""
    cuda = re.fullmatch(r"cu(\d{2})(\d)", tag)
    if not matched or (tag and not cuda and tag != "cpu"):
        raise AskedWrong(f"torch: {text!r} is no torch build: it looks like 2.13.0+cu126, or 2.13.0+cpu")
    minor = ".".join(matched["version"].split(".")[:2])
    if tag:
        return Torch(matched["version"], minor, f"{cuda[1]}.{cuda[2]}" if cuda else "", by_default=False)
    for row in knowledge()["torch"]["pypi_default"]:
        if minor in row["torch"]:
            return Torch(matched["version"], minor, row["cuda"], by_default=True)
    return Torch(matched["version"], minor, "", by_default=True, known=False)


def branch_of(driver: str) -> int:
    """The branch a driver version belongs to: "580.95.05" -> 580."""
    return numbers(driver)[0]


def serves(gpu: Gpu, branch: int, kind: Kind | None = None) -> bool | None:
    """Whether the branch (with that kind of module) serves the GPU; None when nothing is known of the GPU."""
    arch = knowledge()["architectures"].get(gpu.architecture)
    if arch is None or arch["modules"] is None:
        return None
    low, high = _branch_range(gpu)
    if (low is not None and branch < low) or (high is not None and branch > high):
        return False
    return kind is None or kind in kinds_for([gpu], branch)


def kinds_for(gpus: Sequence[Gpu], branch: int | None) -> list[Kind]:
    """Kinds of module that suit all GPUs, of those that exist in the branch."""
    known = knowledge()
    fitting = []
    for kind in KINDS:
        if branch is not None:
            if kind == "open" and branch < known["open_modules_since"]["value"]:
                continue
            if kind == "proprietary" and branch >= known["open_modules_alone_since"]["value"]:
                continue
        if all(kind in _kinds_of(gpu) for gpu in gpus):
            fitting.append(kind)
    return fitting


def serving(gpus: Sequence[Gpu], today: date) -> list[tuple[int, list[Kind]]]:
    """Branches that serve all GPUs, with the kinds of module: maintained ones first, of them the longest supported."""
    known = [gpu for gpu in gpus if serves(gpu, 0) is not None]
    found = []
    for name, branch in knowledge()["branches"].items():
        number = int(name)
        kinds = kinds_for(known, number)
        if kinds and all(serves(gpu, number) for gpu in known):
            maintained = _maintained(branch, today)
            found.append(((not maintained, branch["kind"] != "LTSB", -number), number, kinds))
    return [(number, kinds) for _, number, kinds in sorted(found)]


def fit(gpus: Sequence[Gpu], asked: Asked, today: date) -> list[Line]:
    """All lines on GPUs, driver, CUDA, torch and bundles.

    Args:
        gpus: the GPUs of one host.
        asked: what is to run there.
        today: decides which branches are still maintained.
    """
    return list(_fit(gpus, asked, today))


def _fit(gpus: Sequence[Gpu], asked: Asked, today: date) -> Iterator[Line]:
    distinct = list({gpu.id: gpu for gpu in gpus}.values())
    torch = torch_of(asked.torch) if asked.torch else None
    cuda = asked.cuda or (torch.cuda if torch else "")
    if not distinct:
        wants = bool(asked.driver or cuda)
        wanted = (
            Words("an NVIDIA card", "видеокарта NVIDIA")
            if wants
            else Words("none: the CPU computes", "не нужна: считает процессор")
        )
        yield line("gpu-present", not wants, Words("no NVIDIA card", "видеокарт NVIDIA нет"), wanted)
    for gpu in distinct:
        yield _known(gpu)
    if len(distinct) > 1:
        yield _mixed(distinct, today)
    if asked.driver:
        yield from _driver(distinct, asked, today)
    elif distinct:
        yield line(
            "driver-named",
            False,
            Words("no driver named", "драйвер не указан"),
            _serving_said(distinct, today),
        )
    if cuda:
        yield from _cuda(distinct, cuda, asked.driver)
    if torch:
        yield from _torch(distinct, torch, asked)
    elif distinct and asked.driver and not asked.cuda:
        fitting = builds_for(distinct, asked.driver)[:1]
        wanted = Words("{b}, for example", "например, {b}").by(b=fitting[0]) if fitting else same("?")
        yield line("torch-named", False, Words("no torch build named", "сборка torch не указана"), wanted)
    yield from _bundles(distinct, asked)


def _known(gpu: Gpu) -> Line:
    wanted = Words("known by its id", "известна по идентификатору")
    if gpu.known_by == "table" and serves(gpu, 0) is not None:
        capability = f", {gpu.compute_capability}" if gpu.compute_capability else ""
        return line(
            "gpu-known",
            True,
            f"{gpu.spoken}: {gpu.architecture.title()}{capability}",
            wanted,
            subject=gpu.id,
            source="gpus.json",
        )
    if gpu.known_by == "range":
        value = Words("{gpu}: by its range of ids {arch}", "{gpu}: по диапазону идентификаторов {arch}")
        value = value.by(gpu=gpu.spoken, arch=gpu.architecture.title())
    elif gpu.architecture:
        value = Words("{gpu}: {arch}, newer than this table", "{gpu}: {arch}, новее этой таблицы")
        value = value.by(gpu=gpu.spoken, arch=gpu.architecture.title())
    else:
        value = Words("{gpu}: in no table", "{gpu}: нет ни в одной таблице").by(gpu=gpu.spoken)
    return line("gpu-known", False, value, wanted, subject=gpu.id, unverified=True)


def _mixed(gpus: Sequence[Gpu], today: date) -> Line:
    found = serving(gpus, today)
    what = listed([f"{gpu.spoken} {gpu.architecture.title()}" for gpu in gpus])
    return line(
        "gpu-mixed",
        bool(found),
        what,
        _serving_said(gpus, today) if found else Words("one driver for all of them", "один драйвер на всех"),
    )


def _driver(gpus: Sequence[Gpu], asked: Asked, today: date) -> Iterator[Line]:
    known = knowledge()
    branch = branch_of(asked.driver)
    full = len(numbers(asked.driver)) > 1
    yield line(
        "driver-exact",
        full,
        asked.driver,
        Words("a full version", "полная версия"),
        source="canonical/snapd#17399, pop-os/pop#3549, canonical/core-base#439, dstack#3967",
    )
    row = known["branches"].get(str(branch))
    if row is None:
        yield line(
            "driver-support",
            False,
            Words("{b}: not in our table", "{b}: нет в нашей таблице").by(b=branch),
            Words("a branch that is in it", "ветка из таблицы"),
            unverified=True,
        )
    else:
        yield _support(branch, row, gpus, today)
    for gpu in gpus:
        yield from _gpu_driver(gpu, asked.driver, gpus, today)
    if gpus:
        yield from _modules(gpus, asked, branch, today)


def _support(branch: int, row: Mapping[str, Any], gpus: Sequence[Gpu], today: date) -> Line:
    end = row["end"] or ""
    if _maintained(row, today):
        value = (
            Words("{b} ({kind}), until {end}", "{b} ({kind}), до {end}")
            if end
            else Words("{b} ({kind})", "{b} ({kind})")
        )
    elif row["state"] == "superseded":
        value = Words("{b} ({kind}), superseded", "{b} ({kind}), заменена следующей")
    elif end:
        value = Words("{b} ({kind}), ended {end}", "{b} ({kind}), закончилась {end}")
    else:
        value = Words("{b} ({kind}), ended", "{b} ({kind}), закончилась")
    better = _best(gpus, today, maintained=True)
    remedy = (
        Words("Plan the change to {better}.", "Запланируйте переход: {better}.").by(better=better)
        if better
        else Words(
            "NVIDIA maintains no driver for these cards any more: plan to replace them.",
            "Драйвера для этих карт NVIDIA больше не поддерживает: запланируйте замену карт.",
        )
    )
    return line(
        "driver-support",
        _maintained(row, today),
        value.by(b=branch, kind=row["kind"], end=end),
        Words("a maintained branch", "поддерживаемая ветка"),
        remedy=remedy,
        unverified=row["mark"] == "R",
        source=row["source"],
    )


def _gpu_driver(gpu: Gpu, driver: str, gpus: Sequence[Gpu], today: date) -> Iterator[Line]:
    branch = branch_of(driver)
    answer = serves(gpu, branch)
    if answer is None:
        return
    low, high = _branch_range(gpu)
    fact = _arch(gpu)["driver_max" if high is not None and branch > high else "driver_min"] or {}
    wanted = Words("any branch", "любая ветка")
    if low is not None:
        wanted = Words("branch {low} or later", "ветка {low} или более поздняя").by(low=low)
    if high is not None:
        wanted = Words("branch {high} or older", "ветка {high} или более ранняя").by(high=high)
    source = fact.get("source", "")
    exact_floor = gpu.first_driver
    if exact_floor:
        # NVIDIA's list of an earlier driver does not have this card.
        wanted = Words("{first} or later", "{first} или новее").by(first=exact_floor)
        source = knowledge()["device_floors"][gpu.id.removeprefix("10de:")]["source"]
        floor = numbers(exact_floor)
        given = numbers(driver)
        answer = answer and given >= floor[: len(given)]
    yield line(
        "gpu-driver",
        bool(answer),
        f"{gpu.spoken} {gpu.architecture.title()}: {driver}",
        wanted,
        subject=gpu.id,
        remedy=Words("Choose {what}.", "Подойдёт: {what}.").by(what=_serving_said(gpus, today)),
        unverified=fact.get("mark") == "R" and not exact_floor,
        source=source,
    )


def _modules(gpus: Sequence[Gpu], asked: Asked, branch: int, today: date) -> Iterator[Line]:
    judged = [gpu for gpu in gpus if serves(gpu, branch) is not None]
    if not judged:
        return
    fitting = kinds_for(judged, branch)
    wanted = (
        _kinds_said(fitting)
        if fitting
        else Words("a kind that serves all cards", "вид, подходящий всем картам")
    )
    if asked.modules:
        value = Words("modules: {k}", "модуль: {k}").by(k=_KIND_SAID[asked.modules])
        ok = asked.modules in fitting
    else:
        value = Words("modules: not named", "модуль: не указан")
        ok = bool(fitting)
    source = "; ".join(sorted({str(_arch(gpu)["modules"]["source"]) for gpu in judged}))
    remedy = Words("Choose {what}.", "Подойдёт: {what}.").by(
        what=wanted if fitting else _serving_said(gpus, today)
    )
    yield line("gpu-modules", ok, value, wanted, remedy=remedy, source=source)


def _cuda(gpus: Sequence[Gpu], cuda: str, driver: str) -> Iterator[Line]:
    known = knowledge()["cuda"]
    major = cuda.split(".")[0]
    if driver and len(numbers(driver)) == 1:
        driver = ""  # a branch alone has no place in a table of versions
    floor, full = known["floors"].get(major), known["full"].get(cuda)
    if driver and floor:
        yield line(
            "cuda-driver",
            numbers(driver) >= numbers(floor["value"]),
            f"CUDA {cuda}: {driver}",
            Words("{v} or later", "{v} или новее").by(v=floor["value"]),
            source=floor["source"],
        )
    elif driver:
        yield line(
            "cuda-driver",
            False,
            f"CUDA {cuda}",
            Words("a CUDA of our table: {all}", "CUDA из нашей таблицы: {all}").by(
                all=listed(sorted(known["floors"]))
            ),
            unverified=True,
        )
    if driver and full:
        # That PTX needs it is from memory; a driver older than it is worth a warning, never a stop.
        own = numbers(driver) >= numbers(full["value"])
        yield line(
            "cuda-full",
            own,
            f"CUDA {cuda}: {driver}",
            Words("{v} or later", "{v} или новее").by(v=full["value"]),
            unverified=not own and known["ptx"]["mark"] == "R",
            source=full["source"],
        )
    for gpu in gpus:
        if serves(gpu, 0) is None:
            continue
        low, high = _arch(gpu)["cuda_min"], _arch(gpu)["cuda_max"]
        broken = _cuda_broken(gpu, cuda)
        parts = [f">= {low['value']}"] if low else []
        parts += [f"<= {high['value']}"] if high else []
        source = "; ".join(fact["source"] for fact in (low, high) if fact)
        remedy = _builds_said([one for one in gpus if one.compute_capability], Asked(driver=driver))
        yield line(
            "gpu-cuda",
            not broken,
            f"{gpu.spoken} {gpu.architecture.title()}: CUDA {cuda}",
            same("CUDA " + listed(parts)) if parts else Words("any CUDA", "любая CUDA"),
            subject=gpu.id,
            remedy=remedy,
            unverified=broken == "unverified",
            source=source,
        )


def _torch(gpus: Sequence[Gpu], torch: Torch, asked: Asked) -> Iterator[Line]:
    if not torch.known:
        yield line(
            "torch-build",
            False,
            Words("torch {v}: in no table", "torch {v}: нет в таблице").by(v=torch.version),
            Words(
                "a torch of our table, or a tag such as +cu126",
                "torch из нашей таблицы или метка вида +cu126",
            ),
            unverified=True,
        )
        return
    if not torch.cuda:
        yield line(
            "torch-cpu",
            not (gpus and asked.driver),
            torch.spoken,
            Words("a build with CUDA", "сборка с CUDA")
            if gpus and asked.driver
            else Words("a build that runs", "любая сборка"),
        )
        return
    value = same(torch.spoken)
    if torch.by_default:
        value = value + Words(" (what PyPI gives by default)", " (что PyPI даёт по умолчанию)")
    build = _build(torch.minor, torch.cuda)
    exist = [row["cuda"] for row in knowledge()["torch"]["builds"] if torch.minor in row["torch"]]
    wanted = (
        Words("CUDA {all}", "CUDA {all}").by(all=listed(exist))
        if exist
        else Words("a torch of our table", "torch из нашей таблицы")
    )
    if build is None:
        absent = next(
            (
                row
                for row in knowledge()["torch"]["absent"]
                if torch.minor in row["torch"] and row["cuda"] == torch.cuda
            ),
            None,
        )
        unverified = absent is None or absent["mark"] == "R"
        yield line(
            "torch-build",
            False,
            value,
            wanted,
            unverified=unverified,
            source=absent["source"] if absent else "",
        )
        return
    yield line("torch-build", True, value, wanted, unverified=build["mark"] == "R", source=build["source"])
    for gpu in gpus:
        if gpu.compute_capability:
            yield _torch_arch(gpu, torch, build, gpus, asked)
        elif gpu.architecture:
            yield line(
                "torch-arch",
                False,
                Words("{gpu}: compute capability unknown", "{gpu}: вычислительные возможности неизвестны").by(
                    gpu=gpu.spoken
                ),
                same(listed(build["archs"])),
                subject=gpu.id,
                unverified=True,
            )


def _torch_arch(gpu: Gpu, torch: Torch, build: Mapping[str, Any], gpus: Sequence[Gpu], asked: Asked) -> Line:
    by = kernels_for(gpu.compute_capability, build["archs"], build["ptx"])
    unverified = build["mark"] == "R" or (by is not None and by in build["unverified"])
    kernels = listed(build["archs"]) + (f" +PTX {listed(build['ptx'])}" if build["ptx"] else "")
    return line(
        "torch-arch",
        by is not None,
        f"{gpu.spoken} {gpu.compute_capability}: {torch.spoken}",
        Words("one of {kernels}", "одно из {kernels}").by(kernels=kernels),
        subject=gpu.id,
        remedy=_builds_said(gpus, asked),
        unverified=unverified,
        source=build["source"],
    )


def kernels_for(capability: str, archs: Sequence[str], ptx: Sequence[str]) -> str | None:
    """The entry of a wheel's arch list that runs on the device, or None.

    Machine code runs within its major version on the same or a later minor one; PTX on anything as new or newer.
    """
    major, minor = numbers(capability)
    for arch in sorted(archs, key=numbers, reverse=True):
        its_major, its_minor = numbers(arch)
        if its_major == major and its_minor <= minor:
            return arch
    return next((arch for arch in ptx if numbers(arch) <= (major, minor)), None)


def builds_for(gpus: Sequence[Gpu], driver: str = "") -> list[str]:
    """Builds with kernels for all GPUs and whose CUDA the driver and the GPUs take: "2.14+cu126", newest first."""
    found = []
    for row in knowledge()["torch"]["builds"]:
        if row["mark"] == "R" or not all(
            (by := kernels_for(gpu.compute_capability, row["archs"], row["ptx"]))
            and by not in row["unverified"]
            for gpu in gpus
            if gpu.compute_capability
        ):
            continue
        if _takes(gpus, row["cuda"], driver):
            found += [
                (numbers(minor), numbers(row["cuda"]), f"{minor}+cu{row['cuda'].replace('.', '')}")
                for minor in row["torch"]
            ]
    return [name for _, _, name in sorted(found, reverse=True)]


def _takes(gpus: Sequence[Gpu], cuda: str, driver: str) -> bool:
    """Whether confirmed facts let the GPUs and the driver take a CUDA version."""
    floor = knowledge()["cuda"]["floors"].get(cuda.split(".")[0])
    if driver and len(numbers(driver)) > 1 and floor and numbers(driver) < numbers(floor["value"]):
        return False
    return not any(_cuda_broken(gpu, cuda) == "confirmed" for gpu in gpus)


def _cuda_broken(gpu: Gpu, cuda: str) -> Literal["", "unverified", "confirmed"]:
    """Whether a CUDA version is outside the GPU's bounds. "12.9" bounds a range: 12.x is inside it, 13.0 is not."""
    arch = knowledge()["architectures"].get(gpu.architecture) or {}
    low, high = arch.get("cuda_min"), arch.get("cuda_max")
    for fact, outside in (
        (low, low and numbers(cuda)[:2] < numbers(low["value"])[:2]),
        (high, high and numbers(cuda)[:2] > numbers(high["value"])[:2]),
    ):
        if fact and outside:
            return "unverified" if fact["mark"] == "R" else "confirmed"
    return ""


def _builds_said(gpus: Sequence[Gpu], asked: Asked) -> Words:
    # With a driver that serves no card nothing would be left to name.
    fitting = builds_for(gpus, asked.driver) or builds_for(gpus)
    if not fitting:
        return Words(
            "No torch build of our table has kernels for all of these cards: the service computes on the CPU.",
            "Ни в одной сборке torch из нашей таблицы нет ядер для всех этих карт: служба считает на процессоре.",
        )
    return Words("Take torch {build}, for example.", "Возьмите, например, torch {build}.").by(
        build=fitting[0]
    )


def _bundles(gpus: Sequence[Gpu], asked: Asked) -> Iterator[Line]:
    for bundle in asked.bundles:
        if bundle.min_driver and asked.driver:
            given, wanted = numbers(asked.driver), numbers(bundle.min_driver)
            yield line(
                "bundle-driver",
                given >= wanted[: len(given)] if len(given) == 1 else given >= wanted,
                asked.driver,
                Words("{v} or later", "{v} или новее").by(v=bundle.min_driver),
                subject=bundle.name,
                source=f"{bundle.name}/outpost.yaml",
            )
        if bundle.min_compute_capability:
            for gpu in gpus:
                if gpu.compute_capability:
                    yield line(
                        "bundle-capability",
                        numbers(gpu.compute_capability) >= numbers(bundle.min_compute_capability),
                        f"{gpu.spoken}: {gpu.compute_capability}",
                        Words("{v} or higher", "{v} или выше").by(v=bundle.min_compute_capability),
                        subject=bundle.name,
                        source=f"{bundle.name}/outpost.yaml",
                    )


def _build(minor: str, cuda: str) -> Mapping[str, Any] | None:
    for row in knowledge()["torch"]["builds"]:
        if minor in row["torch"] and row["cuda"] == cuda:
            found: Mapping[str, Any] = row
            return found
    return None


def _arch(gpu: Gpu) -> Mapping[str, Any]:
    found: Mapping[str, Any] = knowledge()["architectures"][gpu.architecture]
    return found


def _branch_range(gpu: Gpu) -> tuple[int | None, int | None]:
    arch = _arch(gpu)
    low = arch["driver_min"]["value"] if arch["driver_min"] else None
    high = arch["driver_max"]["value"] if arch["driver_max"] else None
    if gpu.last_branch is not None:
        high = gpu.last_branch if high is None else min(high, gpu.last_branch)
    if gpu.first_driver:
        low = max(low or 0, branch_of(gpu.first_driver))
    return low, high


def _kinds_of(gpu: Gpu) -> list[str]:
    kinds: list[str] = _arch(gpu)["modules"]["value"]
    # Some cards of an architecture that can are left out by NVIDIA's own list.
    return [kind for kind in kinds if not (kind == "open" and gpu.open_modules is False)]


def _maintained(branch: Mapping[str, Any], today: date) -> bool:
    if branch["state"] != "supported":
        return False
    return branch["end"] is None or today <= date.fromisoformat(branch["end"])


def _serving_said(gpus: Sequence[Gpu], today: date) -> Words:
    """For a remedy: the best branch that serves all, or that there is none."""
    return _best(gpus, today, maintained=False) or Words(
        "other cards: no branch of our table serves these",
        "другие карты: ни одна ветка из таблицы эти не обслуживает",
    )


def _best(gpus: Sequence[Gpu], today: date, *, maintained: bool) -> Words | None:
    """The first of `serving`, in words: "branch 580 (LTSB, until 2028-06-30; modules: proprietary)"."""
    for number, kinds in serving(gpus, today)[:1]:
        row = knowledge()["branches"][str(number)]
        if _maintained(row, today):
            state = (
                Words("until {end}", "до {end}").by(end=row["end"])
                if row["end"]
                else Words("maintained", "поддерживается")
            )
        elif maintained:
            return None
        else:
            state = Words("no longer maintained", "больше не поддерживается")
        return Words(
            "branch {n} ({kind}, {state}; modules: {kinds})", "ветка {n} ({kind}, {state}; модуль: {kinds})"
        ).by(n=number, kind=row["kind"], state=state, kinds=_kinds_said(kinds))
    return None


def _kinds_said(kinds: Sequence[Kind]) -> Words:
    said = _KIND_SAID[kinds[0]]
    for kind in kinds[1:]:
        said = said + Words(" or {k}", " или {k}").by(k=_KIND_SAID[kind])
    return said
